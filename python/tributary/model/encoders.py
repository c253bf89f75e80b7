"""From ids to tokens: what a cell is, what it says, where its row stands.

token = column + gate(column) * value + row. Everything that names a column, a key or a word is a projection of a
frozen embedding, so the same parameters read any database. Described in `documentation/model.md`.

Source: cell tokens after the Relational Transformer, arXiv 2510.06377, section 3; one gate per column after the
per-feature tokens of FT-Transformer, arXiv 2106.11959, section 3.3, here computed from the column's embedding.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tributary.batch import Array, Batch, DatabaseArrays

IDENTIFIER, NUMERICAL, TIMESTAMP, BOOLEAN, CATEGORICAL, TEXT = range(6)
"""Stype codes as in the native `STYPES`; a test compares."""

CALENDAR_NAMES = ("second", "minute", "hour", "weekday", "day", "month", "yearday")
"""Cycles of `cell_calendar`, in order."""
CALENDAR_PERIODS = (60.0, 60.0, 24.0, 7.0, 31.0, 12.0, 366.0)
"""Length of each cycle of `cell_calendar`."""
CALENDAR_STARTS = (0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0)
"""Smallest value of each cycle of `cell_calendar`."""

VALUE_CENTERS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)
"""Standard deviations around which the smooth steps of a number turn."""
AGE_SCALES = (1 / 24, 1.0, 7.0, 30.0, 90.0, 365.0, 1825.0)
"""Days over which the decays of a row's age fall to 1/e."""
AGE_CYCLES = {"hour": 1 / 24, "day": 1.0, "week": 7.0, "year": 365.25}
"""Days of the cycles that a row's age may be read by."""
MAX_HOP = 5
"""Hops at least this far share one feature."""

NUM_NUMBER_FEATURES = 3 + len(VALUE_CENTERS)
NUM_CALENDAR_FEATURES = 2 * len(CALENDAR_PERIODS)
AGE_FEATURE = 0
"""Position of log(1 + days) among the row features."""


def num_row_features(age_cycles: tuple[str, ...]) -> int:
    """`G`, the length of `row_features`."""
    return 2 + len(AGE_SCALES) + 2 * len(age_cycles) + MAX_HOP + 1


def number_features(z: Array) -> Array:
    """Float32 [..., 10]: a constant, z clipped at 5, its signed logarithm, and smooth steps around seven centres."""
    steps = [jnp.tanh(2.0 * (z - center)) for center in VALUE_CENTERS]
    return jnp.stack([jnp.ones_like(z), jnp.clip(z, -5.0, 5.0), jnp.sign(z) * jnp.log1p(jnp.abs(z)), *steps], axis=-1)


def calendar_features(calendar: Array) -> Array:
    """Float32 [..., 14]: sine and cosine of the seven cycles of int16 [..., 7]."""
    periods, starts = jnp.array(CALENDAR_PERIODS, jnp.float32), jnp.array(CALENDAR_STARTS, jnp.float32)
    angle = (calendar.astype(jnp.float32) - starts) * (2.0 * math.pi / periods)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def timestamp_selection(names: tuple[str, ...]) -> Array:
    """Float32 [24]: 1 for the features of a timestamp that are read, else 0; the constant always is."""
    cycles = [float(name in names) for name in CALENDAR_NAMES]
    absolute = float("absolute" in names)
    return jnp.array([1.0] + [absolute] * (NUM_NUMBER_FEATURES - 1) + 2 * cycles, jnp.float32)


def row_features(batch: Batch, age_cycles: tuple[str, ...]) -> Array:
    """Float32 [B, S, G]: age (logarithm, decays, cycles), whether it is known, and hop of every cell's row."""
    row = jnp.maximum(batch.cell_row.astype(jnp.int32), 0)
    age = jnp.take_along_axis(batch.row_age, row, axis=1)
    has_time = jnp.take_along_axis(batch.row_has_time, row, axis=1).astype(jnp.float32)
    hop = jnp.clip(jnp.take_along_axis(batch.row_hop.astype(jnp.int32), row, axis=1), 0, MAX_HOP)
    days = age[..., None]
    decays = jnp.exp(-days / jnp.array(AGE_SCALES, jnp.float32))
    periods = jnp.array([AGE_CYCLES[name] for name in age_cycles], jnp.float32)
    angle = (days % periods) * (2.0 * math.pi / periods)
    aged = jnp.concatenate([jnp.log1p(days), decays, jnp.sin(angle), jnp.cos(angle)], axis=-1) * has_time[..., None]
    features = jnp.concatenate([aged, has_time[..., None], jax.nn.one_hot(hop, MAX_HOP + 1)], axis=-1)
    return features * ~batch.cell_is_padding[..., None]


