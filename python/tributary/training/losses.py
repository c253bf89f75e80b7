"""The training objective: target cells, and beside them masked cells and links. All losses are float32.

Every loss is a mean over the cells that have a label of its kind; a cell without a label weighs nothing. Described
in `documentation/training.md`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import optax

from tributary.batch import Array, Batch, DatabaseArrays
from tributary.model.encoders import (
    BOOLEAN,
    CATEGORICAL,
    IDENTIFIER,
    NUMERICAL,
    TEXT,
    TIMESTAMP,
    calendar_features,
)
from tributary.model.forward import class_logits, task_of
from tributary.model.heads import Outputs
from tributary.model.kinds import Model


@dataclasses.dataclass(frozen=True)
class Objective:
    """What is learned; the fields are those of the config section `objective`."""

    mask_rate: float | Mapping[str, float] = 0.15
    """Fraction of the other cells that is masked, or that of each stype."""
    mask_columns: float = 0.0
    """Fraction of the columns of a context that is masked as a whole."""
    masked_weight: float = 0.3
    """Weight of the masked cells' loss beside the targets'."""
    null_weight: float = 0.1
    """Weight of the null loss inside the masked cells' loss."""
    huber_delta: float = 0.1
    """Standard deviations beyond which the loss of a number grows linearly."""
    num_candidates: int = 512
    """Distinct values a masked categorical or text cell is told apart from."""
    calendar_weight: float = 0.5
    """Weight of the cycles of a masked timestamp beside its place among all timestamps."""
    positive_weight: float | Literal["auto"] = 1.0
    """Weight of a boolean's loss where the label is true; auto: false labels per true one of its column."""
    focal_gamma: float = 0.0
    """Exponent by which booleans that are predicted well weigh less."""
    z_loss: float = 0.0
    """Weight of the squared logarithm of the classes' normaliser."""
    link_weight: float = 0.3
    """Weight of the links' loss beside the targets'."""

    def num_masked(self, seq_len: int) -> int:
        """Most masked cells of one context of `seq_len` cells that are predicted."""
        rates = self.mask_rate.values() if isinstance(self.mask_rate, Mapping) else [self.mask_rate]
        rate = 1.0 - (1.0 - max(rates, default=0.0)) * (1.0 - self.mask_columns)
        return min(seq_len, math.ceil(rate * seq_len))


Shares = Mapping[str, Array] | None
"""Where a batch is a part of a larger one: of the cells that each loss is a mean over, the share that this part has,
by the name of the loss among the metrics. Losses are multiplied by it, so those of all parts add up to those of the
whole. None: the batch is the whole."""


def _shared(shares: Shares, name: str, loss: Array) -> Array:
    return loss if shares is None else loss * shares[name]


# --- Losses of one cell ------------------------------------------------------------------------------------------


def huber_loss(prediction: Array, label: Array, delta: float) -> Array:
    """Huber loss divided by delta: e^2 / (2 delta) inside, |e| - delta / 2 outside."""
    return optax.losses.huber_loss(prediction, label, delta=delta) / delta


def calendar_loss(prediction: Array, calendar: Array) -> Array:
    """Mean over seven cycles of the Huber loss (delta 1) of sine and cosine.

    Args:
        prediction: float32 [..., 14] sines, then cosines.
        calendar: int16 [..., 7] as `cell_calendar`.

    Returns:
        float32 [...]; half the squared distance to the point on the unit circle, linear where that is far.
    """
    error = optax.losses.huber_loss(prediction, calendar_features(calendar), delta=1.0)
    return jnp.sum(error, axis=-1) / calendar.shape[-1]


def boolean_loss(
    log_odds: Array, label: Array, positive_weight: float | Array = 1.0, focal_gamma: float = 0.0
) -> Array:
    """Binary cross-entropy of float32 labels 0 and 1, in nats.

    Args:
        log_odds: float32 [...].
        label: float32 [...], 0 or 1.
        positive_weight: factor where the label is 1, of all or of each.
        focal_gamma: the factor (1 - probability of the label) to this power makes good predictions weigh less.

    Source: focal loss, arXiv 1708.02002, equation 4.
    """
    is_true = label > 0.5
    of_label = jnp.where(is_true, log_odds, -log_odds)
    loss = jax.nn.softplus(-of_label)
    if focal_gamma > 0.0:
        loss *= jnp.exp(-focal_gamma * jax.nn.softplus(of_label))
    if isinstance(positive_weight, float) and positive_weight == 1.0:
        return loss
    return loss * jnp.where(is_true, positive_weight, 1.0)


