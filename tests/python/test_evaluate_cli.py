"""`tributary evaluate` and `tributary report` from the command line, with a stand-in for the trained model."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

import tributary.predict
from parquet_database import ParquetDatabase
from test_baselines import shop_metadata, write_shops
from test_evaluate import make_predictions
from tributary import cli
from tributary.config import RunConfig
from tributary.predict import Run


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose model predicts the disturbed labels."""
    database = ParquetDatabase(write_shops(tmp_path / "raw"), shop_metadata())
    folder = tmp_path / "run"
    folder.mkdir()
    data = f"{{database: {database.path}, tasks: [amount, big]}}"
    (folder / "config.yaml").write_text(f"run: {{name: shops}}\ndata: {data}\n")
    config = RunConfig.from_mapping({"data": {"database": "/nowhere", "tasks": ["amount", "big"]}})
    parts = dict.fromkeys(field.name for field in dataclasses.fields(Run))
    parts |= {"path": folder, "database": database, "manifest": json.loads(database.manifest)}
    run = Run(**{**parts, "step": 7, "config": config})

    def predict(run, task, split, *, max_seeds=None, database_cutoff=None, progress=None):
        progress(1, 1)
        return make_predictions(database, task, noise=0.3, split=split).slice(0, max_seeds)

    monkeypatch.setattr(tributary.predict, "load_run", lambda path, step, database: run)
    monkeypatch.setattr(tributary.predict, "predict_split", predict)
    return folder


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as raised:
        cli.main([str(argument) for argument in arguments])
    return int(raised.value.code or 0)


@pytest.mark.slow
def test_evaluate_prints_tables_and_verdicts_and_keeps_them(run_dir, capfd):
    assert call("evaluate", run_dir) == 0
    out = capfd.readouterr().out
    assert "amount on test, seed-time regime" in out
    assert "big on test, seed-time regime" in out
    assert "lightgbm" in out
    assert "the model beats the constant: mae" in out
    kept = json.loads((run_dir / "evaluation.json").read_text())["evaluations"]
    assert [(entry["task"], entry["step"]) for entry in kept] == [("amount", 7), ("big", 7)]
    assert call("report", run_dir, "--out", run_dir / "page.html") == 0
    assert f"the database {run_dir.parent / 'raw'} is not there" in (run_dir / "page.html").read_text()


@pytest.mark.slow
def test_several_runs_scatter_and_have_an_average(run_dir, capfd):
    options = ["--task", "amount", "--ensemble"]
    assert call("evaluate", run_dir, run_dir, *options) == 0
    out = capfd.readouterr().out
    for said in ("mean +- deviation", "average", "ensemble", "the average beats the constant"):
        assert said in out
    assert "weight fitted on" in out
    assert call("evaluate", run_dir, run_dir, *options, "--json") == 0
    (summary,) = json.loads(capfd.readouterr().out)
    assert summary["std"]["mae"] == 0
    assert summary["mean"]["mae"] == summary["runs"][0]["metrics"]["mae"]
    assert summary["model"]["metrics"]["mae"] == pytest.approx(summary["mean"]["mae"]), "equal runs average to either"
    assert summary["ensemble"]["metrics"]["mae"] < summary["mean"]["mae"]


def test_json_without_baselines_in_the_frozen_regime(run_dir, capfd):
    options = ["--task", "amount", "--json", "--no-baselines", "--max-seeds", "20", "--regime", "frozen"]
    assert call("evaluate", run_dir, *options, "--database-cutoff", "2020-05-07") == 0
    (result,) = json.loads(capfd.readouterr().out)
    assert result["regime"] == "frozen"
    assert result["database_cutoff"].startswith("2020-05-07T00:00:00")
    assert result["num_evaluated"] == 20
    assert result["baselines"] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "later"], "--split later: expected train, val or test"),
        (["--regime", "thawed"], "--regime thawed: expected seed-time or frozen"),
        (["--database-cutoff", "soon", "--regime", "frozen"], "--database-cutoff soon: expected YYYY-MM-DD"),
        (["--database-cutoff", "2020-05-01"], "belongs to the frozen regime"),
        (["--task", "nothing"], "no task `nothing`"),
        (["--ensemble", "--no-baselines"], "--ensemble weighs the model with LightGBM"),
        (["--ensemble", "--task", "amount", "--split", "val"], "fitted on val, so that only test says"),
    ],
)
def test_bad_arguments_are_one_message_and_exit_code_2(run_dir, capfd, options, message):
    assert call("evaluate", run_dir, *options) == 2
    error = capfd.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_report_needs_a_run_and_an_evaluation(run_dir, tmp_path, capfd):
    assert call("report", run_dir) == 2
    assert "nothing is evaluated yet; run `tributary evaluate" in capfd.readouterr().err
    assert call("report", tmp_path / "nowhere") == 2
    assert "no such run" in capfd.readouterr().err
