"""Random contexts for tests of attention, and the masks by their definitions, cell by cell."""

from __future__ import annotations

import dataclasses

import numpy as np

from synthetic_batch import synthetic_batch
from tributary.batch import Batch


def random_batch(
    rng_seed: int = 0,
    *,
    batch_size: int = 3,
    seq_len: int = 40,
    max_rows: int = 14,
    num_parents: int = 3,
    num_columns: int = 6,
    num_keys: int = 5,
    padding: float = 0.15,
) -> Batch:
    """Any graph at all: rows that point to themselves, twice to one row, or to rows without cells; rows without time.

    Cells lie in no order, with padding between them; the last context is padding only.
    """
    rng = np.random.default_rng(rng_seed)
    shape = (batch_size, seq_len)
    is_padding = rng.random(shape) < padding
    is_padding[-1] = True
    parents = rng.integers(0, max_rows, (batch_size, max_rows, num_parents))
    keys = rng.integers(0, num_keys, parents.shape)
    absent = np.arange(num_parents) >= rng.integers(0, num_parents + 1, (batch_size, max_rows, 1))
    parents[0, :, 0] = 1  # a row that everybody points to
    absent[0, :, 0] = False
    # Few ages, so that some are equal.
    age = rng.choice([0.0, 0.5, 1.0, 3.0, 10.0, 100.0], (batch_size, max_rows)).astype(np.float32)
    has_time = rng.random((batch_size, max_rows)) < 0.7
    base = synthetic_batch(batch_size=batch_size, seq_len=seq_len, max_rows=max_rows)
    return dataclasses.replace(
        base,
        cell_row=np.where(is_padding, -1, rng.integers(0, max_rows, shape)).astype(np.int16),
        cell_column=np.where(is_padding, -1, rng.integers(0, num_columns, shape)).astype(np.int32),
        cell_is_padding=is_padding,
        row_age=np.where(has_time, age, 0.0).astype(np.float32),
        row_has_time=has_time,
        row_parents=np.where(absent, -1, parents).astype(np.int16),
        row_parent_keys=np.where(absent, -1, keys).astype(np.int16),
    )


def naive_masks(batch: Batch, b: int, lookback_days: float = np.inf) -> dict[str, np.ndarray]:
    """The definitions of documentation/model.md for one context: bool [S, S] per kind."""
    size = batch.seq_len
    masks = {kind: np.zeros((size, size), bool) for kind in ("column", "feature", "neighbor", "temporal", "full")}
    cells = [s for s in range(size) if not batch.cell_is_padding[b, s]]
    for q in cells:
        for k in cells:
            row_q, row_k = batch.cell_row[b, q], batch.cell_row[b, k]
            masks["full"][q, k] = True
            masks["column"][q, k] = batch.cell_column[b, q] == batch.cell_column[b, k]
            masks["feature"][q, k] = row_q == row_k or row_k in parents(batch, b, row_q)
            masks["neighbor"][q, k] = row_q in parents(batch, b, row_k)
            masks["temporal"][q, k] = row_q == row_k
            age_q, age_k = row_age(batch, b, row_q), row_age(batch, b, row_k)
            if age_q is not None and age_k is not None and age_k >= age_q and age_k - age_q <= lookback_days:
                masks["temporal"][q, k] = True
    return masks


def parents(batch: Batch, b: int, row: int) -> list[int]:
    """Rows that a row points to."""
    return [int(parent) for parent in batch.row_parents[b, row] if parent >= 0]


def row_age(batch: Batch, b: int, row: int) -> float | None:
    """Days before the seed; None: no time."""
    if batch.row_has_time[b, row] or row == 0:
        return float(batch.row_age[b, row])
    return None


def naive_link_logits(kind: str, batch: Batch, b: int, link_bias: np.ndarray) -> np.ndarray:
    """What links add to the logits of one context: [H, S, S]."""
    size = batch.seq_len
    logits = np.zeros((link_bias.shape[1], size, size), np.float32)
    cells = [s for s in range(size) if not batch.cell_is_padding[b, s]]
    for q in cells:
        for k in cells:
            child, parent = (q, k) if kind == "feature" else (k, q)
            child_row, parent_row = batch.cell_row[b, child], batch.cell_row[b, parent]
            for link, key in zip(batch.row_parents[b, child_row], batch.row_parent_keys[b, child_row], strict=True):
                if link >= 0 and link == parent_row:
                    logits[:, q, k] += link_bias[key]
    return logits
