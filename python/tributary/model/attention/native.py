"""Attention by the Rust core, which XLA calls on a processor (`rust/src/attention`).

Cells that look at the same keys are computed together, so exactly what a mask permits is multiplied; nothing of the
size of a mask is kept. The backward pass computes weights again from each query's sum, as in FlashAttention-2
(arXiv 2307.08691, algorithm 2).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from tributary._headwater import xla_handlers
from tributary.batch import Array
from tributary.model.attention.links import LINKED_KINDS
from tributary.model.attention.relations import KINDS, Relations

FORWARD, BACKWARD = "tributary_attention", "tributary_attention_backward"


class Operands(NamedTuple):
    """What has gradients, float32."""

    q: Array
    """[B, Q, H, K]."""
    k: Array
    """[B, S, H, K]."""
    v: Array
    """[B, S, H, K]."""
    key_bias: Array
    """[B, S, H]."""
    link_bias: Array
    """[F, H]; F is 0 where links add nothing."""


class Ids(NamedTuple):
    """What has none."""

    queries: Array
    """int32 [B, Q]: positions along S."""
    row: Array
    """int32 [B, S]."""
    column: Array
    """int32 [B, S]."""
    age: Array
    """float32 [B, S]."""
    parents: Array
    """int32 [B, S, P]."""
    parent_keys: Array
    """int32 [B, S, P]."""


def native_attention(
    kind: str,
    q: Array,
    k: Array,
    v: Array,
    relations: Relations,
    key_bias: Array,
    link_bias: Array | None = None,
    queries: Array | None = None,
) -> Array:
    """As `dense_attention`, on a processor only."""
    register()
    if link_bias is None or kind not in LINKED_KINDS:
        link_bias = jnp.zeros((0, q.shape[2]), jnp.float32)
    if queries is None:
        queries = jnp.broadcast_to(jnp.arange(q.shape[1], dtype=jnp.int32), q.shape[:2])
    parts = Operands(*(x.astype(jnp.float32) for x in (q, k, v, key_bias, link_bias)))
    ids = Ids(queries, relations.row, relations.column, relations.age, relations.parents, relations.parent_keys)
    return _attention(kind, relations.lookback_days, parts, ids).astype(v.dtype)


@functools.cache
def register() -> None:
    """Tells XLA of the core's functions, once per process."""
    for name, handler in xla_handlers():
        jax.ffi.register_ffi_target(name, handler, platform="cpu")


def _call(name: str, shapes: list[tuple[int, ...]], kind: str, lookback_days: float, *arrays: Array) -> Sequence[Array]:
    """Results of the shapes, float32, of a function of the core."""
    results = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]  # type: ignore[no-untyped-call]
    settings = jnp.int32(KINDS.index(kind)), jnp.float32(lookback_days)
    return jax.ffi.ffi_call(name, results)(*settings, *arrays)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _attention(kind: str, lookback_days: float, parts: Operands, ids: Ids) -> Array:
    return _forward(kind, lookback_days, parts, ids)[0]


def _forward(
    kind: str, lookback_days: float, parts: Operands, ids: Ids
) -> tuple[Array, tuple[Operands, Ids, Array, Array]]:
    shapes = [parts.q.shape, parts.q.shape[:3]]
    out, log_total = _call(FORWARD, shapes, kind, lookback_days, *parts, *ids)
    return out, (parts, ids, out, log_total)


def _backward(
    kind: str, lookback_days: float, saved: tuple[Operands, Ids, Array, Array], d_out: Array
) -> tuple[Operands, None]:
    parts, ids, out, log_total = saved
    shapes = [x.shape for x in parts[:4]] + [(parts.q.shape[0], *parts.link_bias.shape)]
    q, k, v, key_bias, link_bias = _call(BACKWARD, shapes, kind, lookback_days, *parts, *ids, out, log_total, d_out)
    return Operands(q, k, v, key_bias, jnp.sum(link_bias, axis=0)), None


_attention.defvjp(_forward, _backward)
