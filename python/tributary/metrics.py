"""Metrics of predictions, in RelBench's definitions, computed by scikit-learn where it has them.

boolean: auroc, average_precision, f1, accuracy (threshold 0.5); numerical: mae, rmse, r2, nmae (mae divided by the
sample standard deviation of the training labels); categorical: accuracy (the micro-averaged F1, too), macro_f1; links:
map, precision, recall, mrr of the first k. A metric that the labels do not define (the AUROC of one class) is None, and
`undefined` says why.

Source: RelBench, A Benchmark for Deep Learning on Relational Databases, arXiv 2407.20060, section 4, and
`relbench/metrics.py` of its releases 1.1.0 (all of these but mrr) and 3.0.2 (nmae).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics as sk

Floats = NDArray[np.float64]

LINK_NAMES = ("map", "precision", "recall", "mrr")
NAMES = {
    "boolean": ("auroc", "average_precision", "f1", "accuracy"),
    "numerical": ("mae", "rmse", "r2", "nmae"),
    "categorical": ("accuracy", "macro_f1"),
    "link": LINK_NAMES,
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
        train_label_std: sample standard deviation of the training labels, for nmae.

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


@dataclass(frozen=True)
class Scores:
    """Metrics of one model with their bootstrap.

    Attributes:
        values: metric name to value; None where undefined.
        intervals: metric name to the (low, high) of its interval; None where undefined.
        undefined: metric name to the reason why it is None.
        samples: metric name to its values over the resamples, float64 [K]; NaN where a resample does not define it.
    """

    values: dict[str, float | None]
    intervals: dict[str, tuple[float, float] | None]
    undefined: dict[str, str]
    samples: dict[str, Floats]


def score(
    target_stype: str,
    label: ArrayLike,
    prediction: ArrayLike | None,
    probability: ArrayLike | None = None,
    train_label_std: float | None = None,
    *,
    num_resamples: int | None = None,
    rng_seed: int = 0,
) -> Scores:
    """All metrics with 95 % bootstrap percentile intervals; rows are drawn independently, with replacement.

    Args:
        target_stype: as in `compute`, like the next four.
        label: [N].
        prediction: [N].
        probability: [N].
        train_label_std: for nmae.
        num_resamples: default 1,000, fewer for very many rows (at least 200) so that it stays a matter of seconds.
        rng_seed: equal seeds draw equal rows, so that models scored on the same rows can be compared by `difference`.
    """
    truth, scores = _checked(target_stype, label, prediction, probability)
    values = _compute_all(target_stype, truth, scores, train_label_std)
    reasons = _undefined(target_stype, truth, train_label_std)
    if num_resamples is None:
        num_resamples = int(np.clip(15_000_000 // len(truth), 200, 1000))
    weighted = _WEIGHTED[target_stype](truth, scores)
    rng = np.random.default_rng(rng_seed)
    rows = []
    for _ in range(num_resamples):
        drawn = rng.integers(0, len(truth), len(truth))
        with np.errstate(invalid="ignore", divide="ignore"):
            rows.append(weighted.values(np.bincount(drawn, minlength=len(truth)).astype(np.float64)))
    samples = {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}
    if "mae" in samples:
        samples["nmae"] = samples["mae"] / train_label_std if "nmae" not in reasons else samples["mae"] * np.nan
    intervals = {name: None if name in reasons else _interval(samples.get(name, np.array([]))) for name in values}
    return Scores(values, intervals, reasons, samples)


def is_hit(ranked: ArrayLike, truth: Sequence[ArrayLike]) -> NDArray[np.bool_]:
    """Which of the ranked answers are true.

    Args:
        ranked: int [N, k], rows or keys of what each entity is predicted to be linked to, the likeliest first;
            -1 fills the places of an entity that has fewer than k candidates.
        truth: N lists of what each is linked to; an empty one is left out by the metrics, as RelBench does.

    Returns:
        bool [N, k].

    Raises:
        ValueError: unequal lengths, k of 0, or an answer given twice to one entity.

    Example:
        >>> is_hit([[7, 3], [5, -1]], [[3], [5, 6]]).tolist()
        [[False, True], [True, False]]
    """
    answers = np.asarray(ranked)
    if answers.ndim != 2 or answers.shape[1] == 0 or len(answers) != len(truth):
        raise ValueError(f"ranked answers of shape {answers.shape} for {len(truth)} entities; need [N, k] with k > 0")
    ordered = np.sort(answers, axis=1)
    is_double = ((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != -1)).any(axis=1)
    if is_double.any():
        raise ValueError(f"entity {int(is_double.argmax())}: an answer is ranked twice in {answers[is_double][0]}")
    rows = [np.isin(given, np.asarray(true)) & (given != -1) for given, true in zip(answers, truth, strict=True)]
    return np.array(rows, bool).reshape(answers.shape)


def map_at_k(hits: NDArray[np.bool_], num_true: ArrayLike) -> float | None:
    """Mean average precision of the first k: RelBench's `link_prediction_map`.

    Args:
        hits: bool [N, k], from `is_hit`.
        num_true: int [N], to how many each entity is linked, in its first k or not.

    Returns:
        The mean over entities with a link; None without any.

    Example:
        >>> map_at_k(np.array([[True, False, True]]), [2])
        0.8333333333333333
    """
    return compute_links(hits, num_true)["map"]


def compute_links(hits: NDArray[np.bool_], num_true: ArrayLike) -> dict[str, float | None]:
    """Metrics of links, each a mean over the entities that have any.

    map: sum over hits of the precision up to there, divided by the smaller of k and the number of links. precision:
    hits / k. recall: hits / number of links. mrr: 1 / place of the first hit, 0 without one in the first k (RelBench
    has none).

    Args:
        hits: as in `map_at_k`.
        num_true: as in `map_at_k`.
    """
    by_entity = _links_by_entity(hits, num_true)
    return {name: float(values.mean()) if len(values) else None for name, values in by_entity.items()}


def score_links(
    hits: NDArray[np.bool_], num_true: ArrayLike, *, num_resamples: int = 1000, rng_seed: int = 0
) -> Scores:
    """`compute_links` with 95 % bootstrap percentile intervals; entities are drawn independently, with replacement.

    Args:
        hits: as in `map_at_k`.
        num_true: as in `map_at_k`.
        num_resamples: how often.
        rng_seed: as in `score`.
    """
    by_entity = _links_by_entity(hits, num_true)
    stacked = np.stack([by_entity[name] for name in LINK_NAMES])
    num_entities = stacked.shape[1]
    if num_entities == 0:
        reasons = dict.fromkeys(LINK_NAMES, "no entity is linked to anything")
        return Scores(dict.fromkeys(LINK_NAMES), dict.fromkeys(LINK_NAMES), reasons, {})
    rng = np.random.default_rng(rng_seed)
    drawn = [stacked[:, rng.integers(0, num_entities, num_entities)].mean(axis=1) for _ in range(num_resamples)]
    samples = dict(zip(LINK_NAMES, np.array(drawn).T, strict=True))
    return Scores(
        {name: float(by_entity[name].mean()) for name in LINK_NAMES},
        {name: _interval(samples[name]) for name in LINK_NAMES},
        {},
        samples,
    )


def _links_by_entity(hits: NDArray[np.bool_], num_true: ArrayLike) -> dict[str, Floats]:
    """Every metric of every entity that has a link, float64 [M]."""
    counts = np.asarray(num_true, np.int64)
    if hits.ndim != 2 or hits.shape[1] == 0 or counts.shape != (len(hits),):
        raise ValueError(f"hits of shape {hits.shape} and numbers of shape {counts.shape}; need [N, k] and [N]")
    too_many = hits.sum(axis=1) > counts
    if too_many.any():
        raise ValueError(f"entity {int(too_many.argmax())} has more hits than links")
    found, linked = hits[counts > 0], counts[counts > 0]
    k = hits.shape[1]
    places = np.arange(1, k + 1)
    precision_so_far = np.cumsum(found, axis=1) / places
    return {
        "map": (precision_so_far * found).sum(axis=1) / np.minimum(linked, k),
        "precision": found.sum(axis=1) / k,
        "recall": found.sum(axis=1) / linked,
        "mrr": (found / places).max(axis=1),
    }


def difference(metric: str, ours: Scores, theirs: Scores) -> tuple[float, float, float] | None:
    """How much better `ours` is, with the 95 % interval of the paired bootstrap; positive is better for every metric.

    Args:
        metric: its name.
        ours: scored on some rows.
        theirs: scored on the same rows with the same rng_seed.

    Returns:
        (difference, low, high), or None where the metric is undefined.
    """
    our_value, their_value = ours.values[metric], theirs.values[metric]
    if our_value is None or their_value is None:
        return None
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    interval = _interval(sign * (ours.samples[metric] - theirs.samples[metric]))
    if interval is None:
        return None
    return sign * (our_value - their_value), *interval


def _interval(samples: Floats) -> tuple[float, float] | None:
    """The middle 95 % of the samples that are defined."""
    known = samples[np.isfinite(samples)]
    if len(known) == 0:
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


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
    if name == "nmae" and train_label_std is not None:
        return float(sk.mean_absolute_error(truth, scores)) / train_label_std
    raise ValueError(f"no metric `{name}`")


# ---- the same of weighted rows, fast enough for a thousand resamples; tests hold them equal to scikit-learn -----


class _WeightedBoolean:
    """Rows sorted once by score, so that every resample is a handful of sums."""

    def __init__(self, truth: NDArray[Any], scores: NDArray[Any]) -> None:
        self._order = np.argsort(scores, kind="stable")
        ordered = scores[self._order]
        self._truth = truth[self._order].astype(np.float64)
        self._decided = (ordered >= THRESHOLD).astype(np.float64)
        self._starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))

    def values(self, weights: Floats) -> dict[str, float]:
        weights = weights[self._order]
        hits = weights * self._truth
        true = np.add.reduceat(hits, self._starts)
        false = np.add.reduceat(weights - hits, self._starts)
        num_true, num_false = true.sum(), false.sum()
        auroc = (true * (np.cumsum(false) - false / 2)).sum() / (num_true * num_false)
        found, raised = np.cumsum(true[::-1]), np.cumsum((true + false)[::-1])
        precision = np.divide(found, raised, out=np.zeros_like(found), where=raised > 0)
        both = hits @ self._decided
        total = weights.sum()
        return {
            "auroc": float(auroc),
            "average_precision": float((precision * true[::-1]).sum() / num_true),
            "f1": float(2 * both / (num_true + weights @ self._decided)) if num_true else np.nan,
            "accuracy": float((2 * both + total - num_true - weights @ self._decided) / total),
        }


class _WeightedNumerical:
    def __init__(self, truth: NDArray[Any], scores: NDArray[Any]) -> None:
        self._truth = truth.astype(np.float64)
        error = scores.astype(np.float64) - self._truth
        self._absolute, self._square = np.abs(error), error**2

    def values(self, weights: Floats) -> dict[str, float]:
        total, square = weights.sum(), weights @ self._square
        spread = weights @ (self._truth - weights @ self._truth / total) ** 2
        mae, rmse = weights @ self._absolute / total, np.sqrt(square / total)
        return {"mae": float(mae), "rmse": float(rmse), "r2": float(1 - square / spread)}


class _WeightedCategorical:
    def __init__(self, truth: NDArray[Any], scores: NDArray[Any]) -> None:
        classes, codes = np.unique(np.concatenate([truth, scores]), return_inverse=True)
        self._num_classes = len(classes)
        self._truth, self._scores = codes[: len(truth)], codes[len(truth) :]
        self._same = self._truth == self._scores

    def values(self, weights: Floats) -> dict[str, float]:
        def count(codes: NDArray[Any], of: Floats) -> Floats:
            return np.bincount(codes, of, self._num_classes).astype(np.float64)

        both = count(self._truth, weights * self._same)
        either = count(self._truth, weights) + count(self._scores, weights)
        f1 = 2 * both[either > 0] / either[either > 0]
        return {"accuracy": float(weights @ self._same / weights.sum()), "macro_f1": float(f1.mean())}


_WEIGHTED: dict[str, type[_WeightedBoolean] | type[_WeightedNumerical] | type[_WeightedCategorical]] = {
    "boolean": _WeightedBoolean,
    "numerical": _WeightedNumerical,
    "categorical": _WeightedCategorical,
}
