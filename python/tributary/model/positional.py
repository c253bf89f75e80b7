"""Where a row stands in the graph of its context: vectors per row that are added to its tokens.

Two sources: the sampler's walk probabilities (`WalkPositions`), or a small graph network over the links of the
context that starts from node features without meaning (`PearlPositions`). Both start at zero. Described in
`documentation/model.md`.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tributary.batch import Array, Batch
from tributary.model.norm import RMSNorm

SAMPLES_AT_A_TIME = 32
"""Node features that the graph network reads at a time; more are recomputed in the backward pass."""


class WalkPositions(nnx.Module):
    """Projection of the probabilities that a random walk from the seed's row is at a row after 1, 2, ... steps.

    Source: random walk positional encodings, arXiv 2110.07875. We differ: a walk starts at the seed's
    row and not at the row itself, so the encoding says where a row stands to the question.
    """

    def __init__(self, num_steps: int, d_model: int, *, dtype: jnp.dtype, param_dtype: jnp.dtype, rngs: nnx.Rngs):
        self.num_steps, self.dtype = num_steps, dtype
        zeros = nnx.initializers.zeros_init()
        self.out_kernel = nnx.Param(zeros(rngs.params(), (2 * num_steps, d_model), param_dtype))

    def __call__(self, batch: Batch) -> Array:
        """[B, R, D].

        Raises:
            ValueError: the batch holds fewer steps than the model reads.
        """
        if batch.row_walk.shape[2] < self.num_steps:
            raise ValueError(
                f"the model reads {self.num_steps} steps of a walk (model.positional_steps), found "
                f"{batch.row_walk.shape[2]} in the batch: set walk_features to at least as many"
            )
        walk = batch.row_walk[:, :, : self.num_steps]
        # Probabilities fall fast with the distance; their roots keep the far rows apart.
        features = jnp.concatenate([walk, jnp.sqrt(walk)], axis=-1).astype(self.dtype)
        return jnp.einsum("brw,wd->brd", features, self.out_kernel[...].astype(self.dtype))


def parent_shares(batch: Batch) -> Array:
    """Float32 [B, R, R]: entry (r, p) is the share of row r's links that lead to its parent p."""
    parents = batch.row_parents.astype(jnp.int32)
    links = jnp.sum(jax.nn.one_hot(parents, parents.shape[1], dtype=jnp.float32), axis=2)
    return links / jnp.maximum(jnp.sum(links, axis=2, keepdims=True), 1.0)


def child_shares(batch: Batch) -> Array:
    """Float32 [B, R, R]: entry (p, r) is the share of the links that lead to row p which come from its child r."""
    parents = batch.row_parents.astype(jnp.int32)
    links = jnp.swapaxes(jnp.sum(jax.nn.one_hot(parents, parents.shape[1], dtype=jnp.float32), axis=2), 1, 2)
    return links / jnp.maximum(jnp.sum(links, axis=2, keepdims=True), 1.0)


def random_features(num_rows: int, num_samples: int) -> Array:
    """Float32 [R, M]: standard normal numbers, always the same; those of a row do not depend on the number of rows."""
    keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.key(0), row))(jnp.arange(num_rows))
    return jax.vmap(lambda key: jax.random.normal(key, (num_samples,), jnp.float32))(keys)


