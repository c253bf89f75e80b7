"""Attention in one Pallas kernel per pass, for accelerators: masks from ids within the kernel, empty blocks skipped.

FlashAttention-2 (arXiv 2307.08691, algorithms 1 and 2) over the blocks that `blocks` lists. A program owns a block of
queries (forward pass, gradient of q) or of keys (gradients of k, v and biases) of one head and visits the listed
blocks of the other side. Nothing of size [S, S] is read or written. Lowers to Triton on GPUs and to Mosaic on TPUs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas import triton as pltriton

from tributary.batch import Array
from tributary.model.attention.blocks import BlockPlan, block_plan
from tributary.model.attention.dense import MASKED_LOGIT, dense_attention
from tributary.model.attention.links import linked
from tributary.model.attention.relations import Relations, is_earlier


class Target(NamedTuple):
    """Where kernels run."""

    platform: str
    """gpu, tpu, or interpret: slowly, anywhere."""
    block: int
    """Cells of a block: 128 on TPUs, whose lanes they fill."""


def target_of_backend() -> Target:
    """The target of JAX's default backend."""
    backend = jax.default_backend()
    return {"gpu": Target("gpu", 64), "tpu": Target("tpu", 128)}.get(backend, Target("interpret", 64))


def pallas_attention(
    kind: str,
    q: Array,
    k: Array,
    v: Array,
    relations: Relations,
    key_bias: Array,
    link_bias: Array | None = None,
    queries: Array | None = None,
    target: Target | None = None,
) -> Array:
    """As `dense_attention`, which computes it where only some cells ask."""
    if queries is not None:
        return dense_attention(kind, q, k, v, relations, key_bias, link_bias, queries)
    target = target_of_backend() if target is None else target
    plan = relations.plans[kind] if kind in relations.plans else block_plan(kind, relations, target.block)
    links = linked(kind, plan.cells, plan.cells, link_bias)

    def lay_out(x: Array) -> Array:
        """[B, S, H, ...] -> [B, H, S', ...] in the plan's order."""
        index = jnp.maximum(plan.order, 0).reshape(plan.order.shape + (1,) * (x.ndim - 2))
        return jnp.swapaxes(jnp.take_along_axis(x, index, axis=1), 1, 2)

    if links is not None:
        # The side that holds a link reads it along its own axis.
        links = jnp.moveaxis(links, 3, 1) if kind == "feature" else jnp.transpose(links, (0, 3, 2, 1))
    bias = lay_out(key_bias.astype(jnp.float32))[:, :, None, :]
    out = _blocked(kind, target, lay_out(q), lay_out(k), lay_out(v), bias, links, plan)
    out = jnp.swapaxes(out, 1, 2)
    return jnp.take_along_axis(out, plan.place[:, :, None, None], axis=1).astype(v.dtype)


# --- Operands of the kernels --------------------------------------------------------------------------------------


class Refs(NamedTuple):
    """What a program may read, all of one context and head, without the leading axes B and H."""

    q: Any
    """[S', K]."""
    k: Any
    """[S', K]."""
    v: Any
    """[S', K]."""
    bias: Any
    """float32 [1, S'] of keys."""
    links: Any
    """float32 [S', P] of queries (feature), [P, S'] of keys (neighbor), or None."""
    query_ids: Any
    """int32 [S', 2 + P]: row, column, parents."""
    key_ids: Any
    """int32 [2 + P, S']: the same."""
    query_age: Any
    """float32 [S', 1]."""
    key_age: Any
    """float32 [1, S']."""
    blocks: Any
    """int32 [N, N]: blocks to visit."""
    num_blocks: Any
    """int32 [1, N]."""
    d_out: Any = None
    """[S', K]."""
    log_total: Any = None
    """float32 [S', 1]: logarithm of each query's sum of weights."""
    inner: Any = None
    """float32 [S', 1]: product of output and its gradient."""


PER_HEAD = ("q", "k", "v", "bias", "links", "d_out", "log_total", "inner")
"""Operands with an axis H."""
IN_SCALARS = ("blocks", "num_blocks")
"""Operands that steer; on TPUs they lie in scalar memory."""


