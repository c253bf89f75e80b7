"""A tile of queries at a time, so that its logits stay in a core's cache; a backward pass of its own.

Weights are not kept: the forward pass keeps the logarithm of each query's sum of weights, from which the backward
pass computes them again, as in FlashAttention-2 (arXiv 2307.08691, algorithm 2). Gradients of keys and values are
summed up transposed, [K, S], because products whose left side is transposed take XLA several times as long on a CPU.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from tributary.batch import Array
from tributary.model.attention.dense import MASKED_LOGIT
from tributary.model.attention.links import link_gradient, link_logits, linked
from tributary.model.attention.relations import Relations, permitted

TILE_LOGITS = 2**18
"""Logits computed at a time: 1 MiB in float32, about a core's cache."""


class Operands(NamedTuple):
    """What attention multiplies, float32, laid out for the products; `G` contexts."""

    q: Array
    """[G, H, Q, K], already divided by sqrt(K)."""
    k: Array
    """[G, H, S, K]."""
    v: Array
    """[G, H, S, K]."""
    bias: Array
    """[G, H, S]: added to the logits of a key."""
    links: Array | None
    """[G, I, P, H] from `linked`, or None."""


def operands(q: Array, k: Array, v: Array, key_bias: Array, links: Array | None) -> Operands:
    """The arguments of `Attend`, in float32 and laid out."""

    def lay_out(x: Array) -> Array:
        return jnp.swapaxes(x.astype(jnp.float32), 1, 2)

    return Operands(lay_out(q) * q.shape[-1] ** -0.5, lay_out(k), lay_out(v), lay_out(key_bias), links)


