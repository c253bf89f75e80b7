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
from tributary import metrics
from tributary.evaluation import baselines, ensemble, evaluate, judge, several
from tributary.evaluation.features import Task
from tributary.moments import moment_us


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> ParquetDatabase:
    return ParquetDatabase(write_shops(tmp_path_factory.mktemp("shops")), shop_metadata())


def make_predictions(
    database: ParquetDatabase, name: str, *, noise: float, split: str = "test", rng_seed: int = 0
) -> pa.Table:
    """Predictions as `predict_split` returns them: the labels, disturbed."""
    task, rng = Task.load(database, name), np.random.default_rng(rng_seed)
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
    result, rows = judge.judge(shops, task, make_predictions(shops, task, noise=0.02), split="test")
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
    result, _ = judge.judge(shops, task, noisy, split="test")
    assert result["verdicts"][2].startswith("does not beat LightGBM on the history: ")


def test_rows_without_label_are_left_out(shops):
    predictions = make_predictions(shops, "amount", noise=1.0)
    label = [None if i % 2 else value for i, value in enumerate(predictions["label"].to_pylist())]
    predictions = predictions.set_column(predictions.schema.get_field_index("label"), "label", [label])
    result, rows = judge.judge(shops, "amount", predictions, split="test", with_baselines=False)
    assert result["num_evaluated"] == rows.num_rows == (predictions.num_rows + 1) // 2
    assert result["num_seeds"] == predictions.num_rows
    assert result["baselines"] == []


def test_no_label_at_all_is_an_error(shops):
    predictions = make_predictions(shops, "amount", noise=1.0)
    nothing = pa.nulls(predictions.num_rows, pa.float64())
    predictions = predictions.set_column(predictions.schema.get_field_index("label"), "label", nothing)
    with pytest.raises(ValueError, match=r"none of the .* rows of split `test` has a label"):
        judge.judge(shops, "amount", predictions, split="test")


def test_one_class_is_said_and_nothing_is_claimed(shops):
    predictions = make_predictions(shops, "big", noise=0.1)
    result, _ = judge.judge(shops, "big", predictions.filter(predictions["label"]), split="test")
    assert result["model"]["metrics"]["auroc"] is None
    assert "labels are true" in result["undefined"]["auroc"]
    assert all(verdict.startswith("cannot be compared with") for verdict in result["verdicts"])


def test_frozen_baselines_know_less(shops):
    predictions = make_predictions(shops, "amount", noise=1.0)
    now, _ = judge.judge(shops, "amount", predictions, split="test")
    cutoff = int(Task.load(shops, "amount").time.min()) + 30 * 86_400_000_000
    frozen, rows = judge.judge(shops, "amount", predictions, split="test", regime="frozen", database_cutoff=cutoff)
    assert frozen["database_cutoff"].startswith("2020-02-14")
    assert frozen["baselines"][2]["metrics"]["mae"] > now["baselines"][2]["metrics"]["mae"]
    assert max(rows["history"].to_pylist()) < 100


@pytest.mark.parametrize(
    ("stats_until", "rows"), [(None, "all rows"), ("2020-02-15", "rows before 2020-02-15"), ("2020-02-14", None)]
)
def test_statistics_that_are_not_frozen_are_said(shops, stats_until, rows):
    task = Task.load(shops, "amount")
    until, cutoff = (None if text is None else moment_us(text) for text in (stats_until, "2020-02-14"))
    said = [remark for remark in evaluate._remarks(task, "test", "trained", cutoff, until) if "deviations" in remark]
    assert len(said) == (rows is not None)
    assert all(f"over {rows}" in remark and "--stats-until 2020-02-14" in remark for remark in said)
    assert not any("deviations" in remark for remark in evaluate._remarks(task, "test", "trained", None, until))


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


