"""The model and LightGBM on the history features together, one weight between them.

Everything is fitted on the validation split alone: there neither the model nor the trees that are weighed have learned
(those trees stop early on the latest tenth of the training seeds, not on validation). Numbers are averaged as they are;
probabilities as log-odds in units of their deviation, so that a timid model weighs as much as a bold one, and the sum
is made a probability again by a logistic regression. It is reported as what it is, an ensemble, never as the model.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from tributary import metrics
from tributary.evaluation import baselines
from tributary.evaluation.asof import Floats
from tributary.evaluation.features import Task

WEIGHTS = np.linspace(0.0, 1.0, 21)
STYPES = ("boolean", "numerical")
SMALLEST = 1e-6
"""Probabilities nearer to 0 or 1 than this count as this near."""


@dataclasses.dataclass(frozen=True)
class Blend:
    """How two answers become one.

    Attributes:
        weight: of the model; LightGBM has the rest.
        units: booleans: (mean, deviation) of the log-odds of either; None for numbers.
        line: booleans: (intercept, slope) from mixed log-odds to log-odds; None for numbers.
    """

    weight: float
    units: tuple[tuple[float, float], tuple[float, float]] | None = None
    line: tuple[float, float] | None = None

    def __call__(self, ours: Floats, theirs: Floats) -> Floats:
        """float64 [N]: numbers, or probabilities of true."""
        if self.units is None or self.line is None:
            return self.weight * ours + (1 - self.weight) * theirs
        mixed = self.line[0] + self.line[1] * _mix(ours, theirs, self.weight, self.units)
        probability: Floats = 1 / (1 + np.exp(-mixed))
        return probability


@dataclasses.dataclass(frozen=True)
class Weighing:
    """The best blend, and how it was found.

    Attributes:
        blend: with the best weight.
        num_rows: labelled validation rows it was fitted on.
        metric: the task's metric, by which it is best.
        values: (LightGBM alone, blended, the model alone) on these rows, by that metric.
    """

    blend: Blend
    num_rows: int
    metric: str
    values: tuple[float, float, float]

    @property
    def words(self) -> str:
        """What the ensemble predicts."""
        share = self.blend.weight
        what = "log-odds of " if self.blend.units is not None else ""
        return (
            f"{what}{share:.2f} of the model and {1 - share:.2f} of LightGBM on the history; "
            f"weight fitted on {self.num_rows:,} validation rows"
        )


def check_possible(task: Task, split: str) -> None:
    """Refuses an ensemble that could not be made or would not be honest.

    Raises:
        ValueError: other split than test, no validation labels, or a target of another stype.
    """
    if task.target_stype not in STYPES:
        raise ValueError(
            f"task `{task.name}`: ensembles exist for {' and '.join(STYPES)} targets, not {task.target_stype}"
        )
    if split != "test":
        raise ValueError(f"the ensemble's weight is fitted on val, so that only test says how good it is, not {split}")
    if not ((task.split == baselines.VAL) & ~np.isnan(task.label)).any():
        raise ValueError(f"task `{task.name}`: the ensemble's weight needs labels of the split val; there are none")


def weigh(task: Task, metric: str, validation: pa.Table, trees: baselines.Baseline) -> Weighing:
    """Fits the weight.

    Args:
        task: whose predictions they are.
        metric: what it is judged by.
        validation: the model's predictions of the validation split, as `predict_split` returns them.
        trees: LightGBM that has not seen this split, `baselines.lightgbm(..., stops_on="train")`.

    Raises:
        ValueError: the metric is undefined there, or the labels are of one class.
    """
    rows = validation.filter(validation["label"].is_valid())
    seeds = rows["seed_index"].to_numpy().astype(np.int64)
    label, found = task.label[seeds], trees.predict(seeds)
    if task.target_stype == "boolean" and len(np.unique(label)) < 2:
        raise ValueError(f"task `{task.name}`: all {len(label)} labels of the split val are alike: no weight")
    ours = answers(task, rows)
    theirs = np.asarray(found.probability if task.target_stype == "boolean" else found.prediction, np.float64)
    blends = [_fit(task, label, ours, theirs, float(weight)) for weight in WEIGHTS]
    values = []
    for blend in blends:
        mixed = blend(ours, theirs)
        value = metrics.compute(task.target_stype, label, mixed, mixed)[metric if metric != "nmae" else "mae"]
        if value is None:
            reason = metrics.undefined(task.target_stype, label)[metric]
            raise ValueError(f"task `{task.name}`: {metric} of the split val is undefined ({reason}): no weight")
        values.append(value)
    optimum = min(values) if metric in metrics.LOWER_IS_BETTER else max(values)
    ties = np.flatnonzero(np.array(values) == optimum)
    best = int(ties[len(ties) // 2])  # of equally good weights the middle one, which leans on neither
    return Weighing(blends[best], len(seeds), metric, (values[0], values[best], values[-1]))


def answers(task: Task, rows: pa.Table) -> Floats:
    """Probabilities or numbers of predicted rows."""
    column: NDArray[Any] = rows["probability" if task.target_stype == "boolean" else "prediction"].to_numpy()
    return column.astype(np.float64)


def _fit(task: Task, label: Floats, ours: Floats, theirs: Floats, weight: float) -> Blend:
    if task.target_stype != "boolean":
        return Blend(weight)
    odds = [_log_odds(given) for given in (ours, theirs)]
    means, deviations = ([float(function(given)) for given in odds] for function in (np.mean, np.std))
    units = ((means[0], deviations[0]), (means[1], deviations[1]))
    regression = LogisticRegression(C=1e4)
    regression.fit(_mix(ours, theirs, weight, units)[:, None], label > 0.5)
    return Blend(weight, units, (float(regression.intercept_[0]), float(regression.coef_[0, 0])))


def _mix(ours: Floats, theirs: Floats, weight: float, units: tuple[tuple[float, float], tuple[float, float]]) -> Floats:
    """Weighted sum of log-odds in units of their deviation; one that does not vary adds nothing."""
    total = np.zeros(len(ours))
    for given, share, (mean, deviation) in ((ours, weight, units[0]), (theirs, 1 - weight, units[1])):
        if deviation > 0:
            total += share * (_log_odds(given) - mean) / deviation
    return total


def _log_odds(probability: Floats) -> Floats:
    inside = np.clip(probability, SMALLEST, 1 - SMALLEST)
    odds: Floats = np.log(inside / (1 - inside))
    return odds
