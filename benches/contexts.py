"""Made-up batches in the shape of what the sampler gives, for benchmarks that need no database.

A star of tables as in a racing or shop database: the seed's row, its entity, events of the entity in the order of a
walk, each pointing to the entity, to one of a few shared rows and to one of many; seven cells a row on average.
"""

from __future__ import annotations

import numpy as np

from tributary.batch import Batch, DatabaseArrays

CELLS = (2, 5, 9, 6, 8)
"""Cells of a row of each table: task, entity, event, shared, many."""


def made_up_batch(*, batch_size: int, seq_len: int, rng_seed: int = 0, num_parents: int = 3) -> Batch:
    """A batch whose `B` contexts are full.

    Args:
        batch_size: `B`.
        seq_len: `S`.
        rng_seed: of all choices.
        num_parents: `P`, at least 3.
    """
    rng = np.random.default_rng(rng_seed)
    sizes = {"B": batch_size, "S": seq_len, "R": seq_len, "P": num_parents, "7": 7, "W": 0, "L": 0, "A": 0}
    arrays = {}
    for name, (dtype, axes) in Batch.spec().items():
        is_id = dtype.startswith("int") and name not in ("cell_calendar", "seed_time")
        arrays[name] = np.full([sizes[axis] for axis in axes], -1 if is_id else 0, dtype)
    for b in range(batch_size):
        _fill(arrays, b, rng)
        arrays["seed_task"][b], arrays["seed_index"][b], arrays["seed_row"][b] = 0, b, b
        arrays["target_cell"][b], arrays["target_value"][b] = 1, rng.normal()
    return Batch.from_arrays(arrays)


def made_up_arrays(embedding_dim: int) -> DatabaseArrays:
    """Random vectors for the ids of these batches: one task, whose target is a number."""
    rng = np.random.default_rng(0)

    def unit(count: int) -> np.ndarray:
        vectors = rng.normal(size=(count, embedding_dim))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)

    return DatabaseArrays(
        column_vectors=unit(sum(CELLS)),
        vocab_vectors=unit(8),
        foreign_key_vectors=unit(4),
        column_offset=np.zeros(sum(CELLS), np.float32),
        task_classes=np.full((1, 1), -1, np.int32),
    )


def _fill(arrays: dict[str, np.ndarray], b: int, rng: np.random.Generator) -> None:
    """One context: rows until its cells are full."""
    rows, links = _rows(rng, arrays["cell_row"].shape[1])
    first_column = np.concatenate([[0], np.cumsum(CELLS)])
    cell = 0
    for row, table in enumerate(rows):
        arrays["row_table"][b, row] = table
        arrays["row_hop"][b, row] = min(row, 3)
        arrays["row_has_time"][b, row] = table in (0, 2)
        arrays["row_age"][b, row] = rng.exponential(300.0) if table == 2 else 0.0
        for slot, (parent, key) in enumerate(links[row]):
            arrays["row_parents"][b, row, slot], arrays["row_parent_keys"][b, row, slot] = parent, key
        for column in range(CELLS[table]):
            if cell == arrays["cell_row"].shape[1]:
                return
            arrays["cell_row"][b, cell] = row
            arrays["cell_column"][b, cell] = first_column[table] + column
            arrays["cell_stype"][b, cell] = 1
            arrays["cell_value"][b, cell] = rng.normal()
            arrays["cell_is_target"][b, cell] = cell == 1
            cell += 1


def _rows(rng: np.random.Generator, max_rows: int) -> tuple[list[int], list[list[tuple[int, int]]]]:
    """Tables of the rows, and their (parent, foreign key) links."""
    rows, links = [0, 1], [[(1, 0)], []]
    shared: list[int] = []
    while len(rows) < max_rows - 2:
        event = len(rows)
        rows.append(2)
        links.append([(1, 1)])
        if len(shared) < 8:
            shared.append(len(rows))
            rows.append(3)
            links.append([])
        links[event].append((int(rng.choice(shared)), 2))
        if rng.random() < 0.5:
            links[event].append((len(rows), 3))
            rows.append(4)
            links.append([])
    return rows, links
