"""One block: the attentions in order, then a gated MLP, each a pre-norm residual update.

Source: Relational Transformer, arXiv 2510.06377, section 3 (order of the attentions); gated SiLU MLP after
arXiv 2002.05202.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from tributary.batch import Array
from tributary.model.attention import AttentionFunction, RelationalAttention, RMSNorm


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
        attend: AttentionFunction,
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
                attend=attend,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )
            setattr(self, f"{kind}_attention", layer)
        self.mlp = GatedMLP(d_model, d_ff, output_scale=output_scale, dtype=dtype, param_dtype=param_dtype, rngs=rngs)

    def __call__(self, x: Array, masks: dict[str, Array], row_features: Array, *, keys: Array | None = None) -> Array:
        """Updated tokens.

        Args:
            x: [B, Q, D] tokens to update.
            masks: per attention bool [B, Q, S].
            row_features: float32 [B, S, G] of the keys' rows.
            keys: [B, S, D] tokens to look at; None: `x` itself, as updated by the attentions before.

        Returns:
            [B, Q, D].
        """
        for kind in self.attentions:
            x = x + getattr(self, f"{kind}_attention")(x, keys, masks[kind], row_features)
        return x + self.mlp(x)
