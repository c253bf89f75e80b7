"""From a processed database to batches on a device.

`Database` is the native class; `Sampler` is the native sampler with `Batch` for its arrays; `Loader` puts batches on
a device one ahead and knows the state to continue from. What a context holds is the sampler's business.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import jax
import numpy as np

from tributary import _headwater
from tributary._headwater import BATCH_FIELDS, STYPES, Database
from tributary.batch import Batch, DatabaseArrays
from tributary.config import DataSection

__all__ = ["BATCH_FIELDS", "STYPES", "Database", "Loader", "Sampler", "database_arrays", "sampler_options"]


class Sampler:
    """Draws batches of contexts; an iterator of `Batch`.

    Args:
        database: an opened database.
        tasks: names of the tasks whose seeds are drawn.
        split: train, val or test.
        options: sampler options by name; see `tributary._headwater.Sampler`.

    Example:
        ```
        database = tributary.Database("data/processed/shop")
        with tributary.Sampler(database, ["churn"], split="train", batch_size=8, seq_len=256) as sampler:
            for batch in sampler:
                print(batch.cell_value.mean(), batch.target_value)
        ```
    """

    def __init__(self, database: Database, tasks: Sequence[str], *, split: str = "train", **options: Any):
        self._native = _headwater.Sampler(database, list(tasks), split=split, **options)

    @property
    def num_seeds(self) -> int:
        """Seeds of the split, over all tasks."""
        return self._native.num_seeds

    @property
    def steps_per_epoch(self) -> int:
        """Batches in which every seed comes once."""
        return self._native.steps_per_epoch

    def batch(self, step: int) -> Batch:
        """The batch of a step, a pure function of database, options and step."""
        return Batch.from_arrays(self._native.batch(step))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch, sampled ahead; ends after one pass when not shuffling."""
        return Batch.from_arrays(self._native.next_batch())

    def get_state(self) -> str:
        """JSON to continue from."""
        return self._native.get_state()

    def set_state(self, state: str) -> None:
        """Continues from a state.

        Raises:
            ValueError: the state is of another database or of other options; both are shown.
        """
        self._native.set_state(state)

    def explain(self, position: int) -> Any:
        """The context at a position of the split as a tree of rows and cells."""
        return json.loads(self._native.explain(position))

    def close(self) -> None:
        """Stops the threads; idempotent."""
        self._native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.close()


class BatchSource(Protocol):
    """What a loader needs of a sampler."""

    def __next__(self) -> Batch:
        """The next batch."""

    def get_state(self) -> str:
        """JSON to continue from."""

    def set_state(self, state: str) -> None:
        """Continues from a state."""


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A batch on the host and on the device."""

    host: Batch
    device: Batch
    """Device fields only."""
    state: str
    """State of the sampler before it drew this batch: whoever restores it gets this batch first."""


class Loader:
    """Batches on a device, the transfer of the next one begun before the present one is used.

    Args:
        source: a sampler.
        device: where the device fields go.
    """

    def __init__(self, source: BatchSource, device: jax.Device):
        self._source, self._device = source, device
        self._ahead: Loaded | None = None

    def _load(self) -> Loaded | None:
        state = self._source.get_state()
        try:
            host = next(self._source)  # type: ignore[call-overload]
        except StopIteration:
            return None
        return Loaded(host, jax.device_put(host.device_fields(), self._device), state)

    def __iter__(self) -> Iterator[Loaded]:
        return self

    def __next__(self) -> Loaded:
        present = self._ahead or self._load()
        if present is None:
            raise StopIteration
        self._ahead = self._load()
        return present

    def get_state(self) -> str:
        """State from which the next batch handed out is the first."""
        return self._ahead.state if self._ahead else self._source.get_state()

    def set_state(self, state: str) -> None:
        """Continues from a state of `get_state`."""
        self._ahead = None
        self._source.set_state(state)


def sampler_options(config: DataSection) -> dict[str, Any]:
    """Options of the native sampler that training, validation and prediction share."""
    names = ("seq_len", "max_rows", "num_neighbors", "strategy", "max_hops", "null_cells", "identifiers")
    names += ("strict_time", "history", "threads", "prefetch")
    return {name: getattr(config, name) for name in names}


def database_arrays(database: Database) -> DatabaseArrays:
    """What the ids of this database's batches point into, as numpy arrays.

    Raises:
        ValueError: a foreign key's column has no embedding, or the database has no vectors yet.
    """
    manifest = json.loads(database.manifest)
    columns = database.embeddings("column")
    if columns.shape[0] != manifest["num_columns"]:
        raise ValueError(
            f"{database.path}: expected vectors of {manifest['num_columns']} columns, found {columns.shape[0]}"
        )
    offset = np.zeros(len(columns), np.float32)
    key_columns: dict[int, int] = {}
    for table in manifest["tables"]:
        ids = {column["name"]: column["id"] for column in table["columns"]}
        for key in table["foreign_keys"]:
            key_columns[key["id"]] = ids[key["column"]]
        for column in table["columns"]:
            if column["stype"] == "boolean":
                known = table["num_rows"] - column["statistics"]["nulls"]
                offset[column["id"]] = _log_odds(column["statistics"]["true_count"], known)
    tasks = manifest["tasks"]
    classes = np.full((max(1, len(tasks)), max([1, *(len(task["classes"]) for task in tasks)])), -1, np.int32)
    for task in tasks:
        if task.get("foreign_key_id") is not None:
            key_columns[task["foreign_key_id"]] = task["target_column_id"]
        if task["target_stype"] == "boolean":
            seeds = database.task_seeds(task["name"])
            labelled = (seeds["split"] == 0) & ~seeds["is_null"]
            offset[task["target_column_id"]] = _log_odds(float(seeds["value"][labelled].sum()), int(labelled.sum()))
        classes[task["id"], : len(task["classes"])] = task["classes"]
    num_keys = max(key_columns, default=-1) + 1
    # A key between two known ones that belongs to no table is a cell task's, which has no row of its own.
    key_vectors = np.zeros((max(1, num_keys), columns.shape[1]), np.float16)
    for key, column in key_columns.items():
        key_vectors[key] = columns[column]
    vocab = database.embeddings("vocab")
    if vocab.shape[0] == 0:  # a gather needs something to point into
        vocab = np.zeros((1, columns.shape[1]), np.float16)
    return DatabaseArrays(
        column_vectors=columns,
        vocab_vectors=vocab,
        foreign_key_vectors=key_vectors,
        column_offset=offset,
        task_classes=classes,
    )


def _log_odds(true_count: float, count: int) -> float:
    """Log-odds of a share, one half added to both sides so that none is infinite."""
    return float(np.log((true_count + 0.5) / (count - true_count + 0.5)))
