"""Any source to a folder of parquet files with a drafted `metadata.json`.

`open` finds out what a source is; one room per kind reads it (`files`, `sqlite`, `duckdb_file`, `server`, `relbench`,
`frames`), offering tables as streams and what is declared of them (`source`, `keys`); `run` writes and describes them.
Described in `documentation/your_own_database.md`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tributary.importing.run import Imported, Watcher, check_out, write

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Imported", "Watcher", "import_source", "import_tables"]


def import_source(
    source: str | Path,
    out: str | Path,
    *,
    name: str | None = None,
    tables: Sequence[str] = (),
    schema: str | None = None,
    views: bool = False,
    force: bool = False,
    with_tasks: bool = True,
    memory_gib: float = 2.0,
    threads: int = 0,
    watcher: Watcher | None = None,
) -> Imported:
    """Imports a folder of files or a database; it is only read.

    Args:
        source: a folder or file of parquet, CSV, TSV or JSON lines; a SQLite or DuckDB file, or its URL; a
            `postgresql://` or `mysql://` URL; a RelBench folder, or `relbench:NAME`.
        out: the folder to make; it appears when everything is written.
        name: of the database; None: that of the source.
        tables: those to import; none: all.
        schema: of a database; None: its default.
        views: also views of a database.
        force: replace a folder that an import made.
        with_tasks: also propose tasks, where the source has none of its own.
        memory_gib: what reading files and inference may keep in memory.
        threads: of them; 0: every core.
        watcher: told how it goes on.

    Raises:
        FileExistsError: `out` is there.
        FileNotFoundError: the source is not.
        ValueError: the source cannot be read; the message holds no password.
    """
    from tributary.importing.open import open_source

    out = Path(out)
    check_out(out, force)
    here = Path(source)
    if here.exists() and out.resolve() in (here.resolve(), *here.resolve().parents):
        raise ValueError(f"{out} holds the source; name another folder")
    opened = open_source(
        source, tables=tuple(tables), schema=schema, views=views, memory_gib=memory_gib, threads=threads
    )
    with opened as reader:
        return write(
            reader,
            out,
            name=name,
            force=force,
            with_tasks=with_tasks,
            memory_gib=memory_gib,
            threads=threads,
            watcher=watcher,
        )


def import_tables(
    tables: Mapping[str, Any],
    out: str | Path,
    *,
    primary_keys: Mapping[str, str] | None = None,
    foreign_keys: Mapping[str, str] | None = None,
    times: Mapping[str, str] | None = None,
    name: str | None = None,
    force: bool = False,
    with_tasks: bool = True,
    memory_gib: float = 2.0,
    threads: int = 0,
    watcher: Watcher | None = None,
) -> Imported:
    """Imports tables in memory; what is not said of them is inferred.

    Args:
        tables: pandas, polars or Arrow tables by name, or anything with `__arrow_c_stream__`.
        out: the folder to make; it appears when everything is written.
        primary_keys: column of each table.
        foreign_keys: `"table.column"` -> name of the parent table.
        times: column of each table that says when a row came into being.
        name: of the database; None: that of the folder.
        force: replace a folder that an import made.
        with_tasks: also propose tasks.
        memory_gib: what inference may keep in memory.
        threads: of it; 0: every core.
        watcher: told how it goes on.

    Raises:
        FileExistsError: `out` is there.
        TypeError: one is no table.
        ValueError: a key or time names what is not there.

    Example:
        >>> tributary.import_tables(
        ...     {"people": people, "orders": orders},
        ...     "data/raw/shop",
        ...     primary_keys={"people": "id"},
        ...     foreign_keys={"orders.buyer": "people"},
        ...     times={"orders": "placed_at"},
        ... )  # doctest: +SKIP
    """
    from tributary.importing.frames import FrameSource

    out = Path(out)
    check_out(out, force)
    source = FrameSource(tables, primary_keys or {}, foreign_keys or {}, times or {}, name=name or out.resolve().name)
    with source as reader:
        return write(
            reader,
            out,
            name=name,
            force=force,
            with_tasks=with_tasks,
            memory_gib=memory_gib,
            threads=threads,
            watcher=watcher,
        )
