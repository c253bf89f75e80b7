"""Curves that stand alone: every file is sound XML with the report's colours inside."""

import xml.etree.ElementTree as ElementTree

from tributary.training.run_plots import write_plots

HISTORY = {
    "batch_size": 4,
    "best_step": 2,
    "train": [
        {"step": step, "loss": 1 / step, "learning_rate": 0.1, "examples_per_s": 9.0, "input_wait_ms": [0.5]}
        for step in (1, 2)
    ],
    "validation": [{"step": 2, "tasks": {"churn": {"score": 0.5}}}],
}


def test_draws_what_there_is(tmp_path):
    files = write_plots(tmp_path / "plots", HISTORY)
    assert [path.stem for path in files] == ["loss", "validation", "input_wait", "learning_rate"]
    for path in files:
        root = ElementTree.parse(path).getroot()
        style = root.find("{http://www.w3.org/2000/svg}style")
        assert style is not None
        assert "--model: #" in str(style.text)
        assert "prefers-color-scheme: dark" in str(style.text)
    assert not list((tmp_path / "plots").glob(".*"))
    assert write_plots(tmp_path / "none", {**HISTORY, "train": [], "validation": []}) == []
