"""Features of an entity as it was known at a moment, for tabular baselines.

Everything is computed for all seeds at once from a processed database: the entity's own cells, the cells of its
parents, and summaries of its history (child rows, past labels, what lies one link behind them) by as-of look-ups in
sorted arrays. Nothing later than a seed's time is ever read: the rule of visibility is the one of
`documentation/sampling.md`, a row reached through another one is visible when both are, and a label counts as history
only when its window has closed.

Memory: the features are float32 [seeds, at most MAX_FEATURES]; beside them one history is held at a time, about 100
bytes for each row of its table, and columns that were read, up to MAX_COLUMN_BYTES.

What is made of the features is the business of `baselines`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tributary.evaluation.asof import ALWAYS, END_OF_TIME, Distinct, Events, Floats, Ints, Running

DAY_US = 86_400_000_000
WINDOW_DAYS = (365, 90, 30, 7, 1)
MAX_CATEGORIES = 100
MAX_SHARES = 4
MAX_FEATURES = 600
"""Columns of a matrix, the nearest to the entity first: 120 MB for the 50,000 seeds that a baseline is fitted on."""
MAX_COLUMN_BYTES = 1 << 30
"""Columns of the database kept in memory, as they are needed more than once."""


class DatabaseLike(Protocol):
    """The part of `tributary.Database` that features and baselines read."""

    @property
    def manifest(self) -> str:
        """The manifest as JSON."""

    def column(self, table: str, column: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Values of a column and where they are valid."""

    def row_times(self, table: str) -> Ints:
        """Time of each row in microseconds."""

    def parents(self, foreign_key_id: int) -> Ints:
        """Parent row of each child row, -1 without one."""

    def task_seeds(self, task: str) -> dict[str, NDArray[Any]]:
        """The seeds of a task with their labels."""

    def vocab(self, ids: Sequence[int]) -> list[str]:
        """Texts of vocabulary ids."""


@dataclass(frozen=True)
class Task:
    """A task of the manifest, with its labels in the user's units.

    Attributes:
        horizon_us: microseconds after a seed's time at which its label is known; None: never known to other seeds.
        hidden: (table, column) pairs that no feature may read.
        row: int64 [N], row of each seed in the anchor table.
        time: int64 [N], seed times in microseconds; the largest int64 is the end of time.
        split: int8 [N], 0 train, 1 val, 2 test.
        label: float64 [N], NaN where none is known; categorical targets: the vocabulary id.
    """

    name: str
    kind: str
    anchor_table: str
    target_column: str
    target_stype: str
    horizon_us: int | None
    hidden: frozenset[tuple[str, str]]
    row: Ints
    time: Ints
    split: NDArray[np.int8]
    label: Floats

    @classmethod
    def load(cls, database: DatabaseLike, name: str) -> Task:
        """Read a task and its seeds.

        Raises:
            ValueError: the database has no such task.
        """
        manifest = json.loads(database.manifest)
        tasks = manifest["tasks"]
        described = next((task for task in tasks if task["name"] == name), None)
        if described is None:
            raise ValueError(f"no task `{name}`; this database has {', '.join(t['name'] for t in tasks) or 'none'}")
        seeds = database.task_seeds(name)
        if described["target_stype"] in ("categorical", "text"):
            label = seeds["vocab"].astype(np.float64)
        else:
            label = seeds["value"].astype(np.float64)
            if described["target_stype"] == "numerical":
                statistics = described["statistics"]
                label = label * statistics["std"] + statistics["mean"]
        label = np.where(seeds["is_null"], np.nan, label)
        anchor, removed = manifest["tables"][described["anchor_table"]]["name"], set(described["remove_columns"])
        hidden = {(t["name"], c["name"]) for t in manifest["tables"] for c in t["columns"] if c["id"] in removed}
        horizon_us = described["horizon_us"]
        if described["kind"] == "cell":  # other rows show the column as they show any other, from their time on
            hidden.add((anchor, described["target_column"]))
            horizon_us = 0
        return cls(
            name=name,
            kind=described["kind"],
            anchor_table=anchor,
            target_column=described["target_column"],
            target_stype=described["target_stype"],
            horizon_us=horizon_us,
            hidden=frozenset(hidden),
            row=seeds["row"].astype(np.int64),
            time=seeds["time"].astype(np.int64),
            split=seeds["split"],
            label=label,
        )

    @property
    def label_time(self) -> Ints:
        """int64 [N]: when each label, if there is one, has happened; at its seed's own time without a horizon."""
        horizon = self.horizon_us or 0
        return np.where(self.time >= END_OF_TIME - horizon, END_OF_TIME, self.time + horizon)

    @property
    def known_time(self) -> Ints:
        """int64 [N]: when each label becomes known; the end of time for labels that never do."""
        if self.horizon_us is None:
            return np.full(len(self.time), END_OF_TIME)
        latest = END_OF_TIME - self.horizon_us
        return np.where(np.isnan(self.label) | (self.time >= latest), END_OF_TIME, self.time + self.horizon_us)

    def label_horizon(self, time: Ints) -> Ints:
        """int64: the last moment at which a label may have become known to be history at `time`.

        With a horizon of 0 a label is known at its own seed's time, so history has to end just before it.
        """
        return time if self.horizon_us else np.where(time == ALWAYS, time, time - 1)


