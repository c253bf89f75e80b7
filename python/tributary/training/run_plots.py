"""Curves of a run as SVG files that stand alone: the report's pictures with the report's colours in them."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tributary.report import plots


def write_plots(folder: Path, history: Mapping[str, Any]) -> list[Path]:
    """Draws what a history has.

    Args:
        folder: where the files go; made if it is not there.
        history: content of `training_history.json`.

    Returns:
        The files: `loss`, `validation`, `input_wait`, `learning_rate`, `gradient_norm`, those that have data.
    """
    pictures = {"loss": plots.learning_curves({"train": history["train"]})}
    pictures["validation"] = plots.learning_curves({**history, "train": []})
    pictures["input_wait"] = plots.input_waits(history)
    for name in ("learning_rate", "gradient_norm"):
        train = [{"step": line["step"], name: line[name]} for line in history["train"] if name in line]
        pictures[name] = plots.learning_rates({"train": train})
    style = _style()
    files = []
    for name, drawn in pictures.items():
        for picture in drawn:
            head, end, body = picture.partition(">")
            path = folder / f"{name}.svg"
            folder.mkdir(exist_ok=True)
            partial = path.with_name(f".{path.name}.partial")
            alone = f'{head} xmlns:xlink="http://www.w3.org/1999/xlink"{end}\n{style}{body}'
            partial.write_text(alone, encoding="utf-8")
            partial.replace(path)
            files.append(path)
    return files


def _style() -> str:
    """The report's colours, for light and dark, as a style element."""
    page = importlib.resources.files("tributary.report").joinpath("report.html.jinja").read_text(encoding="utf-8")
    colors = page[page.index(":root {") : page.index("* { box-sizing")]
    return f"<style>{colors}svg {{ background: var(--page); font-family: sans-serif; }}</style>"
