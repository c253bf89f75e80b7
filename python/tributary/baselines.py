"""Predictions a model has to beat: a constant, the entity's own past, LightGBM on its history.

Each is fitted on the training labels of a task and predicts any of its seeds, from the processed database alone. What
they see obeys the same rules as the model's context: nothing after the seed's time (in the frozen regime: after the
cut-off either), past labels only once their window has closed, and never a cell of the task's `remove_columns`. In the
frozen regime they are fitted on labels that were known by the cut-off, no others.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import lightgbm as lgb
import numpy as np
from numpy.typing import NDArray

from tributary import metrics
from tributary.asof import Events, Floats, Ints
from tributary.features import MAX_FEATURES, DatabaseLike, FeatureBuilder, Task

TRAIN, VAL, TEST = 0, 1, 2
SPLITS = {"train": TRAIN, "val": VAL, "test": TEST}
MAX_PAST_LABELS = 128
MAX_CLASSES = 200

LIGHTGBM_PARAMETERS = {
    "learning_rate": 0.03,
    "num_leaves": 31,
    "min_data_in_leaf": 20,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "feature_fraction": 0.5,
    "lambda_l2": 1.0,
}
MAX_TREES = 1000
EARLY_STOPPING_ROUNDS = 100
LATEST_SHARE = 0.1
"""Of the training seeds, where early stopping is to leave the validation split alone."""
SEEDS_AT_A_TIME = 50_000
"""Seeds whose features are in memory together when LightGBM predicts."""


@dataclass(frozen=True)
class Predictions:
    """Predictions of seeds.

    Attributes:
        prediction: numerical targets: float64 in the user's units; boolean: bool; categorical: vocabulary id.
        probability: boolean: of True; categorical: of the predicted class; None for numbers.
    """

    prediction: NDArray[Any]
    probability: Floats | None


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline.

    Attributes:
        name: constant, entity or lightgbm.
        description: what exactly it predicts, in words.
        predict: positions among the task's seeds (int64 [n]) to their predictions.
        details: figures about the fit, for reports.
    """

    name: str
    description: str
    predict: Callable[[Ints], Predictions]
    details: dict[str, Any] = field(default_factory=dict)


def constant(database: DatabaseLike, task: str, *, database_cutoff: int | None = None) -> Baseline:
    """The same answer for every seed, from the training labels.

    Boolean: the rate of True; numerical: mean or median, whichever has the smaller MAE on validation; categorical:
    the commonest class.

    Args:
        database: a processed database.
        task: name of the task.
        database_cutoff: microseconds; in the frozen regime labels that became known later do not exist.
    """
    loaded = _load(database, task, database_cutoff)
    labels = _labels_of(loaded, TRAIN)
    if loaded.target_stype == "numerical":
        candidates = {"mean": float(labels.mean()), "median": float(np.median(labels))}
        judged = _labels_of(loaded, VAL) if _has_labels(loaded, VAL) else labels
        kind = min(candidates, key=lambda name: float(np.abs(judged - candidates[name]).mean()))
        value, words = candidates[kind], f"the {kind} of the training labels"
    elif loaded.target_stype == "boolean":
        value, words = float(labels.mean()), "the rate of true training labels"
    else:
        classes, counts = np.unique(labels, return_counts=True)
        value, words = float(classes[counts.argmax()]), "the commonest class of the training labels"
    share = float(np.mean(labels == value))

    def predict(seeds: Ints) -> Predictions:
        filled = np.full(len(seeds), value)
        return _as_predictions(loaded, filled, np.full(len(seeds), share))

    return Baseline("constant", words, predict, {"value": value})


def entity_mean(
    database: DatabaseLike, task: str, *, database_cutoff: int | None = None, kind: str | None = None
) -> Baseline:
    """The entity's own past labels, as known at the seed's time; without any, the constant.

    Boolean: their rate; numerical: mean or median, whichever has the smaller MAE on validation; categorical: the
    commonest. At most the last 128 labels count.

    Args:
        database: a processed database.
        task: name of the task.
        database_cutoff: microseconds; in the frozen regime labels that became known later do not exist.
        kind: mean or median, to take this one of a numerical target's whatever validation says.
    """
    loaded = _load(database, task, database_cutoff)
    fallback = constant(database, task, database_cutoff=database_cutoff).details["value"]
    kind = kind or {"boolean": "mean", "categorical": "mode"}.get(loaded.target_stype)
    if kind is None:
        judged = VAL if _has_labels(loaded, VAL) else TRAIN
        seeds = np.flatnonzero((loaded.split == judged) & ~np.isnan(loaded.label))
        errors = {
            kind: np.abs(_past_labels(loaded, seeds, kind, fallback, database_cutoff) - loaded.label[seeds]).mean()
            for kind in ("mean", "median")
        }
        kind = min(errors, key=lambda name: float(errors[name]))

    def predict(seeds: Ints) -> Predictions:
        value = _past_labels(loaded, seeds, kind, fallback, database_cutoff)
        return _as_predictions(loaded, value, np.full(len(seeds), np.nan))

    words = {"mean": "mean", "median": "median", "mode": "commonest"}[kind]
    return Baseline("entity", f"the {words} of the entity's past labels, else the constant", predict, {"kind": kind})