def _operands(arrays: tuple[Array, ...], plan: BlockPlan, is_by_keys: bool, **more: Array) -> Refs:
    q, k, v, bias, links = arrays
    cells = plan.cells
    ids = jnp.concatenate([cells.row[:, :, None], cells.column[:, :, None], cells.parents], axis=2)
    lists = (plan.query_blocks, plan.num_query_blocks) if is_by_keys else (plan.key_blocks, plan.num_key_blocks)
    ages = (cells.age[:, :, None], cells.age[:, None, :])
    return Refs(q, k, v, bias, links, ids, jnp.swapaxes(ids, 1, 2), *ages, *lists, **more)


def _spec(name: str, shape: tuple[int, ...], target: Target) -> pl.BlockSpec:
    """The part of an operand that a program (context, head, block) sees: all of its context and head."""
    space: Any = pltpu.SMEM if target.platform == "tpu" and name in IN_SCALARS else None
    if name in PER_HEAD:
        return pl.BlockSpec((None, None, *shape[2:]), lambda b, h, i: (b, h, 0, 0), memory_space=space)
    return pl.BlockSpec((None, *shape[1:]), lambda b, h, i: (b, 0, 0), memory_space=space)


Outputs = list[tuple[str, tuple[int, int], Any]]
"""Name, shape without B and H, and dtype; the axis of length S' is the one cut into blocks."""