@dataclass
class FeatureMatrix:
    """Named columns of equal length; NaN is missing.

    Attributes:
        names: of the columns.
        columns: float32 [N] each.
        categorical: names of those whose numbers are codes.
        left_out: features, or groups of features by their common beginning, for which `most` left no room.
        most: columns at most.
    """

    names: list[str] = field(default_factory=list)
    columns: list[NDArray[np.float32]] = field(default_factory=list)
    categorical: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    most: int = MAX_FEATURES

    def has_room(self, name: str) -> bool:
        """Whether a column can be appended; what cannot is noted under `name`."""
        if len(self.names) >= self.most:
            self.left_out.append(name)
        return len(self.names) < self.most

    def add(self, name: str, values: NDArray[Any], *, is_categorical: bool = False) -> None:
        """Append a column, if there is room."""
        if not self.has_room(name):
            return
        self.names.append(name)
        self.columns.append(np.asarray(values, np.float32))
        if is_categorical:
            self.categorical.append(name)

    def array(self) -> NDArray[np.float32]:
        """All columns side by side, float32 [N, F]."""
        return np.column_stack(self.columns)


@dataclass(frozen=True)
class Moment:
    """The rows asked about and when: `row` -1 is no row; rows and events after `visible_until` do not exist.

    `time` is the seed's own time, from which ages count; in the frozen regime `visible_until` lies before it.
    """

    row: Ints
    time: Ints
    visible_until: Ints

    def of(self, row: Ints) -> Moment:
        """The same moments for other rows."""
        return Moment(row, self.time, self.visible_until)

    def age_days(self, event_time: Ints) -> Floats:
        """Days from an event to the seed; NaN where either has no time."""
        known = (event_time > ALWAYS) & (event_time < END_OF_TIME) & (self.time < END_OF_TIME)
        return np.where(known, (self.time - np.where(known, event_time, 0)) / DAY_US, np.nan)


@dataclass(frozen=True)
class History:
    """Rows that belong to other rows: when each is visible, and what can be averaged over them.

    Attributes:
        group: int64 [M], the row that each belongs to; -1: to none.
        time: int64 [M], from when on each is visible.
        is_temporal: whether these times say anything.
        summands: (name, float64 [M]) of what can be averaged; NaN is missing.
    """

    group: Ints
    time: Ints
    is_temporal: bool
    summands: list[tuple[str, Floats]]


