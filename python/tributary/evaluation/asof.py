"""As-of look-ups: what had happened to each of many groups by each of many moments, from arrays sorted once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

END_OF_TIME = int(np.iinfo(np.int64).max)
"""The time of what never happens, and of seeds that see everything."""
ALWAYS = int(np.iinfo(np.int64).min)
"""The time of what has always been there."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Events:
    """Events of groups, sorted by (group, time), for as-of lookups.

    Args:
        group: int64 [M], group of each event; events with a negative group are dropped.
        time: int64 [M], when each event becomes visible; those at the end of time never do.

    Example:
        >>> events = Events(np.array([0, 0, 1]), np.array([10, 20, 5]))
        >>> start, stop = events.until(np.array([0, 0, 1]), np.array([9, 10, 99]))
        >>> (stop - start).tolist()
        [0, 1, 1]
    """

    def __init__(self, group: Ints, time: Ints) -> None:
        kept = np.flatnonzero((group >= 0) & (time < END_OF_TIME))
        self.order = kept[np.lexsort((time[kept], group[kept]))]
        self.time = time[self.order]
        self.group = group[self.order]
        self._moments = np.unique(self.time)
        self._stride = len(self._moments) + 1
        ranks = np.searchsorted(self._moments, self.time)
        self._keys = self.group * self._stride + ranks

    def until(self, group: Ints, time: Ints) -> tuple[Ints, Ints]:
        """Positions [start, stop) of the events of `group` no later than `time`; none for a negative group."""
        start = np.searchsorted(self._keys, group * self._stride, side="left")
        return start, np.maximum(start, self.after(group, time))

    def after(self, group: Ints, time: Ints) -> Ints:
        """Position of the first event of `group` later than `time`."""
        rank = np.searchsorted(self._moments, np.minimum(time, END_OF_TIME - 1), side="right")
        return np.searchsorted(self._keys, group * self._stride + rank, side="left")


class Running:
    """Means, deviations and last values over ranges of a value per event, from prefix sums.

    Args:
        values: float64 [M] in the order of an `Events`; NaN is missing.
    """

    def __init__(self, values: Floats) -> None:
        valid = np.isfinite(values)
        self._values = values
        self._centre = float(values[valid].mean()) if valid.any() else 0.0
        centred = np.where(valid, values - self._centre, 0.0)
        self._count = np.concatenate([[0], np.cumsum(valid)])
        self._sum = np.concatenate([[0.0], np.cumsum(centred)])
        self._squares = np.concatenate([[0.0], np.cumsum(centred**2)])
        self._last = np.maximum.accumulate(np.where(valid, np.arange(len(values)), -1)) if len(values) else values

    def mean(self, start: Ints, stop: Ints) -> Floats:
        """Mean of the valid values of each range; NaN without any."""
        count = self._count[stop] - self._count[start]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean: Floats = (self._sum[stop] - self._sum[start]) / count + self._centre
        return mean

    def std(self, start: Ints, stop: Ints) -> Floats:
        """Population standard deviation of the valid values of each range; NaN with fewer than two."""
        count = self._count[stop] - self._count[start]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = (self._sum[stop] - self._sum[start]) / count
            variance = (self._squares[stop] - self._squares[start]) / count - mean**2
        return np.where(count >= 2, np.sqrt(np.maximum(variance, 0.0)), np.nan)

    def last(self, start: Ints, stop: Ints) -> Floats:
        """Last valid value of each range; NaN without any."""
        if len(self._values) == 0:
            return np.full(len(start), np.nan)
        position = self._last[np.maximum(stop - 1, 0)]
        found = (stop > start) & (position >= start)
        return np.where(found, self._values[np.maximum(position, 0)], np.nan)


class Distinct:
    """How many different values the events of ranges have, where every range begins with its group.

    Args:
        events: the sorted events.
        value: int64 [M], a value per event, in the order that `events` was given.
    """

    def __init__(self, events: Events, value: Ints) -> None:
        ordered, group = value[events.order], events.group
        by_pair = np.lexsort((ordered, group))  # stable: the earliest event of a pair stays its first
        pairs = np.stack([group[by_pair], ordered[by_pair]])
        is_first = np.ones(len(group), np.int64)
        is_first[by_pair[1:]] = (pairs[:, 1:] != pairs[:, :-1]).any(axis=0)
        self._count = np.concatenate([[0], np.cumsum(is_first)])

    def number(self, start: Ints, stop: Ints) -> Ints:
        """Different values in each range [start, stop) from `Events.until`."""
        number: Ints = self._count[stop] - self._count[start]
        return number