# ---- ensembles and several runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["amount", "big"])
def test_ensemble_is_weighed_on_validation_and_scored_beside_either_alone(shops, name):
    task = Task.load(shops, name)
    fitted = judge.Fitted(shops, name, None)
    asked = judge.Asked(name, "test", "seed-time", None, fitted, with_baselines=True, with_ensemble=True)
    noise = 1.5 if name == "amount" else 0.15
    predictions, validation = (make_predictions(shops, name, noise=noise, split=split) for split in ("test", "val"))
    result, rows = judge.judge_as(asked, shops, predictions, validation, None)
    entry, weight = result["ensemble"], result["ensemble"]["details"]["blend"]["weight"]
    trees, best, alone = entry["details"]["values"]
    assert not any(metrics.is_better(result["metric"], value, best) for value in (trees, alone))
    assert 0 < weight < 1
    assert f"fitted on {(task.split == 1).sum()} validation rows" in entry["description"]
    ours = rows["prediction" if name == "amount" else "probability"].to_numpy()
    theirs = rows["baseline_lightgbm"].to_numpy()
    expected = weight * ours + (1 - weight) * theirs
    if name == "big":
        odds = [np.log(p / (1 - p)) for p in (np.clip(ours, 1e-6, 1 - 1e-6), np.clip(theirs, 1e-6, 1 - 1e-6))]
        units, (intercept, slope) = entry["details"]["blend"]["units"], entry["details"]["blend"]["line"]
        scaled = [(given - mean) / deviation for given, (mean, deviation) in zip(odds, units, strict=True)]
        assert slope > 0
        expected = 1 / (1 + np.exp(-(intercept + slope * (weight * scaled[0] + (1 - weight) * scaled[1]))))
    np.testing.assert_allclose(rows["ensemble"].to_numpy(), expected)
    assert ["LightGBM on the history" in entry["verdicts"][0], "the model alone" in entry["verdicts"][1]] == [
        True,
        True,
    ]
    json.dumps(result, allow_nan=False)


def test_ensemble_leaves_a_useless_model_out_and_a_perfect_one_alone(shops):
    task, trees = Task.load(shops, "amount"), baselines.lightgbm(shops, "amount", stops_on="train")
    perfect, useless = (make_predictions(shops, "amount", noise=noise, split="val") for noise in (0.0, 500.0))
    assert ensemble.weigh(task, "mae", perfect, trees).blend.weight == 1
    assert ensemble.weigh(task, "mae", useless, trees).blend.weight == 0


def test_trees_that_are_weighed_have_not_seen_validation(shops):
    changed = Task.load(shops, "amount")
    changed.label[changed.split == baselines.VAL] *= 100
    rows = np.flatnonzero(changed.split == baselines.TRAIN)  # whose features show no label of validation

    def predict() -> dict[str, np.ndarray]:
        fits = {split: baselines.lightgbm(shops, "amount", stops_on=split) for split in ("train", "val")}
        return {split: fit.predict(rows).prediction for split, fit in fits.items()}

    before = predict()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Task, "load", lambda database, name: changed)
        after = predict()
    np.testing.assert_array_equal(before["train"], after["train"])
    assert not np.array_equal(before["val"], after["val"]), "the check above can fail"
    assert baselines._split_latest(changed, np.arange(100))[1].tolist() == list(range(90, 100))


def test_ensembles_that_would_not_be_honest_are_refused(shops):
    with pytest.raises(ValueError, match="fitted on val, so that only test says how good it is, not val"):
        ensemble.check_possible(Task.load(shops, "amount"), "val")
    with pytest.raises(ValueError, match="not categorical"):
        ensemble.check_possible(Task.load(shops, "class"), "test")


def test_average_of_several_runs(shops):
    tables = [make_predictions(shops, "amount", noise=noise) for noise in (0.0, 1.0)]
    mean = several.average(tables)["prediction"].to_numpy()
    np.testing.assert_allclose(mean, np.mean([table["prediction"].to_numpy() for table in tables], axis=0))
    tables = [make_predictions(shops, "big", noise=noise) for noise in (0.0, 1.0)]
    averaged = several.average(tables)
    mean = averaged["probability"].to_numpy()
    np.testing.assert_allclose(mean, np.mean([table["probability"].to_numpy() for table in tables], axis=0))
    assert averaged["prediction"].to_pylist() == (mean >= 0.5).tolist()
    said = [["a", "b"], ["b", "b"], ["b", "a"]]
    sure = [[0.9, 0.6], [0.4, 0.6], [0.4, 0.9]]
    votes = [
        pa.table({"seed_index": [0, 1], "prediction": names, "probability": known})
        for names, known in zip(said, sure, strict=True)
    ]
    voted = several.average(votes)
    assert voted["prediction"].to_pylist() == ["a", "b"], "0.9 against 0.8, 1.2 against 0.9"
    assert voted["probability"].to_pylist() == pytest.approx([0.3, 0.4])
    with pytest.raises(ValueError, match="predicted different seeds"):
        several.average([votes[0], votes[1].slice(1)])
    assert several.average([None, None]) is None


def test_configurations_that_differ_are_named():
    first = {"run": {"seed": 0, "name": "a"}, "model": {"num_layers": 2}, "data": {"threads": 1}}
    second = {"run": {"seed": 1, "name": "b"}, "model": {"num_layers": 3}, "data": {"threads": 2}}
    assert several.differences([first, second]) == ["model.num_layers"]
    assert several.differences([first, {**first, "run": {"seed": 9, "name": "c"}}]) == []
