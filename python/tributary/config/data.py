"""The section `data`: which databases and tasks, and how contexts are sampled."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from tributary.config.section import ConfigError, Count, Section
from tributary.moments import moment_us

PerHop = Count | Annotated[list[Count], Field(min_length=1)]
NumNeighbors = PerHop | dict[str, PerHop]


def _check_rows_until(value: str | None) -> str | None:
    if value not in (None, "val", "test", "end"):
        try:
            moment_us(value)
        except ValueError as error:
            raise ValueError(f"{error}, or one of val, test, end") from None
    return value


class DatabaseSection(Section):
    """One of several databases of a run; what is left out is as the section `data` has it for all."""

    path: str = Field(description="folder of the processed database")
    tasks: tuple[str, ...] | None = Field(default=(), description="as data.tasks, of this database")
    tables: tuple[str, ...] = Field(default=(), description="as data.tables, of this database")
    share: float | None = Field(
        default=None,
        gt=0.0,
        description="share of the batches, in any unit; null for all: by their seeds and data.task_balance",
    )
    rows_until: str | None = Field(default=None, description="as data.rows_until, for this database")
    num_neighbors: NumNeighbors | None = Field(default=None, description="as data.num_neighbors, for this database")
    max_hops: int | None = Field(default=None, ge=0, description="as data.max_hops, for this database")
    lookback: str | None = Field(default=None, description="as data.lookback, for this database")

    _rows_until = field_validator("rows_until")(_check_rows_until)


OVERRIDES = ("rows_until", "num_neighbors", "max_hops", "lookback")
"""Keys of a database of its own that replace those of the section `data` where they are given."""


class DataSection(Section):
    """Which databases and tasks, and how contexts are sampled."""

    database: str | None = Field(
        default=None, description="folder of the processed database; or several in data.databases"
    )
    databases: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], DatabaseSection] = Field(
        default={},
        description="several databases in one run, by a name of your own: path, tasks, tables, share, rows_until, "
        "num_neighbors, max_hops, lookback of each",
    )
    in_memory: bool = Field(
        default=False, description="read the rows into memory, in huge pages: large databases are sampled faster"
    )
    tasks: tuple[str, ...] | None = Field(
        default=(), description="tasks to train on; empty: every task of the database; null: none"
    )
    tables: tuple[str, ...] = Field(
        default=(),
        description="tables whose rows are training seeds beside those of the tasks: what is learned from them is "
        'their masked cells and links; ["*"]: every table',
    )
    rows_until: str = Field(
        default="val",
        description="rows that are seeds see nothing later than this and are not later themselves: before the first "
        "validation seed (val) or test seed (test) of the database's tasks, a moment in ISO 8601, or end: no limit",
    )
    regime: Literal["seed-time", "frozen"] = Field(
        default="seed-time",
        description="what the run is trained for. seed-time: every seed sees all up to its own moment. frozen: a "
        "training seed sees the database as it was a random time before, at most as long as its task's validation or "
        "test split lasts, and validation seeds see it as it was at the first of them; tasks whose seeds have no time "
        "have one regime",
    )
    max_shapes: int = Field(
        default=6,
        ge=1,
        description="sizes that batches are cut to at most; more make compilation longer, steps shorter",
    )
    task_balance: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="a task's share of batches grows with its seeds to this power; 0: equal shares",
    )
    seq_len: int = Field(default=256, ge=8, description="cells per context")
    max_rows: int | None = Field(default=None, ge=1, description="rows per context; null: as many as cells")
    num_neighbors: NumNeighbors = Field(
        default=16,
        description="children kept per row and foreign key: a number, a list by hop (its last number holds for further "
        "hops), or a mapping of foreign keys (`table.column`; `*`: all others) to either",
    )
    strategy: Literal["uniform", "recent"] = Field(default="recent", description="which children are kept")
    max_hops: int | None = Field(
        default=None, ge=0, description="foreign-key links walked from the seed's row; null: no limit"
    )
    null_cells: bool = Field(default=False, description="missing cells are part of the context")
    identifiers: Literal["all", "needed"] = Field(
        default="needed", description="`needed`: identifier cells only of rows that have no other cell"
    )
    lookback: str | None = Field(
        default=None,
        description='children and labels from longer before the seed are invisible, as "90 days"; null: none is',
    )
    strict_time: bool = Field(default=False, description="rows at exactly the seed's time are invisible")
    history: bool = Field(default=True, description="past labels of the same entity are rows of the context")
    examples: int = Field(
        default=0, ge=0, le=32767, description="labelled seeds of other entities that are rows of the context"
    )
    example_choice: Literal["similar", "recent", "random"] = Field(
        default="similar",
        description="which: of the entities that random walks from the seed's entity meet most often, the latest, any",
    )
    example_share: float = Field(
        default=0.5, gt=0.0, le=1.0, description="part of the context that is kept for examples and their rows"
    )
    example_walks: int = Field(default=128, ge=0, description="random walks in search of similar entities")
    example_walk_length: int = Field(default=8, ge=0, description="links walked by each")
    walk_features: int = Field(
        default=0, ge=0, le=64, description="steps of a random walk from the seed whose probabilities every row gets"
    )
    num_links: int = Field(
        default=0,
        ge=0,
        description="pairs of rows per training context of which the model says whether one points to the other",
    )
    threads: int = Field(default=0, ge=0, description="sampler threads; 0: one per core")
    prefetch: int = Field(default=2, ge=1, description="batches sampled ahead")

    _rows_until = field_validator("rows_until")(_check_rows_until)

    @property
    def parts(self) -> dict[str, DataSection]:
        """This section for each database alone, by its name; the name of a single one is empty."""
        if not self.databases:
            return {"": self}
        return {name: self._part(database) for name, database in self.databases.items()}

    def _part(self, database: DatabaseSection) -> DataSection:
        own = {key: getattr(database, key) for key in OVERRIDES if getattr(database, key) is not None}
        own |= {"database": database.path, "databases": {}, "tasks": database.tasks, "tables": database.tables}
        return self.model_copy(update=own)

    def part(self, database: str | Path | None) -> DataSection:
        """This section for one database.

        Args:
            database: name or path of one of the run; the path of another one, which is sampled as all are; None: the
                run's only one.

        Raises:
            ConfigError: None where the run has several.
        """
        parts = self.parts
        if database is None:
            if len(parts) > 1:
                raise ConfigError(f"the run has several databases ({', '.join(parts)}): say which one")
            return next(iter(parts.values()))
        for name, part in parts.items():
            if str(database) == name or Path(str(database)).absolute() == Path(str(part.database)).absolute():
                return part
        return self.model_copy(update={"database": str(database), "databases": {}})
