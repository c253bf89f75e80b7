"""A DuckDB file, opened read-only, in one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import duckdb
import pyarrow as pa

from tributary.importing.duck import literal, plain_columns, quoted, stream
from tributary.importing.keys import ForeignKey, declare
from tributary.importing.source import Findings, SourceTable, chosen


class DuckdbSource:
    """The tables of a DuckDB file.

    Args:
        path: the file.
        wanted: tables to import; none: all.
        schema: whose tables; None: `main`.
        views: also views.

    Raises:
        ValueError: the file cannot be opened, or holds no such table.
    """

    def __init__(self, path: Path, wanted: tuple[str, ...] = (), *, schema: str | None = None, views: bool = False):
        self.name = path.stem
        self.findings = Findings()
        self._schema = schema or "main"
        try:
            self._connection = duckdb.connect(str(path), read_only=True)
        except duckdb.Error as error:
            raise ValueError(f"{path}: {str(error).splitlines()[0]}") from None
        try:
            self._connection.execute("BEGIN TRANSACTION")
            names = self._names("duckdb_tables()", "table_name")
            names += self._names("duckdb_views()", "view_name") if views else []
            self._tables = chosen(sorted(names), wanted, str(path))
            self._declare()
        except BaseException:
            self._connection.close()
            raise

    def __enter__(self) -> DuckdbSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def tables(self) -> list[SourceTable]:
        """The tables, with their numbers of rows."""
        return [
            SourceTable(
                table, int(self._connection.sql(f"SELECT count(*) FROM {self._relation(table)}").fetchall()[0][0])
            )
            for table in self._tables
        ]

    def batches(self, table: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The rows of a table."""
        relation = self._relation(table)
        return stream(self._connection, f"SELECT {plain_columns(self._connection, relation)} FROM {relation}")

    def _relation(self, table: str) -> str:
        return f"{quoted(self._schema)}.{quoted(table)}"

    def _where(self) -> str:
        return f"WHERE schema_name = {literal(self._schema)} AND database_name = current_database()"

    def _names(self, function: str, column: str) -> list[str]:
        found = self._connection.sql(f"SELECT {column} FROM {function} {self._where()} AND NOT internal").fetchall()
        return [row[0] for row in found]

    def _declare(self) -> None:
        """Keys and comments, as the catalog has them."""
        keys: dict[str, list[str]] = {}
        links: dict[str, list[ForeignKey]] = {}
        rows = self._connection.sql(
            "SELECT table_name, constraint_type, constraint_column_names, referenced_table, referenced_column_names"
            f" FROM duckdb_constraints() {self._where()} ORDER BY table_name, constraint_index"
        ).fetchall()
        for table, kind, columns, parent, parent_columns in rows:
            if kind == "PRIMARY KEY":
                keys[table] = list(columns)
            elif kind == "FOREIGN KEY":
                links.setdefault(table, []).append(ForeignKey(tuple(columns), parent, tuple(parent_columns)))
        comments: dict[str, str] = {}
        described = self._connection.sql(f"SELECT table_name, comment FROM duckdb_tables() {self._where()}").fetchall()
        comments.update({table: comment for table, comment in described if comment})
        columns_said: dict[str, dict[str, str]] = {}
        for table, column, comment in self._connection.sql(
            f"SELECT table_name, column_name, comment FROM duckdb_columns() {self._where()}"
        ).fetchall():
            if comment:
                columns_said.setdefault(table, {})[column] = comment
        declare(self.findings, self._tables, keys, links, comments, columns_said)
