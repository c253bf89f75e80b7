"""From tokens to predictions, one head per kind of value.

Scalar heads (number, timestamp, boolean, null) and the calendar of a timestamp read a token scaled by its column's
embedding; classes are told apart by comparing a token with projected vocabulary vectors, so a class never seen in
training can be predicted; whether a row is the parent that a key names is told from the two rows and the key. All
last layers start at zero: an untrained model predicts the median, the base rate, or all classes alike. Described in
`documentation/model.md`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tributary.batch import Array, Batch, DatabaseArrays
from tributary.model.encoders import NUM_CALENDAR_FEATURES
from tributary.model.norm import RMSNorm

NUMBER, MOMENT, TRUTH, NULL = range(4)
"""Position of each scalar head."""
NUM_SCALARS = 4


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outputs:
    """Predictions for `Q` cells of each context, float32."""

    number: Array
    """[B, Q] z-score of a numerical cell."""
    moment: Array
    """[B, Q] z-score over all timestamps of the database."""
    truth: Array
    """[B, Q] log-odds of a boolean cell."""
    null: Array
    """[B, Q] log-odds of the cell being missing."""
    query: Array
    """[B, Q, D] to be compared with `Heads.class_keys`."""
    calendar: Array | None = None
    """[B, Q, 14] sines, then cosines, of the seven cycles of a timestamp; None where the model has no such head."""
    link: Array | None = None
    """[B, L] log-odds that a link between two rows is true; None where the model has no link head."""
    candidates: Array | None = None
    """[B, A] log-odds that a row answers the seed's link task; None where the model has no link head."""

    def of_cells(self, part: slice) -> Outputs:
        """The predictions for some of the `Q` cells, without those for rows."""
        names = [field.name for field in dataclasses.fields(self) if field.name not in ("link", "candidates")]
        fields = {name: getattr(self, name) for name in names}
        return Outputs(**{name: None if value is None else value[:, part] for name, value in fields.items()})


