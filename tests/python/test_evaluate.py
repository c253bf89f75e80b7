"""Evaluation: what is scored, what is said about it, what is kept; with a stand-in for the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from parquet_database import ParquetDatabase
from test_baselines import shop_metadata, write_shops
from tributary import baselines, evaluate
from tributary.asof import END_OF_TIME
from tributary.features import Task


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> ParquetDatabase:
    return ParquetDatabase(write_shops(tmp_path_factory.mktemp("shops")), shop_metadata())


def make_predictions(database: ParquetDatabase, name: str, *, noise: float, split: str = "test") -> pa.Table:
    """Predictions as `predict_split` returns them: the labels, disturbed."""
    task, rng = Task.load(database, name), np.random.default_rng(0)
    seeds = np.flatnonzero(task.split == baselines.SPLITS[split])
    label = task.label[seeds]
    columns = {"seed_index": seeds, "entity": database.row_keys("shops", task.row[seeds])}
    columns |= {"seed_time": pa.array(task.time[seeds], pa.timestamp("us")), "split": [split] * len(seeds)}
    if task.target_stype == "boolean":
        probability = np.clip(0.2 + 0.6 * label + noise * rng.normal(size=len(seeds)), 0, 1)
        columns |= {"prediction": probability >= 0.5, "probability": probability, "label": label > 0.5}
    elif task.target_stype == "categorical":
        texts = np.array(database.vocab(range(len(database._vocabulary))), object)
        swapped = np.where(rng.random(len(seeds)) < noise, label[::-1], label).astype(int)
        columns |= {"prediction": list(texts[swapped]), "probability": np.full(len(seeds), 0.9)}
        columns |= {"label": list(texts[label.astype(int)])}
    else:
        columns |= {"prediction": label + noise * rng.normal(size=len(seeds)), "label": label}
        columns |= {"probability": pa.nulls(len(seeds), pa.float64())}
    return pa.table(columns)


@pytest.mark.parametrize(("task", "metric"), [("amount", "mae"), ("big", "auroc"), ("class", "accuracy")])
def test_a_good_model_beats_every_baseline_and_a_bad_one_none(shops, task, metric):
    result, rows = evaluate.judge(shops, task, make_predictions(shops, task, noise=0.02), split="test")
    assert result["metric"] == metric
    assert result["regime"] == "seed-time"
    assert [entry["name"] for entry in result["baselines"]] == ["constant", "entity", "lightgbm"]
    assert result["verdicts"][0].startswith("beats the constant: ")
    if task == "amount":
        kinds = [verdict.split(":")[0] for verdict in result["verdicts"]]
        assert {"beats the per-entity mean", "beats the per-entity median"} <= set(kinds)
    assert {"history", "baseline_constant", "baseline_entity", "baseline_lightgbm"} <= set(rows.column_names)
    json.dumps(result, allow_nan=False)
    noisy = make_predictions(shops, task, noise=50.0 if task == "amount" else 3.0)
    result, _ = evaluate.judge(shops, task, noisy, split="test")
    assert result["verdicts"][2].startswith("does not beat LightGBM on the history: ")


def test_rows_without_label_are_left_out(shops):
    predictions = make_predictions(shops, "amount", noise=1.0)
    label = [None if i % 2 else value for i, value in enumerate(predictions["label"].to_pylist())]
    predictions = predictions.set_column(predictions.schema.get_field_index("label"), "label", [label])
    result, rows = evaluate.judge(shops, "amount", predictions, split="test", with_baselines=False)
    assert result["num_evaluated"] == rows.num_rows == (predictions.num_rows + 1) // 2
    assert result["num_seeds"] == predictions.num_rows
    assert result["baselines"] == []


def test_no_label_at_all_is_an_error(shops):
    predictions = make_predictions(shops, "amount", noise=1.0)
    nothing = pa.nulls(predictions.num_rows, pa.float64())
    predictions = predictions.set_column(predictions.schema.get_field_index("label"), "label", nothing)
    with pytest.raises(ValueError, match=r"none of the .* rows of split `test` has a label"):
        evaluate.judge(shops, "amount", predictions, split="test")


def test_one_class_is_said_and_nothing_is_claimed(shops):
    predictions = make_predictions(shops, "big", noise=0.1)
    result, _ = evaluate.judge(shops, "big", predictions.filter(predictions["label"]), split="test")
    assert result["model"]["metrics"]["auroc"] is None
    assert "labels are true" in result["undefined"]["auroc"]
    assert all(verdict.startswith("cannot be compared with") for verdict in result["verdicts"])


def test_regimes_and_their_cutoff(shops):
    task = Task.load(shops, "amount")
    assert evaluate.resolve_cutoff(task, "test", "seed-time", None) is None
    assert evaluate.resolve_cutoff(task, "test", "frozen", None) == task.time[task.split == 2].min()
    assert evaluate.resolve_cutoff(task, "test", "frozen", 5) == 5
    with pytest.raises(ValueError, match="regime `thawed`: expected one of seed-time, frozen"):
        evaluate.resolve_cutoff(task, "test", "thawed", None)
    with pytest.raises(ValueError, match="split `later`"):
        evaluate.resolve_cutoff(task, "later", "frozen", None)
    with pytest.raises(ValueError, match="belongs to the frozen regime"):
        evaluate.resolve_cutoff(task, "test", "seed-time", 5)
    timeless = Task(**{**task.__dict__, "time": np.full(len(task.time), END_OF_TIME)})
    with pytest.raises(ValueError, match="its seeds have no time"):
        evaluate.resolve_cutoff(timeless, "test", "frozen", None)


def test_frozen_baselines_know_less(shops):
    predictions = make_predictions(shops, "amount", noise=1.0)
    now, _ = evaluate.judge(shops, "amount", predictions, split="test")
    cutoff = int(Task.load(shops, "amount").time.min()) + 30 * 86_400_000_000
    frozen, rows = evaluate.judge(shops, "amount", predictions, split="test", regime="frozen", database_cutoff=cutoff)
    assert frozen["database_cutoff"].startswith("2020-02-14")
    assert frozen["baselines"][2]["metrics"]["mae"] > now["baselines"][2]["metrics"]["mae"]
    assert max(rows["history"].to_pylist()) < 100


def test_results_are_kept_once_per_task_split_and_regime(tmp_path: Path):
    rows = pa.table({"label": [1.0]})
    shared = {"split": "test", "rows_file": "evaluation/a.parquet"}
    for task, regime, value in (
        ("a", "seed-time", 1),
        ("a", "frozen", 2),
        ("b", "seed-time", 3),
        ("a", "seed-time", 4),
    ):
        evaluate.keep(tmp_path, {**shared, "task": task, "regime": regime, "value": value}, rows)
    assert sorted(entry["value"] for entry in evaluate.load(tmp_path)) == [2, 3, 4]
    assert pq.read_table(tmp_path / "evaluation" / "a.parquet").num_rows == 1
    assert evaluate.load(tmp_path / "nowhere") == []
    (tmp_path / "evaluation.json").write_text("[")
    with pytest.raises(ValueError, match="not an evaluation file"):
        evaluate.load(tmp_path)
