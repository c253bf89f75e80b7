"""Features one and two links away against a slow and obvious count in Python lists, with rows planted in the future."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from parquet_database import ParquetDatabase
from tributary.evaluation.features import FeatureBuilder, Task

START = dt.datetime(2021, 1, 1)
WINDOW = 90  # days, the task's longest: its seeds span 150
TIMES = {"orders": "ts", "shops": "opened", "items": "at"}
SUMMANDS = {
    "customers": ["kind"],
    "regions": ["weight"],
    "shops": ["size"],
    "orders": ["amount", "gift"],
    "items": ["price"],
    "notes": ["stars"],
}


def make_tables() -> dict[str, dict[str, list]]:
    """Customers of regions order in shops; an order has items, which may come later, and notes without a time.

    Whatever happens after day 170, later than any seed, has values a million times larger.
    """
    rng = np.random.default_rng(3)

    def numbers(days: list[float | None], size: int) -> list[float | None]:
        found = rng.normal(10, 3, size)
        planted = [
            value * 1e6 if day is not None and day > 170 else value for value, day in zip(found, days, strict=True)
        ]
        return [None if rng.random() < 0.1 else float(value) for value in planted]

    def moments(days: list[float | None]) -> list[dt.datetime | None]:
        return [None if day is None else START + dt.timedelta(days=float(day)) for day in days]

    order_day = [float(np.floor(day)) for day in rng.uniform(0, 200, 240)]
    opened = [float(day) for day in rng.uniform(-50, 120, 5)] + [180.0]
    of_order = [int(order) for order in rng.integers(0, 240, 300)]
    item_day = [None if rng.random() < 0.05 else order_day[o] + float(rng.uniform(-5, 60)) for o in of_order]
    note_order = [int(order) for order in rng.integers(0, 240, 150)]
    return {
        "regions": {"id": [0, 1, 2], "weight": [1.0, None, 3.0]},
        "customers": {
            "id": list(range(12)),
            "region_id": [None if i == 7 else i % 3 for i in range(12)],
            "kind": [float(i) for i in range(12)],
        },
        "shops": {"id": list(range(6)), "opened": moments(opened), "size": numbers(opened, 6)},
        "orders": {
            "id": list(range(240)),
            "customer_id": [None if i % 50 == 3 else int(c) for i, c in enumerate(rng.integers(0, 12, 240))],
            "shop_id": [None if i % 40 == 9 else int(s) for i, s in enumerate(rng.integers(0, 6, 240))],
            "ts": [None if i % 60 == 1 else moment for i, moment in enumerate(moments(order_day))],
            "amount": numbers(order_day, 240),
            "gift": [bool(gift) for gift in rng.random(240) < 0.3],
        },
        "items": {
            "id": list(range(300)),
            "order_id": of_order,
            "at": moments(item_day),
            "price": numbers(item_day, 300),
        },
        "notes": {
            "id": list(range(150)),
            "order_id": note_order,
            "stars": numbers([order_day[o] for o in note_order], 150),
        },
    }


def make_metadata() -> dict:
    links = {"region_id": "regions.id", "customer_id": "customers.id", "shop_id": "shops.id", "order_id": "orders.id"}
    stypes = {**dict.fromkeys(("ts", "opened", "at"), "timestamp"), "gift": "boolean"}
    tables = {}
    for table, columns in make_tables().items():
        described = {"primary_key": "id", "temporal_column": TIMES.get(table), "columns": {}}
        for column in columns:
            stype = "identifier" if column == "id" or column in links else stypes.get(column, "numerical")
            link = {"foreign_key": links[column]} if column in links else {}
            described["columns"][column] = {"stype": stype, **link}
        tables[table] = described
    query = (
        "WITH moments AS (SELECT unnest(generate_series(TIMESTAMP '2021-01-16', TIMESTAMP '2021-06-15', "
        "INTERVAL 15 DAY)) AS moment) SELECT c.id AS customer_id, m.moment, count(o.id)::DOUBLE AS answer FROM "
        "moments m CROSS JOIN customers c LEFT JOIN orders o ON o.customer_id = c.id AND o.ts > m.moment AND "
        "o.ts <= m.moment + INTERVAL 7 DAY GROUP BY 1, 2"
    )
    task = {"query": query, "anchor_table": "customers", "anchor_key": "customer_id", "target_column": "answer"}
    task |= {"target_stype": "numerical", "observation_time_column": "moment", "horizon": "7 days"}
    task |= {"split": {"val": "2021-04-01", "test": "2021-05-01"}}
    return {"name": "orders", "tables": tables, "tasks": {"number": task}}


class Oracle:
    """What is known of a customer at a moment, by going through every row.

    A row is (its number in its table, the moment from which on it is visible).
    """

    def __init__(self, tables: dict[str, dict[str, list]], moment: dt.datetime, until: dt.datetime) -> None:
        self.tables, self.moment, self.until = tables, moment, until
        self.expected: dict[str, float] = {}

    def rows(self, table: str) -> list[tuple[int, dt.datetime]]:
        """Visible rows of a table, in order of their times."""
        times = self.tables[table].get(TIMES.get(table, ""), [dt.datetime.min] * len(self.tables[table]["id"]))
        found = [(row, time) for row, time in enumerate(times) if time is not None and time <= self.until]
        return sorted(found, key=lambda pair: (pair[1], pair[0]))

    def value(self, table: str, column: str, row: int) -> float | None:
        return self.tables[table][column][row]

    def children(self, table: str, column: str, parents: dict[int, dt.datetime]) -> list[tuple[int, dt.datetime]]:
        """Visible rows of a table that point to one of some visible rows, and when both are visible."""
        found = []
        for row, time in self.rows(table):
            parent = self.value(table, column, row)
            if parent in parents:
                found.append((row, max(time, parents[parent])))
        return sorted(found, key=lambda pair: (pair[1], pair[0]))

    def since(self, rows: list, days: int | None) -> list:
        if days is None:
            return rows
        return [(row, time) for row, time in rows if time > self.until - dt.timedelta(days=days)]

    def mean(self, table: str, column: str, rows: list) -> float:
        known = [self.value(table, column, row) for row, _ in rows if self.value(table, column, row) is not None]
        return float(np.mean(known)) if known else np.nan

    def last(self, table: str, column: str, rows: list) -> float:
        known = [self.value(table, column, row) for row, _ in rows if self.value(table, column, row) is not None]
        return float(known[-1]) if known else np.nan

    def add_cells(self, prefix: str, table: str, row: int | None) -> None:
        visible = {row for row, _ in self.rows(table)}
        for column in SUMMANDS[table]:
            value = self.value(table, column, row) if row in visible else None
            self.expected[f"{prefix}{column}"] = np.nan if value is None else float(value)
        if table in TIMES:
            time = self.value(table, TIMES[table], row) if row in visible else None
            age = np.nan if time is None else (self.moment - time) / dt.timedelta(days=1)
            self.expected[f"{prefix}{TIMES[table]} age"] = age

    def add_recent(self, prefix: str, table: str, rows: list, *, is_temporal: bool = True) -> None:
        """What is said of rows that are not the entity's own child rows."""
        label, recent = (f" {WINDOW}d", self.since(rows, WINDOW)) if is_temporal else ("", rows)
        if is_temporal:
            age = (self.moment - rows[-1][1]) / dt.timedelta(days=1) if rows else np.nan
            self.expected[f"{prefix}days since last"] = age
        self.expected[f"{prefix}count{label}"] = len(recent)
        for column in SUMMANDS[table]:
            self.expected[f"{prefix}{column} mean{label}"] = self.mean(table, column, recent)
            self.expected[f"{prefix}{column} last"] = self.last(table, column, rows)

    def describe(self, customer: int) -> dict[str, float]:
        """Every feature but the calendar, past labels, identities and deviations."""
        always = dt.datetime.min
        orders = self.children("orders", "customer_id", {customer: always})
        own = "orders.customer_id>"
        self.add_cells("", "customers", customer)
        for label, days in (("", None), (" 90d", 90), (" 30d", 30), (" 7d", 7)):
            recent = self.since(orders, days)
            self.expected[f"{own}count{label}"] = len(recent)
            for column in SUMMANDS["orders"]:
                self.expected[f"{own}{column} mean{label}"] = self.mean("orders", column, recent)
        for column in SUMMANDS["orders"]:
            self.expected[f"{own}{column} last"] = self.last("orders", column, orders)
        for name, which in (("last", -1), ("first", 0)):
            age = (self.moment - orders[which][1]) / dt.timedelta(days=1) if orders else np.nan
            self.expected[f"{own}days since {name}"] = age
        # the customer's region and its customers
        region = self.value("customers", "region_id", customer)
        self.add_cells("region_id.", "regions", region)
        neighbors = self.children("customers", "region_id", {region: always} if region is not None else {})
        self.add_recent("region_id.customers.region_id>", "customers", neighbors, is_temporal=False)
        # the shop of the last order, and that shop's orders
        shop = self.value("orders", "shop_id", orders[-1][0]) if orders else None
        self.add_cells("last orders.shop_id.", "shops", shop)
        opened = dict(self.rows("shops"))
        of_shop = self.children("orders", "shop_id", {shop: always} if shop in opened else {})
        self.add_recent("last orders.shop_id.orders.shop_id>", "orders", of_shop)
        # the shops of all orders, from when on both are visible
        pairs = [(self.value("orders", "shop_id", row), time, row) for row, time in orders]
        visited = sorted((max(time, opened[s]), row, s) for s, time, row in pairs if s in opened)
        shops = [(s, time) for time, _, s in visited]
        self.expected[f"{own}shop_id.distinct"] = len({s for s, _ in shops})
        self.expected[f"{own}shop_id.size mean 90d"] = self.mean("shops", "size", self.since(shops, WINDOW))
        # what belongs to the orders
        self.add_recent(f"{own}items.order_id>", "items", self.children("items", "order_id", dict(orders)))
        self.add_recent(f"{own}notes.order_id>", "notes", self.children("notes", "order_id", dict(orders)))
        return self.expected


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> ParquetDatabase:
    folder: Path = tmp_path_factory.mktemp("orders")
    for name, columns in make_tables().items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    return ParquetDatabase(folder, make_metadata())