def _positive_weight(objective: Objective, column: Array, arrays: DatabaseArrays) -> float | Array:
    """Weight of true labels of each cell: where it is `auto`, the odds of false, which a column starts from."""
    if objective.positive_weight != "auto":
        return float(objective.positive_weight)
    return jnp.exp(-jnp.take(arrays.column_offset, jnp.maximum(column, 0), axis=0))


def class_loss(logits: Array, label: Array, is_candidate: Array, z_loss: float = 0.0) -> Array:
    """Cross-entropy in nats among the candidates of each row, plus `z_loss` times the squared log-normaliser.

    Args:
        logits: float32 [..., K].
        label: int32 [...] position of the true candidate.
        is_candidate: bool [..., K]; the true one has to be among them.
        z_loss: keeps the logarithm of the sum over exp(logits) near 0.

    Source: z-loss, PaLM, arXiv 2204.02311, section 5.
    """
    logits = jnp.where(is_candidate, logits, -1e30)
    truth = jnp.take_along_axis(logits, label[..., None], axis=-1)[..., 0]
    normaliser = jax.nn.logsumexp(logits, axis=-1)
    loss = normaliser - truth
    if z_loss > 0.0:
        # A row without a candidate, whose loss nobody counts, has no normaliser.
        loss += z_loss * jnp.square(jnp.where(jnp.any(is_candidate, axis=-1), normaliser, 0.0))
    return loss


def weighted_mean(values: Array, weights: Array) -> Array:
    """Mean of `values` under `weights`; zero where all weights are zero."""
    return jnp.sum(jnp.where(weights > 0, values, 0.0) * weights) / jnp.maximum(jnp.sum(weights), 1e-9)


# --- Masked cells ------------------------------------------------------------------------------------------------


def masked_cells(batch: Batch, objective: Objective) -> tuple[Array, Array]:
    """Cells that the sampler masked, to be predicted beside the targets: the first `num_masked` of each context.

    Args:
        batch: device fields.
        objective: number.

    Returns:
        int32 [B, M] positions along S, and bool [B, M]: whether there is a masked cell at all in that place.
    """
    found, cells = jax.lax.top_k(batch.cell_is_masked.astype(jnp.int32), objective.num_masked(batch.seq_len))
    return cells.astype(jnp.int32), found > 0


def masked_loss(
    model: Model,
    outputs: Outputs,
    batch: Batch,
    arrays: DatabaseArrays,
    cells: Array,
    is_masked: Array,
    objective: Objective,
    shares: Shares = None,
) -> tuple[Array, dict[str, Array]]:
    """Loss of the masked cells, every stype by its own loss.

    Args:
        model: for its class keys.
        outputs: predictions [B, M] for the masked cells.
        batch: device fields.
        arrays: embeddings of the database.
        cells: int32 [B, M].
        is_masked: bool [B, M].
        objective: weights.
        shares: of this batch in a larger one.

    Returns:
        Loss, and its parts by name.
    """

    def pick(field: Array) -> Array:
        return _pick(field, cells)

    value, is_null, column = pick(batch.cell_value), pick(batch.cell_is_null), pick(batch.cell_column)
    moment = huber_loss(outputs.moment, value, objective.huber_delta)
    if outputs.calendar is not None:
        moment += objective.calendar_weight * calendar_loss(outputs.calendar, pick(batch.cell_calendar))
    losses = {
        "number": huber_loss(outputs.number, value, objective.huber_delta),
        "moment": moment,
        "truth": boolean_loss(outputs.truth, value, _positive_weight(objective, column, arrays), objective.focal_gamma),
    }
    weights = _masked_weights(batch, cells, is_masked)
    losses["word"] = _contrastive_loss(
        model, outputs.query, arrays, column, pick(batch.cell_vocab), weights["word"], objective
    )
    losses["null"] = boolean_loss(outputs.null, is_null.astype(jnp.float32))
    parts = {
        name: _shared(shares, name, weighted_mean(losses[kind], weights[kind]))
        for kind in weights
        for name in [f"masked_{kind}_loss"]
    }
    total = sum(jnp.sum(jnp.where(weights[kind] > 0, losses[kind], 0.0)) for kind in VALUE_KINDS)
    total /= jnp.maximum(sum(jnp.sum(weights[kind]) for kind in VALUE_KINDS), 1.0)
    return _shared(shares, "masked_loss", total) + objective.null_weight * parts["masked_null_loss"], parts