class Heads(nnx.Module):
    """The heads of cells, and where `links` is true that of links."""

    def __init__(
        self,
        embedding_dim: int,
        d_model: int,
        *,
        links: bool = False,
        dtype: jnp.dtype,
        param_dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.dtype = dtype
        zeros, unit = nnx.initializers.zeros_init(), nnx.initializers.normal(1.0)
        self.norm = RMSNorm(d_model, dtype=dtype, param_dtype=param_dtype)
        self.gate_kernel = nnx.Param(unit(rngs.params(), (embedding_dim, d_model), param_dtype))
        num_answers = NUM_SCALARS + NUM_CALENDAR_FEATURES
        self.scalar_kernel = nnx.Param(zeros(rngs.params(), (d_model, num_answers), param_dtype))
        self.column_bias = nnx.Param(zeros(rngs.params(), (embedding_dim, num_answers), param_dtype))
        self.query_kernel = nnx.Param(zeros(rngs.params(), (d_model, d_model), param_dtype))
        self.class_kernel = nnx.Param(unit(rngs.params(), (embedding_dim, d_model), param_dtype))
        options: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.link_head = LinkHead(embedding_dim, d_model, **options) if links else None

    def __call__(self, x: Array, column_vectors: Array, offset: Array) -> Outputs:
        """Predictions.

        Args:
            x: [B, Q, D] tokens of the predicted cells.
            column_vectors: [B, Q, E] embeddings of their columns.
            offset: float32 [B, Q] what the column's scalar head starts from.
        """
        x = self.norm(x)
        column_vectors = column_vectors.astype(self.dtype)
        gate = 1.0 + jnp.einsum("bqe,ed->bqd", column_vectors, self.gate_kernel[...].astype(self.dtype))
        scalars = jnp.einsum("bqd,dn->bqn", x * gate, self.scalar_kernel[...].astype(self.dtype))
        scalars += jnp.einsum("bqe,en->bqn", column_vectors, self.column_bias[...].astype(self.dtype))
        scalars = scalars.astype(jnp.float32)
        query = jnp.einsum("bqd,dk->bqk", x, self.query_kernel[...].astype(self.dtype))
        return Outputs(
            number=scalars[..., NUMBER] + offset,
            moment=scalars[..., MOMENT] + offset,
            truth=scalars[..., TRUTH] + offset,
            null=scalars[..., NULL],
            calendar=scalars[..., NUM_SCALARS:],
            query=query.astype(jnp.float32) * x.shape[-1] ** -0.5,
        )

    def class_keys(self, vectors: Array) -> Array:
        """Float32 [..., D]: projected vocabulary vectors [..., E]; a logit is query . key."""
        return (vectors.astype(self.dtype) @ self.class_kernel[...].astype(self.dtype)).astype(jnp.float32)


class LinkHead(nnx.Module):
    """Whether a row is the parent that a child's foreign key names.

    Source: a diagonal bilinear score after DistMult, arXiv 1412.6575, equation 2. We differ: the diagonal of a key is
    computed from its embedding, and child and parent are projected apart, so that a link has a direction.
    """

    def __init__(self, embedding_dim: int, d_model: int, *, dtype: jnp.dtype, param_dtype: jnp.dtype, rngs: nnx.Rngs):
        self.dtype = dtype
        zeros, unit = nnx.initializers.zeros_init(), nnx.initializers.normal(1.0)
        matrix = nnx.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        self.norm = RMSNorm(d_model, dtype=dtype, param_dtype=param_dtype)
        self.child_kernel = nnx.Param(zeros(rngs.params(), (d_model, d_model), param_dtype))
        self.parent_kernel = nnx.Param(matrix(rngs.params(), (d_model, d_model), param_dtype))
        self.key_kernel = nnx.Param(unit(rngs.params(), (embedding_dim, d_model), param_dtype))
        self.key_bias = nnx.Param(zeros(rngs.params(), (embedding_dim, 1), param_dtype))

    def __call__(self, rows: Array, batch: Batch, foreign_key_vectors: Array) -> Array:
        """Log-odds.

        Args:
            rows: [B, R, D] state of every row.
            batch: device fields; its `link_child`, `link_parent` and `link_key` are judged.
            foreign_key_vectors: [F, E].

        Returns:
            float32 [B, L]; of no meaning where `link_child` is -1.
        """
        rows = self.norm(rows)

        def pick(positions: Array) -> Array:
            place = jax.nn.one_hot(positions.astype(jnp.int32), rows.shape[1], dtype=rows.dtype)
            return jnp.einsum("blr,brd->bld", place, rows)

        keys = jnp.take(foreign_key_vectors, jnp.maximum(batch.link_key.astype(jnp.int32), 0), axis=0)
        return self._score(pick(batch.link_child), pick(batch.link_parent), keys)

    def rank(self, seeds: Array, rows: Array, key_vectors: Array) -> Array:
        """Log-odds that rows answer a link task: its seed is the child, its target column the key.

        Args:
            seeds: [B, D] state of every seed's target cell.
            rows: [B, R, D] state of every row.
            key_vectors: [B, E] embeddings of the target columns.

        Returns:
            float32 [B, R]; of no meaning where a row is no candidate.
        """
        return self._score(self.norm(seeds)[:, None], self.norm(rows), key_vectors[:, None])

    def _score(self, child: Array, parent: Array, keys: Array) -> Array:
        """Float32 [B, L] of normalised states [B, L, D] and keys [B, L, E]; an axis L of 1 is repeated."""
        child = jnp.einsum("bld,dk->blk", child, self.child_kernel[...].astype(self.dtype))
        parent = jnp.einsum("bld,dk->blk", parent, self.parent_kernel[...].astype(self.dtype))
        keys = keys.astype(self.dtype)
        diagonal = 1.0 + jnp.einsum("ble,ed->bld", keys, self.key_kernel[...].astype(self.dtype))
        score = jnp.sum((child * diagonal * parent).astype(jnp.float32), axis=-1) * child.shape[-1] ** -0.5
        bias = jnp.einsum("ble,en->bln", keys, self.key_bias[...].astype(self.dtype))[..., 0]
        return score + bias.astype(jnp.float32)


def judge_rows(
    head: LinkHead, outputs: Outputs, x: Array, rows: Array, batch: Batch, arrays: DatabaseArrays
) -> Outputs:
    """The outputs with what the link head says of pairs of rows, and of the candidates of link tasks where there are.

    Args:
        head: it.
        outputs: what was said of cells.
        x: [B, Q, D] tokens of the predicted cells, the target's first.
        rows: [B, R, D] states of the rows.
        batch: device fields.
        arrays: embeddings of the database.
    """
    link = head(rows, batch, arrays.foreign_key_vectors)
    if batch.row_is_candidate.shape[1] == 0:
        return dataclasses.replace(outputs, link=link)
    target = jnp.maximum(batch.target_cell, 0)[:, None]
    column = jnp.maximum(jnp.take_along_axis(batch.cell_column, target, axis=1)[:, 0], 0)
    candidates = head.rank(x[:, 0], rows, jnp.take(arrays.column_vectors, column, axis=0))
    return dataclasses.replace(outputs, link=link, candidates=candidates)
