"""What the columns of a folder of parquet files hold, counted by DuckDB in one scan per table."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa

Kind = Literal["integer", "float", "boolean", "time", "text", "other"]

_KINDS: dict[str, Kind] = {
    **dict.fromkeys(("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"), "integer"),
    **dict.fromkeys(("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT"), "integer"),
    **dict.fromkeys(("FLOAT", "DOUBLE"), "float"),
    **dict.fromkeys(("DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"), "time"),
    "TIMESTAMP WITH TIME ZONE": "time",
    "BOOLEAN": "boolean",
    "VARCHAR": "text",
    "UUID": "text",
}
_SAMPLES = 5
_UNIQUE_MARGIN = 0.9
"""Approximate counts are off by a few per cent: columns this close to unique are counted exactly."""


@dataclasses.dataclass(frozen=True)
class ColumnProfile:
    """One column."""

    table: str
    name: str
    kind: Kind
    sql_type: str
    place: int
    """Position in the table."""
    num_rows: int
    num_present: int
    num_distinct: int
    """Exact where it is close to the number of rows, else approximate."""
    least: Any
    most: Any
    mean_length: float
    """Letters of a text; 0 for other kinds."""
    mean_words: float
    share_times: float
    """Texts that are ISO 8601 times, of those present."""
    is_unique: bool
    """Present in every row, each value once."""
    samples: tuple[str, ...]
    """Some values, as text."""

    @property
    def is_time(self) -> bool:
        """Times, or texts that are."""
        return self.kind == "time" or (self.kind == "text" and self.num_present > 0 and self.share_times >= 0.98)

    @property
    def can_be_key(self) -> bool:
        """Integers and texts."""
        return self.kind in ("integer", "text") and not self.is_time

    def __str__(self) -> str:
        return f"{self.table}.{self.name}"


@dataclasses.dataclass(frozen=True)
class TableProfile:
    """One table."""

    name: str
    files: tuple[Path, ...]
    num_rows: int
    columns: Mapping[str, ColumnProfile]


class Profiler:
    """Tables of parquet files behind one DuckDB connection.

    Args:
        tables: the parquet files of each table.
        memory_gib: what DuckDB may keep in memory; beyond it spills to disk.
        threads: 0: every core.

    Raises:
        duckdb.Error: a file cannot be read.
    """

    def __init__(self, tables: Mapping[str, Sequence[Path]], *, memory_gib: float = 2.0, threads: int = 0):
        self._files = {name: tuple(files) for name, files in tables.items()}
        config: dict[str, Any] = {"memory_limit": f"{memory_gib}GB"}
        if threads:
            config["threads"] = threads
        self._connection = duckdb.connect(":memory:", config=config)
        for name, files in self._files.items():
            self.add(name, files)

    def add(self, name: str, files: Sequence[Path]) -> None:
        """Makes one more relation of parquet files, in place of one of that name; it is not profiled."""
        listed = ", ".join(_literal(_exactly(file)) for file in files)
        # a view's query takes no parameters
        self._connection.execute(
            f"CREATE OR REPLACE VIEW {quoted(name)} AS SELECT * FROM read_parquet([{listed}], union_by_name = true)"
        )

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query over the tables."""
        return self._connection.execute(sql).fetchall()

    def table(self, sql: str) -> pa.Table:
        """The result of a query over the tables."""
        return self._connection.sql(sql).to_arrow_table()

    def profile(self, progress: Callable[[str], None] = lambda table: None) -> dict[str, TableProfile]:
        """Profiles every table.

        Args:
            progress: told the name of each table before it is read.
        """
        found = {}
        for name in self._files:
            progress(name)
            found[name] = self._table(name)
        return found

    def _table(self, name: str) -> TableProfile:
        described = [(row[0], row[1]) for row in self.rows(f"DESCRIBE {quoted(name)}")]
        kinds = [_kind(sql_type) for _, sql_type in described]
        parts = ["count(*)"]
        for (column, _), kind in zip(described, kinds, strict=True):
            parts += _counts(quoted(column), kind)
        counts = list(self.rows(f"SELECT {', '.join(parts)} FROM {quoted(name)}")[0])
        num_rows = counts.pop(0)
        columns = {}
        for place, ((column, sql_type), kind) in enumerate(zip(described, kinds, strict=True)):
            present, distinct, least, most, length, blanks, times = counts[7 * place : 7 * place + 7]
            # every value of a column is looked at again only where it may be a key
            near_unique = present and kind in ("integer", "text") and distinct >= _UNIQUE_MARGIN * present
            if near_unique or (present and distinct <= 64):
                distinct = self.rows(f"SELECT count(DISTINCT {quoted(column)}) FROM {quoted(name)}")[0][0]
            columns[column] = ColumnProfile(
                name,
                column,
                kind,
                sql_type,
                place,
                num_rows,
                present,
                distinct,
                least,
                most,
                length or 0.0,
                (blanks + 1 if blanks is not None else 0.0),
                times / present if present else 0.0,
                bool(num_rows) and present == num_rows and distinct == num_rows,
                self._samples(name, column, kind),
            )
        return TableProfile(name, self._files[name], num_rows, columns)

    def _samples(self, table: str, column: str, kind: Kind) -> tuple[str, ...]:
        if kind == "other":
            return ()
        name = quoted(column)
        values = self.rows(
            f"SELECT DISTINCT left({name}::VARCHAR, 80) FROM (SELECT {name} FROM {quoted(table)}"
            f" WHERE {name} IS NOT NULL LIMIT 500) ORDER BY 1 LIMIT {_SAMPLES}"
        )
        return tuple(value[0] for value in values)


def _counts(column: str, kind: Kind) -> list[str]:
    """SQL of present, distinct, least, most, mean length, mean blanks, times."""
    if kind == "other":
        return [f"count({column})", "0", "NULL", "NULL", "NULL", "NULL", "0"]
    # times with a zone would need pytz to come out
    plain = f"{column}::TIMESTAMP" if kind == "time" else column
    found = [f"count({column})", f"approx_count_distinct({column})", f"min({plain})", f"max({plain})"]
    if kind != "text":
        return [*found, "NULL", "NULL", "0"]
    text = f"{column}::VARCHAR"
    blanks = f"avg(length({text}) - length(replace({text}, ' ', '')))"
    is_date = f"regexp_matches({text}, '^\\d{{4}}-\\d{{2}}-\\d{{2}}') AND TRY_CAST({text} AS TIMESTAMP) IS NOT NULL"
    return [*found, f"avg(length({text}))", blanks, f"count(*) FILTER ({is_date})"]


def _kind(sql_type: str) -> Kind:
    if sql_type.startswith("DECIMAL"):
        return "integer" if sql_type.endswith(",0)") else "float"
    if sql_type.startswith("ENUM"):
        return "text"
    return _KINDS.get(sql_type, "other")


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _exactly(path: Path) -> str:
    """A path that means itself where DuckDB expands wildcards."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in str(path))