VALUE_KINDS = ("number", "moment", "truth", "word")
"""Kinds of values, each with a loss of its own."""


def _pick(field: Array, cells: Array) -> Array:
    return jnp.take_along_axis(field, cells.reshape(cells.shape + (1,) * (field.ndim - 2)), axis=1)


def _masked_weights(batch: Batch, cells: Array, is_masked: Array) -> dict[str, Array]:
    """Float32 [B, M], 1 or 0: which masked cells are of which kind, and (`null`) which ask whether they are missing."""
    stype = _pick(batch.cell_stype, cells)
    known = is_masked & ~_pick(batch.cell_is_null, cells)

    def weight(*codes: int) -> Array:
        return (known & jnp.isin(stype, jnp.array(codes, stype.dtype))).astype(jnp.float32)

    weights = {"number": weight(NUMERICAL), "moment": weight(TIMESTAMP), "truth": weight(BOOLEAN)}
    weights["word"] = weight(CATEGORICAL, TEXT)
    # Whether a cell is missing is a question only where missing cells are part of the context.
    has_nulls = jnp.any(batch.cell_is_null, axis=1, keepdims=True)
    weights["null"] = (is_masked & has_nulls).astype(jnp.float32)
    return weights


def _contrastive_loss(
    model: Model,
    query: Array,
    arrays: DatabaseArrays,
    column: Array,
    vocab: Array,
    weight: Array,
    objective: Objective,
) -> Array:
    """[B, M] InfoNCE: the cell's own value against the other distinct values of its column in the batch.

    Source: InfoNCE, arXiv 1807.03748, equation 4; negatives are distinct values, not occurrences.
    """
    shape, dim = weight.shape, query.shape[-1]
    query, column, vocab, weight = query.reshape(-1, dim), column.ravel(), vocab.ravel(), weight.ravel()
    _, chosen = jax.lax.top_k(weight, min(objective.num_candidates, weight.shape[0]))
    chosen_column, chosen_vocab, chosen_known = column[chosen], vocab[chosen], weight[chosen] > 0
    same = (chosen_column[:, None] == chosen_column) & (chosen_vocab[:, None] == chosen_vocab) & chosen_known
    is_repeated = jnp.any(jnp.tril(same, k=-1), axis=1)
    keys = model.heads.class_keys(jnp.take(arrays.vocab_vectors, jnp.maximum(chosen_vocab, 0), axis=0))
    own = model.heads.class_keys(jnp.take(arrays.vocab_vectors, jnp.maximum(vocab, 0), axis=0))
    logits = jnp.concatenate([jnp.sum(query * own, axis=-1, keepdims=True), query @ keys.T], axis=1)
    is_negative = (chosen_column == column[:, None]) & (chosen_vocab != vocab[:, None])
    is_negative &= chosen_known & ~is_repeated
    is_candidate = jnp.concatenate([jnp.ones_like(is_negative[:, :1]), is_negative], axis=1)
    return class_loss(logits, jnp.zeros_like(vocab), is_candidate, objective.z_loss).reshape(shape)


# --- Target cells ------------------------------------------------------------------------------------------------


