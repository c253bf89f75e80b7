"""Metrics of predictions, in RelBench's definitions, computed by scikit-learn.

boolean: auroc, average_precision, f1, accuracy (threshold 0.5); numerical: mae, rmse, r2, nmae (mae divided by the
standard deviation of the training labels); categorical: accuracy, macro_f1. A metric that the labels do not define
(the AUROC of one class) is None, and `undefined` says why.

Source: RelBench, A Benchmark for Deep Learning on Relational Databases, arXiv 2407.20060, section 4.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics as sk

NAMES = {
    "boolean": ("auroc", "average_precision", "f1", "accuracy"),
    "numerical": ("mae", "rmse", "r2", "nmae"),
    "categorical": ("accuracy", "macro_f1"),
}
LOWER_IS_BETTER = frozenset({"mae", "rmse", "nmae"})
THRESHOLD = 0.5


def default_metric(target_stype: str) -> str:
    """The metric a target is judged by unless its task names another: auroc, mae or accuracy."""
    return _names(target_stype)[0]


def is_better(metric: str, ours: float, theirs: float) -> bool:
    """Whether `ours` is strictly better than `theirs`.

    Example:
        >>> is_better("mae", 2.7, 3.0), is_better("auroc", 0.7, 0.7)
        (True, False)
    """
    return ours < theirs if metric in LOWER_IS_BETTER else ours > theirs


def compute(
    target_stype: str,
    label: ArrayLike,
    prediction: ArrayLike | None,
    probability: ArrayLike | None = None,
    train_label_std: float | None = None,
) -> dict[str, float | None]:
    """All metrics of a target's kind.

    Args:
        target_stype: boolean, numerical or categorical.
        label: [N], none missing; numbers in the user's units, booleans, or classes.
        prediction: [N], in the units of the label; unused for booleans.
        probability: [N], of True; needed for booleans only.
        train_label_std: standard deviation of the training labels, for nmae.

    Returns:
        Metric name to value; None where `undefined` gives a reason.

    Raises:
        ValueError: nothing to score, unequal lengths, or predictions that are not finite.

    Example:
        >>> compute("numerical", [1.0, 3.0], [1.0, 2.0], train_label_std=2.0)["nmae"]
        0.25
    """
    truth, scores = _checked(target_stype, label, prediction, probability)
    return _compute_all(target_stype, truth, scores, train_label_std)


def undefined(target_stype: str, label: ArrayLike, train_label_std: float | None = None) -> dict[str, str]:
    """Why metrics of these labels are None: metric name to reason.

    Example:
        >>> undefined("boolean", [True, True])["auroc"]
        'all 2 labels are true'
    """
    return _undefined(target_stype, np.asarray(label), train_label_std)


def intervals(
    target_stype: str,
    label: ArrayLike,
    prediction: ArrayLike | None,
    probability: ArrayLike | None = None,
    train_label_std: float | None = None,
    *,
    confidence: float = 0.95,
    num_resamples: int | None = None,
    rng_seed: int = 0,
) -> dict[str, tuple[float, float] | None]:
    """Bootstrap percentile intervals of every metric; rows are drawn independently, with replacement.

    Args:
        target_stype: as in `compute`, like the next four.
        label: [N].
        prediction: [N].
        probability: [N].
        train_label_std: for nmae.
        confidence: share of resamples inside the interval.
        num_resamples: default 1,000, fewer for many rows (at least 100) so that it stays a matter of seconds.
        rng_seed: equal seeds draw equal rows, so that models scored on the same rows are comparable.

    Returns:
        Metric name to (low, high); None where the metric is undefined. Resamples in which a metric is undefined
        (one class only) are left out.
    """
    truth, scores = _checked(target_stype, label, prediction, probability)
    num_rows = len(truth)
    if num_resamples is None:
        num_resamples = int(np.clip(4_000_000 // num_rows, 100, 1000))
    rng = np.random.default_rng(rng_seed)
    drawn: dict[str, list[float]] = {name: [] for name in _names(target_stype)}
    for _ in range(num_resamples):
        rows = rng.integers(0, num_rows, num_rows)
        for name, value in _compute_all(target_stype, truth[rows], scores[rows], train_label_std).items():
            if value is not None:
                drawn[name].append(value)
    reasons = _undefined(target_stype, truth, train_label_std)
    tail = 100 * (1 - confidence) / 2
    found: dict[str, tuple[float, float] | None] = {}
    for name, values in drawn.items():
        if name in reasons or not values:
            found[name] = None
        else:
            low, high = np.percentile(values, [tail, 100 - tail])
            found[name] = (float(low), float(high))
    return found


def _names(target_stype: str) -> tuple[str, ...]:
    if target_stype not in NAMES:
        raise ValueError(f"no metrics for targets of stype `{target_stype}`; they exist for {', '.join(NAMES)}")
    return NAMES[target_stype]


def _checked(
    target_stype: str, label: ArrayLike, prediction: ArrayLike | None, probability: ArrayLike | None
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Labels and the array that is scored against them, of equal length and finite."""
    _names(target_stype)
    given, what = (probability, "probability") if target_stype == "boolean" else (prediction, "prediction")
    if given is None:
        raise ValueError(f"metrics of a {target_stype} target need `{what}`")
    truth, scores = np.asarray(label), np.asarray(given)
    if target_stype == "boolean":
        truth = truth.astype(bool)
    if len(truth) != len(scores) or len(truth) == 0:
        raise ValueError(f"{len(truth)} labels and {len(scores)} values of `{what}`; need equal numbers, at least 1")
    if target_stype != "categorical":
        num_bad = int((~np.isfinite(scores.astype(np.float64))).sum())
        if num_bad:
            raise ValueError(f"{num_bad} of {len(scores)} values of `{what}` are not finite")
    return truth, scores


