"""One block: the attentions in order, then a gated MLP, each a pre-norm residual update.

Source: Relational Transformer, arXiv 2510.06377, section 3 (order of the attentions); gated SiLU MLP after
arXiv 2002.05202. We differ in a learned bias on the age and hop of the key's row. Described in
`documentation/model.md`.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tributary.batch import Array
from tributary.model.attention import LINKED_KINDS, Attend, Relations
from tributary.model.norm import RMSNorm


def recency_slopes(num_row_features: int, num_heads: int, age_feature: int, param_dtype: jnp.dtype) -> Array:
    """[G, H] first values of the row bias: heads from blind to age to weights falling as 1 / (1 + days)."""
    slopes = jnp.zeros((num_row_features, num_heads), param_dtype)
    return slopes.at[age_feature].set(-jnp.linspace(0.0, 1.0, num_heads, dtype=param_dtype))


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockSizes:
    """Sizes and options of a block."""

    d_model: int
    """`D`."""
    num_heads: int
    """`H`, divides `D`."""
    d_ff: int
    """Inner width of the gated MLP."""
    embedding_dim: int
    """`E`, width of the foreign keys' embeddings."""
    num_row_features: int
    """`G`."""
    age_feature: int
    """Position of log(1 + days) among the row features."""
    output_scale: float
    """Factor of the output matrices' first values."""
    qk_norm: bool = True
    """Queries and keys are normalised per head."""
    output_gates: bool = False
    """What a head read is scaled by a gate of the query's token."""
    link_bias: bool = False
    """Attention along links adds a bias per foreign key."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What every layer is told of a batch besides its tokens."""

    relations: Relations
    """Who may look at whom."""
    row_features: Array
    """float32 [B, S, G] age and hop of the cells' rows."""
    foreign_key_vectors: Array
    """[F, E] embeddings of the foreign keys."""
    cell_bias: Array | None = None
    """float32 [B, S] added to the logits of a key in every attention; None: nothing."""