def _target_kinds(batch: Batch, arrays: DatabaseArrays) -> tuple[dict[str, Array], Array, Array]:
    """Which labels are of which kind, bool [B]; which class is true, bool [B, K]; which label is no class, bool [B]."""
    cell = jnp.maximum(batch.target_cell, 0)
    stype = jnp.take_along_axis(batch.cell_stype, cell[:, None], axis=1)[:, 0]
    labelled = ~batch.seed_is_padding & ~batch.target_is_null & (batch.target_cell >= 0)
    classes = jnp.take(arrays.task_classes, task_of(batch, arrays), axis=0)
    is_true_class = (classes == batch.target_vocab[:, None]) & (classes >= 0)
    in_classes = jnp.any(is_true_class, axis=1)
    is_word = (stype == CATEGORICAL) | (stype == TEXT)
    kinds = {
        "number": labelled & (stype == NUMERICAL),
        "moment": labelled & (stype == TIMESTAMP),
        "truth": labelled & (stype == BOOLEAN),
        "word": labelled & is_word & in_classes,
        "row": labelled & (stype == IDENTIFIER) & jnp.any(batch.row_is_candidate, axis=1),
    }
    return kinds, is_true_class, labelled & is_word & ~in_classes


def target_loss(
    model: Model,
    outputs: Outputs,
    batch: Batch,
    arrays: DatabaseArrays,
    objective: Objective,
    shares: Shares = None,
) -> tuple[Array, dict[str, Array]]:
    """Mean loss over the seeds that have a label, every seed by the stype of its target.

    Args:
        model: for its class keys.
        outputs: predictions; the first of each context is the target's.
        batch: device fields.
        arrays: embeddings and classes.
        objective: Huber's delta, weights of booleans and classes.
        shares: of this batch in a larger one.

    Returns:
        Loss, and its parts by name. A label that is none of its task's classes is left out and counted in
        `num_unknown_classes`; a seed of a link task without a candidate is left out, too.
    """
    chosen, is_true_class, is_unknown = _target_kinds(batch, arrays)
    logits = class_logits(model, outputs.query[:, 0], batch, arrays)
    column = jnp.take_along_axis(batch.cell_column, jnp.maximum(batch.target_cell, 0)[:, None], axis=1)[:, 0]
    balance = (_positive_weight(objective, column, arrays), objective.focal_gamma)
    classes = jnp.take(arrays.task_classes, task_of(batch, arrays), axis=0)
    is_candidate = (classes >= 0) & jnp.any(is_true_class, axis=1)[:, None]
    losses = {
        "number": huber_loss(outputs.number[:, 0], batch.target_value, objective.huber_delta),
        "moment": huber_loss(outputs.moment[:, 0], batch.target_value, objective.huber_delta),
        "truth": boolean_loss(outputs.truth[:, 0], batch.target_value, *balance),
        "word": class_loss(logits, jnp.argmax(is_true_class, axis=1), is_candidate, objective.z_loss),
        "row": candidate_loss(outputs.candidates, batch),
    }
    weights = {kind: mask.astype(jnp.float32) for kind, mask in chosen.items()}
    total = sum(jnp.sum(jnp.where(chosen[kind], losses[kind], 0.0)) for kind in losses)
    total /= jnp.maximum(sum(jnp.sum(weights[kind]) for kind in weights), 1.0)
    parts = {
        name: _shared(shares, name, weighted_mean(losses[kind], weights[kind]))
        for kind in losses
        for name in [f"target_{kind}_loss"]
    }
    parts["num_unknown_classes"] = jnp.sum(is_unknown)
    return _shared(shares, "target_loss", total), parts


def candidate_loss(log_odds: Array | None, batch: Batch) -> Array:
    """Float32 [B]: mean binary cross-entropy over the candidates of each seed, 0 without any.

    Source: RelBench's ID-GNN, arXiv 2407.20060 and `examples/idgnn_link.py` of its repository, which judges the rows of
    the target table in a seed's context. We differ: every seed weighs the same, whatever the number of its candidates.

    Args:
        log_odds: float32 [B, A]; None where no link task is asked or the model cannot judge rows.
        batch: device fields.
    """
    if log_odds is None:
        return jnp.zeros(batch.seed_task.shape)
    losses = boolean_loss(log_odds, batch.row_is_target.astype(jnp.float32))
    number = jnp.sum(batch.row_is_candidate, axis=1)
    return jnp.sum(jnp.where(batch.row_is_candidate, losses, 0.0), axis=1) / jnp.maximum(number, 1)


