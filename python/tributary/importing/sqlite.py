"""A SQLite file: opened read-only, in one read transaction, its columns typed by what they hold."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from sqlalchemy import create_engine
from sqlalchemy.exc import SQLAlchemyError

from tributary.importing.duck import literal, quoted
from tributary.importing.relational import columns_of, declare_reflected, read_batches, table_names
from tributary.importing.source import Findings, SourceTable, chosen

_STORAGE = ("integer", "real", "text", "blob")


class SqliteSource:
    """The tables of a SQLite file.

    SQLite's columns hold values of any type, whatever was declared: their types are counted. A column of one type has
    it, whole numbers among fractions are fractions, and any other mixture becomes text with a warning.

    Args:
        path: the file.
        wanted: tables to import; none: all.
        views: also views.

    Raises:
        ValueError: the file cannot be opened, or holds no such table.
    """

    def __init__(self, path: Path, wanted: tuple[str, ...] = (), *, views: bool = False):
        self.name = path.stem
        self.findings = Findings()
        self._path = path
        self._engine = create_engine("sqlite://", creator=self._open)
        try:
            self._connection = self._engine.connect()
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise ValueError(f"{path}: {getattr(error, 'orig', error)}") from None
        try:
            self._connection.exec_driver_sql("BEGIN")
            self._tables = chosen(table_names(self._connection, None, views), wanted, str(path))
            declare_reflected(self._connection, self.findings, self._tables, None)
        except (SQLAlchemyError, sqlite3.Error) as error:
            self._close()
            raise ValueError(f"{path}: {getattr(error, 'orig', error)}") from None
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> SqliteSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def tables(self) -> list[SourceTable]:
        """The tables, with their numbers of rows."""
        return [SourceTable(name, self._row(f"SELECT count(*) FROM {quoted(name)}")[0]) for name in self._tables]

    def batches(self, table: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The rows of a table."""
        declared = columns_of(self._connection, table, None)
        counts = [
            f"count(*) FILTER (WHERE typeof({quoted(name)}) = {literal(kind)})"
            for name in declared
            for kind in _STORAGE
        ]
        counted = list(self._row(f"SELECT {', '.join(counts)} FROM {quoted(table)}"))
        fields = []
        for place, (name, said) in enumerate(declared.items()):
            held = dict(zip(_STORAGE, counted[4 * place : 4 * place + 4], strict=True))
            fields.append(pa.field(name, self._type(table, name, said, held)))
        schema = pa.schema(fields)
        listed = ", ".join(quoted(name) for name in declared)
        return schema, self._read(f"SELECT {listed} FROM {quoted(table)}", schema, table)

    def _close(self) -> None:
        self._connection.close()
        self._engine.dispose()

    def _open(self) -> sqlite3.Connection:
        # without isolation level the driver leaves transactions to us
        uri = f"file:{quote(str(self._path.resolve()))}?mode=ro"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        connection.text_factory = lambda value: value.decode("utf-8", "replace")
        return connection

    def _row(self, sql: str) -> Any:
        try:
            return self._connection.exec_driver_sql(sql).fetchone()
        except SQLAlchemyError as error:
            raise ValueError(f"{self._path}: {getattr(error, 'orig', error)}") from None

    def _read(self, sql: str, schema: pa.Schema, table: str) -> Iterator[pa.RecordBatch]:
        try:
            yield from read_batches(self._connection, sql, schema, table, self.findings)
        except SQLAlchemyError as error:
            raise ValueError(f"{self._path}: table `{table}`: {getattr(error, 'orig', error)}") from None

    def _type(self, table: str, column: str, said: Any, held: dict[str, int]) -> pa.DataType:
        """The type that every value of a column has."""
        kinds = {kind for kind, number in held.items() if number}
        if kinds == {"integer"}:
            return pa.bool_() if self._is_truth(table, column, said) else pa.int64()
        if kinds == {"real"} or kinds == {"integer", "real"}:
            return pa.float64()
        if kinds == {"blob"}:
            return pa.binary()
        if len(kinds) > 1:
            listed = ", ".join(f"{number:,} {kind}" for kind, number in held.items() if number)
            rare = min(kinds, key=lambda kind: held[kind])
            example = self._row(
                f"SELECT quote({quoted(column)}) FROM {quoted(table)} WHERE typeof({quoted(column)}) = {literal(rare)}"
            )[0]
            self.findings.warnings.append(
                f"{table}.{column}: values of several types ({listed}), as {example:.60}; kept as text"
            )
        return pa.string()

    def _is_truth(self, table: str, column: str, said: Any) -> bool:
        if "BOOL" not in str(said).upper():
            return False
        least, most = self._row(f"SELECT min({quoted(column)}), max({quoted(column)}) FROM {quoted(table)}")
        return bool(least >= 0 and most <= 1)
