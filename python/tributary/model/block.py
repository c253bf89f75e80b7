"""One block: the attentions in order, then a gated MLP, each a pre-norm residual update.

Source: Relational Transformer, arXiv 2510.06377, section 3 (order of the attentions); gated SiLU MLP after
arXiv 2002.05202. We differ in a learned bias on the age and hop of the key's row.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tributary.batch import Array
from tributary.model.attention import Attend, Relations
from tributary.model.norm import RMSNorm


def recency_slopes(num_row_features: int, num_heads: int, age_feature: int, param_dtype: jnp.dtype) -> Array:
    """[G, H] first values of the row bias: heads from blind to age to weights falling as 1 / (1 + days)."""
    slopes = jnp.zeros((num_row_features, num_heads), param_dtype)
    return slopes.at[age_feature].set(-jnp.linspace(0.0, 1.0, num_heads, dtype=param_dtype))


class RelationalAttention(nnx.Module):
    """Pre-norm multi-head attention over the keys that one mask permits.

    Queries and keys are normalised per head (QK-norm); `row_bias` turns the features of a key's row (age, hop) into
    one number per head that is added to its logits.
    """

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        num_row_features: int,
        *,
        age_feature: int,
        output_scale: float,
        kind: str,
        attend: Attend,
        dtype: jnp.dtype,
        param_dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.num_heads, self.head_dim, self.dtype = num_heads, d_model // num_heads, dtype
        self.kind, self.attend = kind, attend
        matrix = nnx.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        output = nnx.initializers.variance_scaling(output_scale**2, "fan_in", "truncated_normal")
        shape = (d_model, d_model)
        self.norm = RMSNorm(d_model, dtype=dtype, param_dtype=param_dtype)
        self.q_kernel = nnx.Param(matrix(rngs.params(), shape, param_dtype))
        self.k_kernel = nnx.Param(matrix(rngs.params(), shape, param_dtype))
        self.v_kernel = nnx.Param(matrix(rngs.params(), shape, param_dtype))
        self.out_kernel = nnx.Param(output(rngs.params(), shape, param_dtype))
        self.q_norm = RMSNorm(self.head_dim, dtype=dtype, param_dtype=param_dtype)
        self.k_norm = RMSNorm(self.head_dim, dtype=dtype, param_dtype=param_dtype)
        self.row_bias = nnx.Param(recency_slopes(num_row_features, num_heads, age_feature, param_dtype))

    def _heads(self, x: Array, kernel: nnx.Param[Any]) -> Array:
        per_head = kernel[...].astype(self.dtype).reshape(-1, self.num_heads, self.head_dim)
        return jnp.einsum("bsd,dhk->bshk", x, per_head)

    def __call__(
        self,
        x: Array,
        relations: Relations,
        row_features: Array,
        *,
        keys: Array | None = None,
        queries: Array | None = None,
    ) -> Array:
        """Residual update of the queries.

        Args:
            x: [B, Q, D] tokens of the queries before the norm.
            relations: of the batch.
            row_features: float32 [B, S, G] of the keys' rows.
            keys: [B, S, D] tokens before the norm; None where the queries are the keys.
            queries: int32 [B, Q] positions of the queries; None: all cells.

        Returns:
            [B, Q, D].
        """
        x_q = self.norm(x)
        x_k = x_q if keys is None else self.norm(keys)
        q = self.q_norm(self._heads(x_q, self.q_kernel))
        k = self.k_norm(self._heads(x_k, self.k_kernel))
        v = self._heads(x_k, self.v_kernel)
        bias = jnp.einsum("bsg,gh->bsh", row_features, self.row_bias[...].astype(jnp.float32))
        mixed = self.attend(self.kind, q, k, v, relations, bias, queries=queries)
        out = self.out_kernel[...].astype(self.dtype).reshape(self.num_heads, self.head_dim, -1)
        return jnp.einsum("bqhk,hkd->bqd", mixed, out)


class GatedMLP(nnx.Module):
    """out(silu(x gate) * (x up)), pre-norm."""

    def __init__(
        self,
        d_model: int,
        d_ff: int,
        *,
        output_scale: float,
        dtype: jnp.dtype,
        param_dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.dtype = dtype
        matrix = nnx.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        output = nnx.initializers.variance_scaling(output_scale**2, "fan_in", "truncated_normal")
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
        d_model: int,
        num_heads: int,
        d_ff: int,
        *,
        attentions: tuple[str, ...],
        num_row_features: int,
        age_feature: int,
        output_scale: float,
        attend: Attend,
        dtype: jnp.dtype,
        param_dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.attentions = attentions
        for kind in attentions:
            layer = RelationalAttention(
                d_model,
                num_heads,
                num_row_features,
                age_feature=age_feature,
                output_scale=output_scale,
                kind=kind,
                attend=attend,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )
            setattr(self, f"{kind}_attention", layer)
        self.mlp = GatedMLP(d_model, d_ff, output_scale=output_scale, dtype=dtype, param_dtype=param_dtype, rngs=rngs)

    def __call__(
        self,
        x: Array,
        relations: Relations,
        row_features: Array,
        *,
        keys: Array | None = None,
        queries: Array | None = None,
    ) -> Array:
        """Updated tokens.

        Args:
            x: [B, Q, D] tokens to update.
            relations: of the batch.
            row_features: float32 [B, S, G] of the keys' rows.
            keys: [B, S, D] tokens to look at; None: `x` itself, as updated by the attentions before.
            queries: int32 [B, Q] positions of `x` along S; None: all cells in order.

        Returns:
            [B, Q, D].
        """
        for kind in self.attentions:
            layer = getattr(self, f"{kind}_attention")
            x = x + layer(x, relations, row_features, keys=keys, queries=queries)
        return x + self.mlp(x)
