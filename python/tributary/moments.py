"""Times and durations as users write them, in microseconds."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np

UNITS_US = {
    "second": 1_000_000,
    "minute": 60_000_000,
    "hour": 3_600_000_000,
    "day": 86_400_000_000,
    "week": 604_800_000_000,
}
"""Microseconds of the units of durations."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def duration_us(value: str | int | timedelta) -> int:
    """A duration in microseconds.

    Args:
        value: `"90 days"`, `"12 hours"`, a timedelta, or microseconds as they are.

    Raises:
        ValueError: it is no duration, or below 0.

    Example:
        >>> duration_us("2 days")
        172800000000
    """
    if isinstance(value, timedelta):
        value = value // timedelta(microseconds=1)
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise ValueError(f"duration {value}: expected at least 0 microseconds")
        return value
    found = re.fullmatch(r"\s*(\d+)\s*([a-z]+?)s?\s*", str(value).lower())
    if found is None or found[2] not in UNITS_US:
        units = ", ".join(f"{unit}s" for unit in UNITS_US)
        raise ValueError(f'duration {value!r}: expected a whole number and a unit ({units}), such as "90 days"')
    return int(found[1]) * UNITS_US[found[2]]


def moment_us(value: Any) -> int:
    """A moment in microseconds since 1970-01-01 UTC.

    Args:
        value: an ISO 8601 text, a datetime or date (without a zone: UTC), a numpy datetime64, or microseconds.

    Raises:
        ValueError: it is no moment.

    Example:
        >>> moment_us("1970-01-02")
        86400000000
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise ValueError(f'moment {value!r}: expected ISO 8601, such as "2024-06-01 12:00"') from None
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=UTC)
        return (aware - EPOCH) // timedelta(microseconds=1)
    if isinstance(value, date):
        return (value - EPOCH.date()).days * UNITS_US["day"]
    if isinstance(value, np.datetime64) and not np.isnat(value):
        return int(value.astype("datetime64[us]").astype(np.int64))
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    raise ValueError(f"moment {value!r}: expected a time, found {type(value).__name__}")
