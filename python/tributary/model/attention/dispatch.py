"""The implementations by name."""

from __future__ import annotations

from typing import Protocol

import jax

from tributary.batch import Array
from tributary.model.attention.blocked import pallas_attention, target_of_backend
from tributary.model.attention.blocks import with_blocks
from tributary.model.attention.chunked import TILE_LOGITS, chunked_attention
from tributary.model.attention.dense import dense_attention
from tributary.model.attention.lists import with_lists
from tributary.model.attention.native import native_attention
from tributary.model.attention.relations import Relations
from tributary.model.attention.structured import structured_attention


class Attend(Protocol):
    """Attention of one kind."""

    def __call__(
        self,
        kind: str,
        q: Array,
        k: Array,
        v: Array,
        relations: Relations,
        key_bias: Array,
        link_bias: Array | None = None,
        queries: Array | None = None,
    ) -> Array:
        """What each query reads.

        Args:
            kind: one of `KINDS`.
            q: [B, Q, H, K].
            k: [B, S, H, K].
            v: [B, S, H, K].
            relations: of the batch.
            key_bias: float32 [B, S, H]; added to the logits of a key.
            link_bias: float32 [F, H]; added to a logit per link between the two rows by that foreign key. Of meaning
                to feature and neighbor attention only. None: nothing is added.
            queries: int32 [B, Q] positions along S of the queries; None where they are all S cells in order.

        Returns:
            [B, Q, H, K] in the dtype of `v`; zero for a query without any permitted key.
        """


IMPLEMENTATIONS: dict[str, Attend] = {
    "dense": dense_attention,
    "chunked": chunked_attention,
    "structured": structured_attention,
    "native": native_attention,
    "pallas": pallas_attention,
}

STRUCTURED_CELLS = 512
"""Cells of a context from which `auto` takes structured on several processors; below, most of a context is listed."""


def chosen(num_cells: int, num_logits: int) -> str:
    """What `auto` takes: the implementation that was found fastest for such sizes (decisions 0008 and 0011).

    Args:
        num_cells: `S`.
        num_logits: of all contexts and heads.
    """
    if jax.default_backend() != "cpu":
        return "dense"
    if jax.device_count() == 1:  # XLA does not know how to divide a native call over devices
        return "native"
    if num_logits <= TILE_LOGITS:
        return "dense"
    return "structured" if num_cells >= STRUCTURED_CELLS else "chunked"


def attention_function(name: str) -> Attend:
    """The implementation of that name; `auto` chooses one at each call, by size and backend."""
    return _auto_attention if name == "auto" else IMPLEMENTATIONS[name]


def prepared(name: str, relations: Relations, kinds: tuple[str, ...]) -> Relations:
    """Relations with all that the implementation of that name computes once per batch.

    Every implementation also works without, and then computes it at each call.
    """
    if name == "auto":
        name = chosen(relations.row.shape[1], TILE_LOGITS + 1)
    if name == "structured":
        return with_lists(relations, kinds)
    return with_blocks(relations, kinds, target_of_backend().block) if name == "pallas" else relations


def _auto_attention(
    kind: str,
    q: Array,
    k: Array,
    v: Array,
    relations: Relations,
    key_bias: Array,
    link_bias: Array | None = None,
    queries: Array | None = None,
) -> Array:
    """The implementation that `chosen` names."""
    num_contexts, num_queries, num_heads = q.shape[:3]
    name = chosen(k.shape[1], num_contexts * num_queries * num_heads * k.shape[1])
    return IMPLEMENTATIONS[name](kind, q, k, v, relations, key_bias, link_bias, queries)
