"""From tokens to predictions, one head per kind of value.

Scalar heads (number, timestamp, boolean, null) read a token scaled by its column's embedding; classes are told apart
by comparing a token with projected vocabulary vectors, so a class never seen in training can be predicted. All last
layers start at zero: an untrained model predicts the median, the base rate, or all classes alike.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from tributary.batch import Array
from tributary.model.norm import RMSNorm

NUMBER, MOMENT, TRUTH, NULL = range(4)
"""Position of each scalar head."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outputs:
    """Predictions for `Q` cells of each context, float32."""

    number: Array
    """[B, Q] z-score of a numerical cell."""
    moment: Array
    """[B, Q] z-score over all timestamps of the database."""
    truth: Array
    """[B, Q] log-odds of a boolean cell."""
    null: Array
    """[B, Q] log-odds of the cell being missing."""
    query: Array
    """[B, Q, D] to be compared with `Heads.class_keys`."""


class Heads(nnx.Module):
    """All heads."""

    def __init__(self, embedding_dim: int, d_model: int, *, dtype: jnp.dtype, param_dtype: jnp.dtype, rngs: nnx.Rngs):
        self.dtype = dtype
        zeros, unit = nnx.initializers.zeros_init(), nnx.initializers.normal(1.0)
        self.norm = RMSNorm(d_model, dtype=dtype, param_dtype=param_dtype)
        self.gate_kernel = nnx.Param(unit(rngs.params(), (embedding_dim, d_model), param_dtype))
        self.scalar_kernel = nnx.Param(zeros(rngs.params(), (d_model, 4), param_dtype))
        self.column_bias = nnx.Param(zeros(rngs.params(), (embedding_dim, 4), param_dtype))
        self.query_kernel = nnx.Param(zeros(rngs.params(), (d_model, d_model), param_dtype))
        self.class_kernel = nnx.Param(unit(rngs.params(), (embedding_dim, d_model), param_dtype))

    def __call__(self, x: Array, column_vectors: Array, offset: Array) -> Outputs:
        """Predictions.

        Args:
            x: [B, Q, D] tokens of the predicted cells.
            column_vectors: [B, Q, E] embeddings of their columns.
            offset: float32 [B, Q] what the column's scalar head starts from.
        """
        x = self.norm(x)
        column_vectors = column_vectors.astype(self.dtype)
        gate = 1.0 + jnp.einsum("bqe,ed->bqd", column_vectors, self.gate_kernel[...].astype(self.dtype))
        scalars = jnp.einsum("bqd,dn->bqn", x * gate, self.scalar_kernel[...].astype(self.dtype))
        scalars += jnp.einsum("bqe,en->bqn", column_vectors, self.column_bias[...].astype(self.dtype))
        scalars = scalars.astype(jnp.float32)
        query = jnp.einsum("bqd,dk->bqk", x, self.query_kernel[...].astype(self.dtype))
        return Outputs(
            number=scalars[..., NUMBER] + offset,
            moment=scalars[..., MOMENT] + offset,
            truth=scalars[..., TRUTH] + offset,
            null=scalars[..., NULL],
            query=query.astype(jnp.float32) * x.shape[-1] ** -0.5,
        )

    def class_keys(self, vectors: Array) -> Array:
        """Float32 [..., D]: projected vocabulary vectors [..., E]; a logit is query . key."""
        return (vectors.astype(self.dtype) @ self.class_kernel[...].astype(self.dtype)).astype(jnp.float32)
