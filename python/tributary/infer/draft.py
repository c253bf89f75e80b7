"""A whole description drafted from the data: keys, links, times, stypes, and what a person should look at."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tributary.infer.declared import Declared, DeclaredTable, with_columns, with_links
from tributary.infer.files import find_tables
from tributary.infer.keys import primary_keys
from tributary.infer.leaks import Suspect, leak_suspects
from tributary.infer.links import Link, foreign_keys
from tributary.infer.profile import Profiler, TableProfile
from tributary.infer.proposal import Candidate, Proposal
from tributary.infer.stypes import stype_of
from tributary.infer.tasks import TaskDraft, draft_tasks
from tributary.infer.times import temporal_columns
from tributary.metadata import Description

_MOST_QUESTIONS = 5
_MOST_CELLS = 3


@dataclasses.dataclass(frozen=True)
class Draft:
    """What inference makes of a folder."""

    metadata: dict[str, Any]
    """A description, as `metadata.json` has it, with the proposed tasks."""
    tables: dict[str, TableProfile]
    primary_keys: dict[str, Proposal[str]]
    foreign_keys: dict[tuple[str, str], Proposal[Link]]
    temporal_columns: dict[str, Proposal[str]]
    stypes: dict[tuple[str, str], Candidate[str]]
    leak_suspects: list[Suspect]
    tasks: list[TaskDraft]

    @property
    def open_questions(self) -> list[str]:
        """What a person should decide, in the order of the tables."""
        proposals: list[Proposal[Any]] = [
            *self.primary_keys.values(),
            *self.foreign_keys.values(),
            *self.temporal_columns.values(),
        ]
        return [proposal.open_question for proposal in proposals if proposal.open_question is not None]


def draft(
    folder: Path,
    *,
    name: str | None = None,
    with_tasks: bool = True,
    memory_gib: float = 2.0,
    threads: int = 0,
    declared: Declared | None = None,
    files: Mapping[str, Sequence[Path]] | None = None,
    progress: Callable[[str], None] = lambda item: None,
) -> Draft:
    """Infers the description of a folder of parquet files; nothing is written.

    Args:
        folder: the parquet files.
        name: of the database; None: that of the folder.
        with_tasks: also propose tasks, which runs their SQL.
        memory_gib: what counting may keep in memory.
        threads: 0: every core.
        declared: what the source of the files says of its tables; it goes before what is inferred.
        files: of each table, within the folder; None: as their names say.
        progress: told what is being looked at.

    Raises:
        ValueError: the folder holds no parquet file, or one cannot be read.
    """
    declared = declared or {}
    profiler = Profiler(files or find_tables(folder), memory_gib=memory_gib, threads=threads)
    try:
        tables = profiler.profile(progress)
        progress("keys")
        keys = with_columns(primary_keys(profiler, tables), declared, "primary_key")
        chosen = {table: proposal.chosen.value for table, proposal in keys.items() if proposal.chosen is not None}
        progress("foreign keys")
        links = with_links(foreign_keys(profiler, tables, chosen), declared, chosen)
        linked = {
            place: (proposal.chosen.value.parent, proposal.chosen.value.primary_key)
            for place, proposal in links.items()
            if proposal.chosen is not None
        }
        progress("times")
        times = with_columns(temporal_columns(profiler, tables, linked), declared, "temporal_column")
        stypes = {
            (table.name, column.name): stype_of(
                column, is_key=(table.name, column.name) in linked or chosen.get(table.name) == column.name
            )
            for table in tables.values()
            for column in table.columns.values()
        }
        metadata = _metadata(name or folder.resolve().name, folder, tables, chosen, linked, times, stypes, declared)
        progress("leaks")
        suspects = leak_suspects(profiler, metadata["tables"])
        tasks = (
            draft_tasks(profiler, tables, Description.load_json(metadata), folder, suspects, progress)
            if with_tasks
            else []
        )
    finally:
        profiler.close()
    metadata["tasks"] = {each.name: dict(each.task) for each in _worthy(tasks) if each.task is not None}
    return Draft(metadata, tables, keys, links, times, stypes, suspects, tasks)


def _worthy(tasks: list[TaskDraft]) -> list[TaskDraft]:
    """The best questions and the best columns."""
    proposed = [task for task in tasks if task.task is not None]
    questions = [task for task in proposed if "query" in (task.task or {})]
    cells = [task for task in proposed if "query" not in (task.task or {})]
    return [*questions[:_MOST_QUESTIONS], *cells[:_MOST_CELLS]]


def _metadata(
    name: str,
    folder: Path,
    tables: dict[str, TableProfile],
    keys: dict[str, str],
    links: dict[tuple[str, str], tuple[str, str]],
    times: dict[str, Proposal[str]],
    stypes: dict[tuple[str, str], Candidate[str]],
    declared: Declared,
) -> dict[str, Any]:
    described = {}
    for table in tables.values():
        said = declared.get(table.name, DeclaredTable())
        columns: dict[str, dict[str, str]] = {}
        for column in table.columns:
            columns[column] = {"stype": stypes[table.name, column].value}
            if (table.name, column) in links:
                columns[column]["foreign_key"] = ".".join(links[table.name, column])
            if said.column_descriptions.get(column):
                columns[column]["description"] = said.column_descriptions[column]
        files = [file.relative_to(folder).as_posix() for file in table.files]
        entry: dict[str, Any] = {"description": said.description} if said.description else {}
        if files != [f"{table.name}.parquet"]:
            entry["file"] = files[0] if len(files) == 1 else files
        if table.name in keys:
            entry["primary_key"] = keys[table.name]
        time = times[table.name].chosen
        if time is not None:
            entry["temporal_column"] = time.value
        described[table.name] = {**entry, "columns": columns}
    return {"name": name, "tables": described, "tasks": {}}
