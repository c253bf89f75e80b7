"""Validation during training: a fixed sample of each task's validation seeds, and one score to choose the best step.

The score of a task is 1 for a perfect model and 0 for one that knows nothing: 2 AUROC - 1 for booleans, 1 - MAE /
MAE of the training median for numbers and times, (accuracy - share) / (1 - share) of the most common class for
classes. The score of a step is the mean over tasks. Honest metrics on whole splits are `tributary.evaluate`'s job.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any, Self

import jax
import numpy as np
from sklearn.metrics import roc_auc_score

from tributary.batch import Batch, DatabaseArrays
from tributary.config import RunConfig
from tributary.data import Database, Sampler, fitted_size, sampler_options, trim
from tributary.predict import Forward


@dataclasses.dataclass(frozen=True)
class Validation:
    """Result of one validation."""

    step: int
    """Training steps done."""
    score: float | None
    """Mean score over the tasks that have one, the larger the better."""
    tasks: Mapping[str, Mapping[str, float]]
    """Per task: `score`, its metric (auroc, mae in z-scores, accuracy) and `num_seeds`; no score where undefined."""


class Validator:
    """Validates on the same seeds every time.

    Args:
        database: opened database.
        tasks: tasks of its manifest.
        config: of the run.
        forward: prediction of a batch.
        device: where batches go.
    """

    def __init__(
        self,
        database: Database,
        tasks: list[dict[str, Any]],
        config: RunConfig,
        forward: Forward,
        device: jax.Device,
    ):
        self._forward, self._device, self._num_seeds = forward, device, config.train.eval_seeds
        self._tasks = [task for task in tasks if task["splits"]["val"] > 0]
        for task in tasks:
            if task["splits"]["val"] == 0:
                warnings.warn(f"task `{task['name']}` has no validation seeds", RuntimeWarning, stacklevel=2)
        self._medians = {task["name"]: _training_median(database, task["name"]) for task in self._tasks}
        # A shuffled pass under its own random number: its first batches are a fair sample of the split.
        self._samplers = {
            task["name"]: Sampler(
                database,
                [task["name"]],
                split="val",
                batch_size=min(config.train.eval_batch_size, task["splits"]["val"]),
                shuffle=True,
                rng_seed=config.run.seed + 1,
                **sampler_options(config.data),
            )
            for task in self._tasks
        }
        self._sizes = {name: fitted_size(sampler) for name, sampler in self._samplers.items()}

    def validate(self, params: Any, arrays: DatabaseArrays, step: int) -> Validation:
        """Metrics of parameters on the device."""
        results = {task["name"]: self._validate_task(task, params, arrays) for task in self._tasks}
        scores = [result["score"] for result in results.values() if "score" in result]
        return Validation(step, float(np.mean(scores)) if scores else None, results)

    def _validate_task(self, task: dict[str, Any], params: Any, arrays: DatabaseArrays) -> dict[str, float]:
        sampler = self._samplers[task["name"]]
        size = min(sampler.num_seeds, self._num_seeds)
        batches: list[Batch] = []
        outputs: list[dict[str, np.ndarray]] = []
        while sum(batch.batch_size for batch in batches) < size and len(batches) < sampler.steps_per_epoch:
            batch = trim(sampler.batch(len(batches)), self._sizes[task["name"]])
            on_device = jax.device_put(batch.device_fields(), self._device)
            outputs.append(jax.device_get(self._forward(params, on_device, arrays)))
            batches.append(batch)
        known = np.concatenate([~batch.target_is_null & ~batch.seed_is_padding for batch in batches])
        merged = {name: np.concatenate([output[name] for output in outputs])[known] for name in outputs[0]}
        value = np.concatenate([batch.target_value for batch in batches])[known].astype(np.float64)
        vocab = np.concatenate([batch.target_vocab for batch in batches])[known]
        return {**_task_metrics(task, merged, value, vocab, self._medians[task["name"]]), "num_seeds": int(known.sum())}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for sampler in self._samplers.values():
            sampler.close()


def _training_median(database: Database, task: str) -> float:
    """Median of the training labels, a z-score; 0 without any."""
    seeds = database.task_seeds(task)
    values = seeds["value"][(seeds["split"] == 0) & ~seeds["is_null"]]
    return float(np.median(values)) if len(values) else 0.0


def _task_metrics(
    task: Mapping[str, Any], outputs: Mapping[str, np.ndarray], value: np.ndarray, vocab: np.ndarray, median: float
) -> dict[str, float]:
    stype = task["target_stype"]
    if len(value) == 0:
        return {}
    if stype == "boolean":
        if value.min() == value.max():
            return {}
        auroc = float(roc_auc_score(value > 0.5, outputs["truth"]))
        return {"auroc": auroc, "score": 2.0 * auroc - 1.0}
    if stype in ("numerical", "timestamp"):
        prediction = outputs["number" if stype == "numerical" else "moment"].astype(np.float64)
        mae = float(np.abs(prediction - value).mean())
        constant = float(np.abs(median - value).mean())
        return {"mae": mae, **({"score": 1.0 - mae / constant} if constant > 0 else {})}
    classes = np.array(task["classes"])
    accuracy = float((classes[outputs["classes"][:, : len(classes)].argmax(axis=1)] == vocab).mean())
    share = float(np.unique(vocab, return_counts=True)[1].max() / len(vocab))
    return {"accuracy": accuracy, **({"score": (accuracy - share) / (1.0 - share)} if share < 1 else {})}