class PearlPositions(nnx.Module):
    """A small graph network over the links of a context, applied to node features without meaning, then pooled.

    With `basis` there is one node feature per row, 1 at that row and 0 elsewhere, and the network's answers are
    added up: renumbering the rows renumbers the encodings, at a cost that grows with the square of the rows. Without,
    there are `num_samples` random node features and their answers are averaged: cheaper, and equivariant only in
    expectation. The random numbers belong to the numbers of the rows, so the same batch gets the same encodings.

    Source: PEARL, arXiv 2502.01122 (R-PEARL and B-PEARL). We differ: links carry their direction
    (a matrix each for a row, its parents and its children), layers have no bias (a node feature that does not reach
    a row leaves it at zero), the projection starts at zero.
    """

    def __init__(
        self,
        d_model: int,
        *,
        basis: bool,
        num_layers: int,
        num_samples: int,
        width: int,
        dtype: jnp.dtype,
        param_dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.basis, self.num_samples, self.dtype = basis, num_samples, dtype
        matrix = nnx.initializers.variance_scaling(3.0, "fan_in", "truncated_normal")
        sizes = [1] + [width] * num_layers
        self.num_layers = num_layers
        for i in range(num_layers):
            kernel = nnx.Param(matrix(rngs.params(), (3 * sizes[i], sizes[i + 1]), param_dtype))
            setattr(self, f"layer_{i}_kernel", kernel)
        self.norm = RMSNorm(width, dtype=dtype, param_dtype=param_dtype)
        self.out_kernel = nnx.Param(nnx.initializers.zeros_init()(rngs.params(), (width, d_model), param_dtype))

    def __call__(self, batch: Batch) -> Array:
        """[B, R, D]; rows that are padding get something nobody reads."""
        shares = (parent_shares(batch).astype(self.dtype), child_shares(batch).astype(self.dtype))
        is_row = batch.row_table >= 0
        num_rows = is_row.shape[1]
        start = jnp.eye(num_rows) if self.basis else random_features(num_rows, self.num_samples)
        start = jnp.where(is_row[:, :, None], start, 0.0).astype(self.dtype)
        pooled = self._pooled(start, shares)
        if not self.basis:
            pooled /= self.num_samples
        return jnp.einsum("brw,wd->brd", self.norm(pooled), self.out_kernel[...].astype(self.dtype))

    def _pooled(self, start: Array, shares: tuple[Array, Array]) -> Array:
        """Float32 [B, R, width]: the network's answers to [B, R, M] node features, added up over M."""
        kernels = [getattr(self, f"layer_{i}_kernel")[...].astype(self.dtype) for i in range(self.num_layers)]

        def answer(part: Array) -> Array:
            return jnp.sum(_network(part[..., None], shares, kernels).astype(jnp.float32), axis=2)

        num_samples = start.shape[2]
        if num_samples <= SAMPLES_AT_A_TIME:
            return answer(start)
        num_parts = -(-num_samples // SAMPLES_AT_A_TIME)
        # Samples that are zero everywhere are answered with zero, since no layer has a bias.
        filled = jnp.pad(start, ((0, 0), (0, 0), (0, num_parts * SAMPLES_AT_A_TIME - num_samples)))
        parts = jnp.moveaxis(filled.reshape(*start.shape[:2], num_parts, SAMPLES_AT_A_TIME), 2, 0)

        @jax.checkpoint
        def add(total: Array, part: Array) -> tuple[Array, None]:
            return total + answer(part), None

        zero = jnp.zeros((*start.shape[:2], kernels[-1].shape[1]), jnp.float32)
        return jax.lax.scan(add, zero, parts)[0]


def _network(x: Array, shares: tuple[Array, Array], kernels: list[Array]) -> Array:
    """[B, R, M, width]: every layer mixes a row with the means of its parents and of its children."""
    for kernel in kernels:
        mixed = [x] + [jnp.einsum("brp,bpmw->brmw", share, x) for share in shares]
        x = jax.nn.silu(jnp.einsum("brmw,wv->brmv", jnp.concatenate(mixed, axis=-1), kernel))
    return x


def row_positions(
    kind: str,
    d_model: int,
    *,
    num_steps: int,
    num_layers: int,
    num_samples: int,
    width: int,
    **options: Any,
) -> WalkPositions | PearlPositions | None:
    """The encoding of that name: none, walk, pearl-random, pearl-basis; `options` are dtypes and random numbers."""
    if kind == "none":
        return None
    if kind == "walk":
        return WalkPositions(num_steps, d_model, **options)
    sizes: dict[str, Any] = {"num_layers": num_layers, "num_samples": num_samples, "width": width}
    return PearlPositions(d_model, basis=kind == "pearl-basis", **sizes, **options)
