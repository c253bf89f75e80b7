"""What foreign keys add to logits: `link_bias`, brought to the cells whose rows hold the keys.

Feature attention follows links from the query's row to the key's, neighbor attention from the key's to the query's;
the cell whose row holds the foreign key is called the holder.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tributary.batch import Array
from tributary.model.attention.relations import Relations

LINKED_KINDS = ("feature", "neighbor")
"""Attentions that follow foreign keys, to which `link_bias` belongs."""


def linked(kind: str, queries: Relations, keys: Relations, link_bias: Array | None) -> Array | None:
    """Bias of each link of each holder.

    A product with one-hot keys in place of a gather, whose gradient would be a scatter.

    Args:
        kind: one of `KINDS`.
        queries: relations of the queries, [B, Q].
        keys: relations of the keys, [B, S].
        link_bias: float32 [F, H] or None.

    Returns:
        float32 [B, I, P, H], where I is Q for feature and S for neighbor; None where nothing is to be added.
    """
    if link_bias is None or kind not in LINKED_KINDS:
        return None
    holders = queries if kind == "feature" else keys
    one_hot = jax.nn.one_hot(holders.parent_keys, link_bias.shape[0], dtype=jnp.float32)
    return jnp.einsum("bipf,fh->biph", one_hot, link_bias.astype(jnp.float32))


def link_matches(kind: str, queries: Relations, keys: Relations, slot: int) -> Array:
    """Bool [B, Q, S]: link `slot` of the holder's row leads to the other's row."""
    if kind == "feature":
        link, row = queries.parents[:, :, slot, None], keys.row[:, None, :]
    else:
        link, row = keys.parents[:, None, :, slot], queries.row[:, :, None]
    return (link == row) & (link >= 0)


def link_logits(kind: str, queries: Relations, keys: Relations, links: Array) -> Array:
    """What links add to the logits: the sum over all links between the two rows.

    Args:
        kind: feature or neighbor.
        queries: relations of the queries, [B, Q].
        keys: relations of the keys, [B, S].
        links: float32 [B, I, P, H] from `linked`.

    Returns:
        float32 [B, H, Q, S].
    """
    total = jnp.zeros((), jnp.float32)
    for slot in range(links.shape[2]):
        bias = jnp.swapaxes(links[:, :, slot], 1, 2)  # [B, H, I]
        bias = bias[:, :, :, None] if kind == "feature" else bias[:, :, None, :]
        total += jnp.where(link_matches(kind, queries, keys, slot)[:, None], bias, 0.0)
    return total


def link_gradient(kind: str, queries: Relations, keys: Relations, d_logits: Array) -> Array:
    """Gradient of `links` from that of the logits: float32 [B, H, Q, S] -> [B, I, P, H]."""
    axis = 3 if kind == "feature" else 2
    parts = [
        jnp.sum(jnp.where(link_matches(kind, queries, keys, slot)[:, None], d_logits, 0.0), axis=axis)
        for slot in range(queries.parents.shape[2])
    ]
    return jnp.moveaxis(jnp.stack(parts, axis=1), (0, 1, 2, 3), (0, 2, 3, 1))
