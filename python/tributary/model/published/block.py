"""The published models' attention, block and norms. Names of parameters are ours; `names` maps them to theirs."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tributary.batch import Array
from tributary.model.attention import Attend, Relations, permitted
from tributary.model.norm import RMSNorm
from tributary.model.published.architectures import Architecture

LINEAR = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""First values of a matrix [in, out]: uniform within in^-1/2, as torch draws them."""
ZEROS = nnx.initializers.zeros_init()


def log_num_keys(kind: str, relations: Relations) -> Array:
    """Float32 [B, S]: logarithm of how many keys each cell may look at, 0 where none.

    Number and logarithm are rounded to bfloat16, as the published weights have always seen them.
    """
    count = jnp.sum(permitted(kind, relations, relations), axis=-1, dtype=jnp.float32)
    return to_bfloat16(jnp.log(to_bfloat16(jnp.maximum(count, 1.0))))


def to_bfloat16(x: Array) -> Array:
    """Rounds float32 to bfloat16; a pair of casts is what XLA may leave out."""
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


class PublishedAttention(nnx.Module):
    """Pre-norm multi-head attention of one kind."""

    def __init__(
        self,
        kind: str,
        d_model: int,
        num_heads: int,
        *,
        architecture: Architecture,
        attend: Attend,
        dtype: jnp.dtype,
        param_dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.kind, self.num_heads, self.head_dim = kind, num_heads, d_model // num_heads
        self.architecture, self.attend, self.dtype = architecture, attend, dtype
        norm: dict[str, Any] = {"epsilon": architecture.norm_epsilon, "dtype": dtype, "param_dtype": param_dtype}

        def matrix(init: nnx.Initializer) -> nnx.Param[Any]:
            return nnx.Param(init(rngs.params(), (d_model, d_model), param_dtype))

        self.norm = RMSNorm(d_model, **norm)
        self.q_kernel, self.k_kernel, self.v_kernel = matrix(LINEAR), matrix(LINEAR), matrix(LINEAR)
        self.out_kernel = matrix(ZEROS if architecture.grows_with_keys else LINEAR)
        if architecture.has_query_norm:
            self.q_norm, self.k_norm = RMSNorm(self.head_dim, **norm), RMSNorm(self.head_dim, **norm)
        if architecture.grows_with_keys:
            self.gate_kernel = matrix(ZEROS)
            self.key_scale = nnx.Param(jnp.ones((num_heads,), param_dtype))

    def _project(self, x: Array, kernel: nnx.Param[Any]) -> Array:
        return jnp.einsum("bsd,de->bse", x, kernel[...].astype(self.dtype))

    def _heads(self, x: Array, kernel: nnx.Param[Any]) -> Array:
        return self._project(x, kernel).reshape(*x.shape[:2], self.num_heads, self.head_dim)

    def __call__(self, x: Array, relations: Relations, log_keys: Array) -> Array:
        """Residual update.

        Args:
            x: [B, S, D] before the norm.
            relations: of the batch's cells.
            log_keys: float32 [B, S], `log_num_keys` of this kind.

        Returns:
            [B, S, D].
        """
        x = self.norm(x)
        q, k, v = self._heads(x, self.q_kernel), self._heads(x, self.k_kernel), self._heads(x, self.v_kernel)
        if self.architecture.has_query_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        if self.architecture.grows_with_keys:
            # `attend` divides by the root of head_dim, these weights expect head_dim.
            factor = self.key_scale[...].astype(jnp.float32) * self.head_dim**-0.5
            q = (q.astype(jnp.float32) * (log_keys[:, :, None] * factor)[..., None]).astype(self.dtype)
        read = self.attend(self.kind, q, k, v, relations, jnp.zeros(q.shape[:3], jnp.float32))
        read = read.reshape(x.shape)
        if self.architecture.grows_with_keys:
            read *= 2.0 * jax.nn.sigmoid(self._project(x, self.gate_kernel))
        return self._project(read, self.out_kernel)


class PublishedBlock(nnx.Module):
    """The attentions in order, then out(silu(x gate) * (x up)), each a pre-norm residual update."""

    def __init__(
        self,
        d_model: int,
        num_heads: int,
        d_ff: int,
        *,
        architecture: Architecture,
        attend: Attend,
        dtype: jnp.dtype,
        param_dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.kinds, self.dtype = architecture.attentions, dtype
        dtypes: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
        for kind in self.kinds:
            options: dict[str, Any] = {"architecture": architecture, "attend": attend, **dtypes, "rngs": rngs}
            setattr(self, f"{kind}_attention", PublishedAttention(kind, d_model, num_heads, **options))
        down = ZEROS if architecture.grows_with_keys else LINEAR
        self.norm = RMSNorm(d_model, epsilon=architecture.norm_epsilon, **dtypes)
        self.gate_kernel = nnx.Param(LINEAR(rngs.params(), (d_model, d_ff), param_dtype))
        self.up_kernel = nnx.Param(LINEAR(rngs.params(), (d_model, d_ff), param_dtype))
        self.down_kernel = nnx.Param(down(rngs.params(), (d_ff, d_model), param_dtype))

    def __call__(self, x: Array, relations: Relations, log_keys: dict[str, Array]) -> Array:
        """[B, S, D] tokens, updated; `log_keys` float32 [B, S] per kind of attention."""
        for kind in self.kinds:
            x = x + getattr(self, f"{kind}_attention")(x, relations, log_keys[kind])
        normed = self.norm(x)
        gate = jnp.einsum("bsd,df->bsf", normed, self.gate_kernel[...].astype(self.dtype))
        up = jnp.einsum("bsd,df->bsf", normed, self.up_kernel[...].astype(self.dtype))
        return x + jnp.einsum("bsf,fd->bsd", jax.nn.silu(gate) * up, self.down_kernel[...].astype(self.dtype))
