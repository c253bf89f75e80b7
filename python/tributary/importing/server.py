"""A PostgreSQL or MySQL database by URL: one read-only transaction with one snapshot, rows through server-side cursors.

What is in a URL that nobody else may see never gets into a message: messages are cleaned of it, and the exceptions of
drivers are not passed on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import TracebackType
from typing import Any
from urllib.parse import quote, quote_plus

import pyarrow as pa
from sqlalchemy import URL, create_engine, make_url, types
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from tributary.importing.relational import columns_of, declare_reflected, read_batches, table_names
from tributary.importing.source import Findings, SourceTable, chosen

_DRIVERS = {
    "postgresql": ("postgresql+psycopg", "psycopg", "postgres"),
    "postgres": ("postgresql+psycopg", "psycopg", "postgres"),
    "mysql": ("mysql+pymysql", "pymysql", "mysql"),
    "mariadb": ("mysql+pymysql", "pymysql", "mysql"),
}
_SECRET_WORDS = ("password", "passwd", "secret", "token", "key")
_MOST_DIGITS = 38
_EARLIEST, _LATEST = "0001-01-02", "9999-12-31"
"""Times beyond, infinities among them, have no value in Python."""


class ServerSource:
    """The tables of a database behind a URL.

    Args:
        url: `postgresql://user:password@host:port/name` or `mysql://...`.
        wanted: tables to import; none: all.
        schema: whose tables; None: the default of the connection.
        views: also views.

    Raises:
        ValueError: it cannot be reached, or holds no such table; without the password.
    """

    def __init__(self, url: str, wanted: tuple[str, ...] = (), *, schema: str | None = None, views: bool = False):
        parsed = _parsed(url)
        self._secrets = _secrets(parsed)
        self._is_postgres = parsed.drivername.startswith("postgresql")
        self.name = parsed.database or "database"
        self.findings = Findings()
        where = parsed.set(drivername=parsed.get_backend_name(), query={}).render_as_string(hide_password=True)
        self._where = where
        self._schema = schema
        self._types: dict[str, dict[str, Any]] = {}
        self._engine = create_engine(parsed)
        try:
            self._connection = self._engine.connect()
        except SQLAlchemyError as error:
            self._engine.dispose()
            raise self._cleaned(error) from None
        try:
            self._begin()
            self._schema = schema or self._connection.dialect.default_schema_name
            self._tables = chosen(self._names(views), wanted, where)
            declare_reflected(self._connection, self.findings, self._tables, self._schema)
            self._types = {table: columns_of(self._connection, table, self._schema) for table in self._tables}
        except SQLAlchemyError as error:
            self._close()
            raise self._cleaned(error) from None
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> ServerSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def tables(self) -> list[SourceTable]:
        """The tables, with their numbers of rows."""
        return [SourceTable(name, self._count(name)) for name in self._tables]

    def batches(self, table: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The rows of a table."""
        columns = self._types[table]
        if not columns:
            raise ValueError(f"{self._where}: table `{table}` has no columns; --table names those to import")
        schema = pa.schema([pa.field(name, arrow_type(kind)) for name, kind in columns.items()])
        listed = ", ".join(self._expression(name, schema.field(name).type) for name in columns)
        return schema, self._read(f"SELECT {listed} FROM {self._relation(table)}", schema, table)

    def _close(self) -> None:
        self._connection.close()
        self._engine.dispose()

    def _begin(self) -> None:
        """Starts the transaction that everything is read in."""
        if self._is_postgres:
            self._connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            self._connection.exec_driver_sql("SET LOCAL TIME ZONE 'UTC'")
            return
        self._connection.exec_driver_sql("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        self._connection.exec_driver_sql("SET time_zone = '+00:00'")
        self._connection.exec_driver_sql("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")

    def _names(self, views: bool) -> list[str]:
        """Tables, without those that are partitions of another."""
        names = table_names(self._connection, self._schema, views)
        if not self._is_postgres:
            return names
        rows = self._connection.exec_driver_sql(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relispartition AND n.nspname = %s",
            (self._schema,),
        )
        partitions = {row[0] for row in rows}
        return [name for name in names if name not in partitions]

    def _quoted(self, name: str) -> str:
        return self._connection.dialect.identifier_preparer.quote_identifier(name)

    def _relation(self, table: str) -> str:
        return f"{self._quoted(self._schema)}.{self._quoted(table)}" if self._schema else self._quoted(table)

    def _in_range(self, name: str) -> str:
        return f"{self._quoted(name)} BETWEEN '{_EARLIEST}' AND '{_LATEST}'"

    def _expression(self, name: str, kind: pa.DataType) -> str:
        """A column; times that only the database knows become nulls."""
        if self._is_postgres and pa.types.is_temporal(kind):
            return f"CASE WHEN {self._in_range(name)} THEN {self._quoted(name)} END"
        return self._quoted(name)

    def _count(self, table: str) -> int:
        """Rows; warns of times out of range."""
        times = [name for name, kind in self._types[table].items() if pa.types.is_temporal(arrow_type(kind))]
        times = times if self._is_postgres else []
        parts = [f"count(*) FILTER (WHERE NOT {self._in_range(name)})" for name in times]
        try:
            row = self._connection.exec_driver_sql(
                f"SELECT {', '.join(['count(*)', *parts])} FROM {self._relation(table)}".replace("%", "%%")
            ).one()
        except SQLAlchemyError as error:
            raise self._cleaned(error) from None
        for name, number in zip(times, row[1:], strict=True):
            if number:
                self.findings.warnings.append(
                    f"{table}.{name}: {number:,} times are infinite or not between {_EARLIEST} and {_LATEST}; null now"
                )
        return int(row[0])

    def _read(self, sql: str, schema: pa.Schema, table: str) -> Iterator[pa.RecordBatch]:
        try:
            yield from read_batches(self._connection, sql, schema, table, self.findings)
        except SQLAlchemyError as error:
            raise self._cleaned(error) from None

    def _cleaned(self, error: SQLAlchemyError) -> ValueError:
        """What went wrong, without secrets."""
        said = str(getattr(error, "orig", None) or error).strip()
        for secret in self._secrets:
            said = said.replace(secret, "***")
        return ValueError(f"{self._where}: {said}")


def arrow_type(kind: types.TypeEngine[Any]) -> pa.DataType:
    """What values of a type of the database become.

    Args:
        kind: as SQLAlchemy reflects it.
    """
    if isinstance(kind, types.Boolean):
        return pa.bool_()
    if isinstance(kind, types.Integer) or type(kind).__name__ in ("BIT", "YEAR", "OID"):
        is_wide = getattr(kind, "unsigned", False) and isinstance(kind, types.BigInteger)
        return pa.uint64() if is_wide else pa.int64()
    if isinstance(kind, types.Float):
        return pa.float64()
    if isinstance(kind, types.Numeric):
        is_whole = kind.scale == 0 and kind.precision is not None and kind.precision <= _MOST_DIGITS
        return pa.decimal128(kind.precision, 0) if is_whole else pa.float64()
    if isinstance(kind, types.Interval) or type(kind).__name__ == "INTERVAL":
        return pa.float64()
    if isinstance(kind, types.DateTime):
        return pa.timestamp("us", "UTC" if kind.timezone else None)
    if isinstance(kind, types.Date):
        return pa.date32()
    if isinstance(kind, types.LargeBinary) or type(kind).__name__ in ("BINARY", "VARBINARY"):
        return pa.binary()
    return pa.string()


def _parsed(url: str) -> URL:
    """A URL with the driver that is used.

    Raises:
        ValueError: it is none, or its driver is not installed.
    """
    scheme = re.split(r"[+:]", url, maxsplit=1)[0].lower()
    dialect, module, extra = _DRIVERS[scheme]
    try:
        parsed = make_url(url).set(drivername=dialect)
    except (ArgumentError, ValueError):
        raise ValueError(
            f"no URL of a database: expected {scheme}://user:password@host:port/name;"
            " write special characters of the password as %40"
        ) from None
    try:
        __import__(module)
    except ModuleNotFoundError:
        raise ValueError(f"{scheme}:// needs a driver: pip install 'tributary[{extra}]'") from None
    return parsed


def _secrets(url: URL) -> list[str]:
    """What must not be said: the password and its kin, plain and as URLs write them, the longest first."""
    found = [str(url.password)] if url.password else []
    for name, value in url.query.items():
        if any(word in name.lower() for word in _SECRET_WORDS):
            found += [value] if isinstance(value, str) else list(value)
    written = {form for each in found for form in (each, quote(each, safe=""), quote_plus(each))}
    return sorted((each for each in written if each), key=len, reverse=True)
