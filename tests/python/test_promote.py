"""Gates: a model goes to its place only if it is good enough, and the one before stays until then."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pytest

import tributary.evaluation.promote
from parquet_database import ParquetDatabase
from test_baselines import shop_metadata, write_shops
from test_evaluate import make_predictions
from tributary import cli
from tributary.evaluation import evaluate, judge
from tributary.evaluation.promote import FILE, Check, Gates, Threshold, check, promote

FITTED: dict[tuple[str, str], judge.Fitted] = {}
"""Baselines that the runs of this file share."""


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> ParquetDatabase:
    return ParquetDatabase(write_shops(tmp_path_factory.mktemp("shops")), shop_metadata())


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders that were opened as a server would: there is no real checkpoint in these runs."""
    found: list[Path] = []
    monkeypatch.setattr(tributary.evaluation.promote, "_prove", lambda folder, result: found.append(folder))
    return found


def make_run(
    folder: Path, database: ParquetDatabase, *, noise: float, step: int = 40, tasks=("amount",), rng_seed=0
) -> Path:
    """A run as training and `tributary evaluate` leave it; the larger the noise, the worse."""
    (folder / "checkpoints" / "best" / str(step)).mkdir(parents=True)
    (folder / "checkpoints" / "best" / str(step) / "weights").write_text(f"noise {noise}")
    (folder / "checkpoints" / "last" / "99").mkdir(parents=True)
    (folder / "config.yaml").write_text("run: {name: shops}\n")
    (folder / "statistics.safetensors").write_text("means")
    (folder / "plots").mkdir()
    for task in tasks:
        fitted = FITTED.setdefault((database.path, task), judge.Fitted(database, task, None))
        predictions = make_predictions(database, task, noise=noise, rng_seed=rng_seed)
        result, rows = judge.judge(database, task, predictions, split="test", fitted=fitted)
        result |= {"run": str(folder), "step": step, "rows_file": f"evaluation/{task}.test.parquet"}
        result["learned"] = {"kind": "trained"}
        result["database"]["path"] = database.path
        evaluate.keep(folder, result, rows)
    return folder


