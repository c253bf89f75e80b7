"""DuckDB relations as streams of Arrow, in types that parquet and stypes know."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from tributary.importing.source import ROWS_PER_BATCH

_AS_TEXT = ("UUID", "TIME", "INTERVAL", "BIT", "BIGNUM", "VARINT", "ENUM", "JSON")


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: object) -> str:
    """A text as an SQL literal."""
    return "'" + str(text).replace("'", "''") + "'"


def exactly(path: Path) -> str:
    """A path as an SQL literal that means itself where DuckDB expands wildcards."""
    return literal("".join(f"[{c}]" if c in "*?[" else c for c in str(path)))


def plain_columns(connection: Any, relation: str) -> str:
    """A SELECT list of a relation's columns in types that parquet keeps.

    Args:
        connection: of DuckDB.
        relation: as a FROM clause has it.
    """
    described = connection.sql(f"DESCRIBE SELECT * FROM {relation}").fetchall()
    parts = []
    for name, kind, *_ in described:
        column = quoted(name)
        if kind.startswith(_AS_TEXT) and not kind.startswith("TIMESTAMP") and not kind.endswith("]"):
            text = f"json_extract_string({column}, '$')" if kind == "JSON" else f"{column}::VARCHAR"
            parts.append(f"{text} AS {column}")
        elif kind in ("HUGEINT", "UHUGEINT"):
            parts.append(f"TRY_CAST({column} AS DECIMAL(38, 0)) AS {column}")
        else:
            parts.append(column)
    return ", ".join(parts)


def stream(connection: Any, sql: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """The result of a query, a batch at a time.

    Raises:
        duckdb.Error: while it is read, too.
    """
    reader = connection.sql(sql).to_arrow_reader(ROWS_PER_BATCH)
    schema = pa.schema([_in_utc(field) for field in reader.schema])
    return schema, (batch.cast(schema) for batch in reader)


def _in_utc(field: pa.Field) -> pa.Field:
    """The field, its times named in UTC whatever the zone of this machine."""
    has_zone = pa.types.is_timestamp(field.type) and field.type.tz is not None
    return field.with_type(pa.timestamp(field.type.unit, "UTC")) if has_zone else field


def connect(memory_gib: float = 2.0, threads: int = 0) -> Any:
    """A database in memory that reads files."""
    config: dict[str, Any] = {"memory_limit": f"{memory_gib}GB"}
    if threads:
        config["threads"] = threads
    return duckdb.connect(":memory:", config=config)
