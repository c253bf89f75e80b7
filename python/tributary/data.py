"""From a processed database to batches on a device.

`Database` is the native class; `Sampler` is the native sampler with `Batch` for its arrays; `Loader` puts batches on
devices one ahead and knows the state to continue from. What a context holds is the sampler's business.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
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
    "Turn",
    "database_arrays",
    "fitted_size",
    "merged_sizes",
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


@dataclasses.dataclass(frozen=True)
class Turn:
    """What one step of training takes from one sampler."""

    name: str
    """Of the sampler."""
    batches: tuple[Batch, ...]
    """Uncut; more than one where a step is computed in parts."""
    size: tuple[int, int]
    """Cells and rows to cut them to."""


class BatchSource(Protocol):
    """What a loader needs: a mixture of samplers (`tributary.training.mixture`)."""

    def draw(self) -> Turn:
        """The batches of the next turn."""

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


def merged_sizes(
    sizes: Mapping[str, tuple[int, int]], shares: Mapping[str, float], max_shapes: int
) -> dict[str, tuple[int, int]]:
    """Sizes of which no more than `max_shapes` are different, each at least as large as it was.

    Two sizes at a time become the smallest that holds both, those first that make the fewest cells more.

    Args:
        sizes: (cells, rows) by name.
        shares: how often each name comes.
        max_shapes: at least 1.
    """
    groups = {size: [name for name in sizes if sizes[name] == size] for size in sorted(set(sizes.values()))}
    while len(groups) > max_shapes:

        def cost(pair: tuple[tuple[int, int], tuple[int, int]]) -> float:
            union = _union(*pair)
            return sum(
                shares[name] * (union[0] * union[1] - size[0] * size[1]) for size in pair for name in groups[size]
            )

        first, second = min(itertools.combinations(groups, 2), key=cost)
        names = groups.pop(first) + groups.pop(second)
        groups.setdefault(_union(first, second), []).extend(names)
    return {name: size for size, names in groups.items() for name in names}


def _union(first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int]:
    return max(first[0], second[0]), max(first[1], second[1])


def fits(batch: Batch, size: tuple[int, int]) -> bool:
    """Whether nothing but padding is lost when the batch is cut to (cells, rows)."""
    num_cells, num_rows = used_size(batch)
    return num_cells <= size[0] and num_rows <= size[1]


def trim(batch: Batch, size: tuple[int, int]) -> Batch:
    """The batch cut to (cells, rows) where nothing but padding is lost, else the batch as it is.

    Two shapes per sampler, so the model is compiled twice at most; predictions do not depend on padding.
    """
    return cut(batch, size) if fits(batch, size) else batch


def cut(batch: Batch, size: tuple[int, int]) -> Batch:
    """The batch cut to (cells, rows)."""
    cuts = {"S": size[0], "R": size[1], "A": size[1]}
    fields = {name: axes[1] for name, (_, axes) in Batch.spec().items() if len(axes) > 1 and axes[1] in cuts}
    return dataclasses.replace(batch, **{name: getattr(batch, name)[:, : cuts[axis]] for name, axis in fields.items()})


# --- Devices -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What one step of training needs, on the host and on the devices."""

    name: str
    """Of the sampler that drew it."""
    host: tuple[Batch, ...]
    """What this process drew, with ids of its own database; more than one where a step is computed in parts."""
    device: Batch
    """Device fields, with ids of the joined databases; with a leading axis of parts where there are several."""
    state: str
    """State of the source before it drew this: whoever restores it gets this first."""

    @property
    def batch_size(self) -> int:
        """Contexts that this process drew."""
        return sum(batch.batch_size for batch in self.host)


class Placement(Protocol):
    """Where batches go: `tributary.training.devices.Devices`."""

    def put_batch(self, batch: Batch, *, is_stacked: bool = False) -> Batch:
        """Puts this process's part of a batch on its devices."""

    def all(self, flag: bool) -> bool:
        """Whether it holds on every process."""


class Movable(Protocol):
    """Where the ids of a database begin among those of several: `tributary.training.databases.Offsets`."""

    def move(self, batch: Batch) -> Batch:
        """The batch with ids of the joined databases."""


class Loader:
    """Batches on devices, the transfer of the next one begun before the present one is used.

    Args:
        source: a mixture.
        devices: where the device fields go.
        offsets: of the ids of each sampler's batches; those of samplers that are not named stay.
    """

    def __init__(self, source: BatchSource, devices: Placement, offsets: Mapping[str, Movable] | None = None):
        self._source, self._devices, self._offsets = source, devices, offsets or {}
        self._ahead: Loaded | None = None

    def _load(self) -> Loaded | None:
        state = self._source.get_state()
        try:
            turn = self._source.draw()
        except StopIteration:
            return None
        # All parts and all processes have one shape.
        is_cut = self._devices.all(all(fits(batch, turn.size) for batch in turn.batches))
        batches = [cut(batch, turn.size) if is_cut else batch for batch in turn.batches]
        if turn.name in self._offsets:
            batches = [self._offsets[turn.name].move(batch) for batch in batches]
        parts = [batch.device_fields() for batch in batches]
        is_stacked = len(parts) > 1
        whole = jax.tree.map(lambda *fields: np.stack(fields), *parts) if is_stacked else parts[0]
        return Loaded(turn.name, turn.batches, self._devices.put_batch(whole, is_stacked=is_stacked), state)

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


NOT_OF_CONTEXTS = frozenset(
    (
        "database",
        "databases",
        "in_memory",
        "tasks",
        "tables",
        "rows_until",
        "regime",
        "task_balance",
        "max_shapes",
        "num_links",
    )
)
"""Keys of the section `data` that are no options of the sampler, or of training only."""


def sampler_options(config: DataSection) -> dict[str, Any]:
    """Options of the native sampler that training, validation and prediction share; of one database's section."""
    return config.model_dump(exclude=set(NOT_OF_CONTEXTS))


def training_options(config: RunConfig, data: DataSection | None = None) -> dict[str, Any]:
    """Options of the native sampler for training: what is asked of a context beside its target comes in addition.

    Args:
        config: of the run.
        data: its section for one database; None: of the only one.
    """
    data = data or config.data.part(None)
    options = sampler_options(data) | {"num_links": data.num_links}
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
