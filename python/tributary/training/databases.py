"""The databases that a run trains on: opened, checked to go together, and joined into one.

A run may have several. Their columns, vocabularies, foreign keys and tasks follow each other in one `DatabaseArrays`,
and the ids of a batch are moved by where its database begins, so one compiled step serves them all. Described in
`documentation/training.md`, "Several databases".
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from tributary.batch import END_OF_TIME, Batch, DatabaseArrays
from tributary.config import ConfigError, DataSection
from tributary.data import Database, Sampler, database_arrays
from tributary.metadata import find_task
from tributary.moments import moment_us

ROWS = "rows of tables"
"""What the rows of tables that are seeds are called among the tasks of a database."""

TRAIN, VAL, TEST = range(3)
"""Codes of the splits in `Database.task_seeds`."""


@dataclasses.dataclass(frozen=True)
class Offsets:
    """Where the ids of one database begin among those of several."""

    column: int = 0
    vocab: int = 0
    foreign_key: int = 0
    task: int = 0
    num_parents: int = 0
    """Width of the parents' axis of a batch: that of the database with the most foreign keys."""

    def move(self, batch: Batch) -> Batch:
        """The batch with ids of the joined databases, and as many places for parents as theirs have; -1 stays."""
        if self == Offsets():
            return batch

        def moved(name: str, by: int) -> Any:
            ids = getattr(batch, name)
            return np.where(ids >= 0, ids + ids.dtype.type(by), ids)

        by_field = {
            "cell_column": self.column,
            "cell_vocab": self.vocab,
            "target_vocab": self.vocab,
            "row_parent_keys": self.foreign_key,
            "link_key": self.foreign_key,
            "seed_task": self.task,
        }
        fields = {name: moved(name, by) for name, by in by_field.items()}
        missing = max(0, self.num_parents - batch.row_parents.shape[2])
        padding = ((0, 0), (0, 0), (0, missing))
        fields["row_parents"] = np.pad(batch.row_parents, padding, constant_values=-1)
        fields["row_parent_keys"] = np.pad(fields["row_parent_keys"], padding, constant_values=-1)
        return dataclasses.replace(batch, **fields)


@dataclasses.dataclass(frozen=True)
class Source:
    """One database of a run."""

    name: str
    """As in `data.databases`; empty where the run has only one."""
    data: DataSection
    """The section `data` for this database alone."""
    database: Database
    """Opened."""
    manifest: Mapping[str, Any]
    """Its manifest."""
    tasks: Sequence[dict[str, Any]]
    """Tasks to train on, as the manifest describes them."""
    tables: Sequence[str]
    """Tables whose rows are seeds."""
    rows_until_us: int | None
    """Rows that are seeds see nothing later; microseconds since 1970 UTC, None: no limit."""
    share: float | None
    """Share of the batches; None: by the number of its seeds."""
    offsets: Offsets
    """Of its ids in the arrays of all databases."""

    def label(self, what: str) -> str:
        """Name of a task, or of anything else of this database, among those of the run."""
        return f"{self.name}/{what}" if self.name else what

    def task_sampler(self, task: str, split: Literal["train", "val"], **options: Any) -> Sampler:
        """A sampler of a task's seeds that sees what the regime of the run shows; `options` are the sampler's.

        In the frozen regime a test seed sees a database that is older than itself, by up to what its split lasts.
        Training seeds see one that lags as much, each time by another time.
        """
        if self.data.regime == "frozen":
            options |= _frozen(self.database.task_seeds(task), split)
        return Sampler(self.database, [task], split=split, shuffle=True, **options)


