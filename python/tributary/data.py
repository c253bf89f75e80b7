"""From a processed database to batches on a device.

`Database` is the native class; `Sampler` is the native sampler with `Batch` for its arrays; `Loader` puts batches on
a device one ahead and knows the state to continue from. What a context holds is the sampler's business.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, Protocol, Self

import jax
import numpy as np

from tributary import _headwater
from tributary._headwater import BATCH_FIELDS, STYPES, Database
from tributary.batch import Batch, DatabaseArrays
from tributary.config import DataSection, RunConfig
from tributary.moments import duration_us
from tributary.seeds import Seeds

__all__ = [
    "BATCH_FIELDS",
    "STYPES",
    "Database",
    "Loaded",
    "Loader",
    "Sampler",
    "database_arrays",
    "fitted_size",
    "sampler_options",
    "training_options",
    "trim",
]


class Sampler:
    """Draws batches of contexts; an iterator of `Batch`.

    Args:
        database: an opened database.
        tasks: names of the tasks whose seeds are drawn.
        tables: names of tables whose rows are seeds without a target, for pretraining.
        task_weights: shares of the tasks, then of the tables, within every batch, in any unit; None: each has as many
            as it has seeds.
        split: train, val, test, or all.
        seeds: questions of your own in place of a split's; see `tributary.seeds`.
        lookback: how far back children and labels are visible, as `"90 days"` or microseconds; None: without limit.
        options: the other options of `documentation/sampling.md` by name.

    Example:
        ```
        database = tributary.Database("data/processed/shop")
        with tributary.Sampler(database, ["churn"], split="train", batch_size=8, seq_len=256) as sampler:
            for batch in sampler:
                print(batch.cell_value.mean(), batch.target_value)
        ```
    """

    def __init__(
        self,
        database: Database,
        tasks: Sequence[str] = (),
        *,
        tables: Sequence[str] = (),
        task_weights: Sequence[float] | None = None,
        split: str = "train",
        seeds: Seeds | None = None,
        lookback: str | int | timedelta | None = None,
        **options: Any,
    ):
        if seeds is not None:
            options["seeds"] = (seeds.rows, seeds.times)
        if lookback is not None:
            options["lookback"] = duration_us(lookback)
        if task_weights is not None:
            options["task_weights"] = list(task_weights)
        self._native = _headwater.Sampler(database, list(tasks), tables=list(tables), split=split, **options)

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

    def explain_seed(self, source: str, index: int) -> Any:
        """The context of a seed by its position among all seeds of its task, or of a table's row by its number."""
        return json.loads(self._native.explain_seed(source, index))

    def close(self) -> None:
        """Stops the threads; idempotent."""
        self._native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class BatchSource(Protocol):
    """What a loader needs: a sampler, or a mixture of them (`tributary.mixture`)."""

    def __next__(self) -> Batch:
        """The next batch."""

    def get_state(self) -> str:
        """JSON to continue from."""

    def set_state(self, state: str) -> None:
        """Continues from a state."""


# --- Sizes -------------------------------------------------------------------------------------------------------

NUM_PROBES = 8
"""Batches that are looked at to learn how long the contexts of a sampler are."""


def used_size(batch: Batch) -> tuple[int, int]:
    """Cells and rows up to the last that is no padding in any context; at least 1."""
    cells = np.flatnonzero((~batch.cell_is_padding).any(axis=0))
    rows = np.flatnonzero((batch.row_table >= 0).any(axis=0))
    return (int(cells[-1]) + 1 if len(cells) else 1, int(rows[-1]) + 1 if len(rows) else 1)


