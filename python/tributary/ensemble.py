"""The model and LightGBM on the history features together, one weight between them.

The weight is fitted on the validation split alone: there neither the model nor the trees that are weighed have learned
(those trees stop early on the latest tenth of the training seeds, not on validation). Probabilities are averaged as
log-odds, numbers as they are. It is reported as what it is, an ensemble, never as the model.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tributary import baselines, metrics
from tributary.asof import Floats
from tributary.features import Task

WEIGHTS = np.linspace(0.0, 1.0, 21)
STYPES = ("boolean", "numerical")
SMALLEST = 1e-6
"""Probabilities nearer to 0 or 1 than this count as this near."""


@dataclasses.dataclass(frozen=True)
class Weighing:
    """How the ensemble was put together.

    Attributes:
        weight: of the model; LightGBM has the rest.
        num_rows: labelled validation rows it was fitted on.
        metric: the task's metric, which it is best by.
        values: (alone LightGBM, ensemble, alone the model) on these rows, by that metric.
    """

    weight: float
    num_rows: int
    metric: str
    values: tuple[float, float, float]

    @property
    def words(self) -> str:
        """What the ensemble predicts."""
        return (
            f"{self.weight:.2f} of the model and {1 - self.weight:.2f} of LightGBM on the history; "
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
        validation: the model's predictions of the validation split, as `tributary.predict.predict_split` returns them.
        trees: LightGBM that has not seen this split, `baselines.lightgbm(..., stops_on="train")`.
    """
    rows = validation.filter(validation["label"].is_valid())
    seeds = rows["seed_index"].to_numpy().astype(np.int64)
    label, found = task.label[seeds], trees.predict(seeds)
    ours = answers(task, rows)
    theirs = np.asarray(found.probability if task.target_stype == "boolean" else found.prediction, np.float64)

    def value(weight: float) -> float:
        mixed = blend(task, ours, theirs, weight)
        found = metrics.compute(task.target_stype, label, mixed, mixed)[metric]
        if found is None:
            reason = metrics.undefined(task.target_stype, label)[metric]
            raise ValueError(f"task `{task.name}`: {metric} of the validation split is undefined ({reason}): no weight")
        return found

    values = [value(float(weight)) for weight in WEIGHTS]
    optimum = min(values) if metric in metrics.LOWER_IS_BETTER else max(values)
    ties = np.flatnonzero(np.array(values) == optimum)
    best = int(ties[len(ties) // 2])  # of equally good weights the middle one, which leans on neither
    return Weighing(float(WEIGHTS[best]), len(seeds), metric, (values[0], values[best], values[-1]))


def blend(task: Task, ours: Floats, theirs: Floats, weight: float) -> Floats:
    """`weight` of ours and the rest of theirs: float64 [N], probabilities or numbers."""
    if task.target_stype != "boolean":
        return weight * ours + (1 - weight) * theirs
    mixed: Floats = 1 / (1 + np.exp(-(weight * _log_odds(ours) + (1 - weight) * _log_odds(theirs))))
    return mixed


def answers(task: Task, rows: pa.Table) -> Floats:
    """Probabilities or numbers of predicted rows."""
    column: NDArray[Any] = rows["probability" if task.target_stype == "boolean" else "prediction"].to_numpy()
    return column.astype(np.float64)


def _log_odds(probability: Floats) -> Floats:
    inside = np.clip(probability, SMALLEST, 1 - SMALLEST)
    odds: Floats = np.log(inside / (1 - inside))
    return odds
