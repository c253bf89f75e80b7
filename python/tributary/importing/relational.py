"""What SQLAlchemy reads of a database: its tables, keys and comments, and rows in batches of Arrow."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
from sqlalchemy import Connection, inspect, text

from tributary.importing.keys import ForeignKey, declare
from tributary.importing.source import ROWS_PER_BATCH, Findings


def table_names(connection: Connection, schema: str | None, views: bool) -> list[str]:
    """Tables, and views if asked for, in the order of their names."""
    inspector = inspect(connection)
    names = inspector.get_table_names(schema)
    return sorted([*names, *(inspector.get_view_names(schema) if views else ())])


def columns_of(connection: Connection, table: str, schema: str | None) -> dict[str, Any]:
    """SQLAlchemy's type of each column, in their order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # types it does not know are read as texts
        return {each["name"]: each["type"] for each in inspect(connection).get_columns(table, schema)}


def declare_reflected(connection: Connection, findings: Findings, tables: Sequence[str], schema: str | None) -> None:
    """Takes over declared keys and comments."""
    inspector = inspect(connection)
    keys: dict[str, list[str]] = {}
    links: dict[str, list[ForeignKey]] = {}
    described: dict[str, str] = {}
    columns_said: dict[str, dict[str, str]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for table in tables:
            keys[table] = inspector.get_pk_constraint(table, schema)["constrained_columns"]
            links[table] = [
                ForeignKey(
                    tuple(each["constrained_columns"]),
                    each["referred_table"]
                    if each["referred_schema"] in (None, schema)
                    else f"{each['referred_schema']}.{each['referred_table']}",
                    tuple(each["referred_columns"]),
                )
                for each in inspector.get_foreign_keys(table, schema)
            ]
            if connection.dialect.supports_comments:
                described[table] = inspector.get_table_comment(table, schema)["text"] or ""
            columns_said[table] = {
                each["name"]: str(each["comment"])
                for each in inspector.get_columns(table, schema)
                if each.get("comment")
            }
    declare(findings, tables, keys, links, described, columns_said)


def read_batches(
    connection: Connection, sql: str, schema: pa.Schema, table: str, findings: Findings
) -> Iterator[pa.RecordBatch]:
    """The rows of a query through a cursor that stays in the database.

    Args:
        connection: within a transaction.
        sql: its columns are those of the schema.
        schema: what values become.
        table: for messages.
        findings: takes warnings about values that have no place in their type; they become nulls.
    """
    options = {"stream_results": True, "max_row_buffer": ROWS_PER_BATCH}
    lost: dict[str, tuple[int, str]] = {}
    result = connection.execute(text(sql.replace(":", r"\:")), execution_options=options)
    try:
        for rows in result.partitions(ROWS_PER_BATCH):
            columns = list(zip(*rows, strict=True))
            yield pa.RecordBatch.from_arrays(
                [_array(values, field, lost) for values, field in zip(columns, schema, strict=True)], schema=schema
            )
    finally:
        result.close()
    for name, (number, example) in lost.items():
        kind = schema.field(name).type
        findings.warnings.append(f"{table}.{name}: {number:,} values are no {kind}, as {example}; null now")


def _array(values: Sequence[Any], field: pa.Field, lost: dict[str, tuple[int, str]]) -> pa.Array:
    convert = _converter(field.type)
    converted = []
    for value in values:
        made = None if value is None else convert(value)
        if made is None and value is not None:
            number, example = lost.get(field.name, (0, f"`{str(value)[:60]}`"))
            lost[field.name] = (number + 1, example)
        converted.append(made)
    return pa.array(converted, field.type)


def _converter(kind: pa.DataType) -> Any:
    """Makes of a driver's value one that Arrow takes as this type, or None."""
    if pa.types.is_integer(kind):
        return lambda value: int.from_bytes(value, "big") if isinstance(value, bytes) else int(value)
    if pa.types.is_boolean(kind):
        return bool
    if pa.types.is_floating(kind):
        return lambda value: value.total_seconds() if isinstance(value, timedelta) else float(value)
    if pa.types.is_decimal(kind):
        return lambda value: value if Decimal(value).is_finite() else None
    if pa.types.is_timestamp(kind):
        return lambda value: value if isinstance(value, datetime) else None
    if pa.types.is_date(kind):
        return lambda value: value if isinstance(value, date) else None
    if pa.types.is_binary(kind):
        return bytes
    return _text


def _text(value: Any) -> str:
    if isinstance(value, (bytes, memoryview)):
        return bytes(value).decode("utf-8", "replace")
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
