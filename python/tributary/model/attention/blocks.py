"""Which blocks of keys a block of queries has to visit: the sparse form of a mask for accelerators.

Cells are put in an order in which those that look at each other lie together (by column, by time, or by row) and cut
into blocks; a pair of blocks that the mask forbids altogether is never visited. Computed once per batch from ids.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tributary.batch import Array
from tributary.model.attention.lists import taken
from tributary.model.attention.relations import Relations, permitted


class BlockPlan(NamedTuple):
    """The order of cells of one attention and the lists of its blocks: `N` blocks, `S'` cells with padding."""

    order: Array
    """int32 [B, S']: position along S of each cell; -1 after the last."""
    place: Array
    """int32 [B, S]: the inverse."""
    cells: Relations
    """Relations in that order, [B, S']."""
    key_blocks: Array
    """int32 [B, N, N]: for each block of queries, the blocks of keys to visit, packed to the front."""
    num_key_blocks: Array
    """int32 [B, 1, N]."""
    query_blocks: Array
    """int32 [B, N, N]: for each block of keys, the blocks of queries to visit, packed to the front."""
    num_query_blocks: Array
    """int32 [B, 1, N]."""


def with_blocks(relations: Relations, kinds: tuple[str, ...], block: int) -> Relations:
    """The same relations with the block lists of some kinds, for blocks of so many cells."""
    plans = {kind: block_plan(kind, relations, block) for kind in kinds}
    return dataclasses.replace(relations, plans=plans)


def block_plan(kind: str, relations: Relations, block: int) -> BlockPlan:
    """Order and block lists of one attention; a block of queries at a time, so no [S, S] array is made."""
    relations = relations.bare()
    size = relations.row.shape[1]
    order = _order(kind, relations)
    place = jnp.argsort(order, axis=1).astype(jnp.int32)
    order = jnp.pad(order, ((0, 0), (0, -size % block)), constant_values=-1)
    cells = taken(relations, order)
    num_blocks = order.shape[1] // block
    tiles = jax.tree.map(lambda x: jnp.moveaxis(x.reshape(x.shape[0], num_blocks, block, *x.shape[2:]), 1, 0), cells)

    def of_block(asking: Relations) -> Array:
        mask = permitted(kind, asking, cells)
        return jnp.any(mask.reshape(mask.shape[0], block, num_blocks, block), axis=(1, 3))

    is_visited = jnp.moveaxis(jax.lax.map(of_block, tiles), 0, 1)  # [B, N queries, N keys]
    return BlockPlan(order, place, cells, *_packed(is_visited), *_packed(jnp.swapaxes(is_visited, 1, 2)))


def _order(kind: str, relations: Relations) -> Array:
    """int32 [B, S]: cells that look at each other together, padding last."""
    by_row = jnp.where(relations.row >= 0, relations.row, 2**31 - 1)
    if kind == "column":
        keys = (jnp.where(relations.row >= 0, relations.column, 2**31 - 1), by_row)
    elif kind == "temporal":
        keys = (jnp.where(relations.row >= 0, relations.age, jnp.inf), by_row)
    else:
        keys = (by_row, by_row)
    position = jnp.broadcast_to(jnp.arange(by_row.shape[1], dtype=jnp.int32), by_row.shape)
    return jax.lax.sort((*keys, position), dimension=1, num_keys=3)[2]


def _packed(is_visited: Array) -> tuple[Array, Array]:
    """Lists of the visited blocks: bool [B, N, N] -> int32 [B, N, N] and their numbers int32 [B, 1, N]."""
    blocks = jnp.argsort(~is_visited, axis=2, stable=True).astype(jnp.int32)
    return blocks, jnp.sum(is_visited, axis=2, dtype=jnp.int32)[:, None, :]
