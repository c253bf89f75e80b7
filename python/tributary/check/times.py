"""Times of a described database: event tables without one, moments that are missing, to come, or placeholders."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from tributary.check.finding import Finding
from tributary.infer.profile import Profiler, TableProfile, quoted

_PLACEHOLDERS = ("0001-01-01", "1900-01-01", "1970-01-01", "2099-12-31", "2999-12-31", "9999-12-31")
_FEWEST = 20
_MANY_NULLS = 0.05


def check_times(
    profiler: Profiler,
    profiles: dict[str, TableProfile],
    tables: dict[str, dict[str, Any]],
    now: datetime | None = None,
) -> Iterator[Finding]:
    """Undated event tables, null times, future dates, placeholder dates.

    Args:
        profiler: the tables.
        profiles: what they hold.
        tables: what they mean, as in a normalised description.
        now: later times are to come; None: this moment.
    """
    now = now or datetime.now(UTC)
    for name, table in tables.items():
        own = table["temporal_column"]
        if own is None:
            yield from _undated(name, table)
        elif not table.get("null_time_visible"):
            yield from _null_times(profiles[name], own)
        for column, described in table["columns"].items():
            if described["stype"] == "timestamp" and profiles[name].columns[column].num_present:
                yield from _odd_moments(profiler, name, column, is_own=column == own, now=now)


def _undated(name: str, table: dict[str, Any]) -> Iterator[Finding]:
    links = [c for c, each in table["columns"].items() if each.get("foreign_key")]
    times = [c for c, each in table["columns"].items() if each["stype"] == "timestamp"]
    if links and times:
        message = f"its rows point to others and hold times ({', '.join(times)}), but none is its temporal column"
        fix = "name the time at which a row came into being as `temporal_column`; without it the past sees them"
        yield Finding("warning", "undated events", name, message, fix)


def _null_times(profile: TableProfile, own: str) -> Iterator[Finding]:
    column = profile.columns[own]
    missing = column.num_rows - column.num_present
    if missing:
        share = missing / column.num_rows
        message = f"{missing:,} rows ({share:.1%}) have no time and are visible to nobody"
        fix = 'fill it in, or set `"null_time_visible": true` where such rows were always there'
        yield Finding("warning" if share > _MANY_NULLS else "note", "null times", str(column), message, fix)


def _odd_moments(profiler: Profiler, table: str, column: str, *, is_own: bool, now: datetime) -> Iterator[Finding]:
    moment = f"TRY_CAST({quoted(column)} AS TIMESTAMP)"
    placeholders = ", ".join(f"DATE '{day}'" for day in _PLACEHOLDERS)
    later, last, unreal = profiler.rows(
        f"SELECT count(*) FILTER ({moment} > TIMESTAMP '{now:%Y-%m-%d %H:%M:%S}'), max({moment}),"
        f" count(*) FILTER ({moment}::DATE IN ({placeholders})) FROM {quoted(table)}"
    )[0]
    if later and is_own:
        message = f"{later:,} rows lie in the future, up to {last}"
        fix = "check the column: a time that is planned is not when the row came into being"
        yield Finding("warning", "future dates", f"{table}.{column}", message, fix)
    if unreal >= _FEWEST:
        message = f"{unreal:,} values are a day that stands for none ({', '.join(_PLACEHOLDERS[:3])}, ...)"
        yield Finding("warning", "placeholder dates", f"{table}.{column}", message, "write them as null")
