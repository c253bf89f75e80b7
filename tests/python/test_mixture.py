"""Mixtures of native samplers: shares, purity, exact continuation, other numbers of processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from native_database import process
from tributary import Mixture, Sampler
from tributary.data import Database


def _database(folder: Path, name: str, rows: int) -> Database:
    raw = folder / f"{name}-raw"
    raw.mkdir()
    table = {"id": np.arange(rows), "size": np.arange(rows) * 1.5, "kind": [f"{name}{n % 3}" for n in range(rows)]}
    pq.write_table(pa.table(table), raw / "things.parquet")
    columns = {"id": "identifier", "size": "numerical", "kind": "categorical"}
    description = {"primary_key": "id", "columns": {c: {"stype": s} for c, s in columns.items()}}
    tasks = {f"{name}-{c}": {"anchor_table": "things", "target_column": c} for c in ("size", "kind")}
    return process(raw, {"name": name, "tables": {"things": description}, "tasks": tasks}, folder / name)


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> tuple[Database, Database]:
    folder = tmp_path_factory.mktemp("mixture")
    return _database(folder, "one", 60), _database(folder, "two", 90)


def _mixture(databases: tuple[Database, Database], steps_per_turn: int = 1, **options: Any) -> Mixture:
    options = {"batch_size": 4, "seq_len": 16} | options
    samplers = {
        "size": Sampler(databases[0], ["one-size"], **options),
        "kind": Sampler(databases[0], ["one-kind"], **options),
        "two": Sampler(databases[1], ["two-size", "two-kind"], **options),
    }
    return Mixture(samplers, {"size": 0.5, "kind": 1.0, "two": 3.0}, steps_per_turn=steps_per_turn)


def _bytes(batch: Any) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in vars(batch).items() if array is not None}


def test_shares_are_kept_and_batches_are_a_function_of_the_step(databases: tuple[Database, Database]) -> None:
    with _mixture(databases) as mixture, _mixture(databases, threads=3, prefetch=5) as ahead:
        sources = [mixture.source(step) for step in range(900)]
        assert [sources.count(name) for name in ("size", "kind", "two")] == [100, 200, 600]
        for step in range(0, 900, 9):  # no stretch is far from the shares
            assert abs(sources[:step].count("two") - step * 2 / 3) <= 1.5
        backwards = [_bytes(mixture.batch(step)) for step in reversed(range(40))][::-1]
        assert [_bytes(next(ahead)) for _ in range(40)] == backwards
        assert [_bytes(next(mixture)) for _ in range(40)] == backwards
        # a place far away is reached without walking there
        own = sum(mixture.source(10**6 + step) == "two" for step in range(90))
        assert own == 60


def test_every_state_gives_the_same_rest(databases: tuple[Database, Database]) -> None:
    with _mixture(databases, steps_per_turn=2) as mixture:
        states, batches = [], []
        for _ in range(25):
            states.append(mixture.get_state())
            batches.append(_bytes(next(mixture)))
    for step, state in enumerate(states):
        with _mixture(databases, steps_per_turn=2, threads=2, prefetch=2) as again:
            again.set_state(state)
            assert again.step == step
            assert [_bytes(next(again)) for _ in range(25 - step)] == batches[step:]


def _global_order(databases: tuple[Database, Database], world_size: int, states: list[str] | None, steps: int) -> Any:
    """(task, seed) of every context in global order, and the states of the ranks after them."""
    turns = 4 // world_size
    ranks = [_mixture(databases, turns, rank=rank, world_size=world_size) for rank in range(world_size)]
    order = []
    for rank in ranks:
        if states is not None:
            rank.set_state(states[0])
    for _ in range(steps):
        for rank in ranks:
            batch = next(rank)
            order += list(zip(batch.seed_task.tolist(), batch.seed_index.tolist(), strict=True))
    after = [rank.get_state() for rank in ranks]
    for rank in ranks:
        rank.close()
    return order, after


def test_another_number_of_processes_keeps_the_global_order(databases: tuple[Database, Database]) -> None:
    whole, _ = _global_order(databases, 1, None, 48)
    first, states = _global_order(databases, 4, None, 5)
    second, states = _global_order(databases, 2, states, 6)
    third, _ = _global_order(databases, 1, states, 16)
    assert first + second + third == whole
    with _mixture(databases) as other, pytest.raises(ValueError, match="steps_per_turn"):
        other.set_state(states[0])


def test_wrong_shares_are_named(databases: tuple[Database, Database]) -> None:
    sampler = Sampler(databases[0], ["one-size"], batch_size=2)
    with pytest.raises(ValueError, match=r"shares of \['b'\], expected one per sampler: \['a'\]"):
        Mixture({"a": sampler}, {"b": 1.0})
    for share in (0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="share of `a`: expected a positive number"):
            Mixture({"a": sampler}, {"a": share})
    with pytest.raises(ValueError, match="expected one per sampler: none"):
        Mixture({}, {})
    with _mixture(databases) as mixture:
        state = json.loads(mixture.get_state()) | {"shares": {"size": 1.0}}
        with pytest.raises(ValueError, match="state of shares"):
            mixture.set_state(json.dumps(state))
        with pytest.raises(ValueError, match="out of range"):
            mixture.batch(-1)
