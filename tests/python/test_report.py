"""The report: one self-contained page for every kind of target, and for runs that lack something."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from parquet_database import ParquetDatabase
from test_baselines import shop_metadata, write_shops
from test_evaluate import make_predictions
from tributary.evaluation import evaluate, judge
from tributary.report import write_report

VOID = {"meta", "br", "link", "img", "path", "circle", "line", "rect", "use", "hr", "input"}


class Balance(HTMLParser):
    """Checks that every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open, f"</{tag}> closes nothing"
            assert self.open.pop() == tag


FITTED: dict[tuple[str, str], judge.Fitted] = {}
"""Baselines that the runs of this file share."""


def make_run(
    folder: Path, database: ParquetDatabase, tasks: list[str], *, layers: int = 2, ensemble: bool = False
) -> list[dict]:
    """A run's folder as training and evaluation leave it."""
    folder.mkdir(parents=True)
    config = f"run: {{name: <b>shops</b>}}\ndata: {{database: /nowhere}}\nmodel: {{num_layers: {layers}}}\n"
    (folder / "config.yaml").write_text(config)
    train = [
        {"step": i, "loss": 1 / (i + 1), "elapsed_s": i / 9, "examples_per_s": 90.0, "input_wait": 0.02}
        for i in range(100)
    ]
    train[-1]["input_wait_ms"] = [0.25, 0.0, 3.5]
    validation = [{"step": i, "score": 0.1, "tasks": {t: {"score": i / 100} for t in tasks}} for i in range(0, 99, 20)]
    history = {"num_steps": 100, "batch_size": 32, "elapsed_s": 75.0, "num_parameters": 12345, "best_step": 80}
    history["cost"] = {"wall_s": 75.0, "cpu_s": 120.0, "peak_memory_bytes": 3 << 30, "sessions": 2}
    (folder / "training_history.json").write_text(json.dumps({**history, "train": train, "validation": validation}))
    for task in tasks:
        fitted = FITTED.setdefault((database.path, task), judge.Fitted(database, task, None))
        asked = judge.Asked(task, "test", "seed-time", None, fitted, with_baselines=True, with_ensemble=ensemble)
        answered = [make_predictions(database, task, noise=0.3 / layers, split=split) for split in ("test", "val")]
        result, rows = judge.judge_as(asked, database, *answered, None)
        result |= {"rows_file": f"evaluation/{task}.parquet", "predict_seconds": 2.0}
        evaluate.keep(folder, result, rows)
    return evaluate.load(folder)


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> ParquetDatabase:
    return ParquetDatabase(write_shops(tmp_path_factory.mktemp("shops")), shop_metadata())


def test_page_is_whole_self_contained_and_says_everything(shops, tmp_path):
    run = tmp_path / "run"
    evaluations = make_run(run, shops, ["amount", "big", "class"])
    page = write_report(
        run, evaluations, tmp_path / "out" / "report.html", manifest=json.loads(shops.manifest)
    ).read_text()
    Balance().feed(page)
    assert not re.search(r'(src|href)\s*=\s*["\'](?!#)', page), "something is loaded from elsewhere"
    assert "<b>shops</b></h1>" not in page, "names are escaped"
    for said in ("amount", "big", "class", "seed-time regime", ["beats", "the", "constant"][0], "LightGBM", "12,345"):
        assert said in page
    titles = (
        "ROC",
        "Calibration",
        "Residuals",
        "Predicted against actual",
        "Confusion, the likeliest",
        "Training loss",
    )
    for title in ("Confusion at probability 0.5", "2 minutes of CPU time, 1.6 cores busy", "3.0 GiB", "it was resumed"):
        assert title in page
    for title in (*titles, "Each step, milliseconds"):
        assert title in page
    assert "By time" in page
    assert "By history of the entity" in page
    assert "#010203" not in page, "every marker colour became a variable"
    assert "var(--model)" in page
    assert "nan" not in page.lower().split("<h2>")[1][:2000]


def test_missing_parts_are_named(shops, tmp_path):
    run = tmp_path / "run"
    evaluations = make_run(run, shops, ["amount"])
    (run / "training_history.json").unlink()
    (run / "evaluation" / "amount.parquet").unlink()
    page = write_report(run, evaluations, run / "report.html", manifest=json.loads(shops.manifest)).read_text()
    assert "No training history" in page
    assert "amount.parquet is missing: evaluate again" in page


def test_one_class_has_no_curves_and_says_why(shops, tmp_path):
    run = tmp_path / "run"
    make_run(run, shops, ["amount"])
    predictions = make_predictions(shops, "big", noise=0.1)
    result, rows = judge.judge(shops, "big", predictions.filter(predictions["label"]), split="test")
    evaluate.keep(run, {**result, "rows_file": "evaluation/big.parquet"}, rows)
    page = write_report(run, evaluate.load(run), run / "r.html", manifest=json.loads(shops.manifest)).read_text()
    assert "auroc is undefined: all" in page
    assert "Calibration" not in page


def test_ablations_and_ensemble_stand_beside_the_run(shops, tmp_path):
    evaluations = make_run(tmp_path / "whole", shops, ["amount"], ensemble=True)
    make_run(tmp_path / "thin", shops, ["amount"], layers=1)
    manifest = json.loads(shops.manifest)
    evaluations[0] |= {
        "learned": {"kind": "zero-shot", "words": "zero-shot: never trained on shops"},
        "remarks": ["seen <here>"],
    }
    out = tmp_path / "report.html"
    page = write_report(tmp_path / "whole", evaluations, out, manifest=manifest, beside=[tmp_path / "thin"]).read_text()
    Balance().feed(page)
    for said in (
        "Beside other runs, on the same rows",
        "model.num_layers: 2 → 1",
        "The ensemble <b>",
        "var(--ensemble)",
    ):
        assert said in page
    assert page.count("zero-shot: never trained on shops") == 1
    assert "Note: seen &lt;here&gt;." in page
    alone = write_report(tmp_path / "whole", evaluations, out, manifest=manifest).read_text()
    assert "Beside other runs" not in alone
    with pytest.raises(ValueError, match="need different folder names, found whole, whole"):
        write_report(tmp_path / "whole", evaluations, out, manifest=manifest, beside=[tmp_path / "whole"])
    (tmp_path / "thin" / "evaluation.json").unlink()
    with pytest.raises(ValueError, match=r"thin: nothing is evaluated yet; run `tributary evaluate"):
        write_report(tmp_path / "whole", evaluations, out, manifest=manifest, beside=[tmp_path / "thin"])