def _run(kernel: Callable[..., None], refs: Refs, outputs: Outputs, target: Target) -> list[Array]:
    """Runs a program per context, head and block; `kernel` takes operands, its block, and a reference per output."""
    names = [name for name, x in refs._asdict().items() if x is not None]
    num_contexts, num_heads, size = refs.q.shape[:3]

    def body(*args: Any) -> None:
        seen = dict(zip(names, args, strict=False))
        kernel(Refs(**{name: seen.get(name) for name in Refs._fields}), pl.program_id(2), *args[len(names) :])

    def out_spec(shape: tuple[int, int]) -> pl.BlockSpec:
        if shape[0] == size:
            return pl.BlockSpec((None, None, target.block, shape[1]), lambda b, h, i: (b, h, i, 0))
        return pl.BlockSpec((None, None, shape[0], target.block), lambda b, h, i: (b, h, 0, i))

    inputs = [getattr(refs, name) for name in names]
    params: Any = pltriton.CompilerParams(num_warps=4, num_stages=2) if target.platform == "gpu" else None
    make_shape: Any = jax.ShapeDtypeStruct
    call: Any = pl.pallas_call(
        body,
        grid=(num_contexts, num_heads, size // target.block),
        in_specs=[_spec(name, x.shape, target) for name, x in zip(names, inputs, strict=True)],
        out_specs=[out_spec(shape) for _, shape, _ in outputs],
        out_shape=[make_shape((num_contexts, num_heads, *shape), dtype) for _, shape, dtype in outputs],
        interpret=target.platform == "interpret",
        compiler_params=params,
    )
    results: list[Array] = call(*inputs)
    return results


# --- Inside the kernels -------------------------------------------------------------------------------------------


def _dot(a: Array, b: Array, contract: tuple[int, int]) -> Array:
    """Float32 product over the named axes; exact for float32, in one pass for bfloat16."""
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    axes = (((contract[0],), (contract[1],)), ((), ()))
    return jax.lax.dot_general(a, b, axes, precision=precision, preferred_element_type=jnp.float32)


def _matches(kind: str, refs: Refs, rows: Any, columns: Any, slot: int) -> Array:
    """Bool [queries, keys]: link `slot` of the holder leads to the other's row."""
    if kind == "feature":
        link, row = refs.query_ids[rows, 2 + slot : 3 + slot], refs.key_ids[0:1, columns]
    else:
        link, row = refs.key_ids[2 + slot : 3 + slot, columns], refs.query_ids[rows, 0:1]
    return (link == row) & (link >= 0)


def _allowed(kind: str, lookback_days: float, refs: Refs, rows: Any, columns: Any) -> Array:
    """Bool [queries, keys]: the definition of `relations.permitted` within a kernel."""
    row_q, row_k = refs.query_ids[rows, 0:1], refs.key_ids[0:1, columns]
    both = (row_q >= 0) & (row_k >= 0)
    if kind == "full":
        return both
    if kind == "column":
        return both & (refs.query_ids[rows, 1:2] == refs.key_ids[1:2, columns])
    if kind == "temporal":
        earlier = is_earlier(refs.query_age[rows, 0:1], refs.key_age[0:1, columns], lookback_days)
        return both & ((row_q == row_k) | earlier)
    found = row_q == row_k if kind == "feature" else jnp.zeros_like(both)
    for slot in range(refs.query_ids.shape[1] - 2):
        found |= _matches(kind, refs, rows, columns, slot)
    return both & found


def _logits(kind: str, lookback_days: float, refs: Refs, rows: Any, columns: Any) -> Array:
    """Float32 [queries, keys] with `MASKED_LOGIT` where forbidden."""
    q = refs.q[rows, :]
    logits = _dot(q, refs.k[columns, :], (1, 1)) * q.shape[1] ** -0.5 + refs.bias[0:1, columns]
    if refs.links is not None:
        for slot in range(refs.query_ids.shape[1] - 2):
            bias = refs.links[rows, slot : slot + 1] if kind == "feature" else refs.links[slot : slot + 1, columns]
            logits += jnp.where(_matches(kind, refs, rows, columns, slot), bias, 0.0)
    return jnp.where(_allowed(kind, lookback_days, refs, rows, columns), logits, MASKED_LOGIT)


def _visit(refs: Refs, own: Any, block: int, body: Callable[[Any, Any], Any], start: Any) -> Any:
    """Folds `body` over the listed blocks of the other side."""

    def step(j: Any, folded: Any) -> Any:
        return body(pl.ds(pl.multiple_of(refs.blocks[own, j] * block, block), block), folded)

    return jax.lax.fori_loop(0, refs.num_blocks[0, own], step, start)


def _d_logits(refs: Refs, rows: Any, columns: Any, logits: Array) -> tuple[Array, Array]:
    """Weights, and the gradient of the logits."""
    weights = jnp.exp(logits - refs.log_total[rows, 0:1])
    return weights, weights * (_dot(refs.d_out[rows, :], refs.v[columns, :], (1, 1)) - refs.inner[rows, 0:1])


def _link_sums(kind: str, refs: Refs, rows: Any, columns: Any, d_logits: Array, sums: list[Array]) -> list[Array]:
    axis = 1 if kind == "feature" else 0
    parts = [jnp.where(_matches(kind, refs, rows, columns, slot), d_logits, 0.0) for slot in range(len(sums))]
    return [total + jnp.sum(part, axis=axis, keepdims=True) for total, part in zip(sums, parts, strict=True)]


# --- The kernels --------------------------------------------------------------------------------------------------


def _forward_kernel(
    kind: str, lookback_days: float, block: int, refs: Refs, own: Any, out_ref: Any, log_total_ref: Any
) -> None:
    rows = pl.ds(pl.multiple_of(own * block, block), block)

    def add(columns: Any, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        top, total, out = state
        logits = _logits(kind, lookback_days, refs, rows, columns)
        new_top = jnp.maximum(top, jnp.max(logits, axis=1, keepdims=True))
        weights, kept = jnp.exp(logits - new_top), jnp.exp(top - new_top)
        total = kept * total + jnp.sum(weights, axis=1, keepdims=True)
        v = refs.v[columns, :]
        return new_top, total, kept * out + _dot(weights.astype(v.dtype), v, (1, 0))

    column = jnp.zeros((block, 1), jnp.float32)
    start = (column + MASKED_LOGIT, column, jnp.zeros((block, refs.q.shape[1]), jnp.float32))
    top, total, out = _visit(refs, own, block, add, start)
    sees = top > 0.5 * MASKED_LOGIT
    total = jnp.where(sees, total, 1.0)
    out_ref[...] = jnp.where(sees, out / total, 0.0)
    log_total_ref[...] = jnp.where(sees, top + jnp.log(total), jnp.inf)


def _query_kernel(
    kind: str, lookback_days: float, block: int, refs: Refs, own: Any, d_q_ref: Any, d_links_ref: Any = None
) -> None:
    rows = pl.ds(pl.multiple_of(own * block, block), block)

    def add(columns: Any, sums: tuple[Array, list[Array]]) -> tuple[Array, list[Array]]:
        _, d_logits = _d_logits(refs, rows, columns, _logits(kind, lookback_days, refs, rows, columns))
        k = refs.k[columns, :]
        d_q = sums[0] + _dot(d_logits.astype(k.dtype), k, (1, 0))
        return d_q, _link_sums(kind, refs, rows, columns, d_logits, sums[1])

    num_links = 0 if d_links_ref is None else d_links_ref.shape[1]
    start = (jnp.zeros(d_q_ref.shape, jnp.float32), [jnp.zeros((block, 1), jnp.float32)] * num_links)
    d_q, d_links = _visit(refs, own, block, add, start)
    d_q_ref[...] = d_q * d_q.shape[1] ** -0.5
    for slot, total in enumerate(d_links):
        d_links_ref[:, slot : slot + 1] = total


def _key_kernel(
    kind: str,
    lookback_days: float,
    block: int,
    refs: Refs,
    own: Any,
    d_k_ref: Any,
    d_v_ref: Any,
    d_bias_ref: Any,
    d_links_ref: Any = None,
) -> None:
    columns = pl.ds(pl.multiple_of(own * block, block), block)

    def add(rows: Any, sums: tuple[Array, Array, Array, list[Array]]) -> tuple[Array, Array, Array, list[Array]]:
        weights, d_logits = _d_logits(refs, rows, columns, _logits(kind, lookback_days, refs, rows, columns))
        q, d_out = refs.q[rows, :], refs.d_out[rows, :]
        d_k = sums[0] + _dot(d_logits.astype(q.dtype), q, (0, 0))
        d_v = sums[1] + _dot(weights.astype(d_out.dtype), d_out, (0, 0))
        d_bias = sums[2] + jnp.sum(d_logits, axis=0, keepdims=True)
        return d_k, d_v, d_bias, _link_sums(kind, refs, rows, columns, d_logits, sums[3])

    wide, line = jnp.zeros(d_k_ref.shape, jnp.float32), jnp.zeros((1, block), jnp.float32)
    num_links = 0 if d_links_ref is None else d_links_ref.shape[0]
    d_k, d_v, d_bias, d_links = _visit(refs, own, block, add, (wide, wide, line, [line] * num_links))
    d_k_ref[...] = d_k * d_k.shape[1] ** -0.5
    d_v_ref[...] = d_v
    d_bias_ref[...] = d_bias
    for slot, total in enumerate(d_links):
        d_links_ref[slot : slot + 1, :] = total


# --- Passes -------------------------------------------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _blocked(
    kind: str, target: Target, q: Array, k: Array, v: Array, bias: Array, links: Array | None, plan: BlockPlan
) -> Array:
    """[B, H, S', K] float32 from q, k, v [B, H, S', K], bias [B, H, 1, S'] and links, all in the plan's order."""
    return _blocked_forward(kind, target, q, k, v, bias, links, plan)[0]


def _blocked_forward(
    kind: str, target: Target, q: Array, k: Array, v: Array, bias: Array, links: Array | None, plan: BlockPlan
) -> tuple[Array, Any]:
    arrays = (q, k, v, bias, links)
    size, head_dim = q.shape[2:]
    kernel = functools.partial(_forward_kernel, kind, plan.cells.lookback_days, target.block)
    outputs: Outputs = [("out", (size, head_dim), jnp.float32), ("log_total", (size, 1), jnp.float32)]
    out, log_total = _run(kernel, _operands(arrays, plan, is_by_keys=False), outputs, target)
    return out, (arrays, plan, out, log_total)


def _blocked_backward(kind: str, target: Target, saved: Any, d_out: Array) -> tuple[Any, ...]:
    arrays, plan, out, log_total = saved
    q, k, v, _, links = arrays
    size, head_dim = q.shape[2:]
    inner = jnp.sum(out * d_out, axis=-1, keepdims=True)
    more = {"d_out": d_out.astype(v.dtype), "log_total": log_total, "inner": inner}
    of_kernel = (kind, plan.cells.lookback_days, target.block)
    link_output = [] if links is None else [("d_links", links.shape[2:], jnp.float32)]
    by_queries: Outputs = [("d_q", (size, head_dim), jnp.float32), *(link_output if kind == "feature" else [])]
    refs = _operands(arrays, plan, is_by_keys=False, **more)
    d_q, *query_links = _run(functools.partial(_query_kernel, *of_kernel), refs, by_queries, target)
    by_keys: Outputs = [("d_k", (size, head_dim), jnp.float32), ("d_v", (size, head_dim), jnp.float32)]
    by_keys += [("d_bias", (1, size), jnp.float32), *(link_output if kind == "neighbor" else [])]
    refs = _operands(arrays, plan, is_by_keys=True, **more)
    d_k, d_v, d_bias, *key_links = _run(functools.partial(_key_kernel, *of_kernel), refs, by_keys, target)
    d_links = None if links is None else (query_links + key_links)[0]
    return d_q.astype(q.dtype), d_k.astype(k.dtype), d_v.astype(v.dtype), d_bias, d_links, None


_blocked.defvjp(_blocked_forward, _blocked_backward)
