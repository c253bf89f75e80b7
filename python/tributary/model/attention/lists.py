"""Lists of what each tile of cells looks at: the sparse form of a mask, computed once per batch from ids.

Cells are put in an order in which neighbours look at much the same (by column, or by row) and cut into tiles. A tile's
list holds the cells that any of its cells may look at, or be looked at by. Shapes are static and nothing overflows: a
list has room for all cells, and readers go through as much of it as is filled.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tributary.batch import Array
from tributary.model.attention.relations import Relations, permitted

TILE = 32
"""Cells of a tile. Fewer would need more lists, more would share less."""
CHUNK = 128
"""Cells of a list that are read at a time."""
LISTED_KINDS = ("column", "feature", "neighbor")
"""Attentions in which a cell looks at few others."""


class Lists(NamedTuple):
    """For each tile of cells the positions of others: `N` tiles of `TILE` cells, room for `M` others."""

    others: Array
    """int32 [B, N, M]: positions along S, packed to the front."""
    num_others: Array
    """int32 [B, N]: how many of them there are."""


class TilePlan(NamedTuple):
    """Both directions of one attention; all fields of a `B` contexts batch."""

    order: Array
    """int32 [B, N * TILE]: position along S of each cell in the order of the tiles; -1 after the last."""
    place: Array
    """int32 [B, S]: the inverse."""
    keys: Lists
    """For each tile of queries, the keys they may look at."""
    queries: Lists
    """For each tile of keys, the queries that may look at them."""


def with_lists(relations: Relations, kinds: tuple[str, ...]) -> Relations:
    """The same relations with the lists of those of the kinds that look at few cells."""
    plans = {kind: tile_plan(kind, relations) for kind in kinds if kind in LISTED_KINDS}
    return dataclasses.replace(relations, plans=plans)


def tile_plan(kind: str, relations: Relations) -> TilePlan:
    """The lists of one attention, a context at a time."""
    plan: TilePlan = jax.lax.map(lambda one: _plan_of_context(kind, one), relations.bare())
    return plan


def _plan_of_context(kind: str, relations: Relations) -> TilePlan:
    """As `tile_plan`, without the axis B."""
    size = relations.row.shape[0]
    last = 2**31 - 1
    sort_by = relations.column if kind == "column" else relations.row
    order = jnp.argsort(jnp.where(relations.row >= 0, sort_by, last), stable=True).astype(jnp.int32)
    place = jnp.zeros(size, jnp.int32).at[order].set(jnp.arange(size, dtype=jnp.int32), unique_indices=True)
    order = jnp.pad(order, (0, -size % TILE), constant_values=-1)
    cells = jax.tree.map(lambda x: x[None], relations)
    sorted_cells = taken(cells, order[None])
    keys = _lists(permitted(kind, sorted_cells, cells)[0])
    if kind == "column":  # it is symmetric
        return TilePlan(order, place, keys, keys)
    return TilePlan(order, place, keys, _lists(permitted(kind, cells, sorted_cells)[0].T))


def taken(relations: Relations, cells: Array) -> Relations:
    """As `Relations.take`; a position of -1 gives padding."""
    found = relations.take(jnp.maximum(cells, 0))

    def fill(x: Array) -> Array:
        return jnp.where((cells >= 0).reshape(cells.shape + (1,) * (x.ndim - 2)), x, -1)

    filled: Relations = jax.tree.map(fill, found)
    return filled


def _lists(mask: Array) -> Lists:
    """Lists of the cells that any cell of a tile is related to: bool [N * TILE, S]."""
    is_other = jnp.any(mask.reshape(-1, TILE, mask.shape[1]), axis=1)
    running = jnp.cumsum(is_other, axis=1, dtype=jnp.int32)
    # The (j + 1)-th cell is where the running count first reaches j + 1: a search, since sorting is slow.
    wanted = jnp.arange(1, mask.shape[1] + 1, dtype=jnp.int32)
    others = jax.vmap(lambda counts: jnp.searchsorted(counts, wanted))(running).astype(jnp.int32)
    others = jnp.pad(jnp.minimum(others, mask.shape[1] - 1), ((0, 0), (0, -mask.shape[1] % CHUNK)))
    return Lists(others, running[:, -1])
