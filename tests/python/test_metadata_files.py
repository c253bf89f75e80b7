"""The checked-in descriptions of `data/metadata`: they parse, and their labels are the published ones."""

from __future__ import annotations

import json
import os
from pathlib import Path

import duckdb
import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "data" / "metadata").glob("*.json"))
SHARED = Path(os.environ.get("TRIBUTARY_SHARED_DATA", ROOT.parent / "shared" / "data"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_is_read_without_complaint(path: Path):
    from tributary import _headwater

    described = json.loads(_headwater.read_metadata(str(path)))
    assert described["name"] == path.stem


@pytest.mark.parametrize("name", ["nycflights13", "rel-f1"])
def test_every_column_of_the_demo_databases_is_described(name: str):
    tables = json.loads((ROOT / "data" / "metadata" / f"{name}.json").read_text())["tables"]
    missing = [f"{t}.{c}" for t, d in tables.items() for c, detail in d["columns"].items() if not detail["description"]]
    assert missing == []


@pytest.mark.parametrize("task", ["driver-position", "driver-dnf", "driver-top3"])
def test_rel_f1_labels_equal_the_published_ones(task: str):
    if not (SHARED / "rel-f1").is_dir():
        pytest.skip(f"{SHARED / 'rel-f1'} is absent: set TRIBUTARY_SHARED_DATA to compare the labels")
    metadata = json.loads((ROOT / "data" / "metadata" / "rel-f1.json").read_text())
    connection = duckdb.connect()
    for table, description in metadata["tables"].items():
        file = SHARED / "rel-f1" / "raw" / description["file"]
        connection.execute(f"CREATE VIEW \"{table}\" AS SELECT * FROM read_parquet('{file}')")
    described = metadata["tasks"][task]
    connection.execute(f"CREATE TABLE labels AS {described['query']}")
    target = described["target_column"]
    published = " UNION ALL ".join(
        f"SELECT driverId, date, {target}, '{split}' AS split FROM '{SHARED}/rel-f1/tasks/{task}/{split}.parquet'"
        for split in ("train", "val", "test")
    )
    cuts = described["split"]
    matched, equal = connection.execute(
        f"SELECT count(*), count(*) FILTER (abs(a.{target}::DOUBLE - b.{target}::DOUBLE) < 1e-9 AND b.split = CASE "
        f"WHEN a.date >= TIMESTAMP '{cuts['test']}' THEN 'test' WHEN a.date >= TIMESTAMP '{cuts['val']}' THEN 'val' "
        f"ELSE 'train' END) FROM labels a FULL JOIN ({published}) b ON a.driverId = b.driverId AND a.date = b.date"
    ).fetchone()
    expected = {"driver-position": 7453 + 499 + 760, "driver-dnf": 11411 + 566 + 702, "driver-top3": 1353 + 588 + 726}
    assert matched == equal == expected[task]
