"""Who may look at whom, from ids alone: the pytree every implementation reads, and the definitions of the masks.

Source: Relational Transformer, arXiv 2510.06377, section 3, for column, feature, neighbor and full attention. The
temporal attention is ours.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from tributary.batch import Array, Batch

KINDS = ("column", "feature", "neighbor", "temporal", "full")
"""The attentions there are."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Relations:
    """What decides the masks of a batch, per cell: `B` contexts, `S` cells, `P` parents of a row.

    Computed once per batch and shared by all layers. Nothing in it is of size [S, S].
    """

    row: Array
    """int32 [B, S]: row of the cell; -1 where padding."""
    column: Array
    """int32 [B, S]: global column id; -1 where padding."""
    age: Array
    """float32 [B, S]: days from the time of the cell's row to the seed's; infinite where the row has no time."""
    parents: Array
    """int32 [B, S, P]: rows that the cell's row points to; -1 where there is none, and where padding."""
    parent_keys: Array
    """int32 [B, S, P]: foreign key of each such link; -1 where there is none."""
    plans: dict[str, Any] = dataclasses.field(default_factory=dict)
    """What an implementation prepared per kind, once per batch; see `prepared`."""
    lookback_days: float = dataclasses.field(default=math.inf, metadata={"static": True})
    """How much earlier than a query's row the keys of the temporal attention may be."""

    @classmethod
    def from_batch(cls, batch: Batch, *, lookback_days: float = math.inf) -> Relations:
        """Relations of a batch's cells.

        Row 0 is the seed's row; without a time of its own it stands at the seed's time.

        Args:
            batch: device fields.
            lookback_days: how far the temporal attention looks back.
        """
        row = jnp.where(batch.cell_is_padding, -1, batch.cell_row.astype(jnp.int32))
        place = jnp.maximum(row, 0)
        row_age = jnp.where(batch.row_has_time, batch.row_age, jnp.inf).at[:, 0].min(batch.row_age[:, 0])

        def of_cell(row_field: Array) -> Array:
            links = jnp.take_along_axis(row_field.astype(jnp.int32), place[:, :, None], axis=1)
            return jnp.where(row[:, :, None] >= 0, links, -1)

        return cls(
            row=row,
            column=jnp.where(row >= 0, batch.cell_column, -1),
            age=jnp.where(row >= 0, jnp.take_along_axis(row_age, place, axis=1), jnp.inf),
            parents=of_cell(batch.row_parents),
            parent_keys=of_cell(batch.row_parent_keys),
            lookback_days=lookback_days,
        )

    def bare(self) -> Relations:
        """The same without plans."""
        return dataclasses.replace(self, plans={})

    def take(self, cells: Array) -> Relations:
        """The same for some cells only: int32 [B, Q] positions along S. Without plans, which are of all cells."""
        return dataclasses.replace(
            self.bare(),
            row=jnp.take_along_axis(self.row, cells, axis=1),
            column=jnp.take_along_axis(self.column, cells, axis=1),
            age=jnp.take_along_axis(self.age, cells, axis=1),
            parents=jnp.take_along_axis(self.parents, cells[:, :, None], axis=1),
            parent_keys=jnp.take_along_axis(self.parent_keys, cells[:, :, None], axis=1),
        )


def permitted(kind: str, queries: Relations, keys: Relations) -> Array:
    """Which query may look at which key: the definition that all implementations keep.

    Args:
        kind: one of `KINDS`.
        queries: relations of the queries, [B, Q].
        keys: relations of the keys, [B, S].

    Returns:
        bool [B, Q, S]; padding neither looks nor is looked at.
    """
    row_q, row_k = queries.row[:, :, None], keys.row[:, None, :]
    both = (row_q >= 0) & (row_k >= 0)
    if kind == "full":
        return both
    if kind == "column":
        # A column id is global, so equal columns are of one table.
        return both & (queries.column[:, :, None] == keys.column[:, None, :])
    if kind == "feature":
        return both & ((row_q == row_k) | is_parent(queries, keys))
    if kind == "neighbor":
        return both & jnp.swapaxes(is_parent(keys, queries), 1, 2)
    if kind == "temporal":
        return both & ((row_q == row_k) | is_earlier(queries.age[:, :, None], keys.age[:, None, :], keys.lookback_days))
    raise ValueError(f"attention `{kind}`: expected one of {', '.join(KINDS)}")


def is_parent(of: Relations, candidates: Relations) -> Array:
    """Bool [B, I, J]: the row of cell j in `candidates` is a parent of the row of cell i in `of`."""
    links = of.parents[:, :, :, None]
    return jnp.any((links == candidates.row[:, None, None, :]) & (links >= 0), axis=2)


def is_earlier(query_age: Array, key_age: Array, lookback_days: float) -> Array:
    """Whether a key's row has a time, not later than the query's row's and at most `lookback_days` before it."""
    return (key_age < jnp.inf) & (key_age >= query_age) & (key_age - query_age <= lookback_days)
