"""Plots of a report as SVG text that takes its colours from the page.

Matplotlib draws with marker colours; they become CSS variables afterwards, so that one picture is readable on a light
and on a dark page. Text stays text. Every function returns one `<svg>` element.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn import metrics as sk

from tributary.metrics import LOWER_IS_BETTER, THRESHOLD

Floats = NDArray[np.float64]

# marker colour -> CSS variable of the page
_VARIABLES = {
    "#010203": "--ink",
    "#040506": "--muted",
    "#070809": "--line",
    "#0a0b0c": "--model",
    "#0d0e0f": "--lightgbm",
    "#101112": "--entity",
    "#131415": "--constant",
    "#161718": "--page",
    "#191a1b": "--ensemble",
}
INK, MUTED, LINE, MODEL, LIGHTGBM, ENTITY, CONSTANT, PAGE, ENSEMBLE = _VARIABLES
COLORS = {
    "model": MODEL,
    "ensemble": ENSEMBLE,
    "lightgbm": LIGHTGBM,
    "entity": ENTITY,
    "constant": CONSTANT,
    "popular": CONSTANT,
}
LABELS = {
    "model": "model",
    "ensemble": "ensemble",
    "lightgbm": "LightGBM",
    "entity": "entity's past",
    "constant": "constant",
    "popular": "most named",
}

SQUARE = (3.1, 2.9)
"""Inches of the plots of which four stand in a row."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "figure.facecolor": "none",
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "figure.constrained_layout.use": True,
}


@contextmanager
def _figure(name: str, width: float = 4.4, height: float = 3.2) -> Any:
    """A figure in the report's style; after the block `svg()` of what it yields gives the text."""
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        yield Figure(figsize=(width, height))


