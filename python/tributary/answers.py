"""What a model's outputs say, in the user's units: the one place that knows how each stype of target is answered.

A task's `Target` holds the units; `answer_fields` are the columns of an answer, `decode` fills them, `decode_labels`
puts what is known beside them. Described in `documentation/prediction.md`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from tributary.batch import Batch
from tributary.data import Database
from tributary.links import Ranker
from tributary.prediction.calibration import Calibration, check_levels

_TYPES = {"numerical": pa.float64(), "timestamp": pa.timestamp("us"), "boolean": pa.bool_()}
"""What a target is in a table of answers; all others are texts."""


@dataclasses.dataclass(frozen=True)
class Target:
    """What turns outputs into answers."""

    stype: str
    """Of the target column."""
    mean: float
    """What a z-score of 0 stands for: a number in the user's unit, or microseconds since 1970 UTC; else 0."""
    std: float
    """What a z-score of 1 adds to it; else 1."""
    classes: tuple[str, ...]
    """The user's values that a categorical or text target may have, in the order of the logits."""


def target_of(database: Database, manifest: Mapping[str, Any], task: Mapping[str, Any]) -> Target:
    """The target of a task, in the units of a database.

    Args:
        database: an opened database, for the texts of classes.
        manifest: its manifest.
        task: one of its tasks, as the manifest describes it.
    """
    stype = task["target_stype"]
    mean, std = 0.0, 1.0
    if stype == "numerical":
        mean, std = task["statistics"]["mean"], task["statistics"]["std"]
    elif stype == "timestamp":
        mean, std = manifest["time"]["mean_us"], manifest["time"]["std_us"]
    classes = class_texts(database, task, np.array(task["classes"], np.int64)) if task["classes"] else ()
    return Target(stype, float(mean), float(std), tuple(classes))


def class_texts(database: Database, task: Mapping[str, Any], ids: np.ndarray) -> np.ndarray:
    """The user's values of vocabulary ids [N], as texts; a categorical value is stored as `<column> is <value>`."""
    distinct, inverse = np.unique(np.maximum(ids, 0), return_inverse=True)
    texts = database.vocab(distinct.tolist())
    if task["target_stype"] == "categorical":
        texts = [text.removeprefix(f"{task['target_column']} is ") for text in texts]
    return np.array(texts, object)[inverse]


def answer_type(stype: str) -> pa.DataType:
    """Type of predictions and labels of a target."""
    return _TYPES.get(stype, pa.string())


@dataclasses.dataclass(frozen=True)
class Extras:
    """What is answered besides prediction and probability."""

    top: int = 0
    """So many of the likeliest classes, with their probabilities."""
    levels: tuple[float, ...] = ()
    """Quantiles of numbers and times."""
    calibration: Calibration | None = None
    """What quantiles follow from."""


NOTHING_MORE = Extras()


def check_extras(task: str, target: Target, extras: Extras) -> None:
    """Refuses what a target has not.

    Raises:
        ValueError: quantiles of anything but numbers and times, or classes of these.
    """
    check_levels(extras.levels)
    if extras.top < 0:
        raise ValueError(f"top = {extras.top}: expected the number of classes to name")
    is_ordered = target.stype in ("numerical", "timestamp")
    if extras.levels and not is_ordered:
        raise ValueError(f"task `{task}` asks for a {target.stype} value: quantiles are of numbers and times")
    if extras.top and (is_ordered or target.stype in ("boolean", "link")):
        raise ValueError(
            f"task `{task}` asks for a {target.stype} value: only categories and texts have classes to name"
        )


def answer_fields(target: Target, extras: Extras = NOTHING_MORE) -> list[pa.Field]:
    """The columns of an answer, in order."""
    kind = answer_type(target.stype)
    fields = [pa.field("prediction", kind), pa.field("probability", pa.float64())]
    fields += [pa.field(quantile_name(level), kind) for level in extras.levels]
    if extras.top:
        fields += [pa.field("top_classes", pa.list_(kind)), pa.field("top_probabilities", pa.list_(pa.float64()))]
    return fields