# --- Links -------------------------------------------------------------------------------------------------------


def link_loss(log_odds: Array, batch: Batch) -> Array:
    """Mean binary cross-entropy over the pairs of rows of a batch, zero where it has none.

    Args:
        log_odds: float32 [B, L].
        batch: device fields; `link_is_true` is the label.
    """
    losses = boolean_loss(log_odds, batch.link_is_true.astype(jnp.float32))
    return weighted_mean(losses, _is_pair(batch).astype(jnp.float32))


def _is_pair(batch: Batch) -> Array:
    return (batch.link_child >= 0) & ~batch.seed_is_padding[:, None]


# --- The whole ---------------------------------------------------------------------------------------------------


def objective_loss(
    model: Model, batch: Batch, arrays: DatabaseArrays, objective: Objective, shares: Shares = None
) -> tuple[Array, dict[str, Array]]:
    """Loss of a training step: target loss + masked_weight * masked loss + link_weight * link loss.

    Args:
        model: the model.
        batch: device fields.
        arrays: embeddings of the batch's database.
        objective: weights.
        shares: of this batch in a larger one, from `part_shares`.

    Returns:
        Scalar loss, and metrics by name.
    """
    target = jnp.maximum(batch.target_cell, 0)[:, None]
    if not _has_masks(batch, objective):
        outputs = model(batch, arrays, target)
        total, metrics = target_loss(model, outputs, batch, arrays, objective, shares)
        metrics["target_loss"] = total
    else:
        cells, is_chosen = masked_cells(batch, objective)
        outputs = model(batch, arrays, jnp.concatenate([target, cells], axis=1))
        loss, metrics = target_loss(model, outputs, batch, arrays, objective, shares)
        others = outputs.of_cells(slice(1, None))
        masked, parts = masked_loss(model, others, batch, arrays, cells, is_chosen, objective, shares)
        metrics |= {**parts, "target_loss": loss, "masked_loss": masked}
        total = loss + objective.masked_weight * masked
    if outputs.link is not None and objective.link_weight > 0:
        metrics["link_loss"] = _shared(shares, "link_loss", link_loss(outputs.link, batch))
        total += objective.link_weight * metrics["link_loss"]
    return total, metrics


def _has_masks(batch: Batch, objective: Objective) -> bool:
    return objective.num_masked(batch.seq_len) > 0 and objective.masked_weight > 0


def part_shares(batch: Batch, arrays: DatabaseArrays, objective: Objective) -> dict[str, Array]:
    """What share each part of a batch has in the cells that its losses are means over; see `Shares`.

    The candidates that a masked word is told apart from are those of its own part.

    Args:
        batch: device fields with a leading axis of parts.
        arrays: embeddings of the batch's database.
        objective: weights.

    Returns:
        float32 [parts] by name of a loss; they add up to 1, or are 0 where nothing has that loss.
    """

    def counts_of(part: Batch) -> dict[str, Array]:
        kinds = {kind: jnp.sum(mask) for kind, mask in _target_kinds(part, arrays)[0].items()}
        counts = {f"target_{kind}_loss": count for kind, count in kinds.items()}
        counts["target_loss"] = sum(kinds.values(), start=jnp.zeros((), jnp.int32))
        counts["link_loss"] = jnp.sum(_is_pair(part))
        if _has_masks(part, objective):
            weights = _masked_weights(part, *masked_cells(part, objective))
            counts |= {f"masked_{kind}_loss": jnp.sum(weight) for kind, weight in weights.items()}
            counts["masked_loss"] = jnp.sum(jnp.stack([jnp.sum(weights[kind]) for kind in VALUE_KINDS]))
        return {name: count.astype(jnp.float32) for name, count in counts.items()}

    counts = jax.vmap(counts_of)(batch)
    return {name: count / jnp.maximum(jnp.sum(count), 1.0) for name, count in counts.items()}
