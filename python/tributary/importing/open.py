"""Which kind of source a text means."""

from __future__ import annotations

import re
from pathlib import Path

from tributary.importing.source import Source

_SERVERS = ("postgresql", "postgres", "mysql", "mariadb")


def open_source(
    source: str | Path,
    *,
    tables: tuple[str, ...] = (),
    schema: str | None = None,
    views: bool = False,
    memory_gib: float = 2.0,
    threads: int = 0,
) -> Source:
    """Opens a source for reading.

    Args:
        source: a folder or file of parquet, CSV, TSV or JSON lines; a SQLite or DuckDB file, or its URL; a
            `postgresql://` or `mysql://` URL; a RelBench folder, or `relbench:NAME`.
        tables: those to import; none: all.
        schema: of a database; None: its default.
        views: also views of a database.
        memory_gib: what reading files may keep in memory.
        threads: of reading files; 0: every core.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it cannot be read.
    """
    text = str(source)
    scheme = re.match(r"([a-zA-Z][\w+.-]*)://", text)
    if scheme and scheme[1].lower().partition("+")[0] in _SERVERS:
        from tributary.importing.server import ServerSource

        return ServerSource(text, tables, schema=schema, views=views)
    if text.startswith("relbench:"):
        from tributary.importing.relbench import RelbenchSource, find_by_name

        folder, more_tasks = find_by_name(text.removeprefix("relbench:"))
        return RelbenchSource(folder, tables, more_tasks)
    if scheme and scheme[1].lower() not in ("sqlite", "duckdb"):
        known = ", ".join(f"{each}://" for each in (*_SERVERS, "sqlite", "duckdb"))
        raise ValueError(f"{scheme[1]}://: expected {known}, a folder or a file")
    if re.match(rf"({'|'.join(_SERVERS)})\b.*@", text, re.IGNORECASE | re.DOTALL) and not Path(text).exists():
        # it may hold a password, so it is not repeated
        raise ValueError("no URL of a database: expected postgresql://user:password@host:port/name, or mysql://...")
    path = Path(re.sub(r"^(sqlite|duckdb):///", "", text, flags=re.IGNORECASE) if scheme else text).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    return _open_path(path, tables, schema, views, memory_gib, threads)


def _open_path(
    path: Path, tables: tuple[str, ...], schema: str | None, views: bool, memory_gib: float, threads: int
) -> Source:
    if path.is_dir():
        from tributary.importing.relbench import RelbenchSource, is_relbench

        if is_relbench(path):
            return RelbenchSource(path, tables)
    else:
        with path.open("rb") as file:
            start = file.read(16)
        if start.startswith(b"SQLite format 3\0"):
            from tributary.importing.sqlite import SqliteSource

            return SqliteSource(path, tables, views=views)
        if start[8:12] == b"DUCK":
            from tributary.importing.duckdb_file import DuckdbSource

            return DuckdbSource(path, tables, schema=schema, views=views)
    from tributary.importing.files import FileSource

    return FileSource(path, tables, memory_gib=memory_gib, threads=threads)
