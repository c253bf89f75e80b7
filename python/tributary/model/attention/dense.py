"""The reference: every logit is computed, then forbidden ones are left out."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tributary.batch import Array
from tributary.model.attention.relations import Relations, link_logits, permitted

MASKED_LOGIT = -1e30
"""Logit of a forbidden key; its weight is set to exactly zero besides."""

LINKED_KINDS = ("feature", "neighbor")
"""Attentions that follow foreign keys, to which `link_bias` belongs."""


def dense_attention(
    kind: str,
    q: Array,
    k: Array,
    v: Array,
    relations: Relations,
    key_bias: Array,
    link_bias: Array | None = None,
    queries: Array | None = None,
) -> Array:
    """As described at `Attend`."""
    asking = relations if queries is None else relations.take(queries)
    return attend_among(kind, q, k, v, asking, relations, key_bias, link_bias)


def attend_among(
    kind: str,
    q: Array,
    k: Array,
    v: Array,
    queries: Relations,
    keys: Relations,
    key_bias: Array,
    link_bias: Array | None,
) -> Array:
    """Attention of any queries to any keys.

    Args:
        kind: one of `KINDS`.
        q: [B, Q, H, K].
        k: [B, S, H, K].
        v: [B, S, H, K].
        queries: relations of the queries, [B, Q].
        keys: relations of the keys, [B, S].
        key_bias: float32 [B, S, H].
        link_bias: float32 [F, H] or None.

    Returns:
        [B, Q, H, K] in the dtype of `v`; zero for a query without any permitted key.
    """
    logits = jnp.einsum("bqhk,bshk->bhqs", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    logits += jnp.swapaxes(key_bias, 1, 2)[:, :, None, :]
    if link_bias is not None and kind in LINKED_KINDS:
        logits += link_logits(kind, queries, keys, link_bias)
    allowed = permitted(kind, queries, keys)[:, None]
    logits = jnp.where(allowed, logits, MASKED_LOGIT)
    top = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    weights = jnp.where(allowed, jnp.exp(logits - top), 0.0)
    weights /= jnp.maximum(jnp.sum(weights, axis=-1, keepdims=True), 1e-20)
    return jnp.einsum("bhqs,bshk->bqhk", weights.astype(v.dtype), v)
