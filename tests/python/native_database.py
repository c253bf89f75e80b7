"""Processed databases made by the native stages alone: no embedder, no child process, no staging to resume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tributary import _headwater


def process(raw: Path, metadata: Mapping[str, Any], folder: Path) -> _headwater.Database:
    """Processes the parquet files in `raw` into the new folder `folder` and opens it."""
    folder.mkdir(parents=True)
    description = folder.parent / f"{folder.name}.metadata.json"
    description.write_text(json.dumps(metadata))
    _headwater.encode(raw, folder, metadata=description, threads=1)
    normalised = _headwater.read_metadata(description)
    for name, task in metadata.get("tasks", {}).items():
        labels = None
        if "query" in task:
            labels = folder.parent / f"{folder.name}.labels.parquet"
            with duckdb.connect() as connection:
                for table, described in metadata["tables"].items():
                    file = raw / described.get("file", f"{table}.parquet")
                    connection.execute(f"CREATE VIEW \"{table}\" AS SELECT * FROM read_parquet('{file}')")
                pq.write_table(connection.sql(task["query"]).to_arrow_table(), labels)
        elif "table" in task:
            labels = raw / task["table"]
        _headwater.write_task(folder, name, labels, metadata=normalised)
    _headwater.publish(folder)
    return _headwater.Database(folder)


def spend_shop(folder: Path) -> _headwater.Database:
    """Forty customers, two thousand orders, a question per customer and month; in the new folder `folder`."""
    raw = folder.parent / f"{folder.name}.raw"
    raw.mkdir()
    number, start = np.arange(2000), datetime(2020, 1, 1)
    pq.write_table(pa.table({"id": np.arange(40)}), raw / "customers.parquet")
    orders = {
        "id": number,
        "customer": number * 7 % 40,
        "amount": (number % 13).astype(float),
        "at": [start + timedelta(hours=int(n)) for n in number],
    }
    pq.write_table(pa.table(orders), raw / "orders.parquet")
    labels = {
        "id": np.arange(120) % 40,
        "moment": [start + timedelta(days=20 * (1 + n // 40)) for n in range(120)],
        "spend": np.arange(120) / 7,
        "split": ["train", "val", "test"] * 40,
    }
    pq.write_table(pa.table(labels), raw / "spend.parquet")
    identifier = {"stype": "identifier"}
    metadata = {
        "name": "shop",
        "tables": {
            "customers": {"primary_key": "id", "columns": {"id": identifier}},
            "orders": {
                "primary_key": "id",
                "temporal_column": "at",
                "columns": {
                    "id": identifier,
                    "customer": {"stype": "identifier", "foreign_key": "customers.id"},
                    "amount": {"stype": "numerical"},
                    "at": {"stype": "timestamp"},
                },
            },
        },
        "tasks": {
            "spend": {
                "table": "spend.parquet",
                "anchor_table": "customers",
                "anchor_key": "id",
                "target_column": "spend",
                "target_stype": "numerical",
                "observation_time_column": "moment",
                "horizon": "10 days",
            },
            "amount": {"anchor_table": "orders", "target_column": "amount"},
        },
    }
    return process(raw, metadata, folder)
