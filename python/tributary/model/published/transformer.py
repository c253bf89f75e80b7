"""The published Relational Transformers: rt-v1, rt-plurel and rt-j, reading our batches.

They compute what the package `relational-transformer` 1.10.0 computes from the same weights; a test compares. What of
our batch they read, and how, is the business of `cells`. Described in `documentation/published_models.md`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tributary.batch import Array, Batch, DatabaseArrays
from tributary.config import ModelConfig
from tributary.model.attention import Relations, attention_function, prepared
from tributary.model.heads import Outputs
from tributary.model.norm import RMSNorm
from tributary.model.published.architectures import ARCHITECTURES
from tributary.model.published.block import LINEAR, ZEROS, PublishedBlock, log_num_keys
from tributary.model.published.cells import (
    CELL_KINDS,
    DATETIME,
    NUMBER,
    TRUTH,
    WORDS,
    PublishedCells,
    log_odds_of_score,
    only_cells,
    read_cells,
)
from tributary.model.rows import rows_of_cells


class NormedLinear(nnx.Module):
    """norm(x W + b): how a value or a name becomes a part of a token."""

    def __init__(
        self,
        size: int,
        d_model: int,
        *,
        epsilon: float,
        dtype: jnp.dtype,
        param_dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.dtype = dtype
        self.kernel = nnx.Param(LINEAR(rngs.params(), (size, d_model), param_dtype))
        self.bias = nnx.Param(ZEROS(rngs.params(), (d_model,), param_dtype))
        self.norm = RMSNorm(d_model, epsilon=epsilon, dtype=dtype, param_dtype=param_dtype)

    def __call__(self, x: Array) -> Array:
        """[..., size] -> [..., D]."""
        return self.norm(jnp.matmul(x.astype(self.dtype), self.kernel[...].astype(self.dtype)) + self.bias[...])


class PublishedEncoder(nnx.Module):
    """token = name of the column + value, or a vector per kind in place of a hidden value."""

    def __init__(
        self,
        embedding_dim: int,
        d_model: int,
        *,
        kinds: tuple[str, ...],
        epsilon: float,
        dtype: jnp.dtype,
        param_dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.kinds = kinds
        options: dict[str, Any] = {"epsilon": epsilon, "dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.column = NormedLinear(embedding_dim, d_model, **options)
        unit = nnx.initializers.normal(1.0)
        for kind in kinds:
            setattr(self, kind, NormedLinear(embedding_dim if kind == "text" else 1, d_model, **options))
            setattr(self, f"{kind}_mask", nnx.Param(unit(rngs.params(), (d_model,), param_dtype)))

    def __call__(self, batch: Batch, arrays: DatabaseArrays, cells: PublishedCells) -> Array:
        """[B, S, D], zero where there is no cell."""
        names = self.column(arrays.column_vectors)
        token = jnp.take(names, jnp.maximum(batch.cell_column, 0), axis=0)
        token *= (cells.kind >= 0)[..., None]
        words = jnp.take(arrays.vocab_vectors, jnp.maximum(batch.cell_vocab, 0), axis=0)
        for code, kind in enumerate(self.kinds):
            value = getattr(self, kind)(words if code == WORDS else cells.scalar[..., None])
            token += value * (cells.is_shown & (cells.kind == code))[..., None]
            mask = getattr(self, f"{kind}_mask")[...].astype(token.dtype)
            token += mask * (cells.is_hidden & (cells.kind == code))[..., None]
        return token


class PublishedHeads(nnx.Module):
    """A number for each scalar kind, and a vector in the space of the embeddings for words."""

    def __init__(
        self,
        embedding_dim: int,
        d_model: int,
        *,
        kinds: tuple[str, ...],
        epsilon: float,
        dtype: jnp.dtype,
        param_dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.kinds, self.dtype = kinds, dtype
        self.norm = RMSNorm(d_model, epsilon=epsilon, dtype=dtype, param_dtype=param_dtype)
        for kind in kinds:
            size = embedding_dim if kind == "text" else 1
            setattr(self, f"{kind}_kernel", nnx.Param(ZEROS(rngs.params(), (d_model, size), param_dtype)))
            setattr(self, f"{kind}_bias", nnx.Param(ZEROS(rngs.params(), (size,), param_dtype)))

    def __call__(self, x: Array) -> list[Array]:
        """Per kind float32 [B, Q, 1], of words [B, Q, E], for tokens [B, Q, D]."""
        x = self.norm(x)

        def answer(kind: str) -> Array:
            kernel, bias = getattr(self, f"{kind}_kernel")[...], getattr(self, f"{kind}_bias")[...]
            out = jnp.einsum("bqd,de->bqe", x, kernel.astype(self.dtype))
            return out.astype(jnp.float32) + bias.astype(jnp.float32)

        return [answer(kind) for kind in self.kinds]

    def class_keys(self, vectors: Array) -> Array:
        """Float32 [..., E]: the vectors themselves; the one closest to the answer has the largest product with it."""
        return vectors.astype(jnp.float32)


class PublishedTransformer(nnx.Module):
    """Predicts chosen cells of a batch, as one of the published models does.

    Args:
        config: kind and sizes; `attentions`, `time_features` and `readout` mean nothing here.
        embedding_dim: `E`, width of the database's embeddings; the published weights want 384.
        rngs: random numbers of the parameters.
    """

    def __init__(self, config: ModelConfig, embedding_dim: int, *, rngs: nnx.Rngs):
        architecture = ARCHITECTURES[config.kind]
        self.architecture, self.attention = architecture, config.attention
        self.has_log_odds, self.remat = config.number_output == "log-odds", config.remat
        dtypes = {"dtype": jnp.dtype(config.dtype), "param_dtype": jnp.dtype(config.param_dtype)}
        kinds = CELL_KINDS if architecture.has_boolean else CELL_KINDS[:TRUTH]
        ends: dict[str, Any] = {"kinds": kinds, "epsilon": architecture.norm_epsilon, **dtypes, "rngs": rngs}
        self.encoder = PublishedEncoder(embedding_dim, config.d_model, **ends)
        self.heads = PublishedHeads(embedding_dim, config.d_model, **ends)
        attend = attention_function(config.attention)

        @nnx.split_rngs(splits=config.num_layers)
        @nnx.vmap(in_axes=0, out_axes=0)
        def stacked_blocks(rngs: nnx.Rngs) -> PublishedBlock:
            options: dict[str, Any] = {"architecture": architecture, "attend": attend, **dtypes, "rngs": rngs}
            return PublishedBlock(config.d_model, config.num_heads, config.d_ff, **options)

        self.blocks = stacked_blocks(rngs)

    def __call__(self, batch: Batch, arrays: DatabaseArrays, cells: Array, is_masked: Array | None = None) -> Outputs:
        """Predictions for some cells of each context.

        Args:
            batch: device fields.
            arrays: embeddings of the batch's database, its column vectors as they were embedded.
            cells: int32 [B, Q] positions along S.
            is_masked: bool [B, S] cells whose value is hidden, besides the targets.
        """
        x = self._states(batch, arrays, is_masked)
        answers = self.heads(jnp.take_along_axis(x, cells[:, :, None], axis=1))
        number = answers[NUMBER][..., 0]
        column = jnp.maximum(jnp.take_along_axis(batch.cell_column, cells, axis=1), 0)
        return Outputs(
            number=number,
            moment=answers[DATETIME][..., 0],
            truth=answers[TRUTH][..., 0] if self.architecture.has_boolean else self._truth(number, arrays, column),
            null=jnp.zeros_like(number),
            query=answers[WORDS],
        )

    def row_states(self, batch: Batch, arrays: DatabaseArrays) -> Array:
        """[B, R, D]: the mean of every row's tokens after the last block."""
        return rows_of_cells(self._states(batch, arrays, None), batch)

    def _states(self, batch: Batch, arrays: DatabaseArrays, is_masked: Array | None) -> Array:
        """[B, S, D]: tokens after the last block."""
        if is_masked is None:
            is_masked = jnp.zeros_like(batch.cell_is_target)
        theirs = read_cells(batch, arrays.column_offset, is_masked, has_boolean=self.architecture.has_boolean)
        relations = Relations.from_batch(only_cells(batch, theirs))
        log_keys = {kind: log_num_keys(kind, relations) for kind in self.architecture.attentions}
        relations = prepared(self.attention, relations, self.architecture.attentions)
        x = self.encoder(batch, arrays, theirs)
        graphdef, stacked = nnx.split(self.blocks)

        def step(x: Array, layer: Any) -> tuple[Array, None]:
            return nnx.merge(graphdef, layer)(x, relations, log_keys), None

        if self.remat:
            step = jax.checkpoint(step)
        x, _ = jax.lax.scan(step, x, stacked)
        return x

    def _truth(self, number: Array, arrays: DatabaseArrays, column: Array) -> Array:
        """Log-odds of a boolean that was predicted as a number."""
        if self.has_log_odds:
            return number
        return log_odds_of_score(number, jnp.take(arrays.column_offset, column, axis=0))
