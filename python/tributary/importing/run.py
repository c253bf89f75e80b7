"""From an open source to a folder of parquet files and a drafted description, whole or not at all."""

from __future__ import annotations

import dataclasses
import glob
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from tributary.importing.source import Source, SourceTable
from tributary.infer import Draft, draft

_BYTES_PER_GROUP = 64 << 20
_ROWS_PER_GROUP = 1 << 17


class Watcher(Protocol):
    """Is told how an import goes on."""

    def stage(self, name: str) -> None:
        """A stage begins."""

    def progress(self, item: str, done: int, total: int, unit: str) -> None:
        """So much of an item is done."""

    def warn(self, message: str) -> None:
        """Something a user should know."""


class _Silent:
    """Watches nothing."""

    def stage(self, name: str) -> None:
        """Ignored."""

    def progress(self, item: str, done: int, total: int, unit: str) -> None:
        """Ignored."""

    def warn(self, message: str) -> None:
        """Ignored."""


@dataclasses.dataclass(frozen=True)
class Imported:
    """What an import made."""

    folder: Path
    draft: Draft
    """The description, and why it is so."""
    warnings: list[str]


def write(
    source: Source,
    out: Path,
    *,
    name: str | None = None,
    force: bool = False,
    with_tasks: bool = True,
    memory_gib: float = 2.0,
    threads: int = 0,
    watcher: Watcher | None = None,
) -> Imported:
    """Writes the tables of a source and the description drafted of them.

    Args:
        source: an open one.
        out: the folder to make; it appears when everything is written.
        name: of the database; None: that of the source.
        force: replace a folder that an import made.
        with_tasks: also propose tasks, where the source has none of its own.
        memory_gib: what inference may keep in memory.
        threads: of inference; 0: every core.
        watcher: told how it goes on.

    Raises:
        FileExistsError: `out` is there.
        ValueError: the source cannot be read.
    """
    watcher = watcher or _Silent()
    check_out(out, force)
    findings = source.findings
    with _scratch(out) as scratch:
        watcher.stage("read")
        tables = source.tables()
        _check_names([table.name for table in tables])
        files = {table.name: [_write_table(source, table, scratch, watcher)] for table in tables}
        for path, labels in findings.label_files.items():
            (scratch / path).parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(labels, scratch / path, compression="zstd")
        watcher.stage("infer")
        found = draft(
            scratch,
            name=name or source.name,
            with_tasks=with_tasks and findings.tasks is None,
            memory_gib=memory_gib,
            threads=threads,
            declared=findings.declared,
            files=files,
            progress=lambda item: watcher.progress(item, 0, 1, "tables"),
        )
        if findings.tasks is not None:
            found.metadata["tasks"] = {task: dict(said) for task, said in findings.tasks.items()}
        text = json.dumps(found.metadata, indent=2, ensure_ascii=False) + "\n"
        (scratch / "metadata.json").write_text(text, encoding="utf-8")
        _publish(scratch, out)
    for warning in findings.warnings:
        watcher.warn(warning)
    return Imported(out, found, findings.warnings)


def check_out(out: Path, force: bool) -> None:
    """Refuses a folder that must not be replaced.

    Raises:
        FileExistsError: it is there, without `force` or with something else than an import in it.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not force:
        raise FileExistsError(f"{out} is there already; name another folder, or --force replaces it")
    if not (out / "metadata.json").is_file():
        raise FileExistsError(f"{out} holds no metadata.json, so no import made it; remove it yourself")


def _write_table(source: Source, table: SourceTable, folder: Path, watcher: Watcher) -> Path:
    """Streams one table into one parquet file, a row group at a time."""
    path = folder / f"{table.name}.parquet"
    schema, batches = source.batches(table.name)
    done = 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in _groups(batches):
            writer.write_table(pa.Table.from_batches(group, schema), row_group_size=_ROWS_PER_GROUP)
            done += sum(batch.num_rows for batch in group)
            watcher.progress(table.name, done, max(table.num_rows, done), "rows")
    return path


def _groups(batches: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Batches in lots of bounded rows and bytes."""
    group: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        group.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= _ROWS_PER_GROUP or size >= _BYTES_PER_GROUP:
            yield group
            group, rows, size = [], 0, 0
    if group:
        yield group


def _check_names(names: list[str]) -> None:
    """Refuses tables that cannot be files beside each other."""
    seen: dict[str, str] = {}
    for name in names:
        if not name or name.startswith(".") or any(each in name for each in "/\\\0"):
            raise ValueError(
                f"table {name!r} cannot be the name of a file; leave it out: --table names those to import"
            )
        twin = seen.setdefault(name.lower(), name)
        if twin != name:
            raise ValueError(f"the names of tables `{twin}` and `{name}` differ by case alone; import one: --table")


@contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A sibling folder that is gone afterwards; those of killed runs go too."""
    out = out.resolve()
    out.parent.mkdir(parents=True, exist_ok=True)
    for left in out.parent.glob(f".{glob.escape(out.name)}.importing-*"):
        number = left.name.rpartition("-")[2]
        if number.isdigit() and not _is_running(int(number)):
            shutil.rmtree(left, ignore_errors=True)
    scratch = out.parent / f".{out.name}.importing-{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _publish(scratch: Path, out: Path) -> None:
    """Puts the finished folder under its name; what was there goes."""
    out = out.resolve()
    old = scratch.with_name(f"{scratch.name}.old")
    if out.exists():
        out.rename(old)
    scratch.rename(out)
    shutil.rmtree(old, ignore_errors=True)
