"""From training to a promoted model and a zero-shot figure on another database, with real runs of a tiny model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from test_baselines import shop_metadata, write_shops
from tributary import cli
from tributary.config import RunConfig
from tributary.embed import make_embedder
from tributary.prediction.predict import load_run
from tributary.preprocess import PreprocessOptions, preprocess
from tributary.training.train import train

pytestmark = pytest.mark.slow
MODEL = {"d_model": 16, "num_layers": 1, "num_heads": 2, "d_ff": 16}
TRAIN = {"steps": 6, "batch_size": 4, "eval_every": 3, "eval_seeds": 24, "checkpoint_every": 3}


def call(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as raised:
        cli.main([str(argument) for argument in arguments])
    return int(raised.value.code or 0)


def make_database(folder: Path, name: str) -> Path:
    """A processed shop under a name of its own."""
    write_shops(folder / "raw")
    (folder / "raw" / "metadata.json").write_text(json.dumps({**shop_metadata(), "name": name}))
    preprocess(folder / "raw", folder / name, embedder=make_embedder("hash"), options=PreprocessOptions())
    return folder / name


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two random numbers of one configuration, trained on one task of three."""
    folder = tmp_path_factory.mktemp("judged")
    database = make_database(folder / "here", "here")
    data = {"database": str(database), "tasks": ["amount"], "seq_len": 48, "num_neighbors": 8, "max_shapes": 1}
    found = []
    for seed in (0, 1):
        run = {"dir": str(folder), "name": f"run{seed}", "seed": seed}
        values = {"run": run, "data": data, "model": MODEL, "train": TRAIN, "optimizer": {"warmup_steps": 2}}
        found.append(train(RunConfig.from_mapping(values)))
    return found


def test_evaluate_promote_report_and_back(runs, tmp_path, capfd):
    assert call("evaluate", *runs, "--task", "amount", "--ensemble", "--json") == 0
    (summary,) = json.loads(capfd.readouterr().out)
    assert [run["run"] for run in summary["runs"]] == [str(run) for run in runs]
    assert summary["std"]["mae"] > 0
    assert summary["differences"] == []
    assert summary["learned"]["kind"] == "trained"
    assert call("evaluate", runs[0], "--task", "amount", "--regime", "frozen", "--no-baselines") == 0
    assert "columns are over all rows, not frozen" in capfd.readouterr().out
    early = ["--task", "amount", "--regime", "frozen", "--database-cutoff", "2020-03-01"]
    assert call("evaluate", runs[0], *early) == 2
    assert "so it is not frozen" in capfd.readouterr().err

    place = tmp_path / "models" / "shops"
    assert call("promote", runs[0], "--to", place, "--metric-threshold", "mae=1000") == 0
    served = load_run(place)
    assert served.step == summary["runs"][0]["step"]
    assert call("promote", runs[0], "--to", place) == 0, "it is not worse than itself"
    assert call("report", *runs, "--out", tmp_path / "report.html") == 0
    page = (tmp_path / "report.html").read_text()
    assert "Beside other runs, on the same rows" in page
    for said in ("nothing but names and random numbers", "of CPU time", "peak memory"):
        assert said in page
    shutil.rmtree(place / "checkpoints")
    assert call("predict", place, "--task", "amount", "--split", "test", "--out", tmp_path / "p.parquet") == 2


def test_another_database_is_zero_shot(runs, tmp_path, capfd):
    there = make_database(tmp_path, "there")
    with pytest.warns(RuntimeWarning, match="`there` is none that the run was trained on"):
        assert call("evaluate", runs[0], "--database", there, "--task", "class") == 0
    out = capfd.readouterr().out
    assert "zero-shot: never trained on there; past labels are in the context" in out
    assert "class on test, seed-time regime" in out
    kept = json.loads((runs[0] / "evaluation.json").read_text())["evaluations"]
    assert [entry["rows_file"] for entry in kept if entry["task"] == "class"] == [
        "evaluation/there.class.test.seed-time.parquet"
    ]
    assert call("evaluate", runs[0], "--task", "class", "--no-baselines") == 0
    assert "zero-shot: trained on here, never on this task" in capfd.readouterr().out
