"""Writes a database of TPC-H's tables, keys and sizes (random values) as parquet with a `metadata.json`.

Usage: python benches/tpch_shape.py OUT [--scale 1.0]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DAY = 86_400_000_000
START, END = 8035 * DAY, 10_440 * DAY  # 1992-01-01 to 1998-08-02


def tables(scale: float, rng: np.random.Generator) -> dict[str, dict[str, np.ndarray]]:
    """The columns of every table."""
    customers, parts, suppliers = int(150_000 * scale), int(200_000 * scale), int(10_000 * scale)
    orders, lines, offers = 10 * customers, 40 * customers, 4 * parts

    def words(number: int, kinds: int, prefix: str) -> np.ndarray:
        return np.array([f"{prefix}{k}" for k in range(kinds)])[rng.integers(0, kinds, number)]

    ordered = rng.integers(START // DAY, END // DAY, orders) * DAY
    order_of = np.sort(rng.integers(0, orders, lines))
    shipped = ordered[order_of] + rng.integers(1, 122, lines) * DAY
    return {
        "region": {"id": np.arange(5), "name": words(5, 5, "region ")},
        "nation": {"id": np.arange(25), "region": np.arange(25) % 5, "name": words(25, 25, "nation ")},
        "supplier": {
            "id": np.arange(suppliers),
            "nation": rng.integers(0, 25, suppliers),
            "balance": rng.normal(size=suppliers),
            "comment": words(suppliers, 5000, "supplier comment "),
        },
        "customer": {
            "id": np.arange(customers),
            "nation": rng.integers(0, 25, customers),
            "balance": rng.normal(size=customers),
            "segment": words(customers, 5, "segment "),
            "comment": words(customers, 50_000, "customer comment "),
        },
        "part": {
            "id": np.arange(parts),
            "name": words(parts, 50_000, "part "),
            "brand": words(parts, 25, "brand "),
            "type": words(parts, 150, "type "),
            "size": rng.integers(1, 51, parts),
            "container": words(parts, 40, "container "),
            "price": rng.normal(size=parts),
        },
        "partsupp": {
            "part": np.arange(offers) // 4,
            "supplier": rng.integers(0, suppliers, offers),
            "quantity": rng.integers(1, 10_000, offers),
            "cost": rng.normal(size=offers),
            "comment": words(offers, 50_000, "offer comment "),
        },
        "orders": {
            "id": np.arange(orders),
            "customer": rng.integers(0, customers, orders),
            "status": words(orders, 3, "status "),
            "total": rng.normal(size=orders),
            "ordered": ordered,
            "priority": words(orders, 5, "priority "),
            "clerk": words(orders, 1000, "clerk "),
            "comment": words(orders, 100_000, "order comment "),
        },
        "lineitem": {
            "order": order_of,
            "part": rng.integers(0, parts, lines),
            "supplier": rng.integers(0, suppliers, lines),
            "quantity": rng.integers(1, 51, lines),
            "price": rng.normal(size=lines),
            "discount": rng.integers(0, 11, lines) / 100,
            "tax": rng.integers(0, 9, lines) / 100,
            "returned": words(lines, 3, "flag "),
            "status": words(lines, 2, "status "),
            "shipped": shipped,
            "committed": ordered[order_of] + rng.integers(30, 91, lines) * DAY,
            "received": shipped + rng.integers(1, 31, lines) * DAY,
            "instruction": words(lines, 4, "instruction "),
            "mode": words(lines, 7, "mode "),
            "comment": words(lines, 100_000, "line comment "),
        },
    }


TIMES = {"ordered", "shipped", "committed", "received"}
KEYS = {"region", "nation", "supplier", "customer", "part", "order"}
PARENTS = {"order": "orders"}
TEMPORAL = {"orders": "ordered", "lineitem": "shipped"}


def stype(table: str, column: str, values: np.ndarray) -> dict[str, str]:
    """What a column means."""
    if column == "id":
        return {"stype": "identifier"}
    if column in KEYS and values.dtype.kind == "i":
        return {"stype": "identifier", "foreign_key": f"{PARENTS.get(column, column)}.id"}
    if column in TIMES:
        return {"stype": "timestamp"}
    if values.dtype.kind != "U":
        return {"stype": "numerical"}
    return {"stype": "text" if column in ("comment", "name") else "categorical"}


def main() -> None:
    """Writes the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    metadata: dict = {"name": f"tpch-shape-{arguments.scale}", "tables": {}, "tasks": {}}
    for table, columns in tables(arguments.scale, rng).items():
        arrays = {
            name: pa.array(values, pa.timestamp("us") if name in TIMES else None) for name, values in columns.items()
        }
        pq.write_table(pa.table(arrays), arguments.out / f"{table}.parquet", row_group_size=1 << 18)
        described = {name: stype(table, name, values) for name, values in columns.items()}
        metadata["tables"][table] = {"columns": described}
        if "id" in columns:
            metadata["tables"][table]["primary_key"] = "id"
        if table in TEMPORAL:
            metadata["tables"][table]["temporal_column"] = TEMPORAL[table]
    customers = pq.read_metadata(arguments.out / "customer.parquet").num_rows
    moments = (START // DAY + 400) * DAY + rng.integers(0, 5 * 365, 4 * customers) * DAY
    labels = {
        "id": np.arange(4 * customers) % customers,
        "moment": pa.array(moments, pa.timestamp("us")),
        "spend": rng.normal(size=4 * customers),
    }
    pq.write_table(pa.table(labels), arguments.out / "spend.parquet")
    metadata["tasks"]["spend"] = {
        "table": "spend.parquet",
        "anchor_table": "customer",
        "anchor_key": "id",
        "target_column": "spend",
        "target_stype": "numerical",
        "observation_time_column": "moment",
        "horizon": "30 days",
        "split": {"val": "1996-06-01", "test": "1997-01-01"},
    }
    metadata["tasks"]["total"] = {"anchor_table": "orders", "target_column": "total"}
    (arguments.out / "metadata.json").write_text(json.dumps(metadata, indent=1))


if __name__ == "__main__":
    main()
