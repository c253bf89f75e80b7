# ruff: noqa: A002 (the native names)
"""Types of the native module; `mypy.stubtest` holds this file equal to the built one."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal, final

import numpy as np
import numpy.typing as npt

__all__ = [
    "BATCH_FIELDS",
    "FORMAT_VERSION",
    "STYPES",
    "Database",
    "Encoder",
    "FormatError",
    "Sampler",
    "SchemaError",
    "TributaryError",
    "column_phrases",
    "encode",
    "encode_fingerprint",
    "order_tasks",
    "publish",
    "read_metadata",
    "schema_page",
    "survey",
    "text_places",
    "verify",
    "vocab_texts",
    "write_embeddings",
    "write_task",
    "xla_handlers",
]

FORMAT_VERSION: int
STYPES: tuple[str, ...]
BATCH_FIELDS: list[tuple[str, str, tuple[str, ...]]]

class TributaryError(Exception): ...
class SchemaError(TributaryError): ...
class FormatError(TributaryError): ...

def read_metadata(path: str | PathLike[str]) -> str: ...
def schema_page(name: str, tables: str) -> str: ...
def encode(
    input_dir: str | PathLike[str],
    staging_dir: str | PathLike[str],
    *,
    metadata: str | PathLike[str] | None = None,
    threads: int = 0,
    strict: bool = False,
    stats_until: str | None = None,
    memory: int | None = None,
    progress: Callable[[str, int, int], object] | None = None,
) -> str: ...
def encode_fingerprint(
    input_dir: str | PathLike[str],
    *,
    metadata: str | PathLike[str] | None = None,
    strict: bool = False,
    stats_until: str | None = None,
) -> str: ...
def write_task(
    staging_dir: str | PathLike[str],
    task_name: str,
    labels: str | PathLike[str] | None = None,
    *,
    metadata: str,
) -> str: ...
def order_tasks(staging_dir: str | PathLike[str], *, metadata: str) -> None: ...
def survey(
    input_dir: str | PathLike[str],
    *,
    metadata: str | PathLike[str] | None = None,
    threads: int = 0,
    texts: bool = True,
    progress: Callable[[str, int, int], object] | None = None,
) -> tuple[str, list[str]]: ...
def publish(staging_dir: str | PathLike[str]) -> str: ...
def vocab_texts(dir: str | PathLike[str]) -> list[str]: ...
def text_places(dir: str | PathLike[str], texts: Sequence[int]) -> str: ...
def column_phrases(dir: str | PathLike[str]) -> list[str]: ...
def write_embeddings(
    dir: str | PathLike[str],
    which: Literal["vocab", "column"],
    array: npt.NDArray[np.float16],
    embedder_json: str,
) -> None: ...
def verify(dir: str | PathLike[str]) -> str: ...
def xla_handlers() -> list[tuple[str, Any]]: ...

@final
class Database:
    def __new__(cls, path: str | PathLike[str], *, in_memory: bool = False) -> Database: ...
    @property
    def path(self) -> str: ...
    @property
    def build_id(self) -> str: ...
    @property
    def manifest(self) -> str: ...
    def row_keys(self, table: str, rows: npt.NDArray[np.int64]) -> list[int | str]: ...
    def find_rows(self, table: str, keys: Sequence[int | str]) -> npt.NDArray[np.int64]: ...
    def embeddings(self, which: Literal["vocab", "column"]) -> npt.NDArray[np.float16]: ...
    def task_seeds(self, task: str) -> dict[str, npt.NDArray[Any]]: ...
    def task_targets(self, task: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]: ...
    def rows(self, table: str, row: int) -> str: ...
    def summary(self) -> str: ...
    def inspect(
        self,
        *,
        table: str | None = None,
        column: str | None = None,
        row: tuple[str, str] | None = None,
        task: str | None = None,
        vocabulary: bool = False,
        pattern: str | None = None,
        limit: int | None = None,
        full: bool = False,
        json: bool = False,
    ) -> str: ...
    def page(self, *, full: bool = False) -> str: ...
    def vocab(self, ids: Sequence[int]) -> list[str]: ...
    def column(self, table: str, column: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]: ...
    def row_times(self, table: str) -> npt.NDArray[np.int64]: ...
    def parents(self, foreign_key: int) -> npt.NDArray[np.int64]: ...

@final
class Sampler:
    def __new__(
        cls,
        database: Database,
        tasks: Sequence[str],
        *,
        tables: Sequence[str] = ...,
        task_weights: Sequence[float] | None = None,
        split: str = "train",
        seeds: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64] | None] | None = None,
        batch_size: int = 32,
        seq_len: int = 1024,
        max_rows: int | None = None,
        num_neighbors: int | Sequence[int] | Mapping[str, int | Sequence[int]] | None = None,
        strategy: str = "uniform",
        max_hops: int | None = None,
        null_cells: bool = False,
        identifiers: str = "all",
        strict_time: bool = False,
        database_cutoff: int | None = None,
        lookback: int | None = None,
        max_lag: int | None = None,
        history: bool = True,
        mask_rate: float | Mapping[str, float] | None = None,
        mask_columns: float = 0.0,
        walk_features: int = 0,
        num_links: int = 0,
        examples: int = 0,
        example_choice: str = "similar",
        example_share: float = 0.5,
        example_walks: int = 128,
        example_walk_length: int = 8,
        shuffle: bool = True,
        rng_seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        threads: int = 0,
        prefetch: int = 2,
    ) -> Sampler: ...
    @property
    def num_seeds(self) -> int: ...
    @property
    def steps_per_epoch(self) -> int: ...
    @property
    def config(self) -> str: ...
    def batch(self, step: int) -> dict[str, npt.NDArray[Any]]: ...
    def next_batch(self) -> dict[str, npt.NDArray[Any]]: ...
    def get_state(self) -> str: ...
    def set_state(self, state: str) -> None: ...
    def close(self) -> None: ...
    def explain(self, position: int) -> str: ...
    def explain_seed(self, source: str, index: int) -> str: ...

@final
class Encoder:
    def __new__(
        cls,
        path: str | PathLike[str],
        projection: npt.NDArray[np.float32] | None = None,
        *,
        instructions: str | None = None,
    ) -> Encoder: ...
    @property
    def dimension(self) -> int: ...
    def encode(self, tokens: npt.NDArray[np.uint32], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]: ...
