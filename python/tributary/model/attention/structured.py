"""Reads only the cells that are listed (`lists`), for processors.

A tile of queries gathers the keys of its list, a chunk at a time, and keeps running sums of weights as
FlashAttention does (arXiv 2205.14135, algorithm 1); most tiles need one chunk, tiles without keys none. The backward
pass goes over tiles of queries for their gradients and over tiles of keys for theirs, so nothing is ever scattered.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tributary.batch import Array
from tributary.model.attention.chunked import Operands, chunked_attention, operands
from tributary.model.attention.dense import MASKED_LOGIT
from tributary.model.attention.links import link_gradient, link_logits, linked
from tributary.model.attention.lists import CHUNK, LISTED_KINDS, Lists, TilePlan, tile_plan
from tributary.model.attention.relations import Relations, permitted

GROUP_HEADS = 8
"""Heads computed at a time; a model of fewer takes several tiles at a time."""


def structured_attention(
    kind: str,
    q: Array,
    k: Array,
    v: Array,
    relations: Relations,
    key_bias: Array,
    link_bias: Array | None = None,
    queries: Array | None = None,
) -> Array:
    """As `dense_attention`; kinds that look at most cells, and choices of queries, are left to `chunked_attention`."""
    if queries is not None or kind not in LISTED_KINDS:
        return chunked_attention(kind, q, k, v, relations, key_bias, link_bias, queries)
    plan = relations.plans[kind] if kind in relations.plans else tile_plan(kind, relations)
    links = linked(kind, relations, relations, link_bias)
    parts = operands(q, k, v, key_bias, links)
    return jnp.swapaxes(_listed(kind, parts, relations.bare(), plan), 1, 2).astype(v.dtype)


# --- Cells of all contexts in one row -----------------------------------------------------------------------------


class Flat(NamedTuple):
    """All cells of a batch, `N` = B * S, to be picked by position; a position of -1 picks padding."""

    arrays: dict[str, Array]
    """Float32 [H, N, ...] by name."""
    relations: Relations
    """Fields [N, ...]."""
    links: Array | None
    """Float32 [N, P, H] or None."""

    @classmethod
    def of(cls, relations: Relations, links: Array | None, **arrays: Array) -> Flat:
        """From arrays [B, H, S, ...], relations [B, S] and links [B, S, P, H]."""

        def merge(x: Array) -> Array:
            return x.reshape(-1, *x.shape[2:])

        rows = {name: jnp.moveaxis(merge(jnp.moveaxis(x, 1, 2)), 1, 0) for name, x in arrays.items()}
        return cls(rows, jax.tree.map(merge, relations), None if links is None else merge(links))

    def pick(self, cells: Array, *names: str) -> tuple[Array, ...]:
        """Arrays at int32 [G, I]: [H, G, I, ...]."""
        where = jnp.maximum(cells, 0)
        return tuple(self.arrays[name].at[:, where].get(mode="promise_in_bounds") for name in names)

    def pick_relations(self, cells: Array) -> Relations:
        """Relations of the cells, [G, I]."""
        is_cell = cells >= 0

        def pick(x: Array) -> Array:
            found = x.at[jnp.maximum(cells, 0)].get(mode="promise_in_bounds")
            return jnp.where(is_cell.reshape(is_cell.shape + (1,) * (x.ndim - 1)), found, -1)

        picked: Relations = jax.tree.map(pick, self.relations)
        return picked

    def pick_links(self, kind: str, queries: Array, keys: Array) -> Array | None:
        """Links of those cells that hold them, [G, I, P, H]."""
        if self.links is None:
            return None
        holders = queries if kind == "feature" else keys
        return self.links.at[jnp.maximum(holders, 0)].get(mode="promise_in_bounds")

    def mask(self, kind: str, logits: Array, queries: Array, keys: Array, *, is_transposed: bool = False) -> Array:
        """Adds what links say and sets forbidden logits to `MASKED_LOGIT`.

        Args:
            kind: of the attention.
            logits: float32 [H, G, I, J] of queries [G, I] and keys [G, J], or of keys and queries.
            queries: positions of the queries.
            keys: positions of the keys.
            is_transposed: the keys are the third axis.
        """
        asking, asked = self.pick_relations(queries), self.pick_relations(keys)
        allowed = permitted(kind, asking, asked)[None]
        logits = jnp.swapaxes(logits, 2, 3) if is_transposed else logits
        if (links := self.pick_links(kind, queries, keys)) is not None:
            logits += jnp.swapaxes(link_logits(kind, asking, asked, links), 0, 1)
        logits = jnp.where(allowed, logits, MASKED_LOGIT)
        return jnp.swapaxes(logits, 2, 3) if is_transposed else logits

    def link_gradient(self, kind: str, d_logits: Array, queries: Array, keys: Array) -> Array:
        """Gradient of the links of the holders, [G, I, P, H], from float32 [H, G, I, J] of queries and keys."""
        asking, asked = self.pick_relations(queries), self.pick_relations(keys)
        return link_gradient(kind, asking, asked, jnp.swapaxes(d_logits, 0, 1))


# --- Going over tiles and their lists -----------------------------------------------------------------------------


def _over_tiles(body: Callable[[Array, Array, Array], Any], plan: TilePlan, lists: Lists, num_heads: int) -> Any:
    """Calls `body` for groups of tiles; stacks what it returns, [H, G, TILE, ...] or [G, TILE, ...].

    Args:
        body: takes flat positions of the tiles' cells int32 [G, TILE], of the others [G, M], and their number [G].
        plan: the order of cells.
        lists: the others of each tile.
        num_heads: `H`, from which the size of a group follows.

    Returns:
        The body's outputs with the groups as a first axis.
    """
    num_contexts, num_tiles = lists.num_others.shape
    starts = jnp.arange(num_contexts, dtype=jnp.int32)[:, None] * plan.place.shape[1]
    cells = jnp.where(plan.order >= 0, plan.order + starts, -1).reshape(num_contexts * num_tiles, -1)
    others = (lists.others + starts[:, :, None]).reshape(num_contexts * num_tiles, -1)
    group = max(1, GROUP_HEADS // num_heads)
    short = -cells.shape[0] % group

    def grouped(x: Array, fill: int) -> Array:
        x = jnp.pad(x, ((0, short),) + ((0, 0),) * (x.ndim - 1), constant_values=fill)
        return x.reshape(-1, group, *x.shape[1:])

    groups = (grouped(cells, -1), grouped(others, 0), grouped(lists.num_others.reshape(-1), 0))
    return jax.lax.map(lambda x: body(*x), groups)


def _over_chunks(body: Callable[[Array, Any], Any], others: Array, num_others: Array, start: Any) -> Any:
    """Folds `body` over the chunks of lists, as many as the longest list fills.

    Args:
        body: takes flat positions int32 [G, CHUNK], -1 where the list has ended, and what it returned before.
        others: int32 [G, M].
        num_others: int32 [G].
        start: what the first call takes.
    """
    num_chunks = (jnp.max(num_others) + CHUNK - 1) // CHUNK

    def step(state: tuple[Array, Any]) -> tuple[Array, Any]:
        chunk, folded = state
        found = jax.lax.dynamic_slice_in_dim(others, chunk * CHUNK, CHUNK, axis=1)
        position = chunk * CHUNK + jnp.arange(CHUNK, dtype=jnp.int32)
        return chunk + 1, body(jnp.where(position < num_others[:, None], found, -1), folded)

    return jax.lax.while_loop(lambda state: state[0] < num_chunks, step, (jnp.int32(0), start))[1]


def _unordered(x: Array, plan: TilePlan) -> Array:
    """Outputs of `_over_tiles` for the cells as they lie in the batch: [N / G, H, G, TILE, ...] -> [B, H, S, ...]."""
    num_contexts, num_places = plan.order.shape
    x = jnp.moveaxis(x, 1, 0)
    x = x.reshape(x.shape[0], -1, *x.shape[4:])[:, : num_contexts * num_places]
    starts = jnp.arange(num_contexts, dtype=jnp.int32)[:, None] * num_places
    return jnp.moveaxis(x[:, plan.place + starts], 0, 1)


# --- Attention ----------------------------------------------------------------------------------------------------

Saved = tuple[Operands, Relations, TilePlan, Array, Array]
"""Arguments, output [B, H, S, K], and logarithm of each query's sum of weights [B, H, S]."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _listed(kind: str, parts: Operands, relations: Relations, plan: TilePlan) -> Array:
    return _listed_forward(kind, parts, relations, plan)[0]


