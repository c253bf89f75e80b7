"""The oracle's database: raw parquet files and `metadata.json`, read into Python lists."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

ALWAYS, NEVER, END_OF_TIME = -(2**63), 2**63 - 1, 2**63 - 1
SPLITS = ["train", "val", "test"]
UNITS = {"second": 10**6, "minute": 60 * 10**6, "hour": 3600 * 10**6, "day": 86400 * 10**6, "week": 7 * 86400 * 10**6}


@dataclass
class Table:
    """One table: values per column (None where null), times and keys per row."""

    name: str
    columns: list[tuple[str, str]]  # encoded columns: name, stype
    num_rows: int
    values: dict[str, list[Any]]
    times: list[int]
    primary_key: str | None
    foreign_keys: list[tuple[str, str]]  # column, parent table
    parents: list[list[int | None]] = field(default_factory=list)  # per foreign key, per row
    scales: dict[str, tuple[float, float]] = field(default_factory=dict)


@dataclass
class Seed:
    row: int
    time: int
    split: int
    label: Any


@dataclass
class Task:
    name: str
    kind: str
    anchor: int  # table id
    target: str
    stype: str
    target_id: int
    time_id: int | None
    horizon: int | None
    removed: set[int]
    named: int | None = None  # table whose rows a link task names
    seeds: list[Seed] = field(default_factory=list)
    scale: tuple[float, float] = (0.0, 1.0)
    by_row: dict[int, list[int]] = field(default_factory=dict)  # seeds of an anchor row by (time, seed)


def _micros(text: str) -> int:
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def _values(array: pa.ChunkedArray | pa.Array, stype: str, name: str) -> list[Any]:
    if stype == "timestamp":
        if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
            return [None if text is None else _micros(text) for text in array.to_pylist()]
        return (
            pc.cast(array, pa.timestamp("us", tz=getattr(array.type, "tz", None)), safe=False)
            .cast(pa.int64())
            .to_pylist()
        )
    values = array.to_pylist()
    if stype == "numerical":
        return [None if v is None or not math.isfinite(v) else float(v) for v in values]
    if stype == "boolean":
        return [None if v is None else bool(v) for v in values]
    if stype == "categorical":
        plain = {True: "true", False: "false"}
        return [None if v is None else f"{name} is {plain[v] if isinstance(v, bool) else v}" for v in values]
    return values


def _scale(values: Sequence[float]) -> tuple[float, float]:
    """Population mean and deviation; a deviation of 0 where rounding is all there is."""
    if not values:
        return 0.0, 0.0
    mean = math.fsum(values) / len(values)
    std = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))
    return mean, (std if std > 1e-12 * max(1.0, abs(mean)) else 0.0)


def z_score(value: float, scale: tuple[float, float]) -> float:
    mean, std = scale
    return (value - mean) / std if std > 0 else 0.0


class OracleDatabase:
    """The raw files, joined by their keys."""

    def __init__(
        self,
        raw: Path,
        metadata: Mapping[str, Any],
        texts: Sequence[str],
        hashed_splits: Callable[[str], Sequence[int]] | None = None,
    ) -> None:
        self.raw = raw
        # a text that several tasks bring along has several ids; the last one stands for all of them
        self.text_ids = {text: idx for idx, text in enumerate(texts)}
        self.same_text = [self.text_ids[text] for text in texts]
        self.tables = [self._table(name, description) for name, description in metadata["tables"].items()]
        self.table_ids = {table.name: idx for idx, table in enumerate(self.tables)}
        self._link()
        moments = [
            v for t in self.tables for n, s in t.columns if s == "timestamp" for v in t.values[n] if v is not None
        ]
        self.time_scale = _scale(moments)
        self.column_ids: dict[tuple[str, str], int] = {}
        for table in self.tables:
            for column, _ in table.columns:
                self.column_ids[table.name, column] = len(self.column_ids)
        # every foreign key of the database in order: (child table, its place among that table's keys, parent table)
        self.foreign_keys = [
            (t, slot, self.table_ids[parent])
            for t, table in enumerate(self.tables)
            for slot, (_, parent) in enumerate(table.foreign_keys)
        ]
        self.children = [self._children(t, slot) for t, slot, _ in self.foreign_keys]
        self.key_names = [
            f"{self.tables[t].name}.{self.tables[t].foreign_keys[slot][0]}" for t, slot, _ in self.foreign_keys
        ]
        for name, described in metadata.get("tasks", {}).items():
            self.key_names.append(f"{name}.{described.get('anchor_key') or 'entity'}")
        self.num_parents = max([1, *(len(table.foreign_keys) for table in self.tables)])
        self.tasks: list[Task] = []
        for name, description in metadata.get("tasks", {}).items():
            task = self._task(name, description, len(self.column_ids) + 2 * len(self.tasks))
            self._seed(task, description, hashed_splits)
            self.tasks.append(task)

    def _table(self, name: str, description: Mapping[str, Any]) -> Table:
        arrow = pq.read_table(self.raw / description.get("file", f"{name}.parquet"))
        columns = [(c, d["stype"]) for c, d in description["columns"].items() if d["stype"] != "ignored"]
        values = {column: _values(arrow[column], stype, column) for column, stype in columns}
        temporal = description.get("temporal_column")
        missing = ALWAYS if description.get("null_time_visible") else NEVER
        times = [missing if t is None else t for t in values[temporal]] if temporal else [ALWAYS] * arrow.num_rows
        keys = [
            (column, d["foreign_key"].rsplit(".", 1)[0])
            for column, d in description["columns"].items()
            if d.get("foreign_key")
        ]
        table = Table(name, columns, arrow.num_rows, values, times, description.get("primary_key"), keys)
        for column, stype in columns:
            if stype == "numerical":
                table.scales[column] = _scale([v for v in values[column] if v is not None])
        return table

    def _link(self) -> None:
        for table in self.tables:
            for column, parent_name in table.foreign_keys:
                parent = self.tables[self.table_ids[parent_name]]
                rows = {key: row for row, key in enumerate(parent.values[parent.primary_key])}
                table.parents.append([None if k is None else rows.get(k) for k in table.values[column]])

    def _children(self, child: int, slot: int) -> dict[int, list[int]]:
        """Child rows of each parent row, sorted by (time, row)."""
        table, lists = self.tables[child], {}
        for row in sorted(range(table.num_rows), key=lambda row: (table.times[row], row)):
            parent = table.parents[slot][row]
            if parent is not None:
                lists.setdefault(parent, []).append(row)
        return lists

    # ---- tasks ----

    def _task(self, name: str, description: Mapping[str, Any], next_column: int) -> Task:
        is_table = "query" in description or "table" in description
        anchor, target = description["anchor_table"], description["target_column"]
        horizon = description.get("horizon")
        if horizon is not None:
            number, unit = horizon.split()
            horizon = int(number) * UNITS[unit.rstrip("s")]
        elif not is_table:
            horizon = 0
        has_time = is_table and description.get("observation_time_column") is not None
        own_stype = dict(self.tables[self.table_ids[anchor]].columns).get(target)
        return Task(
            name=name,
            kind="table" if is_table else "cell",
            anchor=self.table_ids[anchor],
            target=target,
            stype=description["target_stype"] if is_table else own_stype,
            target_id=next_column + 1 if is_table else self.column_ids[anchor, target],
            time_id=next_column if has_time else None,
            horizon=horizon,
            removed={
                self.column_ids[t, c] for t, c in description.get("remove_columns", []) if (t, c) in self.column_ids
            },
            named=self.table_ids[description["target_table"]] if "target_table" in description else None,
        )

    def _seed(self, task: Task, description: Mapping[str, Any], hashed: Callable[[str], Sequence[int]] | None) -> None:
        table = self.tables[task.anchor]
        own_time = [END_OF_TIME if t in (ALWAYS, NEVER) else t for t in table.times]
        names: list[str | None]
        if task.kind == "cell":
            found = [
                (row, own_time[row], value)
                for row, value in enumerate(table.values[task.target])
                if value is not None and table.times[row] != NEVER
            ]
            names = [None] * len(found)
        else:
            labels = self._labels(description)
            key = description.get("anchor_key") or table.primary_key
            time = description.get("observation_time_column")
            rows = {key: row for row, key in enumerate(table.values[table.primary_key])}
            at = [rows[k] for k in labels[key].to_pylist()]
            times = _values(labels[time], "timestamp", time) if time else [own_time[row] for row in at]
            answers = _values(labels[task.target], task.stype, task.target)
            if task.named is not None:
                answers = [self._named_rows(task.named, answer) for answer in answers]
            found = list(zip(at, times, answers, strict=True))
            names = labels["split"].to_pylist() if "split" in labels.column_names else [None] * len(found)
        split = description.get("split")
        seeds = []
        for (row, when, answer), name in zip(found, names, strict=True):
            if name is not None:
                code = SPLITS.index(name)
            elif split:
                code = sum(when >= _micros(split[later]) for later in ("val", "test"))
            else:
                code = -1
            if answer is not None:
                seeds.append(Seed(row, when, code, answer))
        if task.named is not None:
            seeds = self._merged(seeds)
        # the seeds of a link task differ in moment, entity or split
        label = (lambda seed: ()) if task.named is not None else (lambda seed: seed.label)
        seeds.sort(key=lambda seed: (seed.time, seed.row, label(seed), seed.split))
        if any(seed.split < 0 for seed in seeds):
            assert hashed is not None, "this task's splits come from the named hash"
            for seed, code in zip(seeds, hashed(task.name), strict=True):
                seed.split = int(code)
        task.seeds = seeds
        if task.stype == "numerical":
            if task.kind == "cell":
                task.scale = table.scales[task.target]
            else:
                train = [seed.label for seed in seeds if seed.split == 0]
                task.scale = _scale(train or [seed.label for seed in seeds])
        for idx in sorted(range(len(seeds)), key=lambda idx: (seeds[idx].time, idx)):
            task.by_row.setdefault(seeds[idx].row, []).append(idx)

    def _named_rows(self, table: int, keys: Any) -> set[int]:
        """Rows that a list of keys, or one key, names; keys without a row name none."""
        keys = keys if isinstance(keys, list) else [keys]
        rows = {key: row for row, key in enumerate(self.tables[table].values[self.tables[table].primary_key])}
        return {rows[key] for key in keys if key is not None and key in rows}

    @staticmethod
    def _merged(seeds: list[Seed]) -> list[Seed]:
        """One seed per moment, entity and split, with all rows that its labels name; none that names nothing."""
        merged: dict[tuple[int, int, int], set[int]] = {}
        for seed in seeds:
            merged.setdefault((seed.time, seed.row, seed.split), set()).update(seed.label)
        return [Seed(row, time, split, sorted(rows)) for (time, row, split), rows in merged.items() if rows]

    def _labels(self, description: Mapping[str, Any]) -> pa.Table:
        if "table" in description:
            return pq.read_table(self.raw / description["table"])
        with duckdb.connect() as connection:
            for table in self.tables:
                (path,) = [p for p in [self.raw / f"{table.name}.parquet"] if p.exists()]
                connection.execute(f"CREATE VIEW \"{table.name}\" AS SELECT * FROM read_parquet('{path}')")
            return connection.sql(description["query"]).to_arrow_table()
