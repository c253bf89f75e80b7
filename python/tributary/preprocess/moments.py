"""When the query of a task asks its question: the moments of the relation `timestamps`, round by round.

Where a task says `timedelta` and `split` and nothing else, the moments are those RelBench asks at. With the window
w = timedelta, the first and last time of the database, and n = num_eval_timestamps:

    train   val - w, val - 2w, ... as long as they are not before the first time
    val     val, val + w, ... n of them at most, whose window ends by `test`
    test    test, test + w, ... n of them at most, whose window ends by the last time

Source: RelBench (arXiv:2407.20060) and its package, `BaseTask`. Labels of train and val are made from the rows up to
`test`, so that nothing of the test period can get into them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from tributary.errors import SchemaError
from tributary.metadata import TaskDescription
from tributary.moments import EPOCH, UNITS_US, moment_us

_MAX_MOMENTS = 10_000_000
_DURATION = re.compile(r"(\d+) (second|minute|hour|day|week)s(?: (\d+):(\d+):(\d+)(?:\.(\d{6}))?)?")


@dataclass(frozen=True)
class Round:
    """One run of a query."""

    moments: Sequence[int]
    """Microseconds since 1970, UTC; a `range` is a series."""

    split: str | None = None
    """The split of its labels; None: they are split like those of any other query."""

    until_us: int | None = None
    """Rows of later times are hidden from it; None hides none."""


def duration_us(text: str) -> int:
    """A duration of a normalised description in microseconds."""
    if text == "0":
        return 0
    found = _DURATION.fullmatch(text)
    assert found is not None, f"the native module wrote the duration {text!r}"
    number, unit, hours, minutes, seconds, micros = found.groups(default="0")
    clock = (int(hours) * 60 + int(minutes)) * 60 + int(seconds)
    return int(number) * UNITS_US[unit] + clock * 1_000_000 + int(micros)


def interval_text(window_us: int) -> str:
    """A duration as RelBench writes it into a query, for `INTERVAL '...'`."""
    days, rest = divmod(window_us, UNITS_US["day"])
    seconds, micros = divmod(rest, 1_000_000)
    clock = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{days} days {clock}" + (f".{micros:06}" if micros else "")


def rounds(task: TaskDescription, first_us: int | None, last_us: int | None) -> list[Round]:
    """The runs of a task's query.

    Args:
        task: A task that says when it asks.
        first_us: The first time of the database, microseconds; None: no row has one.
        last_us: The last one.

    Returns:
        One round per split where the task has split times, else one.

    Raises:
        SchemaError: There are no moments, or far too many.
    """
    split = task.split
    if task.timestamps is None:
        assert split is not None
        return _relbench_rounds(task, first_us, last_us)
    moments = _listed(task, first_us, last_us)
    if split is None:
        return [Round(moments)]
    val_us, test_us = moment_us(split["val"]), moment_us(split["test"])
    parts = {
        "train": ([t for t in moments if t < val_us], test_us),
        "val": ([t for t in moments if val_us <= t < test_us], test_us),
        "test": ([t for t in moments if t >= test_us], None),
    }
    return [Round(part, name, until) for name, (part, until) in parts.items() if part]


def _relbench_rounds(task: TaskDescription, first_us: int | None, last_us: int | None) -> list[Round]:
    assert task.split is not None
    assert task.timedelta is not None
    first_us, last_us = _known(task, "first", first_us), _known(task, "last", last_us)
    window = duration_us(task.timedelta)
    val_us, test_us = moment_us(task.split["val"]), moment_us(task.split["test"])
    most = task.num_eval_timestamps or 1
    if window > test_us - val_us:
        raise SchemaError(
            f"task `{task.name}`: `timedelta` ({task.timedelta}) is longer than the time from `val` to `test`;"
            " shorten it or move them apart"
        )
    for name, start in (("val", val_us), ("test", test_us)):
        if start + window > last_us:
            raise SchemaError(
                f"task `{task.name}`: the window of its first {name} moment, {task.timedelta} from"
                f" {task.split[name]}, ends after the last time of the database ({_text(last_us)}); labels would be"
                f" cut short; choose an earlier `split.{name}` or a shorter `timedelta`"
            )
    num_train = max(0, (val_us - window - first_us) // window + 1)
    found = [
        Round(_series(task, val_us - num_train * window, window, num_train), "train", test_us),
        Round(_series(task, val_us, window, min(most, (test_us - val_us) // window)), "val", test_us),
        Round(_series(task, test_us, window, min(most, (last_us - test_us) // window)), "test"),
    ]
    if not num_train:
        raise SchemaError(
            f"task `{task.name}`: no window of {task.timedelta} lies between the first time of the database"
            f" ({_text(first_us)}) and `split.val`; there would be no training labels"
        )
    return found


def _listed(task: TaskDescription, first_us: int | None, last_us: int | None) -> Sequence[int]:
    """The moments a task names itself."""
    timestamps = task.timestamps
    if isinstance(timestamps, list):
        return [moment_us(text) for text in timestamps]
    assert timestamps is not None
    start, end, step = timestamps["start"], timestamps["end"], timestamps["every"]
    assert step is not None
    every = duration_us(step)
    start_us = _known(task, "first", first_us) if start is None else moment_us(start)
    window = 0 if task.timedelta is None else duration_us(task.timedelta)
    end_us = _known(task, "last", last_us) - window if end is None else moment_us(end)
    if end_us < start_us:
        raise SchemaError(
            f"task `{task.name}`, `timestamps`: from {_text(start_us)} to {_text(end_us)} there is no moment;"
            " name an earlier `start` or a later `end`"
        )
    return _series(task, start_us, every, (end_us - start_us) // every + 1)


def _series(task: TaskDescription, start: int, step: int, count: int) -> range:
    if count > _MAX_MOMENTS:
        raise SchemaError(
            f"task `{task.name}`: {count:,} moments, more than {_MAX_MOMENTS:,}; ask less often (`timedelta`,"
            " `timestamps.every`) or over a shorter time"
        )
    return range(start, start + count * step, step)


def _known(task: TaskDescription, which: str, value: int | None) -> int:
    if value is None:
        raise SchemaError(
            f"task `{task.name}`: its moments depend on the {which} time of the database, but no row has a time;"
            " name a `temporal_column`, or list the `timestamps`"
        )
    return value


def _text(moment_us: int) -> str:
    try:
        text = str((EPOCH + timedelta(microseconds=moment_us)).replace(tzinfo=None))
    except OverflowError:
        return f"{moment_us} microseconds from 1970 on"
    return text.removesuffix(" 00:00:00")