def _listed_forward(kind: str, parts: Operands, relations: Relations, plan: TilePlan) -> tuple[Array, Saved]:
    flat = Flat.of(relations, parts.links, q=parts.q, k=parts.k, v=parts.v, bias=parts.bias)

    def of_tiles(cells: Array, others: Array, num_others: Array) -> tuple[Array, Array]:
        (q,) = flat.pick(cells, "q")

        def add(found: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            top, total, out = state
            k, v, bias = flat.pick(found, "k", "v", "bias")
            logits = jnp.einsum("hgtk,hgjk->hgtj", q, k) + bias[:, :, None, :]
            logits = flat.mask(kind, logits, cells, found)
            new_top = jnp.maximum(top, jnp.max(logits, axis=-1, keepdims=True))
            weights, kept = jnp.exp(logits - new_top), jnp.exp(top - new_top)
            total = kept * total + jnp.sum(weights, axis=-1, keepdims=True)
            return new_top, total, kept * out + jnp.einsum("hgtj,hgjk->hgtk", weights, v)

        column = jnp.zeros((*q.shape[:-1], 1), jnp.float32)
        top, total, out = _over_chunks(add, others, num_others, (column + MASKED_LOGIT, column, jnp.zeros_like(q)))
        # Where nothing may be looked at, all that was added has the weight of a forbidden key.
        sees = top > 0.5 * MASKED_LOGIT
        total = jnp.where(sees, total, 1.0)
        return jnp.where(sees, out / total, 0.0), jnp.where(sees, top + jnp.log(total), jnp.inf)[..., 0]

    out, log_total = _over_tiles(of_tiles, plan, plan.keys, parts.q.shape[1])
    out = _unordered(out, plan)
    return out, (parts, relations, plan, out, _unordered(log_total, plan))


def _listed_backward(kind: str, saved: Saved, d_out: Array) -> tuple[Operands, None, None]:
    parts, relations, plan, out, log_total = saved
    inner = jnp.sum(out * d_out, axis=-1)
    arrays = {"q": parts.q, "k": parts.k, "v": parts.v, "bias": parts.bias}
    flat = Flat.of(relations, parts.links, **arrays, d_out=d_out, log_total=log_total, inner=inner)
    d_q, d_query_links = _query_gradients(kind, flat, plan)
    d_k, d_v, d_bias, d_key_links = _key_gradients(kind, flat, plan)
    d_links = d_query_links if kind == "feature" else d_key_links
    if d_links is not None:
        d_links = _unordered(d_links[:, None], plan)[:, 0]
    d_q, d_k, d_v, d_bias = (_unordered(x, plan) for x in (d_q, d_k, d_v, d_bias))
    return Operands(d_q, d_k, d_v, d_bias, d_links), None, None


def _query_gradients(kind: str, flat: Flat, plan: TilePlan) -> Any:
    """Gradients of q, and of the links where queries hold them, in the order of the tiles."""

    def of_tiles(cells: Array, others: Array, num_others: Array) -> Any:
        q, d_out, log_total, inner = flat.pick(cells, "q", "d_out", "log_total", "inner")

        def add(found: Array, sums: tuple[Array, Array | None]) -> tuple[Array, Array | None]:
            k, v, bias = flat.pick(found, "k", "v", "bias")
            logits = jnp.einsum("hgtk,hgjk->hgtj", q, k) + bias[:, :, None, :]
            weights = jnp.exp(flat.mask(kind, logits, cells, found) - log_total[..., None])
            d_logits = weights * (jnp.einsum("hgtk,hgjk->hgtj", d_out, v) - inner[..., None])
            d_q = sums[0] + jnp.einsum("hgtj,hgjk->hgtk", d_logits, k)
            if sums[1] is None:
                return d_q, None
            return d_q, sums[1] + flat.link_gradient(kind, d_logits, cells, found)

        links = flat.pick_links(kind, cells, cells) if kind == "feature" else None
        return _over_chunks(add, others, num_others, jax.tree.map(jnp.zeros_like, (q, links)))

    return _over_tiles(of_tiles, plan, plan.keys, flat.arrays["q"].shape[0])


def _key_gradients(kind: str, flat: Flat, plan: TilePlan) -> Any:
    """Gradients of k, v and bias, and of the links where keys hold them, in the order of the tiles."""

    def of_tiles(cells: Array, others: Array, num_others: Array) -> Any:
        k, v, bias = flat.pick(cells, "k", "v", "bias")

        def add(found: Array, sums: tuple[Any, ...]) -> tuple[Any, ...]:
            q, d_out, log_total, inner = flat.pick(found, "q", "d_out", "log_total", "inner")
            logits = jnp.einsum("hgtk,hgjk->hgtj", k, q) + bias[..., None]
            logits = flat.mask(kind, logits, found, cells, is_transposed=True)
            weights = jnp.exp(logits - log_total[:, :, None, :])
            d_logits = weights * (jnp.einsum("hgtk,hgjk->hgtj", v, d_out) - inner[:, :, None, :])
            d_k = sums[0] + jnp.einsum("hgtj,hgjk->hgtk", d_logits, q)
            d_v = sums[1] + jnp.einsum("hgtj,hgjk->hgtk", weights, d_out)
            d_bias = sums[2] + jnp.sum(d_logits, axis=-1)
            if sums[3] is None:
                return d_k, d_v, d_bias, None
            return d_k, d_v, d_bias, sums[3] + flat.link_gradient(kind, jnp.swapaxes(d_logits, 2, 3), found, cells)

        links = flat.pick_links(kind, cells, cells) if kind == "neighbor" else None
        return _over_chunks(add, others, num_others, jax.tree.map(jnp.zeros_like, (k, v, bias, links)))

    return _over_tiles(of_tiles, plan, plan.queries, flat.arrays["q"].shape[0])


_listed.defvjp(_listed_forward, _listed_backward)
