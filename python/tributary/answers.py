"""What a model's outputs say, in the user's units: the one place that knows how each stype of target is answered.

A task's `Target` holds the units; `answer_fields` are the columns of an answer, `decode` fills them, `decode_labels`
puts what is known beside them. Described in `documentation/prediction.md`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from tributary.batch import Batch
from tributary.data import Database

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


def answer_fields(target: Target) -> list[pa.Field]:
    """The columns of an answer, in order."""
    return [pa.field("prediction", answer_type(target.stype)), pa.field("probability", pa.float64())]


def decode(target: Target, outputs: Mapping[str, np.ndarray]) -> dict[str, pa.Array]:
    """Answers of a forward pass.

    Args:
        target: units.
        outputs: of the forward pass, for `N` contexts: `number`, `moment`, `truth` [N] and `classes` [N, K] logits.

    Returns:
        The columns of `answer_fields`, of length `N`.
    """
    kind = answer_type(target.stype)
    if target.stype == "boolean":
        probability = sigmoid(outputs["truth"])
        return {"prediction": pa.array(probability >= 0.5, kind), "probability": pa.array(probability)}
    if target.stype in ("numerical", "timestamp"):
        scores = outputs["number" if target.stype == "numerical" else "moment"]
        prediction = pa.array(unscaled(target, scores), kind)
        return {"prediction": prediction, "probability": pa.nulls(len(scores), pa.float64())}
    probabilities = softmax(outputs["classes"][:, : len(target.classes)])
    best = probabilities.argmax(axis=1)
    chosen = np.array(target.classes, object)[best]
    probability = np.take_along_axis(probabilities, best[:, None], axis=1)[:, 0]
    return {"prediction": pa.array(chosen, kind), "probability": pa.array(probability)}


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
