"""Rows in place of cells: states of rows, the links between them, and the way back to the cells that are predicted.

What the models over rows (`gnn`, `tree_lstm`) share. Links are a list taken from `row_parents`, each of them twice,
once per direction; messages are gathered along it and summed by target, so nothing is of size [R, R]. Described in
`documentation/model.md`, "Models over rows".
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from tributary.batch import Array, Batch, DatabaseArrays
from tributary.config import ModelConfig
from tributary.model import encoders
from tributary.model.block import BlockSizes, GatedMLP
from tributary.model.heads import Heads, Outputs, judge_rows
from tributary.model.norm import RMSNorm

# --- Sums over lists ---------------------------------------------------------------------------------------------


def take(values: Array, index: Array) -> Array:
    """[B, L, ...]: entries of [B, N, ...] at int32 [B, L]."""
    return jax.vmap(lambda own, at: own[at])(values, index)


def sum_by(values: Array, index: Array, num: int) -> Array:
    """Float32 [B, num, ...]: sums of [B, L, ...] over equal indices int32 [B, L]; an index of `num` goes nowhere."""

    def one(own: Array, at: Array) -> Array:
        return jnp.zeros((num, *own.shape[1:]), jnp.float32).at[at].add(own.astype(jnp.float32), mode="drop")

    return jax.vmap(one)(values, index)


def max_by(values: Array, index: Array, num: int, initial: float) -> Array:
    """As `sum_by`: the largest, and at least `initial`; no gradient passes."""

    def one(own: Array, at: Array) -> Array:
        return jnp.full((num, *own.shape[1:]), initial, jnp.float32).at[at].max(own, mode="drop")

    return jax.vmap(one)(jax.lax.stop_gradient(values), index)


def softmax_by(logits: Array, index: Array, num: int) -> Array:
    """Float32 [B, L, H]: softmax of float32 logits among equal indices int32 [B, L]; zero where the index is `num`."""
    inside = (index < num)[..., None]
    safe = jnp.minimum(index, num - 1)
    top = take(max_by(logits, index, num, -1e30), safe)
    weight = jnp.where(inside, jnp.exp(jnp.where(inside, logits - top, 0.0)), 0.0)
    total = take(sum_by(weight, index, num), safe)
    return weight / jnp.where(inside, total, 1.0)


# --- Links -------------------------------------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Links:
    """The links of a batch in both directions: `L` = 2 R P places, many of them empty."""

    source: Array
    """int32 [B, L]: row that is read; 0 where empty."""
    target: Array
    """int32 [B, L]: row that reads it; R where empty."""
    relation: Array
    """int32 [B, L]: k where a row reads its parent by foreign key k, F + k where it reads a child; 0 where empty."""


def links_of(batch: Batch, num_foreign_keys: int) -> Links:
    """Every link of `row_parents` in both directions."""
    parent = batch.row_parents.astype(jnp.int32)
    key = batch.row_parent_keys.astype(jnp.int32)
    num_contexts, num_rows, num_slots = parent.shape
    child = jnp.broadcast_to(jnp.arange(num_rows, dtype=jnp.int32)[:, None], parent.shape)

    def both(down: Array, up: Array, empty: int) -> Array:
        ways = [jnp.where(parent >= 0, way, empty).reshape(num_contexts, num_rows * num_slots) for way in (down, up)]
        return jnp.concatenate(ways, axis=1)

    return Links(
        source=both(parent, child, 0),
        target=both(child, parent, num_rows),
        relation=both(key, key + num_foreign_keys, 0),
    )


def number_groups(links: Links, num_rows: int, num_relations: int) -> Array:
    """int32 [B, L]: number of the group of links that have target and relation in common; `L` where empty.

    Groups are numbered from 0 without gaps, so what is summed by group never grows with the number of foreign keys.
    """
    identity = links.target * num_relations + links.relation

    def one(identity: Array) -> Array:
        order = jnp.argsort(identity)
        is_next = jnp.diff(identity[order], prepend=identity[order[:1]]) != 0
        return jnp.zeros_like(identity).at[order].set(jnp.cumsum(is_next).astype(jnp.int32))

    return jnp.where(links.target < num_rows, jax.vmap(one)(identity), identity.shape[1])


def row_cells(batch: Batch) -> Batch:
    """The batch as if every row had one cell: the features of cells' rows are then those of rows."""
    num_rows = batch.row_table.shape[1]
    row = jnp.broadcast_to(jnp.arange(num_rows, dtype=batch.cell_row.dtype), batch.row_table.shape)
    return dataclasses.replace(batch, cell_row=row, cell_is_padding=batch.row_table < 0)


# --- From cells to rows and back ---------------------------------------------------------------------------------