def fitted_size(sampler: Sampler) -> tuple[int, int]:
    """Cells (a multiple of 16) and rows (of 8) that nearly every batch of a sampler fits into.

    Looks at a few batches spread over a pass, so it is the same for the same sampler.
    """
    steps = {probe * sampler.steps_per_epoch // NUM_PROBES for probe in range(NUM_PROBES)}
    sizes = [used_size(sampler.batch(step)) for step in sorted(steps)] or [(1, 1)]
    longest = [max(size[axis] for size in sizes) for axis in (0, 1)]
    return _round_up(longest[0], 16), _round_up(longest[1], 8)


def _round_up(size: int, multiple: int) -> int:
    """The next multiple after 5 % more than `size`."""
    return -(-(size + size // 20) // multiple) * multiple


def trim(batch: Batch, size: tuple[int, int]) -> Batch:
    """The batch cut to (cells, rows) where nothing but padding is lost, else the batch as it is.

    Two shapes per sampler, so the model is compiled twice at most; predictions do not depend on padding.
    """
    num_cells, num_rows = used_size(batch)
    if num_cells > size[0] or num_rows > size[1]:
        return batch
    cuts = {"S": size[0], "R": size[1], "A": size[1]}
    fields = {name: axes[1] for name, (_, axes) in Batch.spec().items() if len(axes) > 1 and axes[1] in cuts}
    return dataclasses.replace(batch, **{name: getattr(batch, name)[:, : cuts[axis]] for name, axis in fields.items()})


# --- Devices -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A batch on the host and on the device."""

    host: Batch
    device: Batch
    """Device fields only."""
    state: str
    """State of the source before it drew this batch: whoever restores it gets this batch first."""


class Loader:
    """Batches on a device, the transfer of the next one begun before the present one is used.

    Args:
        source: a sampler or a mixture.
        device: where the device fields go.
    """

    def __init__(self, source: BatchSource, device: jax.Device):
        self._source, self._device = source, device
        self._ahead: Loaded | None = None

    def _load(self) -> Loaded | None:
        state = self._source.get_state()
        try:
            host = self._source.__next__()
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


# --- Database ----------------------------------------------------------------------------------------------------


def sampler_options(config: DataSection) -> dict[str, Any]:
    """Options of the native sampler that training, validation and prediction share."""
    return config.model_dump(exclude={"database", "in_memory", "tasks", "tables", "task_balance", "num_links"})


def training_options(config: RunConfig) -> dict[str, Any]:
    """Options of the native sampler for training: what is asked of a context beside its target comes in addition."""
    options = sampler_options(config.data) | {"num_links": config.data.num_links}
    if config.objective.masked_weight > 0:
        options |= config.objective.model_dump(include={"mask_rate", "mask_columns"})
    return options


def database_arrays(database: Database, *, are_spread: bool = True) -> DatabaseArrays:
    """What the ids of this database's batches point into, as numpy arrays.

    Args:
        database: an opened database.
        are_spread: column vectors are moved apart (`spread`), as our own models read them; else as they were embedded.

    Raises:
        ValueError: a foreign key's column has no embedding, or the database has no vectors yet.
    """
    manifest = json.loads(database.manifest)
    columns = database.embeddings("column")
    if are_spread:
        columns = spread(columns)
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
        if task["target_stype"] in ("boolean", "numerical", "timestamp"):
            seeds = database.task_seeds(task["name"])
            labels = seeds["value"][(seeds["split"] == 0) & ~seeds["is_null"]]
            if task["target_stype"] == "boolean":
                offset[task["target_column_id"]] = _log_odds(float(labels.sum()), len(labels))
            elif len(labels):
                offset[task["target_column_id"]] = np.median(labels)
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


def spread(vectors: np.ndarray) -> np.ndarray:
    """Unit vectors moved apart: halfway to the orthonormal set that is closest to them (their polar factor).

    Phrases of one database are much alike, and what a model cannot tell apart it learns late. Similar phrases stay
    more similar than others.

    Args:
        vectors: float16 [C, E] of unit norm.

    Returns:
        float16 [C, E] of unit norm.
    """
    wide = vectors.astype(np.float64)
    left, _, right = np.linalg.svd(wide, full_matrices=False)
    apart = wide + left @ right
    norms = np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), 1e-9)
    return np.asarray(apart / norms, np.float16)


def _log_odds(true_count: float, count: int) -> float:
    """Log-odds of a share, one half added to both sides so that none is infinite."""
    return float(np.log((true_count + 0.5) / (count - true_count + 0.5)))
