"""Random batches that keep every rule of `documentation/batch.md`, and the arrays of the database they pretend to read.

For tests of the model without the native sampler. The label follows from visible cells (`learnable=True`), so a
model can be seen to learn.
"""

from __future__ import annotations

import numpy as np

from tributary.batch import Batch, DatabaseArrays

IDENTIFIER, NUMERICAL, TIMESTAMP, BOOLEAN, CATEGORICAL, TEXT = range(6)
STYPES = ("identifier", "numerical", "timestamp", "boolean", "categorical", "text")

# Three tables: 0 customers, 1 orders (-> customers, -> shops), 2 shops; tables 3 and up are the tasks (-> customers).
COLUMNS = {
    0: [(0, IDENTIFIER), (1, CATEGORICAL), (2, NUMERICAL)],
    1: [(3, NUMERICAL), (4, TIMESTAMP), (5, BOOLEAN), (6, TEXT)],
    2: [(7, CATEGORICAL), (8, TEXT)],
    3: [(9, TIMESTAMP), (10, NUMERICAL)],
    4: [(11, TIMESTAMP), (12, BOOLEAN)],
    5: [(13, TIMESTAMP), (14, CATEGORICAL)],
    6: [(15, TIMESTAMP), (16, TIMESTAMP)],
}
TASK_STYPES = (NUMERICAL, BOOLEAN, CATEGORICAL, TIMESTAMP)
NUM_COLUMNS, NUM_FOREIGN_KEYS, NUM_VOCAB, NUM_TASKS = 17, 6, 24, 4


def database_arrays(embedding_dim: int = 16, rng_seed: int = 0) -> DatabaseArrays:
    """Unit vectors and four tasks (numerical, boolean, categorical with 3 classes, timestamp)."""
    rng = np.random.default_rng(rng_seed)

    def unit(count: int) -> np.ndarray:
        vectors = rng.normal(size=(count, embedding_dim))
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)

    classes = np.full((NUM_TASKS, 3), -1, np.int32)
    classes[2] = (0, 1, 2)
    offset = np.zeros(NUM_COLUMNS, np.float32)
    offset[12] = -1.0
    return DatabaseArrays(
        column_vectors=unit(NUM_COLUMNS),
        vocab_vectors=unit(NUM_VOCAB),
        foreign_key_vectors=unit(NUM_FOREIGN_KEYS),
        column_offset=offset,
        task_classes=classes,
    )


def synthetic_batch(
    rng_seed: int = 0,
    *,
    batch_size: int = 4,
    seq_len: int = 32,
    max_rows: int = 12,
    null_cells: bool = False,
    num_padding_seeds: int = 0,
    tasks: tuple[int, ...] = (0, 1, 2, 3),
    walk_features: int = 0,
    num_links: int = 0,
    mask_rate: float = 0.0,
    has_answers: bool = False,
) -> Batch:
    """A valid batch: task row -> customer -> orders -> shops."""
    rng = np.random.default_rng(rng_seed)
    sizes = {"B": batch_size, "S": seq_len, "R": max_rows, "P": 2, "7": 7, "W": walk_features, "L": num_links}
    sizes["A"] = max_rows if has_answers else 0
    arrays = {}
    for name, (dtype, axes) in Batch.spec().items():
        shape = tuple(sizes[axis] for axis in axes)
        empty = -1 if dtype.startswith("int") and name not in ("cell_calendar", "seed_time") else 0
        arrays[name] = np.full(shape, empty, dtype)
    arrays["cell_is_padding"][:] = True
    arrays["seed_is_padding"][:] = True
    arrays["target_is_null"][:] = True
    for context in range(batch_size - num_padding_seeds):
        _fill_context(arrays, context, rng, tasks[context % len(tasks)], null_cells)
        _fill_links(arrays, context, rng)
        _fill_walk(arrays, context)
    predictable = ~arrays["cell_is_padding"] & ~arrays["cell_is_target"] & (arrays["cell_stype"] != IDENTIFIER)
    arrays["cell_is_masked"] = predictable & (rng.random(predictable.shape) < mask_rate)
    return Batch.from_arrays(arrays)