def _undefined(target_stype: str, truth: NDArray[Any], train_label_std: float | None) -> dict[str, str]:
    reasons: dict[str, str] = {}
    if target_stype == "boolean":
        truth = truth.astype(bool)
        if truth.all() or not truth.any():
            one_class = f"all {len(truth)} labels are {'true' if truth.all() else 'false'}"
            reasons["auroc"] = one_class
            if not truth.any():
                reasons["average_precision"] = reasons["f1"] = one_class
    elif target_stype == "numerical":
        if len(truth) < 2 or float(np.ptp(truth)) == 0.0:
            reasons["r2"] = "the labels do not vary"
        if train_label_std is None or not math.isfinite(train_label_std) or train_label_std <= 0:
            reasons["nmae"] = "the training labels do not vary, or are not known"
    return reasons


def _compute_all(
    target_stype: str, truth: NDArray[Any], scores: NDArray[Any], train_label_std: float | None
) -> dict[str, float | None]:
    reasons = _undefined(target_stype, truth, train_label_std)
    names = _names(target_stype)
    return {n: None if n in reasons else _score(n, truth, scores, train_label_std) for n in names}


def _score(name: str, truth: NDArray[Any], scores: NDArray[Any], train_label_std: float | None) -> float:
    """One metric that is defined for these labels."""
    if name == "auroc":
        return float(sk.roc_auc_score(truth, scores))
    if name == "average_precision":
        return float(sk.average_precision_score(truth, scores))
    if name == "f1":
        return float(sk.f1_score(truth, scores >= THRESHOLD, zero_division=0.0))
    if name == "accuracy":
        decided = scores >= THRESHOLD if truth.dtype == bool else scores
        return float(np.mean(truth == decided))
    if name == "macro_f1":
        return float(sk.f1_score(truth, scores, average="macro", zero_division=0.0))
    if name == "mae":
        return float(sk.mean_absolute_error(truth, scores))
    if name == "rmse":
        return float(sk.root_mean_squared_error(truth, scores))
    if name == "r2":
        return float(sk.r2_score(truth, scores))
    if name == "nmae":
        assert train_label_std is not None  # else it is undefined
        return float(sk.mean_absolute_error(truth, scores)) / train_label_std
    raise ValueError(f"no metric `{name}`")
