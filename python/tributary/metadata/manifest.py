"""A processed database, described: the typed view of its manifest.

The native module owns the manifest (`rust/src/manifest.rs`, `documentation/format.md`) and refuses damaged ones;
here its fields get names and types for Python, without a second set of checks.
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from tributary.config import ConfigError


@dataclass(frozen=True)
class ColumnManifest:
    """One encoded column."""

    id: int
    name: str
    stype: str
    description: str
    statistics: Mapping[str, Any]
    """`nulls`, and what its stype has: mean, std, min, max, min_us, max_us, true_count,
    distinct, non_finite, overflow."""


@dataclass(frozen=True)
class ForeignKeyManifest:
    """One foreign key with its counts."""

    id: int
    column: str
    parent_table: int
    edges: int
    dangling: int
    null: int


@dataclass(frozen=True)
class TableManifest:
    """One table."""

    id: int
    name: str
    num_rows: int
    primary_key: str | None
    temporal_column: str | None
    columns: tuple[ColumnManifest, ...]
    foreign_keys: tuple[ForeignKeyManifest, ...]


@dataclass(frozen=True)
class TaskManifest:
    """One task with its seeds."""

    id: int
    name: str
    kind: str
    anchor_table: int
    target_column: str
    target_stype: str
    """`link` where the answer is a list of rows of `target_table`."""
    target_table: int | None
    top_k: int | None
    """Rows that an answer names (link task)."""
    observation_time_column: str | None
    horizon_us: int | None
    num_seeds: int
    splits: Mapping[str, int]
    statistics: Mapping[str, float]
    """`mean` and `std` of numerical training labels."""
    base_rate: float | None
    """Share of true training labels (boolean target)."""
    classes: tuple[int, ...]
    preview: Mapping[str, Mapping[str, Any]]
    """What the labels look like, by split: `rows`, `nulls`, `min_time_us`, `max_time_us`, and as the stype has them
    `base_rate`, `mean`, `std`, `quantiles` (0, .05, .25, .5, .75, .95, 1), `quantiles_us`, `num_classes`, `classes`,
    `mean_links`, `num_targets`."""
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """A processed database, described."""

    build_id: str
    format_version: int
    name: str
    tables: tuple[TableManifest, ...]
    tasks: tuple[TaskManifest, ...]
    num_texts: int
    embedder: Mapping[str, Any] | None
    warnings: tuple[str, ...]
    files: Mapping[str, int]
    """Bytes of every file by its path."""

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The view of a manifest's text.

        Args:
            text: `Database.manifest`.
        """
        raw = json.loads(text)
        return cls(
            build_id=raw["build_id"],
            format_version=raw["format_version"],
            name=raw["name"],
            tables=tuple(_table(table) for table in raw["tables"]),
            tasks=tuple(_task(task) for task in raw["tasks"]),
            num_texts=raw["vocabulary"]["num_texts"],
            embedder=raw["embedder"],
            warnings=tuple(raw["warnings"]),
            files={path: file["bytes"] for path, file in raw["files"].items()},
        )

    @property
    def all_warnings(self) -> list[str]:
        """Warnings of the tables, then of each task."""
        return [*self.warnings, *(warning for task in self.tasks for warning in task.warnings)]


def _table(raw: Mapping[str, Any]) -> TableManifest:
    return TableManifest(
        id=raw["id"],
        name=raw["name"],
        num_rows=raw["num_rows"],
        primary_key=raw["primary_key"],
        temporal_column=raw["temporal_column"],
        columns=tuple(
            ColumnManifest(
                id=column["id"],
                name=column["name"],
                stype=column["stype"],
                description=column.get("description", ""),
                statistics=column["statistics"],
            )
            for column in raw["columns"]
        ),
        foreign_keys=tuple(
            ForeignKeyManifest(**{field: key[field] for field in ForeignKeyManifest.__dataclass_fields__})
            for key in raw["foreign_keys"]
        ),
    )


def _task(raw: Mapping[str, Any]) -> TaskManifest:
    return TaskManifest(
        id=raw["id"],
        name=raw["name"],
        kind=raw["kind"],
        anchor_table=raw["anchor_table"],
        target_column=raw["target_column"],
        target_stype=raw["target_stype"],
        target_table=raw.get("target_table"),
        top_k=raw.get("top_k"),
        observation_time_column=raw["observation_time_column"],
        horizon_us=raw["horizon_us"],
        num_seeds=raw["num_seeds"],
        splits=raw["splits"],
        statistics=raw["statistics"],
        base_rate=raw.get("base_rate"),
        classes=tuple(raw["classes"]),
        preview=raw["preview"],
        warnings=tuple(raw["warnings"]),
    )


def find_task(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    """The task of a name.

    Raises:
        ConfigError: the database has no such task.
    """
    names = [task["name"] for task in manifest["tasks"]]
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"it has {', '.join(names) or 'none'}"
        raise ConfigError(f"database `{manifest['name']}` has no task `{name}`; {hint}")
    found: dict[str, Any] = manifest["tasks"][names.index(name)]
    return found