def quantile_name(level: float) -> str:
    """Name of the column of a quantile.

    Example:
        >>> quantile_name(0.05)
        'quantile_0.05'
    """
    return f"quantile_{level:g}"


def decode(target: Target, outputs: Mapping[str, np.ndarray], extras: Extras = NOTHING_MORE) -> dict[str, pa.Array]:
    """Answers of a forward pass.

    Args:
        target: units.
        outputs: of the forward pass, for `N` contexts: `number`, `moment`, `truth` [N] and `classes` [N, K] logits.
        extras: what to answer besides.

    Returns:
        The columns of `answer_fields`, of length `N`.
    """
    kind = answer_type(target.stype)
    if target.stype == "boolean":
        probability = sigmoid(outputs["truth"])
        return {"prediction": pa.array(probability >= 0.5, kind), "probability": pa.array(probability)}
    if target.stype in ("numerical", "timestamp"):
        prediction = unscaled(target, outputs["number" if target.stype == "numerical" else "moment"])
        columns = {"prediction": pa.array(prediction, kind), "probability": pa.nulls(len(prediction), pa.float64())}
        if extras.calibration is not None and extras.levels:
            quantiles = extras.calibration.quantiles(prediction, extras.levels)
            columns |= {
                quantile_name(level): pa.array(np.ascontiguousarray(quantiles[:, place]), kind)
                for place, level in enumerate(extras.levels)
            }
        return columns
    probabilities = softmax(outputs["classes"][:, : len(target.classes)])
    texts = np.array(target.classes, object)
    num_named = min(max(extras.top, 1), len(texts))
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :num_named]
    named = np.take_along_axis(probabilities, order, axis=1)
    columns = {"prediction": pa.array(texts[order[:, 0]], kind), "probability": pa.array(named[:, 0])}
    if extras.top:
        offsets = pa.array(np.arange(len(order) + 1, dtype=np.int32) * num_named)
        columns["top_classes"] = pa.ListArray.from_arrays(offsets, pa.array(texts[order.ravel()], kind))
        columns["top_probabilities"] = pa.ListArray.from_arrays(offsets, pa.array(named.ravel()))
    return columns


def link_fields(keys: pa.DataType) -> list[pa.Field]:
    """The columns of an answer of a link task, the label among them; `keys` is the type of the target table's keys."""
    return [
        pa.field("prediction", pa.list_(keys)),
        pa.field("probability", pa.list_(pa.float64())),
        pa.field("num_candidates", pa.int32()),
        pa.field("num_found", pa.int32()),
        pa.field("label", pa.list_(keys)),
    ]


def decode_links(
    ranker: Ranker,
    database: Database,
    outputs: Mapping[str, np.ndarray],
    batch: Batch,
    keys: pa.DataType,
    *,
    are_own: bool,
) -> dict[str, pa.Array]:
    """Answers of a link task, with what is known beside them.

    Args:
        ranker: of the task.
        database: that the batch is of.
        outputs: of the forward pass, for the contexts of the batch: `candidates` float32 [B, A] log-odds.
        batch: host fields.
        keys: type of the target table's keys.
        are_own: the seeds are the caller's own, without labels.

    Returns:
        The columns of `link_fields`, of length `B`.
    """
    ranked, log_odds = ranker.rank(outputs["candidates"], batch, are_own=are_own)
    is_null = batch.target_is_null
    named = [ranker.task.list_of(int(seed)) for seed in np.where(is_null, -1, batch.seed_index)[~is_null]]
    labels = np.full((len(is_null), max([1, *(len(each) for each in named)])), -1, np.int64)
    for place, each in zip(np.flatnonzero(~is_null), named, strict=True):
        labels[place, : len(each)] = each
    probability = np.where(np.isnan(log_odds), np.nan, sigmoid(log_odds))
    said = [
        [None if math.isnan(value) else value for value in values[: int((rows >= 0).sum())]]
        for values, rows in zip(probability.tolist(), ranked, strict=True)
    ]
    return {
        "prediction": key_lists(database, ranker.task.table, ranked, keys),
        "probability": pa.array(said, pa.list_(pa.float64())),
        "num_candidates": pa.array(batch.row_is_candidate.sum(axis=1), pa.int32()),
        "num_found": pa.array(batch.row_is_target.sum(axis=1), pa.int32(), mask=is_null),
        "label": key_lists(database, ranker.task.table, labels, keys, is_null),
    }


