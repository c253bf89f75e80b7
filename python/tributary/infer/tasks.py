"""Draft tasks: questions that a database can answer about its own past, each tried before it is proposed.

Questions about the future are predictive queries (`tributary.query`), so that a person can read and change them.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tributary.errors import TributaryError
from tributary.infer.leaks import Suspect
from tributary.infer.profile import Profiler, TableProfile, quoted
from tributary.infer.words import CALENDAR_WORDS, words
from tributary.metadata import Description
from tributary.preprocess import SqlLimits
from tributary.query import compile_query, preview

WINDOWS = (1, 7, 14, 30, 60, 90, 180, 365)
"""Days a question may look ahead."""

_FEWEST_LABELS = 100
_RARE = 0.02
_MOST_CLASSES = 100
_FEWEST_WINDOWS = 8
_MOST_TRIED = 12


@dataclasses.dataclass(frozen=True)
class TaskDraft:
    """A proposed or rejected task."""

    name: str
    query: str
    """The predictive query."""
    task: Mapping[str, Any] | None
    """As in `metadata.json`; None: rejected."""
    score: float
    """0 to 1: how many labels there are, and how far from one-sided."""
    reason: str


def draft_tasks(
    profiler: Profiler,
    profiles: Mapping[str, TableProfile],
    description: Description,
    folder: Path,
    suspects: list[Suspect],
    progress: Callable[[str], None] = lambda item: None,
) -> list[TaskDraft]:
    """Tasks for a described database, best first; rejected ones last.

    Args:
        profiler: the tables.
        profiles: what they hold.
        description: what they mean.
        folder: the parquet files.
        suspects: columns that may know the future; they are no targets, and hidden from tasks on their table.
        progress: told the name of each task that is tried.
    """
    drafts = [*_cells(profiles, description, suspects)]
    for number, (name, query) in enumerate(_questions(profiler, profiles, description)):
        if number == _MOST_TRIED:
            break
        progress(name)
        drafts.append(_tried(name, query, description, folder))
    return sorted(drafts, key=lambda each: (each.task is None, -each.score))


def _cells(
    profiles: Mapping[str, TableProfile], description: Description, suspects: list[Suspect]
) -> Iterator[TaskDraft]:
    """Columns that say something and differ between rows."""
    leaking = {(suspect.table, suspect.column): suspect for suspect in suspects}
    for table, described in description.tables.items():
        if described["primary_key"] is None:
            continue
        hidden = [[table, column] for leaky, column in leaking if leaky == table]
        for column, each in described["columns"].items():
            if each["stype"] not in ("categorical", "boolean", "numerical"):
                continue
            name = _slug(table, column)
            query = f"PREDICT {_name(table)}.{_name(column)} FOR EACH {_name(table)}.{_name(described['primary_key'])}"
            score, reason = _worth(profiles[table], column, each["stype"])
            task = {"anchor_table": table, "target_column": column, "target_stype": each["stype"]}
            others = [place for place in hidden if place[1] != column]
            if others:
                task["remove_columns"] = others
            if (table, column) in leaking and each["stype"] == "numerical":
                reason = f"{reason}; a value of the end of the data"
                score *= 0.5
            yield TaskDraft(name, query, task if score > 0 else None, score, reason)


def _worth(profile: TableProfile, column: str, stype: str) -> tuple[float, str]:
    """How informative a column is as a target."""
    found = profile.columns[column]
    if stype == "numerical" and set(words(column)) & CALENDAR_WORDS:
        return 0.0, "says a time again"
    if found.num_present < _FEWEST_LABELS:
        return 0.0, f"{found.num_present:,} values are too few"
    if found.num_distinct < 2:
        return 0.0, "the same in every row"
    size = min(1.0, found.num_present / 10_000) * 0.3
    if stype == "categorical":
        if found.num_distinct > _MOST_CLASSES or found.num_distinct > 0.2 * found.num_present:
            return 0.0, f"{found.num_distinct:,} classes are too many"
        return 0.25 + size, f"{found.num_distinct} classes, {found.num_present:,} values"
    return 0.25 + size, f"{found.num_present:,} values, {found.num_distinct:,} distinct"


def _questions(
    profiler: Profiler, profiles: Mapping[str, TableProfile], description: Description
) -> Iterator[tuple[str, str]]:
    """Churn, count and value of the rows that point to an entity."""
    for table, described in description.tables.items():
        if described["temporal_column"] is None:
            continue
        links = {c: each["foreign_key"] for c, each in described["columns"].items() if each.get("foreign_key")}
        for column, target in links.items():
            parent, _, key = target.partition(".")
            if parent == table:
                continue
            window = _window(profiler, table, column, described["temporal_column"])
            if window is None:
                continue
            via = f" VIA {_name(table)}.{_name(column)}" if list(links.values()).count(target) > 1 else ""
            rows, entity = f"{_name(table)}.*{via}", f"{_name(parent)}.{_name(key)}"
            active = f"WHERE COUNT({rows}, -{window}, 0, days) > 0"
            name = f"{_slug(parent, table, column if via else '')}-{window}d"
            yield f"{name}-none", f"PREDICT COUNT({rows}, 0, {window}, days) = 0 FOR EACH {entity} {active}"
            yield f"{name}-count", f"PREDICT COUNT({rows}, 0, {window}, days) FOR EACH {entity} {active}"
            for number in _amounts(profiles[table], described["columns"]):
                value = f"{_name(table)}.{_name(number)}{via}"
                question = f"PREDICT AVG({value}, 0, {window}, days) FOR EACH {entity} {active}"
                yield f"{name}-{_slug(number)}", question


def _window(profiler: Profiler, table: str, column: str, time: str) -> int | None:
    """Days after which half of the entities' next rows have come; None where rows do not repeat, or time is short."""
    moment = f"TRY_CAST({quoted(time)} AS TIMESTAMP)"
    gaps = (
        f"SELECT epoch({moment} - lag({moment}) OVER (PARTITION BY {quoted(column)} ORDER BY {moment})) AS gap"
        f" FROM {quoted(table)} WHERE {quoted(column)} IS NOT NULL AND {moment} IS NOT NULL"
    )
    gap, repeats = profiler.rows(f"SELECT quantile_cont(gap, 0.75), count(gap) FROM ({gaps}) WHERE gap > 0")[0]
    span = profiler.rows(f"SELECT epoch(max({moment}) - min({moment})) FROM {quoted(table)}")[0][0]
    if gap is None or repeats < _FEWEST_LABELS or not span:
        return None
    fitting = [window for window in WINDOWS if span >= _FEWEST_WINDOWS * window * 86_400]
    if not fitting:
        return None
    return next((window for window in fitting if window * 86_400 >= gap), fitting[-1])