def chunked_attention(
    kind: str,
    q: Array,
    k: Array,
    v: Array,
    relations: Relations,
    key_bias: Array,
    link_bias: Array | None = None,
    queries: Array | None = None,
) -> Array:
    """As `dense_attention`, a tile of queries or a few contexts at a time."""
    num_contexts, num_queries, num_heads = q.shape[:3]
    relations = relations.bare()
    asking = relations if queries is None else relations.take(queries)
    parts = operands(q, k, v, key_bias, linked(kind, asking, relations, link_bias))
    row_logits = k.shape[1] * num_heads
    tile = min(num_queries, max(16, TILE_LOGITS // row_logits))
    group = max(1, TILE_LOGITS // (row_logits * tile))
    group = max(size for size in range(1, num_contexts + 1) if num_contexts % size == 0 and size <= group)

    def split(x: Array) -> Array:
        return x.reshape((num_contexts // group, group, *x.shape[1:]))

    def of_group(part: tuple[Operands, Relations, Relations]) -> Array:
        return _tiled(kind, tile, *part)

    out = jax.lax.map(of_group, jax.tree.map(split, (parts, asking, relations)))  # [B / G, G, H, Q, K]
    return jnp.swapaxes(out.reshape(num_contexts, *out.shape[2:]), 1, 2).astype(v.dtype)


def split_tiles(x: Array, axis: int, tile: int, fill: float = 0) -> Array:
    """Cuts an axis into tiles that become the first axis, filling up the last."""
    size = x.shape[axis]
    num_tiles = -(-size // tile)
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, num_tiles * tile - size)
    x = jnp.pad(x, widths, constant_values=fill)
    x = x.reshape(*x.shape[:axis], num_tiles, tile, *x.shape[axis + 1 :])
    return jnp.moveaxis(x, axis, 0)


def join_tiles(x: Array, axis: int, size: int) -> Array:
    """The inverse of `split_tiles`."""
    x = jnp.moveaxis(x, 0, axis)
    x = x.reshape(*x.shape[:axis], -1, *x.shape[axis + 2 :])
    return jax.lax.slice_in_dim(x, 0, size, axis=axis)


def _relation_tiles(relations: Relations, tile: int) -> Relations:
    tiles: Relations = jax.tree.map(lambda x: split_tiles(x, 1, tile, -1), relations)
    return tiles


def _logits(kind: str, q: Array, k_t: Array, bias: Array, links: Array | None, rq: Relations, rk: Relations) -> Array:
    """Float32 [G, H, T, S] with `MASKED_LOGIT` where a query may not look; `k_t` is [G, H, K, S].

    In full attention only the keys' padding is left out here.
    """
    logits = jnp.einsum("ghtk,ghks->ghts", q, k_t) + bias[:, :, None, :]
    if links is not None:
        logits += link_logits(kind, rq, rk, links)
    if kind == "full":
        return logits
    return jnp.where(permitted(kind, rq, rk)[:, None], logits, MASKED_LOGIT)


def _visible_bias(bias: Array, keys: Relations) -> Array:
    return jnp.where((keys.row >= 0)[:, None], bias, MASKED_LOGIT)


def _link_tiles(kind: str, links: Array | None, tile: int) -> Array | None:
    """Tiles of the links where the queries hold them; None where the keys do."""
    return split_tiles(links, 1, tile) if links is not None and kind == "feature" else None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _tiled(kind: str, tile: int, parts: Operands, queries: Relations, keys: Relations) -> Array:
    return _tiled_forward(kind, tile, parts, queries, keys)[0]


def _tiled_forward(
    kind: str, tile: int, parts: Operands, queries: Relations, keys: Relations
) -> tuple[Array, tuple[Operands, Relations, Relations, Array, Array]]:
    num_queries = parts.q.shape[2]
    k_t, bias = jnp.swapaxes(parts.k, 2, 3), _visible_bias(parts.bias, keys)

    def of_tile(x: tuple[Array, Relations, Array | None]) -> tuple[Array, Array]:
        q, asking, links = x
        logits = _logits(kind, q, k_t, bias, parts.links if links is None else links, asking, keys)
        top = jnp.max(logits, axis=-1, keepdims=True)
        weights = jnp.exp(logits - top)
        total = jnp.sum(weights, axis=-1, keepdims=True)
        sees = (top > 0.5 * MASKED_LOGIT) & (asking.row >= 0)[:, None, :, None]
        out = jnp.where(sees, jnp.einsum("ghts,ghsk->ghtk", weights, parts.v) / total, 0.0)
        return out, jnp.where(sees, top + jnp.log(total), jnp.inf)

    tiles = (split_tiles(parts.q, 2, tile), _relation_tiles(queries, tile), _link_tiles(kind, parts.links, tile))
    out, log_total = jax.lax.map(of_tile, tiles)
    out = join_tiles(out, 2, num_queries)
    return out, (parts, queries, keys, out, join_tiles(log_total, 2, num_queries))


def _tiled_backward(
    kind: str, tile: int, saved: tuple[Operands, Relations, Relations, Array, Array], d_out: Array
) -> tuple[Operands, None, None]:
    parts, queries, keys, out, log_total = saved
    size = parts.q.shape[2]
    k_t, v_t = jnp.swapaxes(parts.k, 2, 3), jnp.swapaxes(parts.v, 2, 3)
    bias = _visible_bias(parts.bias, keys)
    inner = jnp.sum(out * d_out, axis=-1, keepdims=True)

    def of_tile(sums: Operands, x: tuple[Any, ...]) -> tuple[Operands, tuple[Array, Array | None]]:
        q, d_out, log_total, inner, asking, links = x
        logits = _logits(kind, q, k_t, bias, parts.links if links is None else links, asking, keys)
        weights = jnp.exp(logits - log_total)
        d_logits = weights * (jnp.einsum("ghtk,ghks->ghts", d_out, v_t) - inner)
        d_links = None if parts.links is None else link_gradient(kind, asking, keys, d_logits)
        sums = Operands(
            q=None,
            k=sums.k + jnp.einsum("ghkt,ghts->ghks", jnp.swapaxes(q, 2, 3), d_logits),
            v=sums.v + jnp.einsum("ghkt,ghts->ghks", jnp.swapaxes(d_out, 2, 3), weights),
            bias=sums.bias + jnp.sum(d_logits, axis=2),
            links=None if sums.links is None else sums.links + d_links,
        )
        d_q = jnp.einsum("ghts,ghsk->ghtk", d_logits, parts.k)
        return sums, (d_q, None if links is None else d_links)

    link_tiles = _link_tiles(kind, parts.links, tile)
    of_keys = parts.links if link_tiles is None else None
    start = Operands(None, k_t, v_t, bias, of_keys)
    rows = [split_tiles(x, 2, tile) for x in (parts.q, d_out)]
    rows += [split_tiles(log_total, 2, tile, jnp.inf), split_tiles(inner, 2, tile)]
    tiles = (*rows, _relation_tiles(queries, tile), link_tiles)
    sums, (d_q, d_links) = jax.lax.scan(of_tile, jax.tree.map(jnp.zeros_like, start), tiles)
    d_links = sums.links if link_tiles is None else join_tiles(d_links, 1, size)
    d_k, d_v = (jnp.swapaxes(x, 2, 3) for x in (sums.k, sums.v))
    return Operands(join_tiles(d_q, 2, size), d_k, d_v, sums.bias, d_links), None, None


_tiled.defvjp(_tiled_forward, _tiled_backward)
