"""`model.kind: gnn`: a heterogeneous graph network over the rows of a context, whose relations are foreign keys.

Per foreign key and direction: a transform of its own, attention among the links of that relation at a row, and a
softmax over the row's relations, itself included. No parameter belongs to a database: transforms, offsets and scores
of a relation are computed from the embedding of its key. Described in `documentation/model.md`.

Source: R-GCN, arXiv 1703.06103, equations 2 and 3 (transforms per relation as combinations of bases, self loop);
attention after GATv2, arXiv 2105.14491, equation 7; attention over relations after HAN, arXiv 1903.07293, section 4.2;
numbers of neighbors beside means after PNA, arXiv 2004.05718. We differ: coefficients come from embeddings, and the
weights of relations are a row's own.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tributary.batch import Array, Batch, DatabaseArrays
from tributary.config import ModelConfig
from tributary.model.block import BlockSizes, GatedMLP, recency_slopes
from tributary.model.heads import Heads, Outputs
from tributary.model.norm import RMSNorm
from tributary.model.row_states import (
    CellReadout,
    Links,
    RowEncoder,
    answer,
    block_sizes,
    links_of,
    max_by,
    number_groups,
    softmax_by,
    sum_by,
    take,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Neighborhood:
    """What every layer needs of a batch, computed once."""

    links: Links
    """Both directions of all links, L places."""
    group: Array
    """int32 [B, L]: links with target and relation in common; L where empty."""
    log_count: Array
    """float32 [B, L]: logarithm of 1 + the number of links of the group."""
    features: Array
    """float32 [B, R, G]: age and hop of the rows."""
    keys: Array
    """[F, E]: embeddings of the foreign keys."""


class RelationLayer(nnx.Module):
    """Messages along all relations, then a gated MLP; both pre-norm residual updates of the rows' states."""

    def __init__(
        self,
        sizes: BlockSizes,
        num_bases: int,
        *,
        dtype: jnp.dtype,
        param_dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        d_model, embedding_dim = sizes.d_model, sizes.embedding_dim
        self.num_heads, self.num_bases, self.dtype = sizes.num_heads, num_bases, dtype
        matrix = nnx.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        output = nnx.initializers.variance_scaling(sizes.output_scale**2, "fan_in", "truncated_normal")
        unit, small = nnx.initializers.normal(1.0), nnx.initializers.normal(0.3)
        # One relation's transform is as large as one basis.
        share = nnx.initializers.normal(num_bases**-0.5)

        def param(init: nnx.Initializer, *shape: int) -> nnx.Param[Any]:
            return nnx.Param(init(rngs.params(), shape, param_dtype))

        self.norm = RMSNorm(d_model, dtype=dtype, param_dtype=param_dtype)
        self.self_kernel = param(matrix, d_model, d_model)
        self.basis_kernel = param(matrix, d_model, num_bases * d_model)
        self.basis_share = param(share, 2, embedding_dim, num_bases)
        self.common_share = param(share, 2, num_bases)
        self.offset = param(small, 2, embedding_dim, d_model)
        self.count_offset = param(small, 2, embedding_dim, d_model)
        self.target_kernel = param(matrix, d_model, d_model)
        self.logit_weight = param(matrix, d_model // sizes.num_heads, sizes.num_heads)
        slopes = recency_slopes(sizes.num_row_features, sizes.num_heads, sizes.age_feature, param_dtype)
        self.row_bias = nnx.Param(slopes)
        self.score_kernel = param(matrix, d_model, d_model)
        self.relation_score = param(unit, 2, embedding_dim, d_model)
        self.out_kernel = param(output, d_model, d_model)
        self.mlp = GatedMLP(sizes, dtype=dtype, param_dtype=param_dtype, rngs=rngs)

    def _of_relations(self, keys: Array, parameter: nnx.Param[Any]) -> Array:
        """[2 F, n]: what relations have by their keys [F, E], by parameters [2, E, n]."""
        made = jnp.einsum("fe,xen->xfn", keys.astype(self.dtype), parameter[...].astype(self.dtype))
        return made.reshape(-1, made.shape[-1])

    def _messages(self, x: Array, around: Neighborhood) -> Array:
        """[B, L, D]: the source's state by the relation's transform, plus what the relation and its count say."""
        relation, num_keys = around.links.relation, around.keys.shape[0]
        shares = self._of_relations(around.keys, self.basis_share)
        shares += jnp.repeat(self.common_share[...].astype(self.dtype), num_keys, axis=0)
        bases = jnp.einsum("brd,dn->brn", x, self.basis_kernel[...].astype(self.dtype))
        bases = take(bases, around.links.source).reshape(*relation.shape, self.num_bases, -1)
        message = jnp.einsum("bln,blnd->bld", shares[relation], bases)
        message += self._of_relations(around.keys, self.offset)[relation]
        counted = self._of_relations(around.keys, self.count_offset)[relation]
        return message + counted * around.log_count[..., None].astype(self.dtype)

    def _weights(self, x: Array, message: Array, around: Neighborhood) -> tuple[Array, Array]:
        """Float32 [B, L, H] weights of the links and [B, R, H] of the row itself; they sum to 1 at every row."""
        links, num_rows = around.links, x.shape[1]
        at = jnp.minimum(links.target, num_rows - 1)
        per_head = (*links.target.shape, self.num_heads, -1)
        # Among the links of one relation
        reading = jnp.einsum("brd,dk->brk", x, self.target_kernel[...].astype(self.dtype))
        joined = jax.nn.leaky_relu(message + take(reading, at), 0.2).reshape(per_head)
        logits = jnp.einsum("blhk,kh->blh", joined, self.logit_weight[...].astype(self.dtype)).astype(jnp.float32)
        bias = jnp.einsum("brg,gh->brh", around.features, self.row_bias[...].astype(jnp.float32))
        within = softmax_by(logits + take(bias, links.source), around.group, links.target.shape[1])
        # Among the relations of one row: since weights within one sum to 1, a sum over links is one over relations.
        asking = jnp.einsum("brd,dk->brk", x, self.score_kernel[...].astype(self.dtype))
        relations = self._of_relations(around.keys, self.relation_score)[links.relation]
        score = jnp.sum((take(asking, at) * relations).reshape(per_head), axis=-1).astype(jnp.float32)
        score *= (x.shape[-1] // self.num_heads) ** -0.5
        top = max_by(score, links.target, num_rows, 0.0)
        is_link = (links.target < num_rows)[..., None]
        weight = within * jnp.exp(jnp.where(is_link, score - take(top, at), 0.0))
        own = jnp.exp(-top)
        total = own + sum_by(weight, links.target, num_rows)
        return weight / take(total, at), own / total

    def __call__(self, states: Array, around: Neighborhood) -> Array:
        """[B, R, D] -> [B, R, D]."""
        x = self.norm(states)
        message = self._messages(x, around)
        weight, own_weight = self._weights(x, message, around)
        heads = (self.num_heads, x.shape[-1] // self.num_heads)
        own = jnp.einsum("brd,dk->brk", x, self.self_kernel[...].astype(self.dtype)).reshape(*x.shape[:2], *heads)
        message = message.reshape(*message.shape[:2], *heads)
        mixed = sum_by(weight[..., None] * message, around.links.target, x.shape[1]) + own_weight[..., None] * own
        mixed = mixed.reshape(x.shape).astype(self.dtype)
        states = states + jnp.einsum("brd,dk->brk", mixed, self.out_kernel[...].astype(self.dtype))
        return states + self.mlp(states)


class RelationalGNN(nnx.Module):
    """Predicts chosen cells of a batch from the states of their rows.

    Args:
        config: sizes.
        embedding_dim: `E`, width of the database's embeddings.
        rngs: random numbers of the parameters.
    """

    def __init__(self, config: ModelConfig, embedding_dim: int, *, rngs: nnx.Rngs):
        dtypes = {"dtype": jnp.dtype(config.dtype), "param_dtype": jnp.dtype(config.param_dtype)}
        options: dict[str, Any] = {**dtypes, "rngs": rngs}
        self.encoder = RowEncoder(
            embedding_dim,
            config.d_model,
            config.num_heads,
            time_features=config.time_features,
            age_cycles=config.age_cycles,
            **options,
        )
        sizes = block_sizes(config, embedding_dim, num_updates=2 * config.num_layers + 1)
        self.readout = CellReadout(sizes, **options)
        self.heads = Heads(embedding_dim, config.d_model, links=config.link_head, **options)

        @nnx.split_rngs(splits=config.num_layers)
        @nnx.vmap(in_axes=0, out_axes=0)
        def stacked_layers(rngs: nnx.Rngs) -> RelationLayer:
            return RelationLayer(sizes, config.num_bases, **dtypes, rngs=rngs)

        self.blocks = stacked_layers(rngs)

    def __call__(self, batch: Batch, arrays: DatabaseArrays, cells: Array, is_masked: Array | None = None) -> Outputs:
        """Predictions for some cells of each context.

        Args:
            batch: device fields.
            arrays: embeddings of the batch's database.
            cells: int32 [B, Q] positions along S.
            is_masked: bool [B, S] cells whose value is hidden, besides targets and cells that the batch has masked.
        """
        tokens, states = self._states(batch, arrays, is_masked)
        x = self.readout(tokens, states, batch, cells)
        return answer(self.heads, x, states, batch, arrays, cells)

    def row_states(self, batch: Batch, arrays: DatabaseArrays) -> Array:
        """[B, R, D]: the states of rows after the last layer."""
        return self._states(batch, arrays, None)[1]

    def _states(self, batch: Batch, arrays: DatabaseArrays, is_masked: Array | None) -> tuple[Array, Array]:
        """Tokens of cells [B, S, D], and states of rows [B, R, D]."""
        if is_masked is None:
            is_masked = jnp.zeros_like(batch.cell_is_target)
        tokens, states, features = self.encoder(batch, arrays, is_masked)
        num_rows, num_keys = batch.row_table.shape[1], arrays.foreign_key_vectors.shape[0]
        links = links_of(batch, num_keys)
        group = number_groups(links, num_rows, 2 * num_keys)
        num_groups = group.shape[1]
        count = take(sum_by(jnp.ones_like(group), group, num_groups), jnp.minimum(group, num_groups - 1))
        around = Neighborhood(links, group, jnp.log1p(count), features, arrays.foreign_key_vectors)
        graphdef, stacked = nnx.split(self.blocks)

        def step(states: Array, layer: Any) -> tuple[Array, None]:
            return nnx.merge(graphdef, layer)(states, around), None

        states, _ = jax.lax.scan(step, states, stacked)
        return tokens, states
