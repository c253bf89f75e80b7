"""Our cells as the published models read them.

Theirs are of four kinds: number, text, datetime and (not in rt-j) boolean. A cell they do not have, an identifier or a
missing value, is taken for padding. Described in `documentation/published_models.md`.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from tributary.batch import Array, Batch
from tributary.model.encoders import BOOLEAN, CATEGORICAL, NUMERICAL, TEXT, TIMESTAMP

CELL_KINDS = ("number", "text", "datetime", "boolean")
"""Their names, as in the weights' files."""
NUMBER, WORDS, DATETIME, TRUTH = range(4)
"""Position of each in `CELL_KINDS`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedCells:
    """What they know of each of the [B, S] cells besides its place, column and words."""

    kind: Array
    """int32: position in `CELL_KINDS`; -1 where they have no such cell."""
    scalar: Array
    """float32: z-score of a number, boolean or moment; else 0."""
    is_shown: Array
    """bool: there is a cell and its value may be read."""
    is_hidden: Array
    """bool: there is a cell and its value is asked for."""


def read_cells(batch: Batch, column_offset: Array, is_masked: Array, *, has_boolean: bool) -> PublishedCells:
    """The cells of a batch.

    Args:
        batch: device fields.
        column_offset: float32 [C]; of a boolean column the log-odds of its share of true.
        is_masked: bool [B, S] cells to hide besides the targets.
        has_boolean: booleans are a kind of their own, else numbers.
    """
    stype = batch.cell_stype
    kind = jnp.full(stype.shape, -1, jnp.int32)
    for code, theirs in (
        (NUMERICAL, NUMBER),
        (CATEGORICAL, WORDS),
        (TEXT, WORDS),
        (TIMESTAMP, DATETIME),
        (BOOLEAN, TRUTH if has_boolean else NUMBER),
    ):
        kind = jnp.where(stype == code, theirs, kind)
    is_asked = is_masked | batch.cell_is_masked | batch.cell_is_target
    exists = ~batch.cell_is_padding & (kind >= 0) & (is_asked | ~batch.cell_is_null)
    mean, std = boolean_moments(jnp.take(column_offset, jnp.maximum(batch.cell_column, 0), axis=0))
    scalar = jnp.where(stype == BOOLEAN, (batch.cell_value - mean) / std, batch.cell_value)
    is_shown = exists & ~is_asked
    return PublishedCells(
        kind=jnp.where(exists, kind, -1),
        scalar=jnp.where(is_shown & (kind != WORDS), scalar, 0.0),
        is_shown=is_shown,
        is_hidden=exists & is_asked,
    )


def boolean_moments(log_odds: Array) -> tuple[Array, Array]:
    """Mean and standard deviation of a boolean whose share of true has these log-odds."""
    mean = jax.nn.sigmoid(log_odds)
    return mean, jnp.sqrt(mean * jax.nn.sigmoid(-log_odds))


SURE = 0.01
"""Shares below this, and above 1 minus this, are continued in a straight line on the scale of log-odds."""


def log_odds_of_score(score: Array, column_log_odds: Array) -> Array:
    """Log-odds of true for the z-score of a boolean.

    A z-score is a share of true, p = mean + std * score, which a regression may put outside of 0 and 1. Between 0.01
    and 0.99 the answer is log(p / (1 - p)); beyond, it goes on as the tangent there, so that order is never lost.
    """
    mean, std = boolean_moments(column_log_odds)
    share = mean + std * score
    inside = jnp.clip(share, SURE, 1.0 - SURE)
    return jnp.log(inside) - jnp.log1p(-inside) + (share - inside) / (SURE * (1.0 - SURE))


def only_cells(batch: Batch, cells: PublishedCells) -> Batch:
    """The batch in which every cell that they do not have is padding."""
    return dataclasses.replace(batch, cell_is_padding=cells.kind < 0)
