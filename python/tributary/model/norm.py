"""Root-mean-square normalisation (arXiv 1910.07467)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from tributary.batch import Array


class RMSNorm(nnx.Module):
    """Division by the root mean square over the last axis, computed in float32, times a learned scale."""

    def __init__(self, size: int, *, epsilon: float = 1e-6, dtype: jnp.dtype, param_dtype: jnp.dtype):
        self.epsilon, self.dtype = epsilon, dtype
        self.scale = nnx.Param(jnp.ones((size,), param_dtype))

    def __call__(self, x: Array) -> Array:
        """[..., size] -> the same in `dtype`."""
        wide = x.astype(jnp.float32)
        scaled = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.epsilon)
        return (scaled * self.scale[...].astype(jnp.float32)).astype(self.dtype)
