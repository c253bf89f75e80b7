"""Tables in memory: pandas, polars, Arrow, and whatever hands out a stream of Arrow (`__arrow_c_stream__`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import pyarrow as pa

from tributary.importing.duck import connect, plain_columns, quoted, stream
from tributary.importing.source import Findings, SourceTable
from tributary.infer import DeclaredTable


class FrameSource:
    """Tables in memory.

    Args:
        tables: by name.
        primary_keys: column of each table that has one.
        foreign_keys: `"table.column"` -> name of the parent table.
        times: temporal column of each table that has one.
        name: of the database.

    Raises:
        TypeError: one is no table.
        ValueError: a key or time names what is not there.
    """

    def __init__(
        self,
        tables: Mapping[str, Any],
        primary_keys: Mapping[str, str],
        foreign_keys: Mapping[str, str],
        times: Mapping[str, str],
        *,
        name: str,
    ):
        if not tables:
            raise ValueError("no table to import")
        self.name = name
        self.findings = Findings()
        self._tables = {table: _arrow(table, frame) for table, frame in sorted(tables.items())}
        links = self._links(foreign_keys, primary_keys)
        for what, said in (("primary_keys", primary_keys), ("times", times)):
            for table, column in said.items():
                self._check(what, table, column)
        self.findings.declared = {
            table: DeclaredTable(primary_keys.get(table), links.get(table, {}), times.get(table))
            for table in self._tables
        }
        self._connection = connect()

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def tables(self) -> list[SourceTable]:
        """The tables, with their numbers of rows."""
        return [SourceTable(name, table.num_rows) for name, table in self._tables.items()]

    def batches(self, table: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The rows of a table."""
        self._connection.register(table, self._tables[table])
        relation = quoted(table)
        return stream(self._connection, f"SELECT {plain_columns(self._connection, relation)} FROM {relation}")

    def _links(self, foreign_keys: Mapping[str, str], primary_keys: Mapping[str, str]) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = {}
        for place, parent in foreign_keys.items():
            table, _, column = place.partition(".")
            self._check("foreign_keys", table, column)
            if parent not in primary_keys:
                raise ValueError(f"foreign_keys: `{place}` names `{parent}`, which primary_keys does not list")
            found.setdefault(table, {})[column] = parent
        return found

    def _check(self, what: str, table: str, column: str) -> None:
        if table not in self._tables:
            raise ValueError(f"{what}: no table `{table}`; there are {', '.join(self._tables)}")
        if column not in self._tables[table].column_names:
            raise ValueError(f"{what}: table `{table}` has no column `{column}`")


def _arrow(name: str, frame: Any) -> pa.Table:
    """A table of anything that is one.

    Raises:
        TypeError: it is none.
        ValueError: its columns cannot be Arrow's.
    """
    try:
        if isinstance(frame, pa.Table):
            return frame
        if type(frame).__module__.partition(".")[0] == "pandas":
            return pa.Table.from_pandas(frame, preserve_index=False)
        if hasattr(frame, "__arrow_c_stream__"):
            return pa.table(frame)
    except pa.ArrowException as error:
        raise ValueError(f"table `{name}`: {error}") from error
    raise TypeError(
        f"table `{name}`: expected pandas, polars, Arrow or an object with `__arrow_c_stream__`, found"
        f" {type(frame).__module__}.{type(frame).__name__}"
    )
