"""What link tasks know: the lists of rows that their labels name, and what was named most as far as it is known.

A list is known to a seed under the rule of every label (`documentation/sampling.md`, "Visibility"): its window has
closed, and it is of no later split. Nothing here looks at the tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from tributary.batch import END_OF_TIME, Batch
from tributary.config import ConfigError, ModelConfig
from tributary.metrics import is_hit

Ints = NDArray[np.int64]
Kind = Literal["frequent", "recent"]

LITTLE_RECALL = 0.8
"""Share of what labels name that contexts should hold; below it training warns."""
MAX_PAST = 128
"""Lists of an entity that its past is taken from, the latest."""


class LinkDatabase(Protocol):
    """The part of `tributary.Database` that is read here."""

    @property
    def manifest(self) -> str:
        """The manifest as JSON."""

    def task_seeds(self, task: str) -> dict[str, NDArray[Any]]:
        """The seeds of a task."""

    def task_targets(self, task: str) -> tuple[Ints, Ints]:
        """Where the list of each seed lies, and all lists."""


@dataclass(frozen=True)
class LinkTask:
    """A link task with its labels.

    Attributes:
        name: of the task.
        anchor_table: table of the entities.
        table: table whose rows are named.
        num_rows: its rows.
        top_k: rows that an answer names.
        horizon_us: microseconds after a seed's time at which its list is known; None: never to other seeds.
        row: int64 [N], row of each seed's entity.
        time: int64 [N], microseconds; the largest int64 is the end of time.
        split: int8 [N], 0 train, 1 val, 2 test.
        indptr: int64 [N + 1], where each seed's list lies in `named`.
        named: int64 [M], rows of `table`, ascending within a list.
    """

    name: str
    anchor_table: str
    table: str
    num_rows: int
    top_k: int
    horizon_us: int | None
    row: Ints
    time: Ints
    split: NDArray[np.int8]
    indptr: Ints
    named: Ints

    @classmethod
    def load(cls, database: LinkDatabase, name: str) -> LinkTask:
        """Reads a task.

        Raises:
            ValueError: the database has no such task, or it is no link task.
        """
        manifest = json.loads(database.manifest)
        described = next((task for task in manifest["tasks"] if task["name"] == name), None)
        if described is None:
            raise ValueError(f"no task `{name}`; this database has {', '.join(t['name'] for t in manifest['tasks'])}")
        if not is_link(described):
            raise ValueError(f"task `{name}` predicts a {described['target_stype']} value, no links")
        seeds, (indptr, named) = database.task_seeds(name), database.task_targets(name)
        target = manifest["tables"][described["target_table"]]
        return cls(
            name=name,
            anchor_table=manifest["tables"][described["anchor_table"]]["name"],
            table=target["name"],
            num_rows=target["num_rows"],
            top_k=described["top_k"],
            horizon_us=described["horizon_us"],
            row=seeds["row"],
            time=seeds["time"],
            split=seeds["split"],
            indptr=indptr,
            named=named,
        )

    def list_of(self, seed: int) -> Ints:
        """The rows that a seed names."""
        return self.named[self.indptr[seed] : self.indptr[seed + 1]]

    @property
    def lengths(self) -> Ints:
        """int64 [N]: rows that each seed names."""
        return np.diff(self.indptr)


def is_link(task: Mapping[str, Any]) -> bool:
    """Whether a task of a manifest predicts links."""
    return bool(task["target_stype"] == "link")


def check_judges_rows(config: ModelConfig, task: dict[str, Any]) -> None:
    """Refuses a link task where the model cannot judge rows.

    Raises:
        ConfigError: it has no link head.
    """
    if is_link(task) and not config.link_head:
        raise ConfigError(
            f"task `{task['name']}` predicts rows of a table: that takes a model with `model.link_head: true` (kinds "
            "transformer, gnn and tree-lstm), trained on link tasks"
        )


class KnownLinks:
    """The lists of a task as of a moment.

    Args:
        task: the task.
        database_cutoff: microseconds; in the frozen regime lists that became known later do not exist.
    """

    def __init__(self, task: LinkTask, database_cutoff: int | None = None) -> None:
        self._task, self._cutoff = task, database_cutoff
        # seeds lie in the order of time, and the horizon is one for all: so do the moments their lists become known
        self._is_timed = task.time < END_OF_TIME
        self._by_row: dict[int, Ints] | None = None

    def popular(self, times: Ints, splits: Ints, number: int) -> Ints:
        """The rows named most: in the latest window that is over, and among equals in all before it.

        Args:
            times: int64 [N] moments of the seeds that ask.
            splits: int64 [N] their splits; lists of later ones do not exist to them.
            number: rows to name.

        Returns:
            int64 [N, number]; -1 behind the last row that was ever named.
        """
        found = np.full((len(times), number), -1, np.int64)
        for split in np.unique(splits):
            asked = np.flatnonzero(splits == split)
            seen = np.flatnonzero(self._task.split <= split)
            for at, rows in self._popular_of(seen, times[asked], number):
                found[asked[at], : len(rows)] = rows
        return found

    def _popular_of(self, seen: Ints, times: Ints, number: int) -> list[tuple[Ints, Ints]]:
        """(positions in `times`, rows named most) for each of the different moments."""
        task, answers = self._task, []
        timed = seen[self._is_timed[seen]]
        always = np.zeros(task.num_rows, np.int64)
        recent = np.zeros(task.num_rows, np.int64)
        first = last = 0
        for limit in np.unique(times):
            at = np.flatnonzero(times == limit)
            if limit == END_OF_TIME:
                # untimed seeds see untimed training labels alone
                untimed = seen[~self._is_timed[seen] & (task.split[seen] == 0)]
                answers.append((at, _most(self._count(untimed), np.zeros(task.num_rows, np.int64), number)))
                continue
            until = int(np.searchsorted(task.time[timed], self._known_until(int(limit)), side="right"))
            if until > last:
                more = self._count(timed[last:until])
                always, recent, last = always + more, recent + more, until
                window = task.time[timed[last - 1]] - max(task.horizon_us or 0, 1)
                start = int(np.searchsorted(task.time[timed], window, side="right"))
                start = min(max(start, first), last - 1)
                recent -= self._count(timed[first:start])
                first = start
            answers.append((at, _most(recent, always, number)))
        return answers

    def past(self, rows: Ints, times: Ints, splits: Ints, number: int, kind: Kind) -> Ints:
        """The rows that an entity's own known lists name: most often, or most recently, first.

        Args:
            rows: int64 [N] entities.
            times: int64 [N] moments of the seeds that ask.
            splits: int64 [N] their splits.
            number: rows to name.
            kind: `frequent` or `recent`; the other breaks ties.

        Returns:
            int64 [N, number]; -1 behind the last.
        """
        task = self._task
        if self._by_row is None:
            order = np.argsort(task.row, kind="stable")
            ends = np.flatnonzero(np.diff(task.row[order])) + 1
            groups = np.split(order, ends) if len(order) else []
            self._by_row = {int(task.row[group[0]]): group for group in groups}
        found = np.full((len(rows), number), -1, np.int64)
        for asked, (row, time, split) in enumerate(zip(rows, times, splits, strict=True)):
            own = self._by_row.get(int(row), np.zeros(0, np.int64))
            own = own[task.split[own] <= split]
            if time == END_OF_TIME:
                own = own[~self._is_timed[own] & (task.split[own] == 0)]
            else:
                own = own[: np.searchsorted(task.time[own], self._known_until(int(time)), side="right")]
            own = own[-MAX_PAST:]
            if len(own) == 0:
                continue
            named = np.concatenate([task.list_of(int(seed)) for seed in own])
            at = np.repeat(np.arange(len(own)), task.lengths[own])
            targets, inverse, counts = np.unique(named, return_inverse=True, return_counts=True)
            latest = np.zeros(len(targets), np.int64)
            np.maximum.at(latest, inverse, at)
            keys = (counts, latest) if kind == "frequent" else (latest, counts)
            best = np.lexsort((targets, -keys[1], -keys[0]))[:number]
            found[asked, : len(best)] = targets[best]
        return found

    def _known_until(self, limit: int) -> int:
        """The last seed time whose list is known at `limit`; with a horizon of 0, just before it."""
        if self._task.horizon_us is None:
            return int(np.iinfo(np.int64).min)
        limit = limit if self._cutoff is None else min(limit, self._cutoff)
        return limit - max(self._task.horizon_us, 1)

    def _count(self, seeds: Ints) -> Ints:
        """How many of the seeds name each row."""
        task = self._task
        lists = [task.named[task.indptr[seed] : task.indptr[seed + 1]] for seed in seeds]
        named = np.concatenate(lists) if lists else np.zeros(0, np.int64)
        return np.bincount(named, minlength=task.num_rows)


def _most(first: Ints, second: Ints, number: int) -> Ints:
    """The rows with the largest `first`, then `second`, then the least number; none where both are 0."""
    named = np.flatnonzero((first > 0) | (second > 0))
    return named[np.lexsort((named, -second[named], -first[named]))[:number]]


def filled(ranked: Ints, others: Ints, number: int) -> Ints:
    """Rankings completed from others, no row twice.

    Args:
        ranked: int64 [N, a], -1 behind the last.
        others: int64 [N, b], -1 behind the last.
        number: rows wanted.

    Returns:
        int64 [N, number], -1 behind the last.

    Example:
        >>> filled(np.array([[5, -1]]), np.array([[7, 5, 3]]), 3).tolist()
        [[5, 7, 3]]
    """
    found = np.full((len(ranked), number), -1, np.int64)
    for idx, (first, second) in enumerate(zip(ranked, others, strict=True)):
        rows = list(dict.fromkeys(int(row) for row in np.concatenate([first, second]) if row >= 0))[:number]
        found[idx, : len(rows)] = rows
    return found


def rank_candidates(log_odds: NDArray[np.float32], rows: Ints, number: int) -> tuple[Ints, NDArray[np.float64]]:
    """Candidates of each context by what the model says of them, the likeliest first.

    Args:
        log_odds: float32 [N, A].
        rows: int64 [N, A] row of the target table, -1 where no candidate.
        number: rows wanted.

    Returns:
        int64 [N, number], -1 behind the last; their float64 log-odds, NaN behind the last.
    """
    is_candidate = rows >= 0
    scores = np.where(is_candidate, log_odds.astype(np.float64), -np.inf)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :number]
    best, kept = np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
    missing = number - order.shape[1]
    best = np.pad(np.where(np.isfinite(best), best, np.nan), ((0, 0), (0, missing)), constant_values=np.nan)
    return np.pad(kept, ((0, 0), (0, missing)), constant_values=-1), best


class Ranker:
    """Answers of a link task: candidates by what the model says of them, then the rows named most.

    Args:
        database: an opened database.
        name: of the task.
        database_cutoff: microseconds; as in `KnownLinks`.
    """

    def __init__(self, database: LinkDatabase, name: str, database_cutoff: int | None = None) -> None:
        self.task = LinkTask.load(database, name)
        self.known = KnownLinks(self.task, database_cutoff)

    def rank(
        self, log_odds: NDArray[np.float32], batch: Batch, *, are_own: bool = False
    ) -> tuple[Ints, NDArray[np.float64]]:
        """The rows that each context of a batch is answered with.

        Args:
            log_odds: float32 [B, A] of the candidates.
            batch: host fields.
            are_own: the seeds are the caller's own, which see lists of every split.

        Returns:
            int64 [B, top_k], -1 behind the last; their float64 log-odds, NaN where the model gave none.
        """
        number = self.task.top_k
        width = log_odds.shape[1]
        rows, scores = rank_candidates(log_odds, batch.candidate_row[:, :width], number)
        seeds = np.maximum(batch.seed_index, 0)
        splits = np.full(len(seeds), 2) if are_own else self.task.split[seeds].astype(np.int64)
        others = self.known.popular(batch.seed_time, splits, 2 * number)
        return filled(rows, others, number), scores

    def hits(self, ranked: Ints, seeds: Ints) -> tuple[NDArray[np.bool_], Ints]:
        """Which of the ranked rows the lists of the seeds name, bool [N, k], and how many each names, int64 [N]."""
        return is_hit(ranked, [self.task.list_of(int(seed)) for seed in seeds]), self.task.lengths[seeds]


def recall_of_context(batches: Iterable[Batch], task: LinkTask) -> float:
    """Share of what the labels name that is among the candidates; NaN without a label.

    Args:
        batches: of one link task, host fields.
        task: it.
    """
    found = named = 0
    for batch in batches:
        is_known = ~batch.target_is_null & ~batch.seed_is_padding
        found += int(batch.row_is_target[is_known].sum())
        named += int(task.lengths[batch.seed_index[is_known]].sum())
    return found / named if named else float("nan")
