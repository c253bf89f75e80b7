"""What a source offers: tables as streams of record batches, and what it says of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import pyarrow as pa

from tributary.infer import DeclaredTable

ROWS_PER_BATCH = 10_000
"""Rows a stream holds at a time."""


@dataclasses.dataclass(frozen=True)
class SourceTable:
    """One table that can be read."""

    name: str
    num_rows: int
    """What progress is measured against."""


@dataclasses.dataclass
class Findings:
    """What a source learns and says besides its rows; grows while tables are read."""

    declared: dict[str, DeclaredTable] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)
    tasks: dict[str, Mapping[str, Any]] | None = None
    """Tasks as `metadata.json` has them; None: the source knows none."""
    label_files: dict[str, pa.Table] = dataclasses.field(default_factory=dict)
    """Labels of tasks, by the path of their file."""


class Source(AbstractContextManager["Source"], Protocol):
    """An open source; every table is read within one snapshot."""

    name: str
    """Of the database."""
    findings: Findings

    def tables(self) -> list[SourceTable]:
        """The tables to import, in the order of their names."""
        ...

    def batches(self, table: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The rows of a table, streamed; one table at a time."""
        ...


def chosen(names: list[str], wanted: tuple[str, ...], where: str) -> list[str]:
    """The tables to import, of those there are.

    Args:
        names: what there is.
        wanted: what was asked for; nothing: every table.
        where: the source, for messages.

    Raises:
        ValueError: a table that was asked for is not there, or there is none.
    """
    missing = [name for name in wanted if name not in names]
    listed = ", ".join(f"`{name}`" for name in names[:20]) + (", ..." if len(names) > 20 else "")
    if missing:
        raise ValueError(f"{where}: no table `{missing[0]}`; there are {listed or 'none'}")
    if not names:
        raise ValueError(f"{where}: no table to import")
    return [name for name in names if not wanted or name in wanted]