def _amounts(profile: TableProfile, columns: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The number most worth an average, if there is one."""
    numbers = [
        name for name, each in columns.items() if each["stype"] == "numerical" and not set(words(name)) & CALENDAR_WORDS
    ]
    return sorted(numbers, key=lambda name: -profile.columns[name].num_distinct)[:1]


def _tried(name: str, query: str, description: Description, folder: Path) -> TaskDraft:
    """A question with what its labels were."""
    try:
        found = preview(compile_query(query, description), description, folder, limits=SqlLimits(seconds=60))
    except (TributaryError, ValueError) as error:
        return TaskDraft(name, query, None, 0.0, str(error).splitlines()[0])
    known = {split: part.num_rows for split, part in found.splits.items()}
    total = sum(known.values())
    if total < _FEWEST_LABELS or not all(known.values()):
        return TaskDraft(name, query, None, 0.0, f"{total:,} labels are too few, or a split has none")
    size = min(1.0, total / 10_000) * 0.4
    statistics = found.splits["train"].statistics
    if found.task["target_stype"] == "boolean":
        rate = statistics["base rate"]
        if not _RARE <= rate <= 1 - _RARE:
            return TaskDraft(name, query, None, 0.0, f"{rate:.1%} are true: too one-sided")
        return TaskDraft(
            name, query, found.task, 0.4 + size + 0.4 * min(rate, 1 - rate), f"{total:,} labels, {rate:.1%} true"
        )
    if statistics["10 %"] == statistics["90 %"]:
        return TaskDraft(name, query, None, 0.0, f"nine of ten labels are {statistics['median']:g}")
    low, middle, high = (statistics[name] for name in ("10 %", "median", "90 %"))
    reason = f"{total:,} labels, median {middle:g}, 10 to 90 %: {low:g} to {high:g}"
    return TaskDraft(name, query, found.task, 0.4 + size, reason)


def _slug(*parts: str) -> str:
    return "-".join(word for part in parts for word in words(part))


def _name(name: str) -> str:
    """A name as a predictive query writes it."""
    return name if re.fullmatch(r"[^\W\d]\w*", name) else '"' + name.replace('"', '""') + '"'