def _fill_context(arrays: dict, b: int, rng: np.random.Generator, task: int, null_cells: bool) -> None:
    max_rows, seq_len = arrays["row_table"].shape[1], arrays["cell_row"].shape[1]
    num_orders = int(rng.integers(1, max_rows - 3))
    rows = [(3 + task, 0, [(1, 2 + task)]), (0, 1, [])]
    shop = 2 + num_orders
    rows += [(1, 2, [(1, 0), (shop, 1)]) for _ in range(num_orders)]
    rows += [(2, 3, [])]
    cell = 0
    amounts = []
    for r, (table, hop, parents) in enumerate(rows):
        arrays["row_table"][b, r], arrays["row_hop"][b, r] = table, hop
        timed = table not in (0, 2)
        arrays["row_has_time"][b, r] = timed
        arrays["row_age"][b, r] = rng.exponential(30.0) if timed and r > 0 else 0.0
        for slot, (parent, key) in enumerate(parents):
            arrays["row_parents"][b, r, slot], arrays["row_parent_keys"][b, r, slot] = parent, key
        for column, stype in COLUMNS[table]:
            if cell == seq_len:
                break
            _fill_cell(arrays, b, cell, r, column, stype, rng, is_target=r == 0 and column == COLUMNS[table][1][0])
            if r > 0 and null_cells and rng.random() < 0.3:
                arrays["cell_value"][b, cell], arrays["cell_vocab"][b, cell] = 0.0, -1
                arrays["cell_calendar"][b, cell] = 0
                arrays["cell_is_null"][b, cell] = True
            if column == 3:
                amounts.append(float(arrays["cell_value"][b, cell]))
            cell += 1
    signal = float(np.mean(amounts)) if amounts else 0.0
    stype = TASK_STYPES[task]
    arrays["seed_task"][b], arrays["seed_index"][b], arrays["seed_row"][b] = task, b, b
    arrays["seed_time"][b] = 1_600_000_000_000_000
    arrays["target_cell"][b] = 1
    if stype in (NUMERICAL, TIMESTAMP):
        arrays["target_value"][b] = signal
    elif stype == BOOLEAN:
        arrays["target_value"][b] = float(signal > 0)
    else:
        arrays["target_vocab"][b] = int(np.digitize(signal, (-0.3, 0.3)))
    arrays["target_is_null"][b] = False
    arrays["seed_is_padding"][b] = False


def _fill_links(arrays: dict, b: int, rng: np.random.Generator) -> None:
    """Pairs of an order and a customer, every other one true and taken out of `row_parents`; the last is padding."""
    tables, parents, keys = arrays["row_table"][b], arrays["row_parents"][b], arrays["row_parent_keys"][b]
    orders = np.flatnonzero(tables == 1)
    for pair in range(min(arrays["link_child"].shape[1] - 1, len(orders))):
        child, is_true = orders[pair], pair % 2 == 0
        parent = 1 if is_true else rng.choice(np.flatnonzero(tables == 2))
        arrays["link_child"][b, pair], arrays["link_parent"][b, pair] = child, parent
        arrays["link_key"][b, pair], arrays["link_is_true"][b, pair] = 0, is_true
        if is_true:
            parents[child], keys[child] = (parents[child, 1], -1), (keys[child, 1], -1)


def _fill_walk(arrays: dict, b: int) -> None:
    """Probabilities of a walk from row 0 that takes any link of its row, either way, with equal chance."""
    num_rows = arrays["row_table"].shape[1]
    links = np.zeros((num_rows, num_rows))
    for child, slot in zip(*np.nonzero(arrays["row_parents"][b] >= 0), strict=True):
        parent = arrays["row_parents"][b, child, slot]
        links[child, parent] += 1
        links[parent, child] += 1
    place = np.eye(num_rows)[0]
    for step in range(arrays["row_walk"].shape[2]):
        place = place @ (links / np.maximum(links.sum(axis=1, keepdims=True), 1.0))
        arrays["row_walk"][b, :, step] = place


def _fill_cell(
    arrays: dict, b: int, s: int, row: int, column: int, stype: int, rng: np.random.Generator, *, is_target: bool
) -> None:
    arrays["cell_row"][b, s], arrays["cell_column"][b, s], arrays["cell_stype"][b, s] = row, column, stype
    arrays["cell_is_padding"][b, s] = False
    arrays["cell_is_target"][b, s] = is_target
    if is_target:
        return
    if stype in (NUMERICAL, TIMESTAMP):
        arrays["cell_value"][b, s] = rng.normal()
    elif stype == BOOLEAN:
        arrays["cell_value"][b, s] = rng.integers(2)
    elif stype in (CATEGORICAL, TEXT):
        arrays["cell_vocab"][b, s] = rng.integers(NUM_VOCAB)
    if stype == TIMESTAMP:
        low, high = np.array([0, 0, 0, 0, 1, 1, 1]), np.array([60, 60, 24, 7, 29, 13, 366])
        arrays["cell_calendar"][b, s] = rng.integers(low, high)
