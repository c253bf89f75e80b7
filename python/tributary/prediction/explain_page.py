"""Explanations of some seeds as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

if TYPE_CHECKING:
    from tributary.prediction.explain import Explained, Explanation

NUM_LINES = 12
"""Lines of a table, the weightiest."""


def write_page(
    out: str | Path, task: str, shown: Sequence[Explained], explanation: Explanation, num_seeds: int
) -> None:
    """Writes the page; it appears under its name only when it is complete.

    Args:
        out: the file.
        task: name of the task.
        shown: seeds to draw.
        explanation: its paths and unit.
        num_seeds: seeds that the weights of paths are of.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tributary.prediction", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    paths = explanation.paths.slice(0, 2 * NUM_LINES).to_pylist()
    page = environment.get_template("explain_page.html.jinja").render(
        task=task,
        unit=explanation.unit,
        num_seeds=num_seeds,
        paths=_with_bars([{**each, "place": _place(each)} for each in paths], "mean_size"),
        seeds=[_seed(each) for each in shown],
    )
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(out)


def _seed(explained: Explained) -> dict[str, Any]:
    """One seed for the template."""
    from tributary.prediction.explain import ranked

    kinds: dict[str, list[dict[str, Any]]] = {"column": [], "row": [], "cell": []}
    for removal, change, rank in ranked(explained):
        if removal.kind in kinds and rank <= NUM_LINES:
            line = {name: getattr(removal, name) for name in ("path", "table", "row_key", "column", "value")}
            kinds[removal.kind].append({**line, "place": _place(line), "change": change})
    return {
        "entity": explained.entity,
        "time": explained.time or "the end of time",
        "answer": explained.answer_text,
        "kinds": {kind: _with_bars(lines, "change") for kind, lines in kinds.items()},
    }


def _place(line: dict[str, Any]) -> str:
    """Where something lies: the path, then the table and its column."""
    end = line["table"] if line["column"] is None else f"{line['table']}.{line['column']}"
    return f"{line['path']} -> {end}" if line["path"] else str(end)


def _with_bars(lines: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """The lines with the length of their bar, in percent of the longest."""
    longest = max((abs(line[name]) for line in lines), default=0.0) or 1.0
    return [
        {**line, "bar": round(100 * abs(line[name]) / longest, 1), "figure": f"{line[name]:+.4g}", "up": line[name] > 0}
        for line in lines
    ]