class FeatureBuilder:
    """Builds the features of a task's seeds.

    Args:
        database: a processed database.
        task: the task whose seeds are asked about.
        hops: 1 describes the entity, its child rows, its parents and the parents' child rows. 2 adds the parents of
            its parents; for its last child row of every foreign key the other parents of that row (a driver's current
            team) and their child rows; over all its child rows the other parents of these (the circuits a driver has
            raced on) and their own child rows.
        most: columns at most; nearer ones come first.
    """

    def __init__(self, database: DatabaseLike, task: Task, *, hops: int = 2, most: int = MAX_FEATURES) -> None:
        self._database, self._task, self._hops, self._most = database, task, hops, most
        tables = json.loads(database.manifest)["tables"]
        self._names = [table["name"] for table in tables]
        self._tables = {table["name"]: table for table in tables}
        self._columns: dict[tuple[str, str], tuple[NDArray[Any], NDArray[np.bool_]]] = {}
        self._column_bytes = 0
        self._parents: dict[int, Ints] = {}
        self._times: dict[str, Ints] = {}
        self._windows = self._choose_windows()

    def build(self, seeds: Ints, *, database_cutoff: int | None = None) -> FeatureMatrix:
        """Features of some seeds.

        Args:
            seeds: int64 [n], positions among the task's seeds.
            database_cutoff: microseconds; in the frozen regime nothing after it is visible to any seed.
        """
        time = self._task.time[seeds]
        visible_until = time if database_cutoff is None else np.minimum(time, database_cutoff)
        moment = Moment(self._task.row[seeds], time, visible_until)
        features = FeatureMatrix(most=self._most)
        self._add_calendar(features, moment)
        self._add_label_history(features, moment)
        table = self._task.anchor_table
        moment = moment.of(self._visible(table, moment))
        self._add_row(features, moment, table, "", is_entity=True)
        self._add_parents(features, moment, table, "", hops=self._hops)
        if self._hops > 1:
            for child, key in self._children_of(table):
                self._add_last_parents(features, moment, child, key)
            for child, key in self._children_of(table):
                self._add_behind_children(features, moment, child, key)
        return features

    def history_length(self, seeds: Ints, *, database_cutoff: int | None = None) -> Ints:
        """How much is known of each seed's entity at its time: visible child rows plus closed past labels.

        Args:
            seeds: int64 [n], positions among the task's seeds.
            database_cutoff: as in `build`.
        """
        time = self._task.time[seeds]
        visible_until = time if database_cutoff is None else np.minimum(time, database_cutoff)
        row = self._task.row[seeds]
        start, stop = Events(self._task.row, self._task.known_time).until(row, self._task.label_horizon(visible_until))
        total = stop - start
        for child, key in self._children_of(self._task.anchor_table):
            start, stop = Events(self._parents_of(key["id"]), self._times_of(child)).until(row, visible_until)
            total = total + stop - start
        return total

    # ---- the entity, its parents and its children ---------------------------------------------------------------

    def _add_row(
        self, features: FeatureMatrix, moment: Moment, table: str, prefix: str, *, is_entity: bool = False
    ) -> None:
        """Cells and child rows of visible rows of a table."""
        self._add_cells(features, moment, table, prefix)
        for child, key in self._children_of(table):
            name = f"{prefix}{child}.{key['column']}>"
            if features.has_room(name):
                self._add_history(features, moment, self._history_of(child, key), name, is_entity=is_entity)

    def _add_parents(self, features: FeatureMatrix, moment: Moment, table: str, prefix: str, *, hops: int) -> None:
        """Who the parents are, their cells and child rows; with a second hop the cells of their parents."""
        for key in self._tables[table]["foreign_keys"]:
            parents, parent_table = self._parents_of(key["id"]), self._names[key["parent_table"]]
            parent = moment.of(np.where(moment.row >= 0, parents[moment.row], -1) if len(parents) else moment.row)
            self._add_identity(features, parent, key["id"], f"{prefix}{key['column']}")
            parent = moment.of(self._visible(parent_table, parent))
            if prefix:
                self._add_cells(features, parent, parent_table, f"{prefix}{key['column']}.")
                continue
            self._add_row(features, parent, parent_table, f"{key['column']}.")
            if hops > 1:
                self._add_parents(features, parent, parent_table, f"{key['column']}.", hops=hops - 1)

    def _add_last_parents(self, features: FeatureMatrix, moment: Moment, child: str, key: dict[str, Any]) -> None:
        """The other parents of the entity's last child row, e.g. the team of a driver's last race."""
        others = [other for other in self._tables[child]["foreign_keys"] if other["id"] != key["id"]]
        if not others or self._tables[child]["temporal_column"] is None:
            return
        events = Events(self._parents_of(key["id"]), self._times_of(child))
        start, stop = events.until(moment.row, moment.visible_until)
        last = np.where(stop > start, events.order[np.maximum(stop - 1, 0)] if len(events.order) else -1, -1)
        for other in others:
            row = np.where(last >= 0, self._parents_of(other["id"])[last], -1)
            prefix, table = f"last {child}.{other['column']}.", self._names[other["parent_table"]]
            self._add_identity(features, moment.of(row), other["id"], prefix.rstrip("."))
            self._add_row(features, moment.of(self._visible(table, moment.of(row))), table, prefix)

    def _add_behind_children(self, features: FeatureMatrix, moment: Moment, child: str, key: dict[str, Any]) -> None:
        """What one link behind the entity's child rows lies: their other parents, and their own child rows."""
        prefix, group, times = f"{child}.{key['column']}>", self._parents_of(key["id"]), self._times_of(child)
        for other in self._tables[child]["foreign_keys"]:
            name, table = f"{prefix}{other['column']}.", self._names[other["parent_table"]]
            if other["id"] == key["id"] or not len(self._times_of(table)) or not features.has_room(name):
                continue
            row = self._parents_of(other["id"])
            known = np.where(row >= 0, group, -1)
            time = np.maximum(times, self._times_of(table)[row])
            events = Events(known, time)
            start, stop = events.until(moment.row, moment.visible_until)
            features.add(f"{name}distinct", Distinct(events, row).number(start, stop))
            summands = [(what, values[row]) for what, values in self._summands(table)]
            is_temporal = self._is_temporal(child) or self._is_temporal(table)
            self._add_history(features, moment, History(known, time, is_temporal, summands), name, has_count=False)
        for grandchild, its_key in self._children_of(child):
            name = f"{prefix}{grandchild}.{its_key['column']}>"
            if not len(times) or not features.has_room(name):
                continue
            row = self._parents_of(its_key["id"])
            known, time = np.where(row >= 0, group[row], -1), np.maximum(times[row], self._times_of(grandchild))
            is_temporal = self._is_temporal(child) or self._is_temporal(grandchild)
            history = History(known, time, is_temporal, self._summands(grandchild))
            self._add_history(features, moment, history, name)

    def _add_identity(self, features: FeatureMatrix, moment: Moment, foreign_key_id: int, name: str) -> None:
        """Which parent it is, where the choice is small."""
        parents = self._parents_of(foreign_key_id)
        kinds = np.unique(parents[parents >= 0])
        if 1 < len(kinds) <= MAX_CATEGORIES:
            code = np.searchsorted(kinds, np.where(moment.row >= 0, moment.row, kinds[0]))
            features.add(f"{name} is", np.where(moment.row >= 0, code, np.nan), is_categorical=True)

    def _add_cells(self, features: FeatureMatrix, moment: Moment, table: str, prefix: str) -> None:
        """The row's own cells as they are."""
        if len(self._times_of(table)) == 0:
            return
        for column in self._visible_columns(table):
            if column["stype"] in ("identifier", "text"):
                continue
            values, is_valid = self._column(table, column["name"])
            here = (moment.row >= 0) & is_valid[moment.row]
            name, picked = f"{prefix}{column['name']}", values[moment.row]
            if column["stype"] == "timestamp":
                features.add(f"{name} age", moment.age_days(np.where(here, picked, END_OF_TIME)))
            elif column["stype"] in ("numerical", "boolean"):
                features.add(name, np.where(here, picked, np.nan))
            elif column["stype"] == "categorical":
                kinds = np.unique(values[is_valid])
                if 1 < len(kinds) <= MAX_CATEGORIES:
                    code = np.searchsorted(kinds, np.where(here, picked, kinds[0]))
                    features.add(name, np.where(here, code, np.nan), is_categorical=True)

    def _history_of(self, child: str, key: dict[str, Any]) -> History:
        """The child rows of a foreign key."""
        return History(
            self._parents_of(key["id"]), self._times_of(child), self._is_temporal(child), self._summands(child)
        )

    def _add_history(
        self,
        features: FeatureMatrix,
        moment: Moment,
        history: History,
        prefix: str,
        *,
        is_entity: bool = False,
        has_count: bool = True,
    ) -> None:
        """Summaries of the visible rows of a history: how many, how long ago, and their numbers over several windows.

        Of the entity's own child rows everything; of others only what is recent, where there are times.
        """
        events = Events(history.group, history.time)
        start, stop = events.until(moment.row, moment.visible_until)
        spans = [("", start)]
        if history.is_temporal:
            if has_count:
                self._add_recency(features, moment, events, start, stop, prefix, is_entity=is_entity)
            windows = self._windows if is_entity else self._windows[:1]
            spans += [(f" {days}d", self._since(events, moment, days)) for days in windows]
        shown = spans if is_entity else spans[-1:]
        for label, since in shown if has_count else []:
            features.add(f"{prefix}count{label}", np.maximum(stop - since, 0))
        for name, values in history.summands:
            running = Running(values[events.order])
            for label, since in shown:
                features.add(f"{prefix}{name} mean{label}", running.mean(np.minimum(since, stop), stop))
            if has_count:
                features.add(f"{prefix}{name} last", running.last(start, stop))
            if is_entity:
                features.add(f"{prefix}{name} std", running.std(start, stop))

    def _add_recency(
        self,
        features: FeatureMatrix,
        moment: Moment,
        events: Events,
        start: Ints,
        stop: Ints,
        prefix: str,
        *,
        is_entity: bool,
    ) -> None:
        """Days since the last event and, for the entity itself, since the first.

        The age of something as old as the database is a clock: it separates training seeds from later ones and
        predicts nothing.
        """
        if len(events.time) == 0:
            return
        has_any = stop > start
        limit = len(events.time) - 1
        last = np.where(has_any, events.time[np.clip(stop - 1, 0, limit)], END_OF_TIME)
        features.add(f"{prefix}days since last", moment.age_days(last))
        if is_entity:
            first = np.where(has_any, events.time[np.clip(start, 0, limit)], END_OF_TIME)
            features.add(f"{prefix}days since first", moment.age_days(first))

    # ---- the seed's time and past labels ------------------------------------------------------------------------

    def _add_calendar(self, features: FeatureMatrix, moment: Moment) -> None:
        """Hour of the day, day of the week and day of the year of the seed."""
        if (self._task.time == END_OF_TIME).all():
            return
        days = np.where(moment.time < END_OF_TIME, moment.time, 0).astype("datetime64[us]").astype("datetime64[D]")
        day = days.astype(np.int64)
        features.add("seed hour", np.where(moment.time < END_OF_TIME, moment.time % DAY_US, 0) / (DAY_US / 24))
        features.add("seed weekday", (day + 3) % 7)
        if self._span_days() < 2 * 365:
            return  # within one or two years the day of the year is but a clock, and tells seeds apart by split
        features.add("seed day of year", day - days.astype("datetime64[Y]").astype("datetime64[D]").astype(np.int64))

    def _add_label_history(self, features: FeatureMatrix, moment: Moment) -> None:
        """Past labels of the same entity, of entities with the same parents, and of all entities."""
        if self._task.target_stype not in ("boolean", "numerical"):
            return
        seeds_row = self._task.row
        self._add_labels(features, moment, seeds_row, moment.row, "label>")
        for key in self._tables[self._task.anchor_table]["foreign_keys"]:
            parents = self._parents_of(key["id"])
            self._add_labels(features, moment, parents[seeds_row], parents[moment.row], f"label by {key['column']}>")
        everyone = np.zeros(len(moment.row), np.int64)
        self._add_labels(features, moment, np.zeros(len(seeds_row), np.int64), everyone, "label of all>")

    def _add_labels(self, features: FeatureMatrix, moment: Moment, group: Ints, asked: Ints, prefix: str) -> None:
        """Closed labels of a group: count, mean, last, deviation, recency, over several windows."""
        events = Events(group, self._task.known_time)
        asked = np.asarray(asked, np.int64)
        start, stop = events.until(asked, self._task.label_horizon(moment.visible_until))
        running = Running(self._task.label[events.order])
        is_entity = prefix == "label>"
        self._add_recency(features, moment, events, start, stop, prefix, is_entity=is_entity)
        spans = [("", start)]
        spans += [
            (f" {days}d", np.minimum(self._since(events, moment.of(asked), days), stop)) for days in self._windows
        ]
        for label, since in spans:
            if is_entity or label:
                features.add(f"{prefix}count{label}", stop - since)
            features.add(f"{prefix}mean{label}", running.mean(since, stop))
        features.add(f"{prefix}last", running.last(start, stop))
        features.add(f"{prefix}last but one", running.last(start, np.maximum(stop - 1, start)))
        features.add(f"{prefix}std", running.std(start, stop))

    # ---- reading the database -----------------------------------------------------------------------------------

    def _choose_windows(self) -> list[int]:
        """Windows no shorter than the task's horizon and shorter than the span of its seeds."""
        span, horizon_us = self._span_days(), self._task.horizon_us or 0
        return [days for days in WINDOW_DAYS if days * DAY_US >= horizon_us and days < span] or [WINDOW_DAYS[0]]

    def _span_days(self) -> float:
        """Days from the first seed to the last."""
        known = self._task.time[self._task.time < END_OF_TIME]
        return float(known.max() - known.min()) / DAY_US if len(known) else 0.0

    def _since(self, events: Events, moment: Moment, days: int) -> Ints:
        """Position of the first event within the last `days` days of each moment."""
        return events.after(moment.row, moment.visible_until - days * DAY_US)

    def _visible(self, table: str, moment: Moment) -> Ints:
        """The rows that exist at their moment; -1 for the others."""
        times = self._times_of(table)
        if len(times) == 0:
            return np.full(len(moment.row), -1, np.int64)
        known = (moment.row >= 0) & (times[moment.row] <= moment.visible_until) & (times[moment.row] < END_OF_TIME)
        return np.where(known, moment.row, -1)

    def _visible_columns(self, table: str) -> list[dict[str, Any]]:
        columns = self._tables[table]["columns"]
        return [column for column in columns if (table, column["name"]) not in self._task.hidden]

    def _summands(self, table: str) -> list[tuple[str, Floats]]:
        """What can be averaged over child rows: numbers, booleans, and the shares of the commonest categories."""
        found = []
        for column in self._visible_columns(table):
            if column["stype"] not in ("numerical", "boolean", "categorical"):
                continue
            values, is_valid = self._column(table, column["name"])
            if column["stype"] == "categorical":
                kinds, counts = np.unique(values[is_valid], return_counts=True)
                for kind in kinds[np.argsort(-counts, kind="stable")][:MAX_SHARES] if len(kinds) > 1 else []:
                    share = np.where(is_valid, values == kind, np.nan)
                    found.append((f"share of {self._database.vocab([int(kind)])[0]}", share))
            else:
                found.append((column["name"], np.where(is_valid, values, np.nan).astype(np.float64)))
        return found

    def _children_of(self, table: str) -> Sequence[tuple[str, dict[str, Any]]]:
        pairs = [(child, key) for child, described in self._tables.items() for key in described["foreign_keys"]]
        return [(child, key) for child, key in pairs if self._names[key["parent_table"]] == table]

    def _is_temporal(self, table: str) -> bool:
        return self._tables[table]["temporal_column"] is not None

    def _column(self, table: str, column: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        if (table, column) in self._columns:
            return self._columns[table, column]
        found = self._database.column(table, column)
        self._column_bytes += sum(array.nbytes for array in found)
        if self._column_bytes > MAX_COLUMN_BYTES:
            self._columns.clear()
            self._column_bytes = 0
        self._columns[table, column] = found
        return found

    def _times_of(self, table: str) -> Ints:
        if table not in self._times:
            times = self._database.row_times(table)
            if self._tables[table].get("null_time_visible"):
                times = np.where(times == END_OF_TIME, ALWAYS, times)
            self._times[table] = times
        return self._times[table]

    def _parents_of(self, foreign_key_id: int) -> Ints:
        if foreign_key_id not in self._parents:
            self._parents[foreign_key_id] = self._database.parents(foreign_key_id)
        return self._parents[foreign_key_id]
