"""Quantiles of numbers and times: how far off a run was on the validation split, put around what it predicts.

Split-conformal prediction, in groups of similar predictions: the residuals of a group of validation seeds are the
distribution of the residuals of those that are predicted alike. The point prediction is not touched, quantiles never
cross, and any run can have them. Described in `documentation/prediction.md`, "Quantiles"; why so, in
`documentation/decisions/0009-quantiles.md`.

Source: split conformal prediction, arXiv 2107.07511, section 1; groups (Mondrian), section 4.1. We differ: both tails
are calibrated apart, so intervals need not be symmetric.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = "calibration"
"""Folder of a run that holds a file per task."""
MAX_SEEDS = 10_000
"""Validation seeds at most."""
GROUP_SIZE = 100
"""Validation seeds of a group at least."""
MAX_GROUPS = 10
_HAIR = 1e-9
"""What should be a whole number may come out so much beside it."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What was predicted for validation seeds, and what came of it: in the user's unit, of times in microseconds."""

    predictions: np.ndarray
    """float64 [N], ascending."""
    residuals: np.ndarray
    """float64 [N]: label - prediction of each."""

    def quantiles(self, predictions: np.ndarray, levels: Sequence[float]) -> np.ndarray:
        """Quantiles of what is predicted.

        Args:
            predictions: [N], numbers or datetime64[us].
            levels: L shares between 0 and 1.

        Returns:
            [N, L], of the same kind; not descending in the order of ascending levels.

        Raises:
            ValueError: a level is none, or needs more validation seeds than there are.
        """
        check_levels(levels)
        groups = self._groups(levels)
        edges = [float(group[0]) for group in (self.predictions[one] for one in groups[1:])]
        offsets = np.array([_offsets(np.sort(self.residuals[one]), levels) for one in groups])
        is_time = predictions.dtype.kind == "M"
        points = predictions.astype("datetime64[us]").astype(np.int64) if is_time else predictions.astype(np.float64)
        found: np.ndarray = points[:, None] + offsets[np.searchsorted(edges, points, side="right")]
        return np.rint(found).astype("datetime64[us]") if is_time else found

    def _groups(self, levels: Sequence[float]) -> list[slice]:
        """Neighbours in prediction, enough of them for every level."""
        count = len(self.predictions)
        needed = max(math.ceil(1.0 / min(level, 1.0 - level) - _HAIR) - 1 for level in levels)
        if needed > count:
            rarest = min(levels, key=lambda level: min(level, 1.0 - level))
            raise ValueError(
                f"quantile {rarest:g}: needs {needed:,} labelled validation seeds, found {count:,}; ask for one "
                f"between {1.0 / (count + 1):.2g} and {1.0 - 1.0 / (count + 1):.2g}"
            )
        number = max(1, min(MAX_GROUPS, count // max(GROUP_SIZE, needed)))
        bounds = [count * place // number for place in range(number + 1)]
        return [slice(begin, end) for begin, end in itertools.pairwise(bounds)]


def check_levels(levels: Sequence[float]) -> None:
    """Raises `ValueError` where a level is not a share strictly between 0 and 1, or comes twice."""
    for level in levels:
        if not 0.0 < level < 1.0:
            raise ValueError(f"quantile {level:g}: expected a number between 0 and 1")
    if len(set(levels)) != len(levels):
        raise ValueError(f"quantiles {', '.join(f'{level:g}' for level in levels)}: one comes twice")


def _offsets(residuals: np.ndarray, levels: Sequence[float]) -> list[float]:
    """Residuals at levels, rounded away from the middle as a finite sample demands."""
    count = len(residuals)

    def at(level: float) -> float:
        if level == 0.5:
            return float(np.median(residuals))
        place = (count + 1) * level
        rank = math.floor(place + _HAIR) if level < 0.5 else math.ceil(place - _HAIR)
        return float(residuals[min(max(rank, 1), count) - 1])

    return [at(level) for level in levels]


def make_calibration(predictions: np.ndarray, labels: np.ndarray) -> Calibration:
    """A calibration from what was predicted for seeds whose labels are known; numbers or datetime64[us]."""
    points, truths = (
        (values.astype("datetime64[us]").astype(np.int64) if values.dtype.kind == "M" else values).astype(np.float64)
        for values in (predictions, labels)
    )
    order = np.argsort(points, kind="stable")
    return Calibration(points[order], (truths - points)[order])


def write_calibration(run_dir: Path, task: str, calibration: Calibration, made_with: dict[str, Any]) -> None:
    """Keeps a calibration in a run's folder, with what it was made with."""
    path = _path(run_dir, task)
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "task": task,
        "made_with": made_with,
        "predictions": calibration.predictions.tolist(),
        "residuals": calibration.residuals.tolist(),
    }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record), encoding="utf-8")
    partial.replace(path)


def read_calibration(run_dir: Path, task: str, made_with: dict[str, Any]) -> Calibration | None:
    """The calibration that a run's folder keeps; None where it has none, or one of other parameters."""
    path = _path(run_dir, task)
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        is_same = record["task"] == task and record["made_with"] == made_with
        arrays = (np.array(record[name], np.float64) for name in ("predictions", "residuals"))
        return Calibration(*arrays) if is_same else None
    except (json.JSONDecodeError, KeyError) as error:
        raise ValueError(f"{path}: not a calibration ({error}); delete it, and it is made anew") from None


def _path(run_dir: Path, task: str) -> Path:
    name = "".join(letter if letter.isalnum() or letter in "-_." else f"%{ord(letter):x}" for letter in task)
    return run_dir / FOLDER / f"{name}.json"
