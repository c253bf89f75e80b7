"""Rankings a model of a link task has to beat: what everybody names, and what the entity itself named before.

Both know the lists of the task's own labels, under the rule of `tributary.links`; in the frozen regime those that were
known by the cut-off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tributary.links import Ints, Kind, KnownLinks, LinkDatabase, LinkTask, filled
from tributary.metrics import is_hit, map_at_k

VAL, TRAIN = 1, 0
KINDS: tuple[Kind, ...] = ("frequent", "recent")


@dataclass(frozen=True)
class Ranking:
    """A baseline of a link task.

    Attributes:
        name: popular or entity.
        description: what exactly it names, in words.
        predict: positions among the task's seeds (int64 [n]) to rows, int64 [n, k], -1 behind the last.
        details: figures about it, for reports.
    """

    name: str
    description: str
    predict: Callable[[Ints], Ints]
    details: dict[str, Any] = field(default_factory=dict)


def popular(database: LinkDatabase, task: str, *, database_cutoff: int | None = None) -> Ranking:
    """The rows that were named most in the latest window that is over, for everybody the same."""
    loaded = LinkTask.load(database, task)
    known = KnownLinks(loaded, database_cutoff)

    def predict(seeds: Ints) -> Ints:
        return known.popular(loaded.time[seeds], loaded.split[seeds].astype(np.int64), loaded.top_k)

    words = f"the rows of {loaded.table} named most in the latest window that is over, then in all before it"
    return Ranking("popular", words, predict)


def entity(
    database: LinkDatabase, task: str, *, database_cutoff: int | None = None, kind: Kind | None = None
) -> Ranking:
    """The rows that the entity's own known lists name, completed by `popular`.

    Args:
        database: a processed database.
        task: name of the task.
        database_cutoff: microseconds; in the frozen regime lists that became known later do not exist.
        kind: whether the most frequent or the most recent come first; None: what has the larger MAP on validation.
    """
    loaded = LinkTask.load(database, task)
    known = KnownLinks(loaded, database_cutoff)

    def rank(seeds: Ints, kind: Kind) -> Ints:
        times, splits = loaded.time[seeds], loaded.split[seeds].astype(np.int64)
        own = known.past(loaded.row[seeds], times, splits, loaded.top_k, kind)
        return filled(own, known.popular(times, splits, 2 * loaded.top_k), loaded.top_k)

    found: dict[Kind, float] = {}
    if kind is None:
        judged = np.flatnonzero(loaded.split == (VAL if (loaded.split == VAL).any() else TRAIN))
        lists = [loaded.list_of(int(seed)) for seed in judged]
        found = {each: map_at_k(is_hit(rank(judged, each), lists), loaded.lengths[judged]) or 0.0 for each in KINDS}
    chosen: Kind = kind or max(found.items(), key=lambda each: each[1])[0]
    words = f"what the entity named before, the most {chosen} first, then what everybody named"
    return Ranking("entity", words, lambda seeds: rank(seeds, chosen), {"kind": chosen})


RANKINGS: dict[str, Callable[..., Ranking]] = {"popular": popular, "entity": entity}