class RelationalAttention(nnx.Module):
    """Pre-norm multi-head attention over the keys that one mask permits.

    `row_bias` turns the features of a key's row (age, hop) into one number per head that is added to its logits.
    Optional are: the norm of queries and keys per head (QK-norm, arXiv 2010.04245, with RMSNorm and the usual scale);
    `link_bias`, a number per head and foreign key, computed from the key's embedding, where that key links the two
    rows; `output_gate`, which scales what a head read by twice the sigmoid of a product with the query's token (gated
    attention, arXiv 2505.06708, its gate per head; twice, so that a gate starts at 1). Both start at zero.
    """

    def __init__(
        self,
        sizes: BlockSizes,
        *,
        kind: str,
        attend: Attend,
        dtype: jnp.dtype,
        param_dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        d_model, num_heads = sizes.d_model, sizes.num_heads
        self.num_heads, self.head_dim, self.dtype = num_heads, d_model // num_heads, dtype
        self.kind, self.attend = kind, attend
        matrix = nnx.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        output = nnx.initializers.variance_scaling(sizes.output_scale**2, "fan_in", "truncated_normal")
        shape = (d_model, d_model)
        self.norm = RMSNorm(d_model, dtype=dtype, param_dtype=param_dtype)
        self.q_kernel = nnx.Param(matrix(rngs.params(), shape, param_dtype))
        self.k_kernel = nnx.Param(matrix(rngs.params(), shape, param_dtype))
        self.v_kernel = nnx.Param(matrix(rngs.params(), shape, param_dtype))
        self.out_kernel = nnx.Param(output(rngs.params(), shape, param_dtype))
        slopes = recency_slopes(sizes.num_row_features, num_heads, sizes.age_feature, param_dtype)
        self.row_bias = nnx.Param(slopes)
        has_links = sizes.link_bias and kind in LINKED_KINDS
        norm = functools.partial(RMSNorm, self.head_dim, dtype=dtype, param_dtype=param_dtype)
        self.q_norm = norm() if sizes.qk_norm else None
        self.k_norm = norm() if sizes.qk_norm else None
        self.link_bias = nnx.Param(jnp.zeros((sizes.embedding_dim, num_heads), param_dtype)) if has_links else None
        self.output_gate = nnx.Param(jnp.zeros((d_model, num_heads), param_dtype)) if sizes.output_gates else None

    def _heads(self, x: Array, kernel: nnx.Param[Any], norm: RMSNorm | None = None) -> Array:
        per_head = kernel[...].astype(self.dtype).reshape(-1, self.num_heads, self.head_dim)
        heads = jnp.einsum("bsd,dhk->bshk", x, per_head)
        return heads if norm is None else norm(heads)

    def __call__(
        self, x: Array, surroundings: Surroundings, *, keys: Array | None = None, queries: Array | None = None
    ) -> Array:
        """Residual update of the queries.

        Args:
            x: [B, Q, D] tokens of the queries before the norm.
            surroundings: of the batch.
            keys: [B, S, D] tokens before the norm; None where the queries are the keys.
            queries: int32 [B, Q] positions of the queries; None: all cells.

        Returns:
            [B, Q, D].
        """
        x_q = self.norm(x)
        x_k = x_q if keys is None else self.norm(keys)
        q = self._heads(x_q, self.q_kernel, self.q_norm)
        k = self._heads(x_k, self.k_kernel, self.k_norm)
        v = self._heads(x_k, self.v_kernel)
        bias = jnp.einsum("bsg,gh->bsh", surroundings.row_features, self.row_bias[...].astype(jnp.float32))
        if surroundings.cell_bias is not None:
            bias += surroundings.cell_bias[:, :, None]
        links = None
        if self.link_bias is not None:
            names = surroundings.foreign_key_vectors.astype(jnp.float32)
            links = names @ self.link_bias[...].astype(jnp.float32)
        mixed = self.attend(self.kind, q, k, v, surroundings.relations, bias, links, queries)
        if self.output_gate is not None:
            gate = 2.0 * jax.nn.sigmoid(jnp.einsum("bqd,dh->bqh", x_q, self.output_gate[...].astype(self.dtype)))
            mixed *= gate[..., None]
        out = self.out_kernel[...].astype(self.dtype).reshape(self.num_heads, self.head_dim, -1)
        return jnp.einsum("bqhk,hkd->bqd", mixed, out)


class GatedMLP(nnx.Module):
    """out(silu(x gate) * (x up)), pre-norm."""

    def __init__(self, sizes: BlockSizes, *, dtype: jnp.dtype, param_dtype: jnp.dtype, rngs: nnx.Rngs):
        self.dtype = dtype
        d_model, d_ff = sizes.d_model, sizes.d_ff
        matrix = nnx.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        output = nnx.initializers.variance_scaling(sizes.output_scale**2, "fan_in", "truncated_normal")
        self.norm = RMSNorm(d_model, dtype=dtype, param_dtype=param_dtype)
        self.gate_kernel = nnx.Param(matrix(rngs.params(), (d_model, d_ff), param_dtype))
        self.up_kernel = nnx.Param(matrix(rngs.params(), (d_model, d_ff), param_dtype))
        self.down_kernel = nnx.Param(output(rngs.params(), (d_ff, d_model), param_dtype))

    def __call__(self, x: Array) -> Array:
        """Residual update of [B, Q, D]."""
        x = self.norm(x)
        gate = jnp.einsum("bsd,df->bsf", x, self.gate_kernel[...].astype(self.dtype))
        up = jnp.einsum("bsd,df->bsf", x, self.up_kernel[...].astype(self.dtype))
        return jnp.einsum("bsf,fd->bsd", jax.nn.silu(gate) * up, self.down_kernel[...].astype(self.dtype))


class RelationalBlock(nnx.Module):
    """Attentions of the given kinds, then the MLP."""

    def __init__(
        self,
        sizes: BlockSizes,
        *,
        attentions: tuple[str, ...],
        attend: Attend,
        dtype: jnp.dtype,
        param_dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.attentions = attentions
        options: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        for kind in attentions:
            setattr(self, f"{kind}_attention", RelationalAttention(sizes, kind=kind, attend=attend, **options))
        self.mlp = GatedMLP(sizes, **options)

    def __call__(
        self, x: Array, surroundings: Surroundings, *, keys: Array | None = None, queries: Array | None = None
    ) -> Array:
        """Updated tokens.

        Args:
            x: [B, Q, D] tokens to update.
            surroundings: of the batch.
            keys: [B, S, D] tokens to look at; None: `x` itself, as updated by the attentions before.
            queries: int32 [B, Q] positions of `x` along S; None: all cells in order.

        Returns:
            [B, Q, D].
        """
        for kind in self.attentions:
            x = x + getattr(self, f"{kind}_attention")(x, surroundings, keys=keys, queries=queries)
        return x + self.mlp(x)
