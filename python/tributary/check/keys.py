"""Keys of a described database: primary keys that repeat or are missing, foreign keys that name nobody."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tributary.check.finding import Finding
from tributary.infer.profile import Profiler, TableProfile, quoted

_SHOWN = 3
_MANY_ORPHANS = 0.2
_MOSTLY_NULL = 0.9


def check_keys(
    profiler: Profiler, profiles: dict[str, TableProfile], tables: dict[str, dict[str, Any]]
) -> Iterator[Finding]:
    """Null and doubled primary keys, orphans, empty foreign keys, keys of another type.

    Args:
        profiler: the tables.
        profiles: what they hold.
        tables: what they mean, as in a normalised description.
    """
    for name, table in tables.items():
        key = table["primary_key"]
        if key is not None:
            yield from _primary_key(profiler, profiles[name], key)
        for column, described in table["columns"].items():
            if described.get("foreign_key"):
                parent, _, parent_key = described["foreign_key"].partition(".")
                yield from _foreign_key(profiler, profiles, name, column, parent, parent_key)


def _primary_key(profiler: Profiler, profile: TableProfile, key: str) -> Iterator[Finding]:
    column = profile.columns[key]
    missing = column.num_rows - column.num_present
    if missing:
        message = f"{missing:,} of {column.num_rows:,} rows have no key"
        yield Finding("error", "null keys", str(column), message, "remove these rows, or name another primary key")
    values = f"SELECT {quoted(key)} AS k, count(*) AS n FROM {quoted(profile.name)} WHERE k IS NOT NULL GROUP BY 1"
    doubled = profiler.rows(f"SELECT count(*) FROM ({values}) WHERE n > 1")[0][0]
    if doubled:
        examples = profiler.rows(f"SELECT k, n FROM ({values}) WHERE n > 1 ORDER BY n DESC, k LIMIT {_SHOWN}")
        shown = ", ".join(f"{value!r} ({count} rows)" for value, count in examples)
        message = f"{doubled:,} keys stand in several rows: {shown}"
        fix = "remove the doubles, name another primary key, or none if no table points here"
        yield Finding("error", "duplicate keys", str(column), message, fix)


def _foreign_key(
    profiler: Profiler, profiles: dict[str, TableProfile], table: str, name: str, parent: str, parent_key: str
) -> Iterator[Finding]:
    column, target = profiles[table].columns[name], profiles[parent].columns[parent_key]
    if not column.num_present:
        message, fix = "null in every row: it links nothing", "leave it, or give it the stype `ignored`"
        yield Finding("note", "empty foreign key", str(column), message, fix)
        return
    if column.kind != target.kind:
        message = f"it holds {column.sql_type}, `{target}` holds {target.sql_type}: no value can agree"
        fix = "write both with one type, or correct the foreign key"
        yield Finding("error", "key types", str(column), message, fix)
        return
    keys = f"SELECT {quoted(parent_key)} FROM {quoted(parent)} WHERE {quoted(parent_key)} IS NOT NULL"
    lost = f"{quoted(name)} IS NOT NULL AND {quoted(name)} NOT IN ({keys})"
    orphans = profiler.rows(f"SELECT count(*) FROM {quoted(table)} WHERE {lost}")[0][0]
    if orphans:
        examples = profiler.rows(f"SELECT DISTINCT {quoted(name)} FROM {quoted(table)} WHERE {lost} ORDER BY 1 LIMIT 3")
        shown = ", ".join(repr(value) for (value,) in examples)
        share = orphans / column.num_present
        message = f"{orphans:,} of {column.num_present:,} values ({share:.1%}) name no row of `{parent}`, as {shown}"
        fix = f"add the missing rows of `{parent}`, or accept rows without a parent (--strict refuses them)"
        yield Finding("warning" if share >= _MANY_ORPHANS else "note", "orphans", str(column), message, fix)
    if column.num_present < (1 - _MOSTLY_NULL) * column.num_rows:
        message = f"null in {1 - column.num_present / column.num_rows:.1%} of the rows"
        yield Finding("note", "null foreign keys", str(column), message, "nothing, if most rows have no such parent")