class RowEncoder(nnx.Module):
    """State of a row: attention of one learned query per head over the tokens of its cells, plus its age and hop.

    Source: pooling by multi-head attention with a learned seed vector, Set Transformer, arXiv 1810.00825, section 3.2.
    """

    def __init__(
        self,
        embedding_dim: int,
        d_model: int,
        num_heads: int,
        *,
        time_features: tuple[str, ...],
        age_cycles: tuple[str, ...],
        dtype: jnp.dtype,
        param_dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.num_heads, self.age_cycles, self.dtype = num_heads, age_cycles, dtype
        matrix = nnx.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        self.cells = encoders.CellEncoder(
            embedding_dim,
            d_model,
            time_features=time_features,
            age_cycles=age_cycles,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )
        self.norm = RMSNorm(d_model, dtype=dtype, param_dtype=param_dtype)
        self.query_kernel = nnx.Param(matrix(rngs.params(), (d_model, num_heads), param_dtype))
        self.value_kernel = nnx.Param(matrix(rngs.params(), (d_model, d_model), param_dtype))
        num_features = encoders.num_row_features(age_cycles)
        self.row_kernel = nnx.Param(matrix(rngs.params(), (num_features, d_model), param_dtype))

    def __call__(self, batch: Batch, arrays: DatabaseArrays, is_masked: Array) -> tuple[Array, Array, Array]:
        """Tokens and states.

        Args:
            batch: device fields.
            arrays: embeddings of the database.
            is_masked: bool [B, S] cells whose value is hidden, besides the targets.

        Returns:
            Tokens [B, S, D]; states [B, R, D]; float32 [B, R, G] features of the rows. All zero where padding.
        """
        tokens = self.cells(batch, arrays, is_masked, encoders.row_features(batch, self.age_cycles))
        num_rows = batch.row_table.shape[1]
        row = jnp.where(batch.cell_is_padding, num_rows, batch.cell_row.astype(jnp.int32))
        x = self.norm(tokens)
        logits = jnp.einsum("bsd,dh->bsh", x, self.query_kernel[...].astype(self.dtype)).astype(jnp.float32)
        values = jnp.einsum("bsd,dv->bsv", x, self.value_kernel[...].astype(self.dtype))
        values = values.reshape(*x.shape[:2], self.num_heads, -1)
        pooled = sum_by(softmax_by(logits, row, num_rows)[..., None] * values, row, num_rows)
        features = encoders.row_features(row_cells(batch), self.age_cycles)
        states = pooled.reshape(*batch.row_table.shape, -1).astype(self.dtype)
        states += jnp.einsum("brg,gd->brd", features.astype(self.dtype), self.row_kernel[...].astype(self.dtype))
        return tokens, states, features


class CellReadout(nnx.Module):
    """From states of rows back to the cells that are predicted: the cell's token asks, its row's state answers."""

    def __init__(
        self,
        sizes: BlockSizes,
        *,
        dtype: jnp.dtype,
        param_dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.dtype = dtype
        matrix = nnx.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        d_model = sizes.d_model
        self.norm = RMSNorm(d_model, dtype=dtype, param_dtype=param_dtype)
        self.state_kernel = nnx.Param(matrix(rngs.params(), (d_model, d_model), param_dtype))
        self.mlp = GatedMLP(sizes, dtype=dtype, param_dtype=param_dtype, rngs=rngs)

    def __call__(self, tokens: Array, states: Array, batch: Batch, cells: Array) -> Array:
        """[B, Q, D] for the cells int32 [B, Q]: token + norm(state) W, then a gated MLP."""
        row = jnp.maximum(take(batch.cell_row, cells).astype(jnp.int32), 0)
        state = self.norm(take(states, row))
        x = take(tokens, cells) + jnp.einsum("bqd,dk->bqk", state, self.state_kernel[...].astype(self.dtype))
        return x + self.mlp(x)


def block_sizes(config: ModelConfig, embedding_dim: int, *, num_updates: int) -> BlockSizes:
    """Sizes of the layers, whose outputs start scaled for so many residual updates."""
    return BlockSizes(
        d_model=config.d_model,
        num_heads=config.num_heads,
        d_ff=config.d_ff,
        embedding_dim=embedding_dim,
        num_row_features=encoders.num_row_features(config.age_cycles),
        age_feature=encoders.AGE_FEATURE,
        output_scale=num_updates**-0.5,
    )


def answer(heads: Heads, x: Array, states: Array, batch: Batch, arrays: DatabaseArrays, cells: Array) -> Outputs:
    """What the heads say.

    Args:
        heads: all of them.
        x: [B, Q, D] of the cells.
        states: [B, R, D] of the rows, for links.
        batch: device fields.
        arrays: embeddings of the database.
        cells: int32 [B, Q] positions along S; each is asked as a cell of its column.
    """
    column = jnp.maximum(take(batch.cell_column, cells), 0)
    vectors = jnp.take(arrays.column_vectors, column, axis=0)
    outputs = heads(x, vectors, jnp.take(arrays.column_offset, column, axis=0))
    if heads.link_head is None:
        return outputs
    return judge_rows(heads.link_head, outputs, x, states, batch, arrays)