def row_roles(batch: Batch, num_foreign_keys: int) -> Array:
    """Float32 [B, S, 2 F]: the keys by which a cell's row points to visited rows, and those that point to it."""
    parents = batch.row_parents.astype(jnp.int32)
    keys = batch.row_parent_keys.astype(jnp.int32)
    linked = parents >= 0
    outgoing = jnp.any(jax.nn.one_hot(jnp.where(linked, keys, -1), num_foreign_keys, dtype=jnp.bool_), axis=2)
    context = jnp.arange(parents.shape[0])[:, None, None]
    outside = parents.shape[1]  # dropped by the scatter
    incoming = jnp.zeros_like(outgoing).at[context, jnp.where(linked, parents, outside), keys].set(True, mode="drop")
    roles = jnp.concatenate([outgoing, incoming], axis=-1)
    row = jnp.maximum(batch.cell_row.astype(jnp.int32), 0)
    return jnp.take_along_axis(roles, row[:, :, None], axis=1).astype(jnp.float32)


def _take_rows(table: Array, index: Array) -> Array:
    """[B, S, D]: rows of [C, D]; of a small table as a product with one-hot vectors.

    The gradient of a gather is a scatter, which costs ten times as much on a CPU.
    """
    if table.shape[0] > 512:
        return jnp.take(table, jnp.maximum(index, 0), axis=0)
    return jnp.einsum("bsc,cd->bsd", jax.nn.one_hot(index, table.shape[0], dtype=table.dtype), table)