def lightgbm(
    database: DatabaseLike,
    task: str,
    *,
    database_cutoff: int | None = None,
    hops: int = 2,
    max_train: int = 50_000,
    max_val: int = 20_000,
    stops_on: Literal["val", "train"] = "val",
    rng_seed: int = 0,
    threads: int = 1,
) -> Baseline:
    """Gradient-boosted trees on the features of `tributary.features`: own cells, parents, history, past labels.

    Early stopping watches the validation split, so that validation figures of this baseline are a little too good;
    with `stops_on="train"` it watches the latest tenth of the training seeds in its place, and they are honest.

    Args:
        database: a processed database.
        task: name of the task.
        database_cutoff: microseconds; in the frozen regime nothing after it is visible to any seed.
        hops: how far the features reach, see `FeatureBuilder`.
        max_train: training seeds used at most, drawn at random.
        max_val: validation seeds used at most for early stopping, drawn at random.
        stops_on: where early stopping looks.
        rng_seed: draws of seeds and of LightGBM.
        threads: one by default, since a second core that is busy elsewhere slows LightGBM down many times over
            (its threads wait for each other spinning); 0 for all cores.
    """
    loaded = _load(database, task, database_cutoff)
    started = time.perf_counter()
    rng = np.random.default_rng(rng_seed)
    train, val = (_draw(loaded, split, most, rng) for split, most in ((TRAIN, max_train), (VAL, max_val)))
    if stops_on == "train":
        train, val = _split_latest(loaded, train)
    builder = FeatureBuilder(database, loaded, hops=hops)
    built = builder.build(train, database_cutoff=database_cutoff)
    names, x_train = built.names, built.array()
    categorical = [names.index(name) for name in built.categorical]
    classes = np.unique(_labels_of(loaded, TRAIN))
    if loaded.target_stype == "categorical" and not 2 <= len(classes) <= MAX_CLASSES:
        raise ValueError(
            f"task `{task}`: LightGBM needs 2 to {MAX_CLASSES} classes, the training labels have {len(classes)}"
        )
    parameters = _parameters(loaded.target_stype, len(classes), rng_seed, threads)
    data = lgb.Dataset(x_train, _targets(loaded, train, classes), categorical_feature=categorical, params=parameters)
    watched: list[lgb.Dataset] = []
    callbacks: list[Callable[..., Any]] = []
    if len(val):
        x_val = builder.build(val, database_cutoff=database_cutoff).array()
        watched = [data.create_valid(x_val, _targets(loaded, val, classes))]
        callbacks = [lgb.early_stopping(EARLY_STOPPING_ROUNDS, verbose=False)]
    model = lgb.train(parameters, data, MAX_TREES, valid_sets=watched, callbacks=callbacks)

    def predict(seeds: Ints) -> Predictions:
        blocks = np.array_split(seeds, max(1, -(-len(seeds) // SEEDS_AT_A_TIME)))
        features = (builder.build(block, database_cutoff=database_cutoff).array() for block in blocks)
        answer = np.concatenate([np.asarray(model.predict(x)) for x in features])
        if loaded.target_stype == "categorical":
            return _as_predictions(loaded, classes[answer.argmax(axis=1)], answer.max(axis=1))
        return _as_predictions(loaded, answer, None)

    gain = model.feature_importance("gain")
    top = [names[i] for i in np.argsort(-gain)[:10]]
    words = f"LightGBM on {len(names)} features of the entity, its parents, its history and past labels"
    details: dict[str, Any] = {
        "num_train": len(train),
        "num_train_available": len(_labels_of(loaded, TRAIN)),
        "num_features": len(names),
        "left_out": _left_out(built.left_out),
        "num_trees": int(model.best_iteration or model.num_trees()),
        "top_features": top,
        "fit_seconds": round(time.perf_counter() - started, 2),
    }
    return Baseline("lightgbm", words, predict, details)


def train_label_std(database: DatabaseLike, task: str) -> float | None:
    """Sample standard deviation of the training labels in the user's units; None for other than two or more numbers."""
    loaded = Task.load(database, task)
    labels = _labels_of(loaded, TRAIN)
    if loaded.target_stype != "numerical" or len(labels) < 2:
        return None
    return float(labels.std(ddof=1))


# ---- what the three share ---------------------------------------------------------------------------------------


def _load(database: DatabaseLike, name: str, database_cutoff: int | None) -> Task:
    """The task, without training and validation labels that became known after the cut-off."""
    task = Task.load(database, name)
    if task.target_stype == "link":
        raise ValueError(f"task `{name}` predicts links; its baselines are those of `tributary.link_baselines`")
    if task.target_stype not in metrics.NAMES:
        raise ValueError(f"task `{name}`: no baselines for targets of stype `{task.target_stype}`")
    if not _has_labels(task, TRAIN):
        raise ValueError(f"task `{name}`: baselines need training labels, the split `train` has none")
    if database_cutoff is None:
        return task
    task = dataclasses.replace(task, label=np.where(task.label_time <= database_cutoff, task.label, np.nan))
    if not _has_labels(task, TRAIN):
        cutoff = np.datetime64(database_cutoff, "us")
        raise ValueError(
            f"task `{name}`: no training label is known by the cut-off {cutoff}: nothing to fit a baseline on"
        )
    return task


def _has_labels(task: Task, split: int) -> bool:
    return bool(((task.split == split) & ~np.isnan(task.label)).any())


def _labels_of(task: Task, split: int) -> Floats:
    """The known labels of a split."""
    known: Floats = task.label[(task.split == split) & ~np.isnan(task.label)]
    return known


def _draw(task: Task, split: int, most: int, rng: np.random.Generator) -> Ints:
    """At most `most` labelled seeds of a split, in ascending order."""
    seeds = np.flatnonzero((task.split == split) & ~np.isnan(task.label))
    return seeds if len(seeds) <= most else np.sort(rng.choice(seeds, most, replace=False))


def _as_predictions(task: Task, value: NDArray[Any], probability: Floats | None) -> Predictions:
    if task.target_stype == "boolean":
        return Predictions(value >= metrics.THRESHOLD, np.asarray(value, np.float64))
    if task.target_stype == "categorical":
        return Predictions(value.astype(np.int64), probability)
    return Predictions(np.asarray(value, np.float64), None)


def _past_labels(task: Task, seeds: Ints, kind: str, fallback: float, database_cutoff: int | None) -> Floats:
    """Mean, median or mode of each seed's last closed labels of the same entity; `fallback` without any."""
    events = Events(task.row, task.known_time)
    ordered = task.label[events.order]
    visible_until = task.time[seeds] if database_cutoff is None else np.minimum(task.time[seeds], database_cutoff)
    start, stop = events.until(task.row[seeds], task.label_horizon(visible_until))
    start = np.maximum(start, stop - MAX_PAST_LABELS)
    result = np.full(len(seeds), fallback)
    for block in np.array_split(np.arange(len(seeds)), max(1, len(seeds) // 8192)):
        width = int((stop[block] - start[block]).max(initial=0))
        if width == 0:
            continue
        positions = start[block, None] + np.arange(width)
        past = np.where(positions < stop[block, None], ordered[np.minimum(positions, len(ordered) - 1)], np.nan)
        has_any = stop[block] > start[block]
        result[block[has_any]] = _summary(past[has_any], kind)
    return result


def _summary(past: Floats, kind: str) -> Floats:
    """Row-wise mean, median or mode of [n, width] values with NaN behind the last; every row has one value."""
    if kind in ("mean", "median"):
        average: Floats = np.nanmean(past, axis=1) if kind == "mean" else np.nanmedian(past, axis=1)
        return average
    classes = np.unique(past[~np.isnan(past)])
    counts = np.stack([(past == value).sum(axis=1) for value in classes], axis=1)
    commonest: Floats = classes[counts.argmax(axis=1)]
    return commonest


def _split_latest(task: Task, seeds: Ints) -> tuple[Ints, Ints]:
    """The seeds without their latest tenth, and that tenth; in ascending order both."""
    ordered = seeds[np.argsort(task.time[seeds], kind="stable")]
    kept = len(ordered) - int(np.ceil(LATEST_SHARE * len(ordered)))
    return np.sort(ordered[:kept]), np.sort(ordered[kept:])


def _left_out(groups: list[str]) -> str:
    """Why some features were not made; empty where all were."""
    if not groups:
        return ""
    shown = ", ".join(groups[:3]) + (", ..." if len(groups) > 3 else "")
    return f"of more than {MAX_FEATURES} features only the nearest are used, to bound memory; left out: {shown}"


def _targets(task: Task, seeds: Ints, classes: Floats) -> NDArray[Any]:
    """Labels in the form LightGBM wants; labels of classes that training has not seen count as the first."""
    label = task.label[seeds]
    if task.target_stype == "categorical":
        return np.searchsorted(classes, np.where(np.isin(label, classes), label, classes[0]))
    return label


def _parameters(target_stype: str, num_classes: int, rng_seed: int, threads: int) -> dict[str, Any]:
    """LightGBM's parameters for a kind of target; numbers are judged by MAE, so it is what the trees minimise."""
    shared = {**LIGHTGBM_PARAMETERS, "seed": rng_seed, "num_threads": threads, "verbosity": -1}
    if target_stype == "numerical":
        return {**shared, "objective": "regression_l1", "metric": "l1"}
    if target_stype == "boolean":
        return {**shared, "objective": "binary", "metric": "auc"}
    return {**shared, "objective": "multiclass", "metric": "multi_logloss", "num_class": num_classes}
