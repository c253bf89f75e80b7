"""Which files of a folder are which table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_PART = re.compile(r"(?P<table>.+?)[-_.](?:part[-_.]?)?\d{2,}(?:[-_.]of[-_.]\d+)?")


def find_tables(folder: Path) -> dict[str, list[Path]]:
    """The parquet files of each table, by name.

    Raises:
        ValueError: there is no parquet file.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder of parquet files")
    found = group_files(folder, (".parquet",))
    if not found:
        raise ValueError(f"{folder}: no parquet file; `tributary import` reads CSV, JSON lines and databases")
    return found


def group_files(folder: Path, endings: Sequence[str]) -> dict[str, list[Path]]:
    """The files of each table, by name.

    A file is a table of its name; numbered files (`orders-0001.parquet`, `orders_part-01-of-12.parquet`) are parts of
    one table where there are two of them, and so are the files of a sub-folder.

    Args:
        folder: is looked at, and its sub-folders.
        endings: what names of files end with, as `.csv.gz`; they are no part of the name of the table.
    """
    found: dict[str, list[Path]] = {}
    parts: dict[str, list[Path]] = {}
    for path, name in _named(folder, endings):
        matched = _PART.fullmatch(name)
        if matched:
            parts.setdefault(matched["table"], []).append(path)
        else:
            found.setdefault(name, []).append(path)
    for table, files in parts.items():
        if len(files) > 1 and table not in found:
            found[table] = files
        else:
            found.update({_without_ending(file, endings): [file] for file in files})
    for child in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = [path for path, _ in _named(child, endings)]
        if files and child.name not in found:
            found[child.name] = files
    return dict(sorted(found.items()))


def _named(folder: Path, endings: Sequence[str]) -> list[tuple[Path, str]]:
    """The files with one of the endings, and their names without it."""
    files = (path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith("."))
    return [(path, name) for path in files if (name := _without_ending(path, endings))]


def _without_ending(path: Path, endings: Sequence[str]) -> str:
    """The name of a file without its ending; empty if it has none of them."""
    for ending in endings:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return ""