def open_sources(data: DataSection) -> tuple[Source, ...]:
    """Opens the databases of a run.

    Raises:
        ConfigError: a task or table is unknown, there is nothing to train on, or the vectors of two databases are of
            different embedders.
    """
    sources: list[Source] = []
    for name, part in data.parts.items():
        database = Database(str(part.database), in_memory=part.in_memory)
        manifest = json.loads(database.manifest)
        tasks, tables = _tasks_of(part, manifest), _tables_of(part, manifest)
        sources.append(
            Source(
                name=name,
                data=part,
                database=database,
                manifest=manifest,
                tasks=tasks,
                tables=tables,
                rows_until_us=_rows_until(part.rows_until, database, manifest) if tables else None,
                share=data.databases[name].share if name else None,
                offsets=Offsets(),
            )
        )
    _check_same_vectors(sources)
    return tuple(sources)


def join(sources: Sequence[Source], *, are_spread: bool) -> tuple[tuple[Source, ...], DatabaseArrays]:
    """The arrays of all databases in one, and the databases with their places in it.

    Args:
        sources: from `open_sources`.
        are_spread: as in `database_arrays`.
    """
    arrays = [database_arrays(source.database, are_spread=are_spread) for source in sources]
    num_parents = max(len(table["foreign_keys"]) for source in sources for table in source.manifest["tables"])
    placed, begin = [], Offsets(num_parents=num_parents if len(sources) > 1 else 0)
    num_classes = max(each.task_classes.shape[1] for each in arrays)
    columns = []
    for source, each in zip(sources, arrays, strict=True):
        placed.append(dataclasses.replace(source, offsets=begin))
        classes = np.full((len(each.task_classes), num_classes), -1, np.int32)
        known = each.task_classes >= 0
        classes[:, : known.shape[1]] = np.where(known, each.task_classes + begin.vocab, -1)
        columns.append(dataclasses.replace(each, task_classes=classes))
        begin = Offsets(
            column=begin.column + len(each.column_vectors),
            vocab=begin.vocab + len(each.vocab_vectors),
            foreign_key=begin.foreign_key + len(each.foreign_key_vectors),
            task=begin.task + len(each.task_classes),
            num_parents=begin.num_parents,
        )
    if begin.foreign_key > np.iinfo(np.int16).max:
        raise ConfigError(f"the databases have {begin.foreign_key} foreign keys together, more than batches can name")
    fields = [field.name for field in dataclasses.fields(DatabaseArrays)]
    joined = {name: np.concatenate([getattr(each, name) for each in columns]) for name in fields}
    return tuple(placed), DatabaseArrays(**joined)


def _tasks_of(data: DataSection, manifest: dict[str, Any]) -> list[dict[str, Any]]:
    if data.tasks is None:
        return []
    names = list(data.tasks) or [task["name"] for task in manifest["tasks"]]
    if not names and not data.tables:
        raise ConfigError(
            f"database `{manifest['name']}` has no task; add one to its metadata.json, or name tables in data.tables"
        )
    tasks = [find_task(manifest, name) for name in names]
    for task in tasks:
        if task["splits"]["train"] == 0:
            raise ConfigError(f"task `{task['name']}` has no training seeds")
    return tasks


def _tables_of(data: DataSection, manifest: dict[str, Any]) -> list[str]:
    """Names of the tables whose rows are seeds; with `*`, of those that have a cell to mask."""
    if tuple(data.tables) != ("*",):
        return list(data.tables)
    return [
        table["name"]
        for table in manifest["tables"]
        if table["num_rows"] > 0
        and any(column["stype"] not in ("identifier", "ignored") for column in table["columns"])
    ]


def _rows_until(rows_until: str, database: Database, manifest: dict[str, Any]) -> int | None:
    """Microseconds that no row which is a seed may see beyond; warns of test labels that are seen all the same."""
    if rows_until == "end":
        return None
    if rows_until not in ("val", "test"):
        return moment_us(rows_until)
    first: list[int] = []
    for task in manifest["tasks"]:
        seeds = database.task_seeds(task["name"])
        later = seeds["split"] >= (VAL if rows_until == "val" else TEST)
        if _is_split_by_time(seeds):
            first += seeds["time"][later].min(initial=END_OF_TIME, keepdims=True).tolist()
        elif task.get("foreign_key_id") is None and later.any():
            warnings.warn(
                f"database `{manifest['name']}`: task `{task['name']}` asks for a column and is not split by time, so "
                "rows that are seeds show its validation and test labels; leave its table out of the tables, or do "
                "not judge by this task",
                RuntimeWarning,
                stacklevel=4,
            )
    moment = min(first, default=END_OF_TIME)
    return None if moment == END_OF_TIME else moment - 1


