"""A small real database whose size one chooses: visitors, and a visit an hour."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tributary.embed import make_embedder
from tributary.preprocess import preprocess

START = datetime(2020, 1, 1)
IDENTIFIER = {"stype": "identifier"}


def write_visits(folder: Path, name: str, num_days: int) -> Path:
    """Processes visits, one an hour, of visitors who come by turns; a question per visitor and ten days.

    Args:
        folder: where the database goes, under its name; its parquet files beside it, under `<name>-raw`.
        name: of the database.
        num_days: of visits; validation begins 20 days before the end, test 10.
    """
    raw = folder / f"{name}-raw"
    raw.mkdir()
    hours = np.arange(num_days * 24)
    pq.write_table(pa.table({"id": np.arange(8), "age": np.arange(8) * 1.5}), raw / "visitors.parquet")
    visits = {
        "id": hours,
        "visitor": hours * 3 % 8,
        "at": [START + timedelta(hours=int(hour)) for hour in hours],
        "length": (hours * 7 % 11).astype(float),
        "kind": [f"{name} {hour % 3}" for hour in hours],
    }
    pq.write_table(pa.table(visits), raw / "visits.parquet")
    moments = [START + timedelta(days=10 * day) for day in range(1, num_days // 10)]
    labels = [(visitor, moment, (visitor + moment.day) % 3 == 0) for moment in moments for visitor in range(8)]
    columns = dict(zip(("visitor", "moment", "comes"), map(list, zip(*labels, strict=True)), strict=True))
    columns["split"] = ["train" if moment < moments[-2] else "val" for moment in columns["moment"]]
    columns["split"][-8:] = ["test"] * 8
    pq.write_table(pa.table(columns), raw / "comes.parquet")
    described = {"length": {"stype": "numerical"}, "kind": {"stype": "categorical"}, "at": {"stype": "timestamp"}}
    visit = {"id": IDENTIFIER, "visitor": {"stype": "identifier", "foreign_key": "visitors.id"}, **described}
    metadata = {
        "name": name,
        "tables": {
            "visitors": {"primary_key": "id", "columns": {"id": IDENTIFIER, "age": {"stype": "numerical"}}},
            "visits": {"primary_key": "id", "temporal_column": "at", "columns": visit},
        },
        "tasks": {
            "comes": {
                "table": "comes.parquet",
                "anchor_table": "visitors",
                "anchor_key": "visitor",
                "target_column": "comes",
                "target_stype": "boolean",
                "observation_time_column": "moment",
                "horizon": "10 days",
            }
        },
    }
    (raw / "metadata.json").write_text(json.dumps(metadata))
    preprocess(raw, folder / name, embedder=make_embedder("hash", dimension=16))
    return folder / name
