"""The label previews of `tributary inspect`, which come from the manifest, against the labels that went in."""

from __future__ import annotations

import json
import math
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from native_database import process

SPLITS = ("train", "val", "test")
SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
START = datetime(2021, 3, 1)
# twelve classes in train, two fewer than are listed; one looks as if it began with the name of its column
CLASSES = ["gold", "segment is gold", "Köln", "", "a b", *(f"class {n}" for n in range(7))]
COUNTRIES = ["DE", "FR", None, "country is DE", "DE", "IT", "DE", "FR"]


def _labels() -> dict[str, list[Any]]:
    """A label of every kind per question, each tenth of them null; class `n` of train comes `n + 3` times."""
    rng = np.random.default_rng(5)
    train = [name for n, name in enumerate(CLASSES) for _ in range(n + 3)]
    rest = [CLASSES[n] for n in rng.integers(0, 5, 60)]
    segment: list[Any] = train + rest
    size = len(segment)
    split = ["train"] * len(train) + [SPLITS[1 + n % 2] for n in range(60)]
    known = np.ones(size, bool)
    known[len(train) :: 10] = False
    number = rng.normal(1000, 30, size).round(2)
    number[::7] = 0.1
    moment = [START + timedelta(microseconds=int(us)) for us in rng.integers(0, 10**13, size)]
    columns: dict[str, list[Any]] = {
        "segment": segment,
        "number": number.tolist(),
        "truth": (rng.random(size) < 0.3).tolist(),
        "due": moment,
    }
    columns = {
        name: [value if known[n] else None for n, value in enumerate(values)] for name, values in columns.items()
    }
    asked = [START + timedelta(days=n % 11) for n in range(size)]
    return {"id": rng.integers(0, 40, size).tolist(), "asked": asked, "split": split, **columns}


@pytest.fixture(scope="module")
def labels() -> dict[str, list[Any]]:
    return _labels()


@pytest.fixture(scope="module")
def tasks(labels: dict[str, list[Any]], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `inspect --json` says of each task."""
    raw = tmp_path_factory.mktemp("raw")
    customers = {
        "id": list(range(40)),
        "country": [COUNTRIES[n % 8] for n in range(40)],
        "since": [START + timedelta(days=n) for n in range(40)],
    }
    pq.write_table(pa.table(customers), raw / "customers.parquet")
    pq.write_table(pa.table(labels), raw / "labels.parquet")
    stypes = {"segment": "categorical", "number": "numerical", "truth": "boolean", "due": "timestamp"}
    described: dict[str, Any] = {
        name: {
            "table": "labels.parquet",
            "anchor_table": "customers",
            "anchor_key": "id",
            "target_column": name,
            "target_stype": stype,
            "observation_time_column": "asked",
        }
        for name, stype in stypes.items()
    }
    described["country"] = {
        "anchor_table": "customers",
        "target_column": "country",
        "split": {"val": "2021-03-21", "test": "2021-03-31"},
    }
    columns = {"id": {"stype": "identifier"}, "country": {"stype": "categorical"}, "since": {"stype": "timestamp"}}
    table = {"primary_key": "id", "temporal_column": "since", "columns": columns}
    metadata = {"name": "labels", "tables": {"customers": table}, "tasks": described}
    database = process(raw, metadata, tmp_path_factory.mktemp("processed") / "database")
    return {task["name"]: task for task in json.loads(database.inspect(json=True))["tasks"]}


def _of_split(labels: dict[str, list[Any]], name: str, split: str) -> tuple[list[Any], int]:
    """Labels of a split in ascending order, and how many are null."""
    found = [value for value, of in zip(labels[name], labels["split"], strict=True) if of == split]
    return sorted(value for value in found if value is not None), found.count(None)


def _quantiles(ascending: list[Any]) -> list[Any]:
    """The least labels with at least that share at or below them."""
    return [ascending[max(1, math.ceil(share * len(ascending))) - 1] for share in SHARES]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", ["segment", "number", "truth", "due"])
def test_rows_nulls_and_times(tasks: dict[str, Any], labels: dict[str, list[Any]], name: str, split: str) -> None:
    found, (values, nulls) = tasks[name]["previews"][split], _of_split(labels, name, split)
    assert (found["rows"], found["nulls"]) == (len(values), nulls)
    columns = zip(labels["asked"], labels["split"], labels[name], strict=True)
    times = [time for time, of, value in columns if of == split and value is not None]
    assert (found["min_time"], found["max_time"]) == (f"{min(times):%Y-%m-%d}", f"{max(times):%Y-%m-%d}")


@pytest.mark.parametrize("split", SPLITS)
def test_classes_are_the_users_own_words(tasks: dict[str, Any], labels: dict[str, list[Any]], split: str) -> None:
    top = tasks["segment"]["previews"][split]["top"]
    values, _ = _of_split(labels, "segment", split)
    truth = Counter(values)
    shown = {entry["value"]: entry["count"] for entry in top["values"]}
    assert [entry["count"] for entry in top["values"]] == sorted(truth.values(), reverse=True)[:10]
    assert shown.items() <= truth.items()
    assert top["others"] == len(values) - sum(shown.values())
    assert len(shown) == min(10, len(truth))
    assert tasks["segment"]["num_classes"] == len(CLASSES)


def test_classes_of_train_by_hand(tasks: dict[str, Any]) -> None:
    expected = [{"value": name, "count": n + 3} for n, name in reversed(list(enumerate(CLASSES)))][:10]
    assert tasks["segment"]["previews"]["train"]["top"] == {"values": expected, "others": 3 + 4}


@pytest.mark.parametrize("split", SPLITS)
def test_numbers_are_in_the_users_units(tasks: dict[str, Any], labels: dict[str, list[Any]], split: str) -> None:
    found, (values, _) = tasks["number"]["previews"][split], _of_split(labels, "number", split)
    # a label is kept as a z-score of 32 bits: 24 bits of a deviation of some hundreds
    np.testing.assert_allclose(found["quantiles"], _quantiles(values), rtol=0, atol=1e-4)
    assert found["mean"] == pytest.approx(np.mean(values), rel=1e-9)
    assert found["std"] == pytest.approx(np.std(values), rel=1e-9)
    assert sum(found["histogram"]["counts"]) == len(values)
    edges, counts = found["histogram"]["edges"], found["histogram"]["counts"]
    if found["histogram"]["scale"] == "linear":
        expected, _ = np.histogram(values, edges)
        assert counts == expected.tolist()


@pytest.mark.parametrize("split", SPLITS)
def test_shares_of_true_and_moments(tasks: dict[str, Any], labels: dict[str, list[Any]], split: str) -> None:
    truths, _ = _of_split(labels, "truth", split)
    assert tasks["truth"]["previews"][split]["base_rate"] == pytest.approx(np.mean(truths), rel=1e-12)
    moments, _ = _of_split(labels, "due", split)
    found = [datetime.fromisoformat(text) for text in tasks["due"]["previews"][split]["quantiles"]]
    assert found == _quantiles(moments)


def test_a_column_of_the_anchor_table(tasks: dict[str, Any]) -> None:
    previews = tasks["country"]["previews"]
    for split, rows in {"train": range(20), "val": range(20, 30), "test": range(30, 40)}.items():
        values = [COUNTRIES[row % 8] for row in rows]
        truth = Counter(value for value in values if value is not None)
        top = previews[split]["top"]
        assert {entry["value"]: entry["count"] for entry in top["values"]} == truth
        assert (top["others"], previews[split]["nulls"]) == (0, values.count(None))