def _svg(figure: Figure, description: str) -> str:
    """The figure as an SVG element with the page's colours, scaled by its container."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for marker, variable in _VARIABLES.items():
        text = text.replace(marker, f"var({variable})")
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px; font-family: inherit", text)
    text = re.sub(
        r"font: (bold|\d+) ([\d.]+)px [^;\"]*", r"font-weight: \1; font-size: \2px; font-family: inherit", text
    )
    head = f'<svg role="img" aria-label="{description}" '
    return re.sub(r'^<svg (?:[^>]*?)(viewBox="[^"]*")[^>]*>', head + r'\1 xmlns="http://www.w3.org/2000/svg">', text)


def comparison(name: str, result: Mapping[str, Any]) -> str:
    """The judging metric of the model and of every baseline, with intervals."""
    metric = result["metric"]
    shown = [result["model"], *([result["ensemble"]] if "ensemble" in result else []), *result["baselines"]]
    entries = [entry for entry in shown if entry["metrics"][metric] is not None][::-1]
    with _figure(name, 7.2, 0.75 + 0.42 * len(entries)) as figure:
        axes = figure.subplots()
        for position, entry in enumerate(entries):
            value, color = entry["metrics"][metric], COLORS[entry["name"]]
            if entry["intervals"][metric] is not None:
                axes.plot(entry["intervals"][metric], [position] * 2, color=color, linewidth=5, alpha=0.35)
            axes.plot([value], [position], "o", color=color, markersize=8)
            axes.annotate(f"{value:.4g}", (value, position), (0, 8), textcoords="offset points", ha="center", color=INK)
        axes.set_yticks(range(len(entries)), [LABELS[entry["name"]] for entry in entries])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(-0.6, len(entries) - 0.25)
        axes.margins(x=0.08)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"{metric}, {_better(metric)} is better; bars are 95 % intervals")
        return _svg(figure, f"{metric} of the model and the baselines")


def run_bars(
    name: str, metric: str, runs: Sequence[tuple[str, Mapping[str, Any]]], baselines: Sequence[Mapping[str, Any]]
) -> str:
    """A metric of several runs as bars with intervals, the first one filled, and LightGBM as a line.

    Args:
        name: unique within the page.
        metric: its name.
        runs: (name of the run, its entry with `metrics` and `intervals`), the run of the report first.
        baselines: entries of the baselines on the same rows.
    """
    known = [(who, entry) for who, entry in runs if entry["metrics"][metric] is not None][::-1]
    values = np.array([entry["metrics"][metric] for _, entry in known])
    ends = [entry["intervals"][metric] or (value, value) for (_, entry), value in zip(known, values, strict=True)]
    with _figure(name, 7.2, 0.8 + 0.42 * len(known)) as figure:
        axes = figure.subplots()
        for position, ((who, _), value, (low, high)) in enumerate(zip(known, values, ends, strict=True)):
            strength = 0.85 if who == runs[0][0] else 0.4
            axes.barh(position, value, height=0.55, color=MODEL, alpha=strength, linewidth=0)
            axes.plot([low, high], [position] * 2, color=INK, linewidth=1.2)
            axes.annotate(
                f"{value:.4g}",
                (0, position),
                (8, -3),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                color=PAGE if who == runs[0][0] else INK,
                weight="bold",
            )
        low, high = min(low for low, _ in ends), max(high for _, high in ends)
        for entry in baselines:
            if entry["name"] == "lightgbm" and entry["metrics"][metric] is not None:
                value = entry["metrics"][metric]
                axes.axvline(value, color=LIGHTGBM, linestyle="--", label=f"LightGBM {value:.4g}")
                axes.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
                low, high = min(low, value), max(high, value)
        floor = 0.5 if metric == "auroc" and low > 0.5 else min(0.0, low)
        axes.set_xlim(floor, high + 0.03 * (high - floor))
        axes.set_yticks(range(len(known)), [who for who, _ in known])
        axes.tick_params(axis="y", labelcolor=INK)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"{metric}, {_better(metric)} is better; lines are 95 % intervals")
        return _svg(figure, f"{metric} of several runs")


def _better(metric: str) -> str:
    return "lower" if metric in LOWER_IS_BETTER else "higher"


def learning_curves(history: Mapping[str, Any]) -> list[str]:
    """Training loss, and validation scores per task, over the steps."""
    pictures = []
    train = [line for line in history.get("train", []) if "loss" in line]
    if train:
        with _figure("loss") as figure:
            axes = figure.subplots()
            steps, loss = (np.array([line[field] for line in train]) for field in ("step", "loss"))
            axes.plot(steps, loss, color=MODEL, alpha=0.3, linewidth=1)
            width = max(1, len(loss) // 20)
            smooth = np.convolve(loss, np.ones(width) / width, mode="valid")
            axes.plot(steps[width - 1 :], smooth, color=MODEL)
            axes.set(title="Training loss", xlabel="step")
            pictures.append(_svg(figure, "training loss over steps"))
    checks = [line for line in history.get("validation", []) if line.get("tasks")]
    names = sorted({task for line in checks for task in line["tasks"]})
    if checks:
        with _figure("validation") as figure:
            axes = figure.subplots()
            for name, style in zip(names, ["-", "--", ":", "-."] * len(names), strict=False):
                scored = [line for line in checks if "score" in line["tasks"].get(name, {})]
                points = [(line["step"], line["tasks"][name]["score"]) for line in scored]
                if points:
                    axes.plot(*zip(*points, strict=True), style, marker="o", markersize=3, color=MODEL, label=name)
            if history.get("best_step") is not None:
                axes.axvline(history["best_step"], color=MUTED, linewidth=1, linestyle=":")
                axes.annotate("kept", (history["best_step"], axes.get_ylim()[1]), (3, -10), textcoords="offset points")
            axes.axhline(0, color=MUTED, linewidth=0.8)
            axes.set(title="Validation score (0 knows nothing, 1 perfect)", xlabel="step")
            if axes.get_legend_handles_labels()[0]:  # no task may have a score yet
                axes.legend()
            pictures.append(_svg(figure, "validation score over steps"))
    return pictures


def input_waits(history: Mapping[str, Any]) -> list[str]:
    """What each step waited for its batch, beside what a step takes."""
    train = [line for line in history.get("train", []) if line.get("input_wait_ms")]
    if not train:
        return []
    with _figure("input waits") as figure:
        axes = figure.subplots()
        steps = np.concatenate([line["step"] + 1 - np.arange(len(line["input_wait_ms"]), 0, -1) for line in train])
        waits = np.concatenate([line["input_wait_ms"] for line in train])
        axes.plot(steps, np.maximum(waits, 1e-3), ".", markersize=2.5, color=MODEL, label="waited for its batch")
        took = [1000 * history["batch_size"] / max(line["examples_per_s"], 1e-9) for line in train]
        axes.plot([line["step"] for line in train], took, color=MUTED, label="took in all")
        axes.set(title="Each step, milliseconds", xlabel="step", yscale="log")
        axes.legend()
        return [_svg(figure, "milliseconds that each step waited for its batch")]


def learning_rates(history: Mapping[str, Any]) -> list[str]:
    """The learning rate, and the norm of the gradient, over the steps."""
    pictures = []
    for field, title in (("learning_rate", "Learning rate"), ("gradient_norm", "Norm of the gradient")):
        train = [line for line in history.get("train", []) if field in line]
        if train:
            with _figure(field) as figure:
                axes = figure.subplots()
                axes.plot([line["step"] for line in train], [line[field] for line in train], color=MODEL)
                axes.set(title=title, xlabel="step")
                pictures.append(_svg(figure, f"{title.lower()} over steps"))
    return pictures


def boolean_plots(name: str, label: NDArray[np.bool_], scores: Mapping[str, Floats]) -> list[str]:
    """ROC, precision-recall, calibration and confusion of the model, with LightGBM beside it."""
    if label.all() or not label.any():
        return []
    shown = {who: scores[who] for who in ("lightgbm", "ensemble", "model") if who in scores}
    pictures = []
    with _figure(f"{name} roc", *SQUARE) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":")
        for who, score in shown.items():
            false, true, _ = sk.roc_curve(label, score)
            area = sk.roc_auc_score(label, score)
            axes.plot(*_thinned(false, true), color=COLORS[who], label=f"{LABELS[who]} {area:.3f}")
        axes.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")
        axes.legend(loc="lower right")
        pictures.append(_svg(figure, "ROC curve"))
    with _figure(f"{name} pr", *SQUARE) as figure:
        axes = figure.subplots()
        axes.axhline(label.mean(), color=MUTED, linewidth=0.8, linestyle=":")
        for who, score in shown.items():
            precision, recall, _ = sk.precision_recall_curve(label, score)
            area = sk.average_precision_score(label, score)
            axes.plot(*_thinned(recall, precision), color=COLORS[who], label=f"{LABELS[who]} {area:.3f}")
        axes.set(title="Precision and recall", xlabel="recall", ylabel="precision", ylim=(0, 1.03))
        axes.legend(loc="lower left")
        pictures.append(_svg(figure, "precision-recall curve"))
    with _figure(f"{name} calibration", *SQUARE) as figure:
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":")
        for who, score in shown.items():
            said, happened = _calibration(label, score)
            axes.plot(said, happened, "o-", markersize=4, color=COLORS[who], label=LABELS[who])
        axes.set(title="Calibration, tenths of the rows", xlabel="predicted probability", ylabel="share of true")
        axes.legend(loc="upper left")
        pictures.append(_svg(figure, "calibration"))
    said = np.where(scores["model"] >= THRESHOLD, "true", "false")
    title = f"Confusion at probability {THRESHOLD:g}"
    pictures.append(_confusion(name, np.where(label, "true", "false"), said, ["true", "false"], title, *SQUARE))
    return pictures


def numerical_plots(name: str, label: Floats, scores: Mapping[str, Floats]) -> list[str]:
    """Predicted against actual, and the residuals, both within the middle 99 % of the labels."""
    low, high = np.percentile(label, [0.5, 99.5])
    model = scores["model"]
    inside = np.flatnonzero((label >= low) & (label <= high))
    if len(inside) > 2500:
        inside = np.sort(np.random.default_rng(0).choice(inside, 2500, replace=False))
    with _figure(f"{name} scatter") as figure:
        axes = figure.subplots()
        axes.plot([low, high], [low, high], color=MUTED, linewidth=0.9, linestyle=":")
        points = axes.scatter(label[inside], model[inside], s=7, color=MODEL, alpha=0.3, linewidths=0)
        points.set_rasterized(False)
        axes.set(title="Predicted against actual", xlabel="actual", ylabel="predicted")
        scatter = _svg(figure, "predicted against actual values")
    with _figure(f"{name} residuals") as figure:
        axes = figure.subplots()
        residuals = {who: scores[who] - label for who in ("lightgbm", "ensemble", "model") if who in scores}
        span = np.percentile(np.abs(np.concatenate(list(residuals.values()))), 99)
        for who, residual in residuals.items():
            counts, edges = np.histogram(residual, np.linspace(-span, span, 61))
            axes.stairs(counts, edges, color=COLORS[who], label=LABELS[who], linewidth=1.5)
        axes.axvline(0, color=MUTED, linewidth=0.8, linestyle=":")
        axes.set(title="Residuals", xlabel="predicted minus actual", ylabel="rows")
        axes.legend()
        return [scatter, _svg(figure, "histogram of residuals")]


def categorical_plots(name: str, label: NDArray[Any], prediction: NDArray[Any], *, most: int = 12) -> list[str]:
    """Confusion matrix of the commonest classes, each row adding up to 1."""
    classes, counts = np.unique(label, return_counts=True)
    shown = classes[np.argsort(-counts, kind="stable")][:most]
    title = "Confusion, the likeliest class" + ("" if len(shown) == len(classes) else f"; {most} commonest classes")
    return [_confusion(name, label, prediction, list(shown), title, 5.2, 4.4)]


def _confusion(
    name: str,
    label: NDArray[Any],
    prediction: NDArray[Any],
    classes: Sequence[Any],
    title: str,
    width: float,
    height: float,
) -> str:
    """Shares of what was predicted among the rows of each actual class, with the numbers of rows."""
    counts = np.array([[np.sum(prediction[label == true] == said) for said in classes] for true in classes])
    totals = np.array([np.sum(label == true) for true in classes])
    with _figure(f"{name} confusion", width, height) as figure:
        axes = figure.subplots()
        for row, column in np.ndindex(*counts.shape):
            share = counts[row, column] / max(totals[row], 1)
            axes.add_patch(
                mpl.patches.Rectangle((column - 0.5, row - 0.5), 1, 1, color=MODEL, alpha=share, linewidth=0)
            )
            if len(classes) <= 8:
                color = PAGE if share > 0.55 else INK
                text = f"{share:.2f}" + (f"\n{counts[row, column]:,}" if len(classes) <= 4 else "")
                axes.text(column, row, text, ha="center", va="center", color=color)
        names = [str(value)[:16] for value in classes]
        turned = {"rotation": 40, "ha": "right"} if len(classes) > 2 else {}
        axes.set_xticks(range(len(classes)), names, **turned)
        axes.set_yticks(range(len(classes)), names)
        axes.set(xlim=(-0.5, len(classes) - 0.5), ylim=(len(classes) - 0.5, -0.5))
        axes.set(title=title, xlabel="predicted", ylabel="actual; shares of a row")
        axes.grid(visible=False)
        return _svg(figure, "confusion matrix")


def error_by(
    name: str,
    title: str,
    groups: Sequence[tuple[str, NDArray[np.int64]]],
    measure: Callable[[str, NDArray[np.int64]], float | None],
    measured: str,
    models: Sequence[str],
) -> str | None:
    """A metric over groups of rows, for the model and the baselines; None where it is defined nowhere.

    Args:
        name: unique within the page.
        title: of the plot.
        groups: (label, positions of the rows) in order.
        measure: (model, positions) to the metric; None where undefined.
        measured: name of the metric.
        models: which to draw, the model last.
    """
    with _figure(name, 5.6) as figure:
        axes = figure.subplots()
        ticks = [f"{label}\n{len(rows):,}" for label, rows in groups]
        for who in models:
            values = [measure(who, rows) for _, rows in groups]
            known = [(i, value) for i, value in enumerate(values) if value is not None]
            if known:
                is_model = who == "model"
                style = {"linestyle": "-" if is_model else "--", "linewidth": 2 if is_model else 1.3, "markersize": 4}
                axes.plot(*zip(*known, strict=True), marker="o", color=COLORS[who], label=LABELS[who], **style)
        axes.set_xticks(range(len(groups)), ticks, fontsize=8)
        axes.set(title=title, ylabel=measured)
        if not axes.lines:
            return None  # undefined in every group
        axes.legend()
        return _svg(figure, title)


def _thinned(x: Floats, y: Floats, most: int = 400) -> tuple[Floats, Floats]:
    """At most about `most` points of a curve, its ends among them."""
    if len(x) <= most:
        return x, y
    kept = np.unique(np.linspace(0, len(x) - 1, most).astype(np.int64))
    return x[kept], y[kept]


def _calibration(label: NDArray[np.bool_], score: Floats, *, num_bins: int = 10) -> tuple[Floats, Floats]:
    """Mean probability and share of true labels in bins of equally many rows."""
    bins = np.array_split(np.argsort(score, kind="stable"), min(num_bins, len(score)))
    return np.array([score[rows].mean() for rows in bins]), np.array([label[rows].mean() for rows in bins])