def call(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as raised:
        cli.main([str(argument) for argument in arguments])
    return int(raised.value.code or 0)


def test_thresholds_look_the_way_their_metric_does(shops, tmp_path):
    run = make_run(tmp_path / "run", shops, noise=1.0, tasks=("amount", "big"))
    mae = evaluate.load(run)[0]["model"]["metrics"]["mae"]

    def passes(*texts: str) -> list[bool]:
        return [found.is_passed for found in check(run, Gates([Threshold.parse(text) for text in texts]))]

    assert passes(f"mae={mae + 0.01}", f"mae={mae - 0.01}", f"amount:mae={mae}") == [True, False, True]
    assert passes("auroc=0.99999", "auroc=0.2") == [False, True]
    assert passes("accuracy=0.5", "r2=0.1") == [True, True]
    with pytest.raises(
        ValueError, match=r"no evaluated task has the metric of the threshold amount:auroc; evaluated: amount"
    ):
        passes("amount:auroc=0.5")


@pytest.mark.parametrize("text", ["auroc", "auroc=", "auroc=high", "=0.5", "auroc=nan", "aurok=0.5"])
def test_a_threshold_that_is_none_is_named(text):
    with pytest.raises(ValueError, match=f"metric threshold `{text}`: "):
        Threshold.parse(text)


def test_baselines_have_to_be_beaten(shops, tmp_path):
    good, bad = (make_run(tmp_path / str(noise), shops, noise=noise) for noise in (0.02, 50.0))
    assert [found.is_passed for found in check(good, Gates(beats=["constant", "lightgbm"]))] == [True, True]
    (found,) = check(bad, Gates(beats=["lightgbm"]))
    assert not found.is_passed
    assert found.words.startswith("amount: the model does not beat LightGBM on the history: mae")
    with pytest.raises(ValueError, match="no baseline `oracle` to beat; evaluated: constant, entity, lightgbm"):
        check(good, Gates(beats=["oracle"]))


def test_a_model_worse_beyond_chance_does_not_replace_the_better_one(shops, tmp_path):
    before, worse = make_run(tmp_path / "before", shops, noise=1.0), make_run(tmp_path / "worse", shops, noise=3.0)
    alike = make_run(tmp_path / "alike", shops, noise=1.0, rng_seed=1)
    verdicts = {run.name: check(run, Gates(not_worse_than=before))[0] for run in (worse, alike, before)}
    assert [verdicts[name].is_passed for name in ("worse", "alike", "before")] == [False, True, True]
    assert "amount: the model does not beat" in verdicts["worse"].words
    assert "not beyond chance" in verdicts["alike"].words


def test_lists_are_compared_by_their_own_metrics():
    rows = pa.table({"label": [["a", "b"], ["c"]], "prediction": [["b", "x", "a"], ["y"]]})
    scored = tributary.evaluation.promote._score({"target_stype": "link", "top_k": 3}, rows)
    assert scored.values["map"] == pytest.approx((1 + 2 / 3) / 2 / 2)
    assert scored.values["recall"] == pytest.approx(0.5)


@pytest.mark.parametrize("can_exchange", [True, False])
def test_promoted_folder_holds_the_evaluated_step_and_its_origin(shops, tmp_path, opened, monkeypatch, can_exchange):
    first, second = (
        make_run(tmp_path / "first", shops, noise=2.0),
        make_run(tmp_path / "second", shops, noise=1.0, step=7),
    )
    place, gates = tmp_path / "models" / "shops", Gates(beats=["constant"])
    promote(first, place, check(first, gates), gates)
    assert sorted(p.name for p in place.rglob("*") if p.is_dir()) == ["40", "best", "checkpoints", "evaluation"]
    gates = Gates(not_worse_than=place)
    is_served, rename = [], os.rename
    monkeypatch.setattr(os, "rename", lambda *names: (rename(*names), is_served.append((place / FILE).is_file())))
    if not can_exchange:
        monkeypatch.setattr(tributary.evaluation.promote, "exchange", lambda one, other: False)
    promote(second, place, check(second, gates), gates)
    assert is_served == ([True] if can_exchange else [False, True])
    record = json.loads((place / "promotion.json").read_text())
    assert (record["from"], record["step"]) == (str(second), 7)
    assert record["replaces"]["from"] == str(first)
    assert len(record["gates"]) == 1
    assert (place / "checkpoints" / "best" / "7" / "weights").read_text() == "noise 1.0"
    assert json.loads((tmp_path / "models" / "shops.previous" / "promotion.json").read_text())["step"] == 40
    assert (place / "statistics.safetensors").is_file(), "what a server needs goes with the model"
    assert not (place / "plots").exists()
    assert opened == [tmp_path / "models" / ".shops.partial"] * 2
    assert check(first, Gates(not_worse_than=place)), "the promoted folder can be compared with again"


def test_nothing_is_promoted_by_mistake(shops, tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", shops, noise=1.0)
    gates = Gates(beats=["constant"])
    with pytest.raises(ValueError, match="did not pass every gate"):
        promote(run, tmp_path / "place", [Check(False, "no")], gates)
    (tmp_path / "taken").mkdir()
    with pytest.raises(ValueError, match="holds no promoted model"):
        promote(run, tmp_path / "taken", [Check(True, "yes")], gates)
    promote(run, tmp_path / "place", [Check(True, "yes")], gates)

    def damaged(folder: Path, result: dict) -> None:
        raise ValueError("no sound checkpoint")

    monkeypatch.setattr(tributary.evaluation.promote, "_prove", damaged)
    with pytest.raises(ValueError, match="no sound checkpoint"):
        promote(run, tmp_path / "place", [Check(True, "yes")], gates)
    assert (tmp_path / "place" / "promotion.json").is_file(), "the model before stays"
    (run / "checkpoints" / "best" / "40").rename(run / "checkpoints" / "best" / "41")
    with pytest.raises(ValueError, match="step 40, which was evaluated, is no longer kept"):
        promote(run, tmp_path / "place", [Check(True, "yes")], gates)


def test_what_was_not_evaluated_is_named_with_the_command(shops, tmp_path):
    run, other = make_run(tmp_path / "run", shops, noise=1.0), make_run(tmp_path / "other", shops, noise=1.0)
    with pytest.raises(ValueError, match="no gate: name a metric threshold"):
        check(run, Gates())
    with pytest.raises(
        ValueError, match=r"no evaluation of big on test in the seed-time regime; run `tributary evaluate"
    ):
        check(run, Gates(beats=["constant"], tasks=["big"]))
    with pytest.raises(ValueError, match="no evaluation of any task on test in the frozen regime"):
        check(run, Gates(beats=["constant"], regime="frozen"))
    kept = evaluate.load(other)
    kept[0]["database"]["build_id"] = "rebuilt"
    (other / "evaluation.json").write_text(json.dumps({"evaluations": kept}))
    with pytest.raises(
        ValueError, match=r"`amount` is not evaluated on build parquet of the database; run `tributary eval"
    ):
        check(run, Gates(not_worse_than=other))
    with pytest.raises(FileNotFoundError, match="no such run"):
        check(tmp_path / "nowhere", Gates(beats=["constant"]))


def test_command_line_has_exit_code_1_for_what_does_not_pass(shops, tmp_path, capfd):
    run, place = make_run(tmp_path / "run", shops, noise=1.0), tmp_path / "models" / "shops"
    assert call("promote", run, "--to", place, "--metric-threshold", "mae=0.001", "--beats", "constant") == 1
    out = capfd.readouterr().out
    assert "FAILED  amount: mae is" in out
    assert "passed  amount: the model beats the constant" in out
    assert "not promoted" in out
    assert not place.exists()
    assert call("promote", run, "--to", place, "--beats", "constant", "--dry-run") == 0
    assert not place.exists()
    assert call("promote", run, "--to", place, "--beats", "constant") == 0
    assert (place / "promotion.json").is_file()
    worse = make_run(tmp_path / "worse", shops, noise=9.0)
    assert call("promote", worse, "--to", place, "--beats", "constant") == 1
    assert f"the model does not beat {place}" in capfd.readouterr().out
    assert call("promote", worse, "--to", place, "--beats", "constant", "--not-worse-than", "none") in (0, 1)
    assert call("promote", run, "--to", place) == 0, "the model there is a gate of its own"
    assert call("promote", run, "--to", tmp_path / "elsewhere") == 2
    assert "no gate" in capfd.readouterr().err