class CellEncoder(nnx.Module):
    """Tokens of a batch."""

    def __init__(
        self,
        embedding_dim: int,
        d_model: int,
        *,
        time_features: tuple[str, ...],
        age_cycles: tuple[str, ...],
        dtype: jnp.dtype,
        param_dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.dtype = dtype
        self.time_features = time_features
        unit = nnx.initializers.normal(1.0)  # embeddings have unit norm: an entry of the projection has variance 1
        matrix = nnx.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        small = nnx.initializers.normal(0.5)

        def param(init: nnx.Initializer, *shape: int) -> nnx.Param[Any]:
            return nnx.Param(init(rngs.params(), shape, param_dtype))

        self.column_kernel = param(unit, embedding_dim, d_model)
        self.gate_kernel = param(unit, embedding_dim, d_model)
        self.vocab_kernel = param(unit, embedding_dim, d_model)
        self.outgoing_kernel = param(unit, embedding_dim, d_model)
        self.incoming_kernel = param(unit, embedding_dim, d_model)
        self.number_kernel = param(matrix, NUM_NUMBER_FEATURES, d_model)
        self.timestamp_kernel = param(matrix, NUM_NUMBER_FEATURES + NUM_CALENDAR_FEATURES, d_model)
        self.boolean_kernel = param(small, 2, d_model)
        self.identifier_embedding = param(small, 1, d_model)
        self.null_embedding = param(small, 1, d_model)
        self.mask_embedding = param(small, 1, d_model)
        self.row_kernel = param(matrix, num_row_features(age_cycles), d_model)

    def __call__(self, batch: Batch, arrays: DatabaseArrays, is_masked: Array, features: Array) -> Array:
        """Tokens.

        Args:
            batch: device fields.
            arrays: embeddings of the database.
            is_masked: bool [B, S]; the value of these cells is replaced by the mask embedding, as are those of targets
                and of cells that the batch has masked.
            features: float32 [B, S, G], `row_features` of the batch.

        Returns:
            [B, S, D], zero where padding.
        """
        hidden = is_masked | batch.cell_is_masked | batch.cell_is_target
        value = self._value(batch, arrays, hidden)
        columns = arrays.column_vectors.astype(self.dtype)
        names = jnp.concatenate([self.column_kernel[...], self.gate_kernel[...]], axis=1).astype(self.dtype)
        name, gate = jnp.split(_take_rows(columns @ names, batch.cell_column), 2, axis=-1)
        flags = [features, hidden[..., None].astype(jnp.float32)]
        token = name + (1.0 + gate) * value
        kernel = jnp.concatenate([self.row_kernel[...], self.mask_embedding[...]]).astype(self.dtype)
        token += jnp.einsum("bsf,fd->bsd", jnp.concatenate(flags, axis=-1).astype(self.dtype), kernel)
        keys = arrays.foreign_key_vectors.astype(self.dtype)
        roles = jnp.concatenate(
            [keys @ self.outgoing_kernel[...].astype(self.dtype), keys @ self.incoming_kernel[...].astype(self.dtype)]
        )
        token += jnp.einsum("bsf,fd->bsd", row_roles(batch, keys.shape[0]).astype(self.dtype), roles)
        return token * ~batch.cell_is_padding[..., None]

    def _value(self, batch: Batch, arrays: DatabaseArrays, hidden: Array) -> Array:
        """[B, S, D]: what the cell says; zero where hidden."""
        shown = ~hidden & ~batch.cell_is_null & ~batch.cell_is_padding
        number = number_features(batch.cell_value)

        def of(features: Array, stype: int) -> Array:
            return jnp.where((shown & (batch.cell_stype == stype))[..., None], features, 0.0)

        cycles = calendar_features(batch.cell_calendar)
        moment = jnp.concatenate([number, cycles], axis=-1) * timestamp_selection(self.time_features)
        truth = jnp.stack([batch.cell_value, 1.0 - batch.cell_value], axis=-1)
        presence = jnp.ones((*batch.cell_value.shape, 1), jnp.float32)
        is_null = (batch.cell_is_null & ~hidden)[..., None].astype(jnp.float32)
        typed = [of(number, NUMERICAL), of(moment, TIMESTAMP), of(truth, BOOLEAN), of(presence, IDENTIFIER), is_null]
        kernels = (
            self.number_kernel,
            self.timestamp_kernel,
            self.boolean_kernel,
            self.identifier_embedding,
            self.null_embedding,
        )
        kernel = jnp.concatenate([part[...] for part in kernels]).astype(self.dtype)
        value = jnp.einsum("bsf,fd->bsd", jnp.concatenate(typed, axis=-1).astype(self.dtype), kernel)
        words = jnp.take(arrays.vocab_vectors, jnp.maximum(batch.cell_vocab, 0), axis=0).astype(self.dtype)
        has_word = shown & (batch.cell_vocab >= 0)
        words = jnp.einsum("bse,ed->bsd", words, self.vocab_kernel[...].astype(self.dtype))
        return value + jnp.where(has_word[..., None], words, 0.0)


class VariableSelection(nnx.Module):
    """How much of a column is read for the question that is asked: a weight per column in (0, 2), at first 1.

    Every attention multiplies the weight of a key by that of its column. `1 + e_c A` of the encoder is something
    else: it says how a column's value is read, whatever is asked.

    Source: Temporal Fusion Transformer, arXiv 1912.09363, section 4.2 (weights of the variables, given a static
    context). We differ: the context is the column asked about, weights are sigmoids that do not compete, and they
    enter where cells are mixed, since a factor on a token would be divided out by the norm before every layer.
    """

    def __init__(self, embedding_dim: int, d_model: int, *, dtype: jnp.dtype, param_dtype: jnp.dtype, rngs: nnx.Rngs):
        self.dtype = dtype
        zeros, unit = nnx.initializers.zeros_init(), nnx.initializers.normal(1.0)
        self.column_kernel = nnx.Param(zeros(rngs.params(), (embedding_dim, d_model), param_dtype))
        self.question_kernel = nnx.Param(unit(rngs.params(), (embedding_dim, d_model), param_dtype))
        self.column_bias = nnx.Param(zeros(rngs.params(), (embedding_dim, 1), param_dtype))

    def __call__(self, batch: Batch, arrays: DatabaseArrays) -> Array:
        """Float32 [B, S]: logarithm of the weight of every cell; 0 where padding."""
        columns = arrays.column_vectors.astype(self.dtype)
        target = jnp.take_along_axis(batch.cell_column, jnp.maximum(batch.target_cell, 0)[:, None], axis=1)
        asked = jnp.take(columns, jnp.maximum(target, 0), axis=0) @ self.question_kernel[...].astype(self.dtype)
        own = columns @ self.column_kernel[...].astype(self.dtype)
        match = jnp.einsum("bqd,cd->bc", asked, own) * own.shape[-1] ** -0.5
        score = (match + (columns @ self.column_bias[...].astype(self.dtype))[:, 0]).astype(jnp.float32)
        weight = jnp.take_along_axis(score, jnp.maximum(batch.cell_column, 0), axis=1)
        return jnp.where(batch.cell_is_padding, 0.0, math.log(2.0) + jax.nn.log_sigmoid(weight))
