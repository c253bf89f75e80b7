"""A database and a sampler made of synthetic batches, with the interface of the native ones.

Lets the training loop be tested apart from the native sampler; `install` puts them in the place of the real ones.
"""

from __future__ import annotations

import dataclasses
import json

import numpy as np

import tributary.data
import tributary.import_weights
import tributary.prediction.predict
import tributary.runs.learned
import tributary.training.databases
import tributary.training.mixture
import tributary.training.validation
from synthetic_batch import (
    COLUMNS,
    NUM_COLUMNS,
    NUM_TASKS,
    STYPES,
    TASK_STYPES,
    database_arrays,
    synthetic_batch,
)

NUM_SEEDS = {"train": 64, "val": 24, "test": 20}
EMBEDDING_DIM = 16


class FakeDatabase:
    def __init__(self, path: str, *, in_memory: bool = False):
        self.path = str(path)
        self.build_id = "b1"
        self.manifest = json.dumps(_manifest())
        self._arrays = database_arrays(EMBEDDING_DIM)

    def embeddings(self, which: str) -> np.ndarray:
        return self._arrays.column_vectors if which == "column" else self._arrays.vocab_vectors

    def task_seeds(self, task: str) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(0)
        count = sum(NUM_SEEDS.values())
        value = rng.normal(size=count) if task != "boolean" else rng.integers(0, 2, count)
        return {
            "split": np.repeat(np.arange(3, dtype=np.int8), list(NUM_SEEDS.values())),
            "value": value.astype(np.float32),
            "is_null": np.zeros(count, bool),
        }

    def row_keys(self, table: str, rows: np.ndarray) -> list[str]:
        return [f"customer {row}" for row in rows]

    def vocab(self, ids: list[int]) -> list[str]:
        return [f"label is {index}" for index in ids]


class FakeSampler:
    """Batches are a pure function of options and step; `poisoned_step` gives a batch with a NaN."""

    poisoned_step: int | None = None

    def __init__(
        self, database, tasks, *, split="train", batch_size=32, seq_len=32, shuffle=True, rng_seed=0, mask_rate=0.0, **_
    ):
        self._tasks = tuple(int(STYPE_TASKS.index(task)) for task in tasks)
        self._mask_rate = mask_rate
        self._split, self._size, self._seq_len, self._shuffle, self._seed = (
            split,
            batch_size,
            seq_len,
            shuffle,
            rng_seed,
        )
        self._step = 0

    @property
    def num_seeds(self) -> int:
        return NUM_SEEDS[self._split]

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.num_seeds // self._size)

    def batch(self, step: int):
        padding = 0 if self._shuffle else max(0, (step + 1) * self._size - self.num_seeds)
        batch = synthetic_batch(
            [self._seed, step, len(self._split)],
            batch_size=self._size,
            seq_len=self._seq_len,
            num_padding_seeds=padding,
            tasks=self._tasks,
            mask_rate=self._mask_rate,
        )
        index = np.where(batch.seed_is_padding, -1, step * self._size + np.arange(self._size))
        batch = dataclasses.replace(batch, seed_index=index)
        if self._split == "train" and step == self.poisoned_step:
            batch.cell_value[0, 4] = np.nan  # a number
        return batch

    def __iter__(self):
        return self

    def __next__(self):
        if not self._shuffle and self._step == self.steps_per_epoch:
            raise StopIteration
        self._step += 1
        return self.batch(self._step - 1)

    def get_state(self) -> str:
        return json.dumps({"step": self._step})

    def set_state(self, state: str) -> None:
        self._step = json.loads(state)["step"]

    def close(self) -> None:
        pass

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()


STYPE_TASKS = tuple(STYPES[stype] for stype in TASK_STYPES)


def _manifest() -> dict:
    tables = []
    for table, name in enumerate(("customers", "orders", "shops")):
        columns = [
            {"id": column, "name": f"c{column}", "stype": STYPES[stype], "statistics": {"nulls": 0, "true_count": 3}}
            for column, stype in COLUMNS[table]
        ]
        tables.append(
            {"id": table, "name": name, "num_rows": 10, "primary_key": "id", "columns": columns, "foreign_keys": []}
        )
    tables[1]["foreign_keys"] = [{"id": 0, "column": "c3"}, {"id": 1, "column": "c4"}]
    tasks = [
        {
            "id": task,
            "name": name,
            "anchor_table": 0,
            "target_column": "label",
            "target_stype": name,
            "foreign_key_id": 2 + task,
            "target_column_id": COLUMNS[3 + task][1][0],
            "classes": [0, 1, 2] if name == "categorical" else [],
            "statistics": {"mean": 10.0, "std": 2.0},
            "splits": NUM_SEEDS,
        }
        for task, name in enumerate(STYPE_TASKS)
    ]
    return {
        "name": "fake",
        "embedder": {"kind": "hash", "dimension": 16},
        "num_columns": NUM_COLUMNS,
        "tables": tables,
        "tasks": tasks[:NUM_TASKS],
        "time": {"mean_us": 1.6e15, "std_us": 1e12},
    }


def install(monkeypatch) -> None:
    """Puts the fakes where training and prediction look for database and sampler."""
    rooms = (
        tributary.data,
        tributary.training.databases,
        tributary.training.mixture,
        tributary.prediction.predict,
        tributary.training.validation,
    )
    for module in (*rooms, tributary.import_weights, tributary.runs.learned):
        for name, fake in (("Database", FakeDatabase), ("Sampler", FakeSampler)):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, fake)
