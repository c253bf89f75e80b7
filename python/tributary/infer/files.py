"""Which parquet files of a folder are which table."""

from __future__ import annotations

import re
from pathlib import Path

_PART = re.compile(r"(?P<table>.+?)[-_.](?:part[-_.]?)?\d{2,}(?:[-_.]of[-_.]\d+)?")


def find_tables(folder: Path) -> dict[str, list[Path]]:
    """The parquet files of each table, by name.

    A file is a table of its name; numbered files (`orders-0001.parquet`, `orders_part-01-of-12.parquet`) are parts of
    one table where there are two of them, and so are the files of a sub-folder.

    Raises:
        ValueError: there is no parquet file.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: expected a folder of parquet files")
    found: dict[str, list[Path]] = {}
    parts: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.parquet")):
        matched = _PART.fullmatch(path.stem)
        if matched:
            parts.setdefault(matched["table"], []).append(path)
        else:
            found[path.stem] = [path]
    for table, files in parts.items():
        if len(files) > 1 and table not in found:
            found[table] = files
        else:
            found.update({file.stem: [file] for file in files})
    for child in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        files = sorted(child.glob("*.parquet"))
        if files and child.name not in found:
            found[child.name] = files
    if not found:
        raise ValueError(f"{folder}: no parquet file; `tributary import` reads CSV, JSON lines and databases")
    return dict(sorted(found.items()))
