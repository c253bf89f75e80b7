"""Checks of a described database before anything is made of it: what is wrong, where, and what to do.

Described in `documentation/your_own_database.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tributary.check.columns import check_columns, check_reach
from tributary.check.finding import Finding
from tributary.check.keys import check_keys
from tributary.check.leaks import check_leaks
from tributary.check.times import check_times
from tributary.errors import SchemaError
from tributary.infer import Profiler
from tributary.metadata import Description
from tributary.preprocess import SqlLimits

__all__ = ["Finding", "check"]


def check(
    input_dir: Path,
    metadata: Path | None = None,
    *,
    limits: SqlLimits | None = None,
    memory_gib: float = 2.0,
    threads: int = 0,
    progress: Callable[[str], None] = lambda item: None,
) -> list[Finding]:
    """Everything that is wrong or odd about a described database, errors first.

    Args:
        input_dir: the parquet files.
        metadata: their description; None: `metadata.json` among them.
        limits: what the SQL of a task may take.
        memory_gib: what counting may keep in memory.
        threads: 0: every core.
        progress: told what is being looked at.

    Raises:
        SchemaError: the description itself is not valid, or a file of a table cannot be read.
    """
    description = Description.load(metadata or input_dir / "metadata.json")
    files = description.table_files(input_dir)
    for name, paths in files.items():
        if not paths or not all(path.is_file() for path in paths):
            raise SchemaError(f"table `{name}`: no file {description.tables[name]['file']} in {input_dir}")
    profiler = Profiler(files, memory_gib=memory_gib, threads=threads)
    try:
        profiles = profiler.profile(progress)
        tables = {name: dict(table) for name, table in description.tables.items()}
        for name, table in tables.items():
            for column in table["columns"]:
                if column not in profiles[name].columns:
                    raise SchemaError(f"table `{name}`: the files have no column `{column}`")
        anchors = {task.name: task.anchor_table for task in description.tasks}
        findings = [
            *check_keys(profiler, profiles, tables),
            *check_times(profiler, profiles, tables),
            *check_columns(profiles, tables),
            *check_reach(tables, anchors),
            *check_leaks(profiler, description, input_dir, limits or SqlLimits(), progress),
        ]
    finally:
        profiler.close()
    order = ("error", "warning", "note")
    return sorted(findings, key=lambda finding: order.index(finding.severity))