@pytest.mark.parametrize("cutoff", [None, dt.datetime(2021, 4, 1)])
def test_features_equal_the_oracle(orders, cutoff):
    task, tables = Task.load(orders, "number"), make_tables()
    epoch = dt.datetime(1970, 1, 1)
    cutoff_us = None if cutoff is None else int((cutoff - epoch) / dt.timedelta(microseconds=1))
    matrix = FeatureBuilder(orders, task).build(np.arange(len(task.row)), database_cutoff=cutoff_us)
    found = dict(zip(matrix.names, matrix.columns, strict=True))
    unchecked = [n for n in found if n.startswith(("seed ", "label")) or n.endswith((" is", " std"))]
    assert np.nanmax(np.abs(matrix.array())) < 1e5, "a planted row was seen"
    for seed in range(0, len(task.row), 5):
        moment = epoch + dt.timedelta(microseconds=int(task.time[seed]))
        expected = Oracle(tables, moment, min(moment, cutoff or moment)).describe(int(task.row[seed]))
        assert set(found) - set(unchecked) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][seed], value, rtol=1e-4, atol=1e-4, err_msg=f"{name} of seed {seed}")


def test_nearer_features_come_first_and_the_rest_is_named(orders):
    task = Task.load(orders, "number")
    whole = FeatureBuilder(orders, task).build(np.arange(20))
    part = FeatureBuilder(orders, task, most=40).build(np.arange(20))
    assert part.names == whole.names[:40]
    assert "orders.customer_id>items.order_id>" in part.left_out
    assert whole.left_out == []
    one_hop = FeatureBuilder(orders, task, hops=1).build(np.arange(20))
    assert not any("items" in name or "shop_id" in name for name in one_hop.names)
    assert set(one_hop.names) < set(whole.names)
