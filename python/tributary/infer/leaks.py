"""Columns that may know the future: written after the row came into being, or counted from rows that came later."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tributary.infer.profile import Profiler, quoted
from tributary.infer.words import LATER_WORDS, words

_MOSTLY = 0.9
_LATER_THAN_ROW = 0.5
_NEWEST = 0.02
_EMPTIER = 0.3
_FEWEST_ROWS = 200
_FEWEST_COUNTED = 20


@dataclasses.dataclass(frozen=True)
class Suspect:
    """A column that may hold what was known only later."""

    table: str
    column: str
    reason: str

    def __str__(self) -> str:
        return f"{self.table}.{self.column}: {self.reason}"


def leak_suspects(profiler: Profiler, tables: Mapping[str, Mapping[str, Any]]) -> list[Suspect]:
    """Suspicious columns of a described database.

    Args:
        profiler: the tables.
        tables: their description, as in `metadata.json`.
    """
    found: dict[tuple[str, str], Suspect] = {}
    for suspects in (_written_later(profiler, tables), _filled_later(profiler, tables), _counted(profiler, tables)):
        for suspect in suspects:
            found.setdefault((suspect.table, suspect.column), suspect)
    return sorted(found.values(), key=lambda suspect: (list(tables).index(suspect.table), suspect.column))


def _written_later(profiler: Profiler, tables: Mapping[str, Mapping[str, Any]]) -> list[Suspect]:
    """Times later than the row's own, and texts and numbers of times that are named so."""
    found = []
    for name, table in tables.items():
        own = table.get("temporal_column")
        others = [c for c, each in table["columns"].items() if each["stype"] == "timestamp" and c != own]
        if own is None or not others:
            continue
        parts = [
            f"count(*) FILTER ({_time(other)} > {_time(own)}) / greatest(count({_time(other)}), 1)" for other in others
        ]
        shares = profiler.rows(f"SELECT {', '.join(parts)} FROM {quoted(name)}")[0]
        for other, share in zip(others, shares, strict=True):
            is_named = bool(set(words(other)) & set(LATER_WORDS))
            if share > _LATER_THAN_ROW or (is_named and share > 0):
                reason = f"later than `{own}` in {share:.0%} of the rows: known only then"
                found.append(Suspect(name, other, reason))
    return found


def _filled_later(profiler: Profiler, tables: Mapping[str, Mapping[str, Any]]) -> list[Suspect]:
    """Columns that are empty in the newest rows much more often than before."""
    found = []
    for name, table in tables.items():
        own = table.get("temporal_column")
        values = [
            c for c, each in table["columns"].items() if each["stype"] not in ("identifier", "ignored") and c != own
        ]
        if own is None or not values:
            continue
        since = f"(SELECT quantile_cont({_time(own)}, {1 - _NEWEST}) FROM {quoted(name)})"
        is_new = f"{_time(own)} > {since}"
        parts = [f"count(*) FILTER ({is_new})", f"count(*) FILTER (NOT ({is_new}))"]
        for column in values:
            for rows in (is_new, f"NOT ({is_new})"):
                parts.append(f"count(*) FILTER (({rows}) AND {quoted(column)} IS NULL)")
        new, old, *nulls = profiler.rows(f"SELECT {', '.join(parts)} FROM {quoted(name)}")[0]
        if old < _FEWEST_ROWS or not new:
            continue
        for idx, column in enumerate(values):
            empty_new, empty_old = nulls[2 * idx] / new, nulls[2 * idx + 1] / old
            if empty_new - empty_old > _EMPTIER:
                reason = (
                    f"empty in {empty_new:.0%} of the newest rows, in {empty_old:.0%} of the older: filled in later"
                )
                found.append(Suspect(name, column, reason))
    return found


def _counted(profiler: Profiler, tables: Mapping[str, Mapping[str, Any]]) -> list[Suspect]:
    """Numbers that are how many rows point to the row, today."""
    found = []
    for child, table in tables.items():
        for column, described in table["columns"].items():
            if not described.get("foreign_key") or table.get("temporal_column") is None:
                continue
            parent, _, key = described["foreign_key"].partition(".")
            numbers = [c for c, each in tables[parent]["columns"].items() if each["stype"] == "numerical"]
            if parent == child or not numbers:
                continue
            counts = f"SELECT {quoted(column)} AS k, count(*) AS n FROM {quoted(child)} GROUP BY 1"
            parts = [
                f"count(*) FILTER (coalesce(p.{quoted(number)}, 0) = coalesce(c.n, 0))"
                f" / greatest(count(*) FILTER (coalesce(c.n, 0) > 0 OR coalesce(p.{quoted(number)}, 0) <> 0), 1)"
                for number in numbers
            ]
            condition = " OR ".join(f"coalesce(p.{quoted(number)}, 0) <> 0" for number in numbers)
            source = f"{quoted(parent)} p LEFT JOIN ({counts}) c ON c.k = p.{quoted(key)}"
            total, *shares = profiler.rows(
                f"SELECT count(*), {', '.join(parts)} FROM {source} WHERE coalesce(c.n, 0) > 0 AND ({condition})"
            )[0]
            for number, share in zip(numbers, shares, strict=True):
                if total >= _FEWEST_COUNTED and share >= _MOSTLY:
                    found.append(
                        Suspect(parent, number, f"equals the count of `{child}` rows in {share:.0%}: a total of today")
                    )
    return found


def _time(column: str) -> str:
    return f"TRY_CAST({quoted(column)} AS TIMESTAMP)"
