"""Columns that are unlike their stype, and tables that no link reaches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tributary.check.finding import Finding
from tributary.infer.profile import ColumnProfile, TableProfile

_MANY_CLASSES = 0.5
_FEW_TEXTS = 20
_FEWEST = 50


def check_columns(profiles: dict[str, TableProfile], tables: dict[str, dict[str, Any]]) -> Iterator[Finding]:
    """Columns whose values do not fit what they are said to be.

    Args:
        profiles: what the tables hold.
        tables: what they mean, as in a normalised description.
    """
    for name, table in tables.items():
        for column, described in table["columns"].items():
            found = profiles[name].columns[column]
            if described["stype"] != "ignored" and not described.get("foreign_key") and found.num_rows:
                yield from _unlike(found, described["stype"])
        left_out = [column for column in profiles[name].columns if column not in table["columns"]]
        if left_out:
            message = f"the description does not list {', '.join(left_out)}"
            yield Finding("note", "unlisted columns", name, message, "list them, or leave them out")


def _unlike(column: ColumnProfile, stype: str) -> Iterator[Finding]:
    place, present, distinct = str(column), column.num_present, column.num_distinct
    if not present:
        yield Finding("note", "empty column", place, "null in every row", 'give it the stype "ignored"')
    elif distinct == 1 and column.num_rows > 1 and stype != "identifier":
        yield Finding("note", "constant column", place, "the same in every row", 'give it the stype "ignored"')
    elif stype == "numerical" and column.kind == "text":
        yield Finding("error", "stype", place, "numerical, but it holds texts", "write numbers, or call it categorical")
    elif stype == "timestamp" and not column.is_time:
        share = 1 - column.share_times
        message = f"timestamp, but {share:.1%} of its values are no ISO 8601 times"
        yield Finding("error", "stype", place, message, "write timestamps, or choose another stype")
    elif stype == "boolean" and column.kind == "integer" and (column.least < 0 or column.most > 1):
        message = f"boolean, but it goes from {column.least} to {column.most}"
        yield Finding("error", "stype", place, message, "choose numerical or categorical")
    elif stype == "categorical" and present >= _FEWEST and distinct > _MANY_CLASSES * present:
        message = f"categorical, but {distinct:,} of {present:,} values are distinct"
        yield Finding("warning", "stype", place, message, "text says more of such values; ignored, if they say nothing")
    elif stype == "text" and present >= _FEWEST and distinct <= _FEW_TEXTS:
        message = f"text, but it has {distinct} values"
        yield Finding("note", "stype", place, message, "categorical tells them apart by column")
    elif stype == "numerical" and column.kind == "integer" and distinct == 2 and {column.least, column.most} == {0, 1}:
        yield Finding("note", "stype", place, "numerical, but it is 0 or 1", "boolean")


def check_reach(tables: dict[str, dict[str, Any]], anchors: dict[str, str]) -> Iterator[Finding]:
    """Tables that no chain of foreign keys joins to the entity of a task, or to any table.

    Args:
        tables: their description.
        anchors: task -> its anchor table.
    """
    beside: dict[str, set[str]] = {name: set() for name in tables}
    for name, table in tables.items():
        for described in table["columns"].values():
            if described.get("foreign_key"):
                parent = described["foreign_key"].partition(".")[0]
                beside[name].add(parent)
                beside[parent].add(name)
    fix = "give it a foreign key, or leave it out"
    for name in tables:
        if not beside[name] and len(tables) > 1:
            yield Finding("warning", "unreachable", name, "no foreign key leads to it or away from it", fix)
    for task, anchor in anchors.items():
        reached, waiting = {anchor}, [anchor]
        while waiting:
            for other in beside[waiting.pop()] - reached:
                reached.add(other)
                waiting.append(other)
        lost = [name for name in tables if name not in reached and beside[name]]
        if lost:
            message = f"contexts of `{anchor}` never reach {', '.join(lost)}"
            yield Finding("note", "unreachable", f"task {task}", message, fix)
