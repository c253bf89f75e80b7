"""When a query asks its question, and which moments are for training, validation and test."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

from tributary.moments import EPOCH, UNITS_US, duration_us, moment_us
from tributary.query.compile import Compiled, duration_text

MAX_MOMENTS = 500
"""Moments of a schedule that nobody chose; a question about an hour is then asked every so many hours."""

_HELD_OUT = 0.1
_FEWEST = 3


@dataclasses.dataclass(frozen=True)
class Schedule:
    """What the asker says of the moments; everything else follows from the times of the database."""

    val: str | None = None
    """First moment of validation, ISO 8601, UTC."""
    test: str | None = None
    """First moment of test."""
    every: str | None = None
    """Time between moments, as `"7 days"`."""
    num_eval_timestamps: int | None = None
    """Most moments of validation and of test."""
    moments: tuple[str, ...] = ()
    """Every moment, where they are no series; `val` and `test` say which are held out."""


def scheduled_task(compiled: Compiled, schedule: Schedule, first_us: int | None, last_us: int | None) -> dict[str, Any]:
    """The task of a query with its moments and its split.

    Without `val` and `test` the last tenth of the moments is test, the tenth before it validation; the last window
    ends with the last time.

    Args:
        compiled: a query.
        schedule: what the asker says.
        first_us: first time among the tables of the target, microseconds; None: there is none.
        last_us: the last one.

    Raises:
        ValueError: too few windows fit, or the times contradict each other.
    """
    if compiled.horizon_us is None:
        return _split_only(compiled, schedule)
    if first_us is None or last_us is None:
        raise ValueError(f"no row of {_listed(compiled.clocks)} has a time; there is no moment to ask at")
    if (schedule.val is None) != (schedule.test is None):
        raise ValueError("give both the first moment of validation and that of test, or neither")
    if schedule.moments and (schedule.val is None or schedule.every is not None):
        raise ValueError("a list of moments needs the first of validation and of test, and no time between moments")
    if schedule.val is not None and schedule.test is not None:
        return _from_split(compiled, schedule, schedule.val, schedule.test, first_us, last_us)
    window = compiled.horizon_us
    every = _every(schedule, window, last_us - first_us)
    end = last_us - window
    if every % UNITS_US["day"] == 0:
        end -= end % UNITS_US["day"]  # days are asked about at midnight
    num = (end - first_us) // every + 1
    if num < _FEWEST:
        raise ValueError(
            f"the times of {_listed(compiled.clocks)} go from {_iso(first_us)} to {_iso(last_us)}; a window of"
            f" {duration_text(window)} fits {max(num, 0)} times, and at least {_FEWEST} are needed (training,"
            " validation, test); ask about a shorter window, or more often (--every)"
        )
    start = end - (num - 1) * every
    held_out = max(1, round(_HELD_OUT * num))
    split = {"val": _iso(end - (2 * held_out - 1) * every), "test": _iso(end - (held_out - 1) * every)}
    moments = {"start": _iso(start), "end": _iso(end), "every": duration_text(every)}
    return compiled.task | {"timestamps": moments, "split": split}


def _split_only(compiled: Compiled, schedule: Schedule) -> dict[str, Any]:
    if schedule.every is not None or schedule.num_eval_timestamps is not None:
        raise ValueError("the query has no window, so it is asked once for each row; leave the moments out")
    if schedule.val is None and schedule.test is None:
        return compiled.task
    return compiled.task | {"split": {"val": schedule.val, "test": schedule.test}}


def _from_split(
    compiled: Compiled, schedule: Schedule, val: str, test: str, first_us: int, last_us: int
) -> dict[str, Any]:
    assert compiled.horizon_us is not None
    split = {"val": val, "test": test}
    if schedule.moments:
        return compiled.task | {"timestamps": list(schedule.moments), "split": split}
    if schedule.every is not None:
        every = duration_text(duration_us(schedule.every))
        moments = {"start": _iso(first_us), "end": _iso(last_us - compiled.horizon_us), "every": every}
        return compiled.task | {"timestamps": moments, "split": split}
    val_us, test_us = moment_us(val), moment_us(test)
    fitting = max((test_us - val_us) // compiled.horizon_us, (last_us - test_us) // compiled.horizon_us, 1)
    most = fitting if schedule.num_eval_timestamps is None else schedule.num_eval_timestamps
    return compiled.task | {"num_eval_timestamps": most, "split": split}


def _every(schedule: Schedule, window: int, span: int) -> int:
    if schedule.every is not None:
        every = duration_us(schedule.every)
        if every < 1:
            raise ValueError("the time between moments must be longer than 0")
        return every
    return window * max(1, -(-span // (window * MAX_MOMENTS)))


def _iso(moment: int) -> str:
    return (EPOCH + timedelta(microseconds=moment)).replace(tzinfo=None).isoformat(sep=" ")


def _listed(clocks: dict[str, str]) -> str:
    return ", ".join(f"`{table}.{column}`" for table, column in clocks.items()) or "the target"
