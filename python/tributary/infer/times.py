"""Temporal columns: the time at which a row came into being, not at which it was changed or ended.

Evidence is the name, being present, being the earliest of the row's times, and not being later than the rows that
point to it.
"""

from __future__ import annotations

from collections.abc import Mapping

from tributary.infer.profile import ColumnProfile, Profiler, TableProfile, quoted
from tributary.infer.proposal import Candidate, Proposal, choose
from tributary.infer.words import BIRTH_WORDS, CREATION_WORDS, LATER_WORDS, table_words, words

_LEAST = 0.3
_MOST_LATE = 0.5
"""Share of children that came before their parent at which the parent's time is no creation time."""

_SLACK_DAYS = 7
"""A race is on Sunday, its qualifying on Saturday."""


def temporal_columns(
    profiler: Profiler, tables: Mapping[str, TableProfile], links: Mapping[tuple[str, str], tuple[str, str]]
) -> dict[str, Proposal[str]]:
    """A proposal per table; its values are names of columns.

    Args:
        profiler: the tables.
        tables: their profiles.
        links: (table, column) -> (parent table, primary key) of every foreign key.
    """
    found = {}
    for name, table in tables.items():
        columns = [column for column in table.columns.values() if column.is_time and column.num_present]
        earliest = _share_earliest(profiler, table, columns)
        candidates = [_candidate(column, table, earliest.get(column.name, 1.0)) for column in columns]
        found[name] = choose(candidates, least=_LEAST, margin=0.1, what=f"temporal column of `{name}`")
    return _without_late_parents(profiler, found, links)


def _candidate(column: ColumnProfile, table: TableProfile, earliest: float) -> Candidate[str]:
    name = set(words(column.name))
    creation = max((CREATION_WORDS.get(word, 0.0) for word in name), default=0.0)
    later = max((LATER_WORDS.get(word, 0.0) for word in name), default=0.0)
    present = column.num_present / column.num_rows
    if column.num_rows == 1:
        return Candidate(column.name, 0.0, "a single row has no history")
    if name & BIRTH_WORDS:
        return Candidate(column.name, 0.1, "a birth is a fact about a person, not when the row came")
    if column.num_distinct == 1 and column.num_rows > 1:
        return Candidate(column.name, 0.05, "the same in every row")
    own = 0.15 if name & set(table_words(table.name)) else 0.0
    fine = 0.03 if name & {"datetime", "timestamp"} or column.sql_type.startswith("TIMESTAMP") else 0.0
    fine += 0.02 if name & {"datetime", "timestamp"} else 0.0
    score = (0.35 + fine + 0.35 * creation + own + 0.2 * (earliest - 0.5) - 0.6 * later) * present
    reasons = [f"present in {present:.0%}", f"the earliest time of {earliest:.0%} of the rows"]
    if later > creation:
        reasons.append("named like a later time")
    elif creation:
        reasons.append("named like a creation time")
    return Candidate(column.name, max(0.0, min(1.0, score)), ", ".join(reasons))


def _share_earliest(profiler: Profiler, table: TableProfile, columns: list[ColumnProfile]) -> dict[str, float]:
    """Of the rows that have a time, how many have none earlier than this column's."""
    if len(columns) < 2:
        return {}
    times = {column.name: f"{_time(column)}::DATE" for column in columns}
    least = f"least({', '.join(times.values())})"
    parts = [f"count(*) FILTER ({time} <= {least}) / greatest(count({time}), 1)" for time in times.values()]
    shares = profiler.rows(f"SELECT {', '.join(parts)} FROM {quoted(table.name)}")[0]
    return dict(zip(times, shares, strict=True))


def _time(column: ColumnProfile, alias: str = "") -> str:
    return f"TRY_CAST({alias}{quoted(column.name)} AS TIMESTAMP)"


def _without_late_parents(
    profiler: Profiler,
    found: dict[str, Proposal[str]],
    links: Mapping[tuple[str, str], tuple[str, str]],
) -> dict[str, Proposal[str]]:
    """Takes a time away from tables whose rows are mostly later than the rows that point to them."""
    checked = dict(found)
    for (table, column), (parent, key) in links.items():
        child, mother = checked[table].chosen, checked[parent].chosen
        if child is None or mother is None or table == parent:
            continue
        came = f"TRY_CAST(c.{quoted(child.value)} AS TIMESTAMP)"
        was = f"TRY_CAST(p.{quoted(mother.value)} AS TIMESTAMP)"
        joined = f"{quoted(table)} c JOIN {quoted(parent)} p ON p.{quoted(key)} = c.{quoted(column)}"
        late, total = profiler.rows(
            f"SELECT count(*) FILTER ({came} < {was} - INTERVAL {_SLACK_DAYS} DAY),"
            f" count(*) FILTER ({came} IS NOT NULL AND {was} IS NOT NULL) FROM {joined}"
        )[0]
        if total and late / total > _MOST_LATE:
            reason = f"{late / total:.0%} of the rows of `{table}` that point to it are over {_SLACK_DAYS} days earlier"
            rejected = Candidate(mother.value, 0.0, reason)
            checked[parent] = Proposal(None, (rejected, *checked[parent].rejected), None)
    return checked
