"""Validation during training: a fixed sample of each task's validation seeds, and one score to choose the best step.

The score of a task is 1 for a perfect model and 0 for one that knows nothing: 2 AUROC - 1 for booleans, 1 - MAE /
MAE of the training median for numbers and times, (accuracy - share) / (1 - share) of the most common class for
classes, MAP of the candidates for links. The score of a step is the mean over tasks. Where a run has no task, the
masked cells and links of held-out rows are judged: 1 - their loss / that of the untrained model. Honest metrics on
whole splits are the job of `tributary.evaluation.evaluate`.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from sklearn.metrics import roc_auc_score

from tributary.batch import Batch, DatabaseArrays
from tributary.config import RunConfig
from tributary.data import (
    NUM_PROBES,
    Database,
    Sampler,
    cut,
    fits,
    fitted_size,
    merged_sizes,
    sampler_options,
    training_options,
)
from tributary.links import LITTLE_RECALL, LinkTask, is_link, recall_of_context
from tributary.metrics import map_at_k
from tributary.model.forward import Forward
from tributary.training.databases import ROWS, Offsets, RowSeeds, Source
from tributary.training.devices import Devices
from tributary.training.losses import Objective, objective_loss


@dataclasses.dataclass(frozen=True)
class Validation:
    """Result of one validation."""

    step: int
    """Training steps done."""
    score: float | None
    """Mean score over the tasks that have one, the larger the better."""
    tasks: Mapping[str, Mapping[str, float]]
    """Per task: `score`, its metric (auroc, mae in z-scores, accuracy; map of links, by what the contexts hold of each
    label) and `num_seeds`; no score where undefined. For rows of tables `loss`, that of their masked cells and links,
    and a score only where the run has no task."""


@dataclasses.dataclass(frozen=True)
class _Held:
    """Validation seeds of one task, or of the tables of a database."""

    sampler: Sampler
    offsets: Offsets
    task: Mapping[str, Any] | None
    """As the manifest describes it; None: rows of tables."""
    median: float
    """Of the training labels, a z-score."""


class Validator:
    """Validates on the same seeds every time.

    Args:
        sources: databases of the run.
        config: of the run.
        graphdef: the model without its parameters.
        forward: prediction of a batch.
        draw_params: draws the parameters of a model that knows nothing.
        devices: where batches go.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        config: RunConfig,
        graphdef: nnx.GraphDef[Any],
        forward: Forward,
        draw_params: Callable[[], Any],
        devices: Devices,
    ):
        self._devices, self._num_seeds = devices, config.train.eval_seeds
        self._held = _held_out(sources, config, devices)
        sizes = {name: devices.largest(np.array(fitted_size(held.sampler))) for name, held in self._held.items()}
        self._sizes = merged_sizes(
            {name: (int(size[0]), int(size[1])) for name, size in sizes.items()},
            dict.fromkeys(sizes, 1.0),
            config.data.max_shapes,
        )
        has_tasks = any(held.task is not None for held in self._held.values())
        self._draw_params = None if has_tasks else draw_params
        self._untrained_losses: dict[str, float] = {}
        objective = Objective(**config.objective.model_dump())
        most = max((held.task.get("top_k") or 0 for held in self._held.values() if held.task is not None), default=0)

        def answer(params: Any, batch: Batch, arrays: DatabaseArrays) -> dict[str, jax.Array]:
            is_known = ~batch.target_is_null & ~batch.seed_is_padding
            labels = {"value": batch.target_value, "vocab": batch.target_vocab, "is_known": is_known}
            answers = dict(forward(params, batch, arrays))
            if "candidates" in answers:
                labels |= _ranked(answers.pop("candidates"), batch, most)
            return {**answers, **labels}

        def loss(params: Any, batch: Batch, arrays: DatabaseArrays) -> jax.Array:
            total: jax.Array = objective_loss(nnx.merge(graphdef, params), batch, arrays, objective)[0]
            return total

        self._answer, self._loss = jax.jit(answer), jax.jit(loss)

    def validate(self, params: Any, arrays: DatabaseArrays, step: int) -> Validation:
        """Metrics of parameters on the devices; all processes have to ask."""
        results = {
            name: self._validate_rows(name, params, arrays)
            if held.task is None
            else self._validate_task(name, held.task, params, arrays)
            for name, held in self._held.items()
        }
        scores = [result["score"] for result in results.values() if "score" in result]
        return Validation(step, float(np.mean(scores)) if scores else None, results)

    def _batches(self, name: str) -> Iterator[Batch]:
        """Batches on the devices: the first of the pass, `eval_seeds` seeds or the whole pass."""
        held, size = self._held[name], self._sizes[name]
        sampler, num_seeds = held.sampler, 0
        for step in range(sampler.steps_per_epoch):
            if num_seeds >= min(sampler.num_seeds, self._num_seeds):
                return
            batch = sampler.batch(step)
            batch = cut(batch, size) if self._devices.all(fits(batch, size)) else batch
            yield self._devices.put_batch(held.offsets.move(batch).device_fields())
            num_seeds += batch.batch_size * self._devices.world_size

    def _validate_task(
        self, name: str, task: Mapping[str, Any], params: Any, arrays: DatabaseArrays
    ) -> dict[str, float]:
        answers = [self._devices.fetch(self._answer(params, batch, arrays)) for batch in self._batches(name)]
        merged = {key: np.concatenate([answer[key] for answer in answers]) for key in answers[0]}
        known = merged["is_known"]
        merged = {key: value[known] for key, value in merged.items()}
        held = self._held[name]
        value, vocab = merged["value"].astype(np.float64), merged["vocab"] - held.offsets.vocab
        return {**_task_metrics(task, merged, value, vocab, held.median), "num_seeds": int(known.sum())}

    def _validate_rows(self, name: str, params: Any, arrays: DatabaseArrays) -> dict[str, float]:
        loss, num_seeds = self._row_loss(name, params, arrays)
        result = {"loss": loss, "num_seeds": num_seeds}
        if self._draw_params is None:
            return result
        if name not in self._untrained_losses:
            untrained = self._devices.put_copies(self._draw_params())
            self._untrained_losses[name], _ = self._row_loss(name, untrained, arrays)
        return {**result, "score": 1.0 - loss / max(self._untrained_losses[name], 1e-9)}

    def _row_loss(self, name: str, params: Any, arrays: DatabaseArrays) -> tuple[float, int]:
        """Mean loss of a batch, and the number of seeds."""
        losses, num_seeds = [], 0
        for batch in self._batches(name):
            losses.append(float(self._devices.fetch(self._loss(params, batch, arrays))))
            num_seeds += batch.batch_size
        return float(np.mean(losses)), num_seeds

    def close(self) -> None:
        """Stops the samplers."""
        for held in self._held.values():
            held.sampler.close()