def _frozen(seeds: Mapping[str, np.ndarray], split: Literal["train", "val"]) -> dict[str, Any]:
    """Options of a sampler of a task's seeds in the frozen regime; none where seeds have no time."""
    val, test = (seeds["time"][(seeds["split"] == code) & (seeds["time"] < END_OF_TIME)] for code in (VAL, TEST))
    if split == "val":
        return {"database_cutoff": int(val.min())} if len(val) else {}
    spans = [int(times.max()) - int(times.min()) for times in (val, test) if len(times)]
    return {"max_lag": max(spans)} if spans else {}


def _is_split_by_time(seeds: Mapping[str, np.ndarray]) -> bool:
    """No seed of a split is before one of an earlier split."""
    last = -(2**63)
    for code in (TRAIN, VAL, TEST):
        times = seeds["time"][seeds["split"] == code]
        if len(times) == 0:
            continue
        if times.min() < last or times.max() == END_OF_TIME:
            return False
        last = int(times.max())
    return True


def _check_same_vectors(sources: Sequence[Source]) -> None:
    first = sources[0]
    for source in sources[1:]:
        expected, found = first.manifest["embedder"], source.manifest["embedder"]
        if expected != found:
            raise ConfigError(
                f"data.databases: the vectors of `{source.name}` are of {json.dumps(found)}, those of `{first.name}` "
                f"of {json.dumps(expected)}; one model reads one kind: tributary embed {source.data.database} with the "
                "embedder of the others"
            )


# --- Rows as seeds -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class RowSeeds:
    """Rows of the tables of one database that are seeds of one split."""

    split: str
    """train, val or test."""
    weights: Mapping[str, float]
    """Share of every table that has such rows, in any unit."""
    is_even: bool
    """The shares are those of the numbers of rows."""

    @classmethod
    def of(cls, source: Source, split: str, balance: float) -> RowSeeds:
        """Counts the rows.

        Args:
            source: the database.
            split: train, val or test.
            balance: a table's share grows with its rows to this power.

        Raises:
            ConfigError: a table that is named has no training row, or none of all tables has.
        """
        counts = {table: _num_rows(source, table, split) for table in source.tables}
        empty = [table for table, count in counts.items() if count == 0]
        is_named = tuple(source.data.tables) != ("*",)
        if split == "train" and (len(empty) == len(counts) or (is_named and empty)):
            raise ConfigError(
                f"database `{source.manifest['name']}`: no row of {', '.join(empty)} is a {split} seed up to "
                f"data.rows_until: {source.data.rows_until}; leave the table out, or set a later time"
            )
        kept = {table: float(count) ** balance for table, count in counts.items() if count}
        return cls(split, kept, is_even=balance == 1.0)

    def sampler(self, source: Source, **options: Any) -> Sampler:
        """A sampler of these rows; `options` are the sampler's."""
        # The sampler knows shares down to one of 4,096.
        least = sum(self.weights.values()) / 2048
        weights = None if self.is_even else [max(weight, least) for weight in self.weights.values()]
        return Sampler(
            source.database,
            tables=list(self.weights),
            task_weights=weights,
            split=self.split,
            database_cutoff=source.rows_until_us,
            **options,
        )


def _num_rows(source: Source, table: str, split: str) -> int:
    """Rows of a table that are seeds of a split; the sampler is asked, which refuses a table without any."""
    try:
        options: dict[str, Any] = {"split": split, "database_cutoff": source.rows_until_us, "threads": 1, "prefetch": 0}
        with Sampler(source.database, tables=[table], **options) as sampler:
            return sampler.num_seeds
    except ValueError as error:
        if str(error).startswith(f"no {split} seeds in"):
            return 0
        raise
