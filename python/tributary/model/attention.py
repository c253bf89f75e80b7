"""Relational attention: the four masks, one attention function, and the layer around it.

Masks are computed once per batch from ids and hold for every layer. `attend` is the only place that multiplies
queries with keys; its implementations agree with `dense` in values and gradients. Described in
`documentation/model.md`.

Source: Relational Transformer, arXiv 2510.06377, section 3 (column, feature, neighbor and full attention). We differ
in a learned bias on the age and hop of the key's row, and in giving zero to a query that may look at nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tributary.batch import Array, Batch

MASKED_LOGIT = -1e30
"""Logit of a forbidden key; its weight is set to exactly zero besides."""

CHUNK_LOGITS = 2**19
"""Attention weights computed at a time by the chunked implementation: 2 MiB in float32, about a core's cache."""


def attention_masks(batch: Batch, kinds: tuple[str, ...]) -> dict[str, Array]:
    """Which query may look at which key.

    Args:
        batch: device fields.
        kinds: the masks wanted, of column, feature, neighbor, full.

    Returns:
        Per kind bool [B, S, S], indexed (context, query, key); padding neither looks nor is looked at.
    """
    row = batch.cell_row.astype(jnp.int32)
    visible = ~batch.cell_is_padding
    both = visible[:, :, None] & visible[:, None, :]
    masks = {"full": both}
    if "column" in kinds:
        # A column id is global, so equal columns are of one table.
        masks["column"] = both & (batch.cell_column[:, :, None] == batch.cell_column[:, None, :])
    if "feature" in kinds or "neighbor" in kinds:
        is_parent = _is_parent(batch, row) & both
        masks["feature"] = is_parent | (both & (row[:, :, None] == row[:, None, :]))
        masks["neighbor"] = jnp.swapaxes(is_parent, 1, 2)
    return {kind: masks[kind] for kind in kinds}


def _is_parent(batch: Batch, row: Array) -> Array:
    """Bool [B, S, S]: the key's row is a parent of the query's row."""
    parents = batch.row_parents.astype(jnp.int32)
    of_cell = jnp.take_along_axis(parents, jnp.maximum(row, 0)[:, :, None], axis=1)  # [B, S, P]
    found = jnp.zeros(row.shape + row.shape[1:], bool)
    for slot in range(parents.shape[2]):
        link = of_cell[:, :, slot, None]
        found |= (link == row[:, None, :]) & (link >= 0)
    return found


def dense_attention(q: Array, k: Array, v: Array, mask: Array, bias: Array) -> Array:
    """Reference implementation.

    Args:
        q: [B, Q, H, K].
        k: [B, S, H, K].
        v: [B, S, H, K].
        mask: bool [B, Q, S]; True where a query may look at a key.
        bias: float32 [B, S, H]; added to the logits of a key.

    Returns:
        [B, Q, H, K] in the dtype of `v`; zero for a query without any permitted key.
    """
    logits = jnp.einsum("bqhk,bshk->bhqs", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    logits += jnp.swapaxes(bias, 1, 2)[:, :, None, :]
    allowed = mask[:, None]
    logits = jnp.where(allowed, logits, MASKED_LOGIT)
    top = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    weights = jnp.where(allowed, jnp.exp(logits - top), 0.0)
    weights /= jnp.maximum(jnp.sum(weights, axis=-1, keepdims=True), 1e-20)
    return jnp.einsum("bhqs,bshk->bqhk", weights.astype(v.dtype), v)


def chunked_attention(q: Array, k: Array, v: Array, mask: Array, bias: Array) -> Array:
    """As `dense_attention`, a few contexts at a time, recomputing the weights in the backward pass.

    On a CPU the weights of a chunk stay in the cache, which makes a training step about twice as fast at S = 256.
    """
    num_contexts, num_queries, num_heads = q.shape[:3]
    chunk = max(1, CHUNK_LOGITS // (num_queries * k.shape[1] * num_heads))
    chunk = max(size for size in range(1, num_contexts + 1) if num_contexts % size == 0 and size <= chunk)
    if chunk == num_contexts:
        return dense_attention(q, k, v, mask, bias)

    def split(x: Array) -> Array:
        return x.reshape((num_contexts // chunk, chunk, *x.shape[1:]))

    body = jax.checkpoint(lambda arrays: dense_attention(*arrays))
    out = jax.lax.map(body, tuple(split(x) for x in (q, k, v, mask, bias)))
    return out.reshape(q.shape[:3] + v.shape[3:])


AttentionFunction = Callable[[Array, Array, Array, Array, Array], Array]

IMPLEMENTATIONS: dict[str, AttentionFunction] = {"dense": dense_attention, "chunked": chunked_attention}


def attention_function(name: str) -> AttentionFunction:
    """The implementation of that name; `auto` takes chunked on CPU and dense elsewhere."""
    if name == "auto":
        name = "chunked" if jax.default_backend() == "cpu" else "dense"
    return IMPLEMENTATIONS[name]


class RMSNorm(nnx.Module):
    """Division by the root mean square over the last axis, computed in float32, times a learned scale."""

    def __init__(self, size: int, *, dtype: jnp.dtype, param_dtype: jnp.dtype):
        self.dtype = dtype
        self.scale = nnx.Param(jnp.ones((size,), param_dtype))

    def __call__(self, x: Array) -> Array:
        """[..., size] -> the same in `dtype`."""
        wide = x.astype(jnp.float32)
        scaled = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + 1e-6)
        return (scaled * self.scale[...].astype(jnp.float32)).astype(self.dtype)


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
        attend: AttentionFunction,
        dtype: jnp.dtype,
        param_dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.num_heads, self.head_dim, self.dtype = num_heads, d_model // num_heads, dtype
        self.attend = attend
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

    def __call__(self, queries: Array, keys: Array | None, mask: Array, row_features: Array) -> Array:
        """Residual update of the queries.

        Args:
            queries: [B, Q, D] before the norm.
            keys: [B, S, D] before the norm; None where the queries are the keys.
            mask: bool [B, Q, S].
            row_features: float32 [B, S, G] of the keys' rows.

        Returns:
            [B, Q, D].
        """
        x_q = self.norm(queries)
        x_k = x_q if keys is None else self.norm(keys)
        q = self.q_norm(self._heads(x_q, self.q_kernel))
        k = self.k_norm(self._heads(x_k, self.k_kernel))
        v = self._heads(x_k, self.v_kernel)
        bias = jnp.einsum("bsg,gh->bsh", row_features, self.row_bias[...].astype(jnp.float32))
        mixed = self.attend(q, k, v, mask, bias)
        out = self.out_kernel[...].astype(self.dtype).reshape(self.num_heads, self.head_dim, -1)
        return jnp.einsum("bqhk,hkd->bqd", mixed, out)


def take_queries(masks: dict[str, Array], cells: Array) -> dict[str, Array]:
    """Rows of the masks for some cells only: bool [B, S, S] -> [B, Q, S] for int32 [B, Q]."""
    pick = functools.partial(jnp.take_along_axis, indices=cells[:, :, None], axis=1)
    return {kind: pick(mask) for kind, mask in masks.items()}
