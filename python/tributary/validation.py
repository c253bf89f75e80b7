"""Validation during training: a fixed sample of each task's validation seeds, and one score to choose the best step.

The score of a task is 1 for a perfect model and 0 for one that knows nothing: 2 AUROC - 1 for booleans, 1 - MAE /
MAE of the training median for numbers and times, (accuracy - share) / (1 - share) of the most common class for
classes, MAP for links. The score of a step is the mean over tasks. Honest metrics on whole splits are
`tributary.evaluate`'s job.
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
from tributary.data import NUM_PROBES, Database, Sampler, fitted_size, sampler_options, trim
from tributary.links import Ranker, is_link, recall_of_context
from tributary.metrics import map_at_k
from tributary.predict import Forward

LITTLE_RECALL = 0.8
"""Share of what labels of a link task name that the contexts should hold."""


@dataclasses.dataclass(frozen=True)
class Validation:
    """Result of one validation."""

    step: int
    """Training steps done."""
    score: float | None
    """Mean score over the tasks that have one, the larger the better."""
    tasks: Mapping[str, Mapping[str, float]]
    """Per task: `score`, its metric (auroc, mae in z-scores, accuracy, map) and `num_seeds`; no score where undefined.

    Of a link task also `recall_of_context`: the share of what the labels name that the contexts hold.
    """


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
        self._rankers = {task["name"]: Ranker(database, task["name"]) for task in self._tasks if is_link(task)}
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
        for name, ranker in self._rankers.items():
            _warn_of_recall(name, ranker, self._samplers[name])

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
        if task["name"] in self._rankers:
            return _link_metrics(self._rankers[task["name"]], batches, [output["candidates"] for output in outputs])
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


def _warn_of_recall(name: str, ranker: Ranker, sampler: Sampler) -> None:
    """Says if contexts lack much of what the labels name: no model can rank what it does not see."""
    batches = [sampler.batch(step) for step in range(min(NUM_PROBES, sampler.steps_per_epoch))]
    recall = recall_of_context(batches, ranker.task)
    if recall < LITTLE_RECALL:
        warnings.warn(
            f"task `{name}`: the contexts hold {recall:.0%} of the rows of `{ranker.task.table}` that labels name: the"
            " model can rank no others; raise data.num_neighbors, data.seq_len, or data.max_hops if it is set",
            RuntimeWarning,
            stacklevel=3,
        )


def _link_metrics(ranker: Ranker, batches: list[Batch], log_odds: list[np.ndarray]) -> dict[str, float]:
    ranked, seeds = [], []
    for batch, scores in zip(batches, log_odds, strict=True):
        is_known = ~batch.target_is_null & ~batch.seed_is_padding
        ranked.append(ranker.rank(scores, batch)[0][is_known])
        seeds.append(batch.seed_index[is_known])
    hits, lengths = ranker.hits(np.concatenate(ranked), np.concatenate(seeds))
    found = map_at_k(hits, lengths)
    if found is None:
        return {"num_seeds": 0}
    recall = recall_of_context(batches, ranker.task)
    return {"map": found, "score": found, "recall_of_context": recall, "num_seeds": len(lengths)}


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