def _held_out(sources: Sequence[Source], config: RunConfig, devices: Devices) -> dict[str, _Held]:
    """Samplers of the validation seeds of every task, and of the tables of every database, by name."""
    found: dict[str, _Held] = {}
    world: dict[str, Any] = {"rank": devices.rank, "world_size": devices.world_size} if devices.world_size > 1 else {}

    def options(num_seeds: int) -> dict[str, Any]:
        # A shuffled pass under its own random number: its first batches are a fair sample of the split.
        whole = -(-min(config.train.eval_batch_size, num_seeds) // devices.size) * devices.size
        return {"rng_seed": config.run.seed + 1, "batch_size": whole // devices.world_size, **world}

    for source in sources:
        for task in source.tasks:
            name, num_seeds = task["name"], task["splits"]["val"]
            if num_seeds == 0:
                warnings.warn(f"task `{name}` has no validation seeds", RuntimeWarning, stacklevel=3)
                continue
            of_context = sampler_options(source.data)
            sampler = source.task_sampler(name, "val", **options(num_seeds), **of_context)
            found[source.label(name)] = _Held(sampler, source.offsets, task, _training_median(source.database, name))
            if is_link(task):
                _warn_of_recall(source, name, sampler)
        if source.tables:
            rows = RowSeeds.of(source, "val", config.data.task_balance)
            if not rows.weights:
                warnings.warn(f"{source.label(ROWS)}: none is a validation seed", RuntimeWarning, stacklevel=3)
                continue
            of_context = training_options(config, source.data)
            sampler = rows.sampler(source, shuffle=True, **options(config.train.eval_batch_size), **of_context)
            found[source.label(ROWS)] = _Held(sampler, source.offsets, None, 0.0)
    return found


def _ranked(log_odds: jax.Array, batch: Batch, most: int) -> dict[str, jax.Array]:
    """`hits` bool [B, most]: whether candidates are named, the likeliest first; `num_named` int32 [B]: how many are."""
    scores = jnp.where(batch.row_is_candidate, log_odds, -jnp.inf)
    order = jax.lax.top_k(scores, min(most, scores.shape[1]))[1]
    hits = jnp.take_along_axis(batch.row_is_target, order, axis=1)
    padding = ((0, 0), (0, most - order.shape[1]))
    return {"hits": jnp.pad(hits, padding), "num_named": jnp.sum(batch.row_is_target, axis=1, dtype=jnp.int32)}


def _warn_of_recall(source: Source, name: str, sampler: Sampler) -> None:
    """Says if contexts lack much of what the labels name: no model can rank what it does not see."""
    task = LinkTask.load(source.database, name)
    recall = recall_of_context((sampler.batch(step) for step in range(min(NUM_PROBES, sampler.steps_per_epoch))), task)
    if recall < LITTLE_RECALL:
        warnings.warn(
            f"task `{name}`: the contexts hold {recall:.0%} of the rows of `{task.table}` that labels name: the"
            " model ranks no others; raise data.num_neighbors, data.seq_len, or data.max_hops if it is set",
            RuntimeWarning,
            stacklevel=4,
        )


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
    if stype == "link":
        found = map_at_k(outputs["hits"][:, : task["top_k"]], outputs["num_named"])
        return {} if found is None else {"map": found, "score": found}
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
