"""A parquet file that is written in parts, so that whoever was interrupted goes on where it stood.

Parts lie in a hidden folder beside the file, each written whole or not at all, with a record of what they are parts of.
The finished file is put together from them in row groups of fixed size, so that it has the same bytes however often it
was interrupted.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq

ROWS_PER_PART = 65_536
"""Rows after which a part is written."""
SECONDS_PER_PART = 30.0
"""Seconds after which a part is written even if it has fewer rows."""
ROWS_PER_GROUP = 65_536
"""Rows of a row group of the finished file."""
ROWS_PER_SORT = 262_144
"""Rows that are sorted at a time."""


class PartsError(ValueError):
    """The parts that lie there are parts of something else, or of something that is being written right now."""


class Parts:
    """The parts of a file; used as a context manager.

    Args:
        out: the file to write in the end.
        schema: its columns.
        identity: what its rows follow from, ready for JSON: parts of anything else are refused.

    Raises:
        PartsError: parts of something else lie there, or another process is writing them.
    """

    def __init__(self, out: str | Path, schema: pa.Schema, identity: Mapping[str, Any]):
        self._out = Path(out)
        self.folder = self._out.with_name(f".{self._out.name}.parts")
        self._schema = schema
        self._identity = json.loads(json.dumps({**identity, "columns": schema.to_string()}))
        self._rows: list[pa.Table] = []
        self._last_s = time.monotonic()
        self._lock: int | None = None
        self.num_rows = 0
        """Rows that were given or found so far."""

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self.folder / "lock", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._take_over()
        except BaseException as error:
            os.close(self._lock)
            self._lock = None
            if isinstance(error, BlockingIOError):
                raise PartsError(f"{self._out}: another process is writing it; wait, or write another file") from None
            raise
        return self

    def _take_over(self) -> None:
        """Goes on from the parts that lie there."""
        for partial in self.folder.glob("*.partial"):
            partial.unlink()
        found = self._files()
        record = self.folder / "identity.json"
        if found:
            _check_identity(self._out, self.folder, json.loads(record.read_text(encoding="utf-8")), self._identity)
        else:
            partial = record.with_suffix(".partial")
            partial.write_text(json.dumps(self._identity, indent=1), encoding="utf-8")
            partial.replace(record)
        self.num_rows = sum(_rows_of(path) for path in found)

    def _files(self) -> list[Path]:
        """Parts in the order of their rows, as far as none is missing."""
        found = sorted(self.folder.glob("part-*.parquet"))
        begins = itertools.accumulate((_rows_of(path) for path in found), initial=0)
        return [
            path
            for path, _ in itertools.takewhile(
                lambda each: each[0].name.startswith(f"part-{each[1]:015}-"), zip(found, begins, strict=False)
            )
        ]

    def append(self, rows: pa.Table) -> None:
        """Takes more rows; now and then they are written."""
        self._rows.append(rows)
        self.num_rows += rows.num_rows
        waiting = sum(table.num_rows for table in self._rows)
        if waiting >= ROWS_PER_PART or time.monotonic() - self._last_s >= SECONDS_PER_PART:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        rows = pa.concat_tables(self._rows)
        path = self.folder / f"part-{self.num_rows - rows.num_rows:015}-{rows.num_rows:015}.parquet"
        partial = path.with_suffix(".partial")
        pq.write_table(rows, partial)
        partial.replace(path)
        self._rows.clear()
        self._last_s = time.monotonic()

    def finish(self, *, sort_by: str | None = None) -> None:
        """Puts the file together, in the order of the rows or by an integer column, and clears the parts away."""
        self._flush()
        partial = self._out.with_name(f".{self._out.name}.partial")
        files = self._files()
        tables = _in_order(files) if sort_by is None else _sorted(files, sort_by)
        with pq.ParquetWriter(partial, self._schema) as writer:
            for group in _groups(tables):
                writer.write_table(group, row_group_size=ROWS_PER_GROUP)
        partial.replace(self._out)
        shutil.rmtree(self.folder)

    def __exit__(self, *exception: object) -> None:
        if self._lock is not None:
            if self.folder.is_dir() and not self._files():
                shutil.rmtree(self.folder)
            os.close(self._lock)
            self._lock = None


def _rows_of(path: Path) -> int:
    """Number of rows of a part, as its name says."""
    return int(path.stem.rsplit("-", 1)[1])


def _check_identity(out: Path, folder: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    differences = [
        f"{name}: {found.get(name)} there, {expected.get(name)} now"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    ]
    if differences:
        raise PartsError(
            f"{out}: an interrupted prediction left parts of something else ({'; '.join(differences)}); finish it with "
            f"its own options, delete {folder}, or write another file"
        )


def _in_order(files: list[Path]) -> Iterator[pa.Table]:
    for path in files:
        for batch in pq.ParquetFile(path).iter_batches(ROWS_PER_GROUP):
            yield pa.Table.from_batches([batch])


def _sorted(files: list[Path], key: str) -> Iterator[pa.Table]:
    """All rows by a column of integers, so many at a time."""
    if not files:
        return
    values = np.sort(np.concatenate([pq.read_table(path, columns=[key])[key].to_numpy() for path in files]))
    parts = pyarrow.dataset.dataset([str(path) for path in files])
    for begin in range(0, len(values), ROWS_PER_SORT):
        low, high = int(values[begin]), int(values[min(begin + ROWS_PER_SORT, len(values)) - 1])
        yield parts.to_table(filter=(pc.field(key) >= low) & (pc.field(key) <= high)).sort_by(key)


def _groups(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables of a row group each."""
    waiting: list[pa.Table] = []
    count = 0
    for table in tables:
        waiting.append(table)
        count += table.num_rows
        while count >= ROWS_PER_GROUP:
            joined = pa.concat_tables(waiting)
            yield joined.slice(0, ROWS_PER_GROUP).combine_chunks()
            waiting, count = [joined.slice(ROWS_PER_GROUP)], count - ROWS_PER_GROUP
    if count:
        yield pa.concat_tables(waiting).combine_chunks()
