"""A database as its `metadata.json` describes it: the typed view of the native module's normalised JSON.

The native module parses and checks the file, fills in every default and keeps the order of tables and tasks; here
the result gets names and types.
"""

import glob
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tributary import _headwater


@dataclass(frozen=True)
class TaskDescription:
    """One task."""

    name: str
    query: str | None
    """The SQL whose result holds the labels."""
    table: str | None
    """The parquet file that holds the labels, relative to the input folder."""
    anchor_table: str
    anchor_key: str | None
    target_column: str
    target_stype: str
    observation_time_column: str | None
    timedelta: str | None
    """The window a label looks at, `{timedelta}` in the query."""
    timestamps: list[str] | Mapping[str, str | None] | None
    """The moments of the query's `timestamps`: a list, or `start`, `end` and `every`."""
    num_eval_timestamps: int | None
    split: Mapping[str, str] | None
    raw: Mapping[str, Any]
    """The whole description, for fingerprints."""

    @property
    def is_cell_masking(self) -> bool:
        """Whether the task predicts a column of the anchor table itself."""
        return self.query is None and self.table is None

    @property
    def has_moments(self) -> bool:
        """Whether it says what the relation `timestamps` of its query holds."""
        return self.timestamps is not None or (self.timedelta is not None and self.split is not None)

    @property
    def may_add_texts(self) -> bool:
        """Whether its labels are texts that the tables need not hold."""
        return not self.is_cell_masking and self.target_stype in ("categorical", "text")

    @property
    def label_columns(self) -> list[str]:
        """The columns the labels must have."""
        columns = [self.anchor_key, self.observation_time_column, self.target_column]
        return list(dict.fromkeys(column for column in columns if column is not None))


@dataclass(frozen=True)
class Description:
    """A whole `metadata.json`."""

    text: str
    """The normalised JSON."""
    tables: Mapping[str, Mapping[str, Any]]
    tasks: tuple[TaskDescription, ...]

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads and checks a `metadata.json`.

        Raises:
            SchemaError: the file is no valid description.
        """
        return cls.from_json(_headwater.read_metadata(path))

    @classmethod
    def load_json(cls, metadata: Mapping[str, Any]) -> Self:
        """Checks a description that is no file yet.

        Raises:
            SchemaError: it is no valid description.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "metadata.json"
            path.write_text(json.dumps(metadata), encoding="utf-8")
            return cls.load(path)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The view of a normalised description.

        Args:
            text: What `_headwater.read_metadata` returns.
        """
        raw = json.loads(text)
        return cls(
            text=text,
            tables=raw["tables"],
            tasks=tuple(
                TaskDescription(
                    name=name,
                    query=task["query"],
                    table=task["table"],
                    anchor_table=task["anchor_table"],
                    anchor_key=task["anchor_key"],
                    target_column=task["target_column"],
                    target_stype=task["target_stype"],
                    observation_time_column=task["observation_time_column"],
                    timedelta=task["timedelta"],
                    timestamps=task["timestamps"],
                    num_eval_timestamps=task["num_eval_timestamps"],
                    split=task["split"],
                    raw=task,
                )
                for name, task in raw["tasks"].items()
            ),
        )

    def page(self, num_rows: Mapping[str, int] | None = None) -> str:
        """The description as one HTML page: a drawing of the tables with their keys, and a list of their columns.

        Args:
            num_rows: of each table, if known.
        """
        tables = [
            {
                "name": name,
                "num_rows": (num_rows or {}).get(name, 0),
                "num_columns": len(table["columns"]),
                "primary_key": table["primary_key"],
                "temporal_column": table["temporal_column"],
                "foreign_keys": [
                    {"column": column, "parent_table": each["foreign_key"].partition(".")[0], "note": ""}
                    for column, each in table["columns"].items()
                    if each.get("foreign_key")
                ],
                "columns": [
                    [column, each["stype"], each.get("description") or each.get("foreign_key") or ""]
                    for column, each in table["columns"].items()
                ],
            }
            for name, table in self.tables.items()
        ]
        return _headwater.schema_page(json.loads(self.text)["name"], json.dumps(tables))

    def table_files(self, input_dir: Path) -> dict[str, list[Path]]:
        """Absolute paths of the parquet files of every table, part files in the order of their names."""
        folder = input_dir.resolve()
        return {name: _files(folder, table["file"]) for name, table in self.tables.items()}

    def temporal_columns(self) -> dict[str, str]:
        """The column that says when a row came into being, of the tables that have one."""
        columns = {name: table["temporal_column"] for name, table in self.tables.items()}
        return {name: column for name, column in columns.items() if column is not None}


def _files(folder: Path, patterns: list[str]) -> list[Path]:
    """Part files in the native module's order; a pattern knows `*` and `?` only, and hidden files must be named."""
    files = []
    for pattern in patterns:
        if (folder / pattern).exists():
            files.append(folder / pattern)
        else:
            found = glob.glob(pattern.replace("[", "[[]"), root_dir=folder)
            files += [folder / name for name in sorted(found)]
    return files
