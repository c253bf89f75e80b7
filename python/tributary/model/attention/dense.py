"""The reference: every logit is computed, then forbidden ones are left out."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tributary.batch import Array
from tributary.model.attention.links import link_logits, linked
from tributary.model.attention.relations import Relations, permitted

MASKED_LOGIT = -1e30
"""Logit of a forbidden key; its weight is set to exactly zero besides."""


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
    logits = jnp.einsum("bqhk,bshk->bhqs", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    logits += jnp.swapaxes(key_bias, 1, 2)[:, :, None, :]
    if (links := linked(kind, asking, relations, link_bias)) is not None:
        logits += link_logits(kind, asking, relations, links)
    allowed = permitted(kind, asking, relations)[:, None]
    logits = jnp.where(allowed, logits, MASKED_LOGIT)
    top = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    weights = jnp.where(allowed, jnp.exp(logits - top), 0.0)
    weights /= jnp.maximum(jnp.sum(weights, axis=-1, keepdims=True), 1e-20)
    return jnp.einsum("bhqs,bshk->bqhk", weights.astype(v.dtype), v)
