"""Between rows and their cells.

Products with one-hot vectors: the gradient of a gather is a scatter, slow on a CPU and unordered on a GPU.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tributary.batch import Array, Batch


def _membership(batch: Batch, dtype: jnp.dtype) -> Array:
    """[B, S, R]: 1 where a cell is of a row, 0 elsewhere and where padding."""
    place = jnp.where(batch.cell_is_padding, -1, batch.cell_row.astype(jnp.int32))
    return jax.nn.one_hot(place, batch.row_table.shape[1], dtype=dtype)


def cells_of_rows(rows: Array, batch: Batch) -> Array:
    """[B, S, D]: what rows [B, R, D] say, at each of their cells; zero where padding."""
    return jnp.einsum("bsr,brd->bsd", _membership(batch, rows.dtype), rows)


def rows_of_cells(cells: Array, batch: Batch) -> Array:
    """[B, R, D]: the mean of every row's cells [B, S, D]; zero for a row without a cell."""
    membership = _membership(batch, cells.dtype)
    count = jnp.sum(membership, axis=1, dtype=jnp.float32)
    total = jnp.einsum("bsr,bsd->brd", membership, cells)
    return total / jnp.maximum(count, 1.0).astype(cells.dtype)[:, :, None]