def key_lists(
    database: Database, table: str, rows: np.ndarray, kind: pa.DataType, is_null: np.ndarray | None = None
) -> pa.Array:
    """Lists of primary keys of rows int64 [N, k], without the places that are -1; null where `is_null`."""
    is_there = rows >= 0
    keys = iter(database.row_keys(table, rows[is_there]))
    lists = [[next(keys) for _ in range(number)] for number in is_there.sum(axis=1).tolist()]
    known = [None if is_null is not None and is_null[at] else each for at, each in enumerate(lists)]
    return pa.array(known, pa.list_(kind))


def decode_labels(target: Target, database: Database, task: Mapping[str, Any], batch: Batch) -> pa.Array:
    """The known labels of a batch, null where there is none.

    Args:
        target: units of the database that the batch is of.
        database: that database.
        task: the task asked.
        batch: `B` contexts on the host.

    Returns:
        An array of `answer_type` and length `B`.
    """
    kind, is_null = answer_type(target.stype), batch.target_is_null
    if target.stype == "boolean":
        return pa.array(batch.target_value > 0.5, kind, mask=is_null)
    if target.stype in ("numerical", "timestamp"):
        return pa.array(unscaled(target, batch.target_value), kind, mask=is_null)
    return pa.array(class_texts(database, task, batch.target_vocab), kind, mask=is_null)


def unscaled(target: Target, scores: np.ndarray) -> np.ndarray:
    """Z-scores in the user's unit: float64, or datetime64[us] of times."""
    values = scores.astype(np.float64) * target.std + target.mean
    return np.rint(values).astype("datetime64[us]") if target.stype == "timestamp" else values


def sigmoid(log_odds: np.ndarray) -> np.ndarray:
    """Float64 probabilities."""
    return 1.0 / (1.0 + np.exp(-log_odds.astype(np.float64)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Float64 probabilities along the last axis."""
    logits = logits.astype(np.float64)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: np.ndarray = weights / weights.sum(axis=-1, keepdims=True)
    return probabilities


_US_PER_DAY = 86_400_000_000


def unit_of(target: Target) -> str:
    """Unit in which `measured` gives answers.

    Raises:
        ValueError: the answer is a list of rows.
    """
    if target.stype == "link":
        raise ValueError(
            "a list of rows has no one number whose change could be followed: link tasks are not explained"
        )
    units = {"numerical": "the target's unit", "timestamp": "days", "boolean": "probability of true"}
    return units.get(target.stype, "probability of the predicted class")


def measured(
    target: Target, outputs: Mapping[str, np.ndarray], whole: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, str]:
    """Answers as numbers that can be subtracted, and the answer of `whole` as a text.

    Args:
        target: units.
        outputs: of the forward pass, for `N` contexts.
        whole: for the one context whose predicted class is followed.

    Returns:
        float64 [N]: numbers, days since 1970, or probabilities.
    """
    if target.stype == "boolean":
        return sigmoid(outputs["truth"]), f"{sigmoid(whole['truth'])[0]:.1%} true"
    if target.stype == "numerical":
        return unscaled(target, outputs["number"]), f"{unscaled(target, whole['number'])[0]:.4g}"
    if target.stype == "timestamp":
        days = (outputs["moment"].astype(np.float64) * target.std + target.mean) / _US_PER_DAY
        return days, str(unscaled(target, whole["moment"])[0])[:19]
    num_classes = len(target.classes)
    probabilities = softmax(outputs["classes"][:, :num_classes])
    likely = softmax(whole["classes"][:, :num_classes])[0]
    followed = int(likely.argmax())
    return probabilities[:, followed], f"{target.classes[followed]} ({likely[followed]:.1%})"
