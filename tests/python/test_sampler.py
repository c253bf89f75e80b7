"""The class `Sampler` from plain Python: what crosses the line, who waits for whom, and how everything ends."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from native_database import process
from tributary import _headwater

_START = datetime(2020, 1, 1)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> _headwater.Database:
    """Forty customers, two thousand orders, a question per customer and month."""
    raw = tmp_path_factory.mktemp("raw")
    number = np.arange(2000)
    pq.write_table(pa.table({"id": np.arange(40)}), raw / "customers.parquet")
    orders = {
        "id": number,
        "customer": number * 7 % 40,
        "amount": (number % 13).astype(float),
        "at": [_START + timedelta(hours=int(n)) for n in number],
    }
    pq.write_table(pa.table(orders), raw / "orders.parquet")
    labels = {
        "id": np.arange(120) % 40,
        "moment": [_START + timedelta(days=20 * (1 + n // 40)) for n in range(120)],
        "spend": np.arange(120) / 7,
        "split": ["train", "val", "test"] * 40,
    }
    pq.write_table(pa.table(labels), raw / "spend.parquet")
    identifier = {"stype": "identifier"}
    metadata = {
        "name": "shop",
        "tables": {
            "customers": {"primary_key": "id", "columns": {"id": identifier}},
            "orders": {
                "primary_key": "id",
                "temporal_column": "at",
                "columns": {
                    "id": identifier,
                    "customer": {"stype": "identifier", "foreign_key": "customers.id"},
                    "amount": {"stype": "numerical"},
                    "at": {"stype": "timestamp"},
                },
            },
        },
        "tasks": {
            "spend": {
                "table": "spend.parquet",
                "anchor_table": "customers",
                "anchor_key": "id",
                "target_column": "spend",
                "target_stype": "numerical",
                "observation_time_column": "moment",
                "horizon": "10 days",
            },
            "amount": {"anchor_table": "orders", "target_column": "amount"},
        },
    }
    return process(raw, metadata, tmp_path_factory.mktemp("processed") / "shop")


def _sampler(database: _headwater.Database, tasks: list[str] | None = None, **options: Any) -> _headwater.Sampler:
    return _headwater.Sampler(database, tasks or ["spend"], **({"batch_size": 8, "seq_len": 64} | options))


def _same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return list(one) == list(other) and all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_arrays_have_the_promised_types_and_shapes(shop: _headwater.Database) -> None:
    batch = _sampler(shop, max_rows=20).batch(0)
    axes = {"B": 8, "S": 64, "R": 20, "P": 1, "7": 7, "W": 0, "L": 0}
    assert list(batch) == [name for name, _, _ in _headwater.BATCH_FIELDS]
    for name, dtype, shape in _headwater.BATCH_FIELDS:
        array = batch[name]
        assert (array.dtype, array.shape) == (np.dtype(dtype), tuple(axes[axis] for axis in shape)), name
        assert array.flags.c_contiguous
        assert array.flags.writeable


def test_fields_are_those_of_the_page() -> None:
    page = (Path(__file__).resolve().parents[2] / "documentation" / "batch.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]+) \|", page, re.MULTILINE)
    listed = [(name, dtype, tuple(axes.strip().split(", "))) for name, dtype, axes in rows]
    assert listed == [tuple(field) for field in _headwater.BATCH_FIELDS]


def test_options_of_the_page_are_the_defaults(shop: _headwater.Database) -> None:
    page = (Path(__file__).resolve().parents[2] / "documentation" / "sampling.md").read_text()
    options = json.loads(_headwater.Sampler(shop, ["spend"]).config)
    names = [
        name for row in re.findall(r"^\| (`[^|]*`) \| ", page, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    ]
    assert names == list(options)
    defaults = ["train", None, 32, 1024, None, 16, "uniform", None, False, "all", False, None, None, True]
    defaults += [0, 0, 0, 0, True, 0, 0, 1, 0, 2]
    assert list(options.values())[1:] == defaults


def test_a_batch_outlives_its_sampler(shop: _headwater.Database) -> None:
    sampler = _sampler(shop)
    batch = sampler.next_batch()
    copies = {name: array.copy() for name, array in batch.items()}
    sampler.close()
    del sampler
    assert _same(batch, copies)
    batch["cell_value"][:] = 7.0  # its own memory


@pytest.mark.parametrize(("threads", "prefetch"), [(0, 0), (1, 1), (2, 2), (4, 3), (16, 16)])
def test_threads_and_prefetch_change_nothing(shop: _headwater.Database, threads: int, prefetch: int) -> None:
    direct, ahead = _sampler(shop), _sampler(shop, threads=threads, prefetch=prefetch)
    for step in range(12):
        assert _same(direct.batch(step), ahead.next_batch())
    ahead.close()


def test_a_state_of_other_options_is_refused(shop: _headwater.Database) -> None:
    state = _sampler(shop).get_state()
    for options in ({"num_neighbors": 3}, {"num_neighbors": [16]}, {"lookback": 5}, {"rng_seed": 1}):
        with pytest.raises(ValueError, match=r"the state was taken with the options .* this sampler has"):
            _sampler(shop, **options).set_state(state)
    rows = np.arange(3)
    own = _sampler(shop, seeds=(rows, rows))
    own.set_state(own.get_state())
    with pytest.raises(ValueError, match="3 seeds"):
        _sampler(shop, seeds=(rows, rows + 1)).set_state(own.get_state())


@pytest.mark.parametrize(("threads", "prefetch"), [(0, 0), (1, 1), (2, 5), (4, 2), (16, 16)])
def test_every_state_of_an_epoch_gives_the_same_rest(shop: _headwater.Database, threads: int, prefetch: int) -> None:
    reference = _sampler(shop, split="all", prefetch=0)
    states, batches = [], []
    for _ in range(reference.steps_per_epoch + 1):
        states.append(reference.get_state())
        batches.append(reference.next_batch())
    for step, state in enumerate(states):
        other = _sampler(shop, split="all", threads=threads, prefetch=prefetch)
        other.set_state(state)
        assert other.get_state() == state
        assert all(_same(batch, other.next_batch()) for batch in batches[step:])
        other.close()


def _order(shop: _headwater.Database, world_size: int, steps: int, state: str | None) -> tuple[list[int], str]:
    """Seeds in global order over all ranks from a state on, and the state after them."""
    ranks = [_sampler(shop, split="all", batch_size=5, rank=rank, world_size=world_size) for rank in range(world_size)]
    for rank in ranks:
        if state is not None:
            rank.set_state(state)
    order = [index for _ in range(steps) for rank in ranks for index in rank.next_batch()["seed_index"].tolist()]
    states = {rank.get_state() for rank in ranks}
    assert len(states) == 1, "every rank stands at the same place"
    return order, states.pop()


def test_another_world_size_keeps_the_global_order(shop: _headwater.Database) -> None:
    whole, _ = _order(shop, 1, 48, None)
    first, state = _order(shop, 4, 4, None)
    second, state = _order(shop, 2, 6, state)
    third, _ = _order(shop, 1, 20, state)
    assert first + second + third == whole
    assert sorted(whole[:120]) == sorted(whole[120:]) == list(range(120)), "two epochs, each seed once"
    odd = _sampler(shop, split="all", batch_size=5, rank=1, world_size=7)
    with pytest.raises(ValueError, match=r"seed 80, which is no multiple of this sampler's 35"):
        odd.set_state(_order(shop, 4, 4, None)[1])


def test_evaluation_visits_each_seed_once_over_all_ranks(shop: _headwater.Database) -> None:
    for world_size in (1, 2, 3, 7):
        seen = []
        for rank in range(world_size):
            sampler = _sampler(shop, split="test", shuffle=False, batch_size=3, rank=rank, world_size=world_size)
            for _ in range(sampler.steps_per_epoch):
                batch = sampler.next_batch()
                seen += batch["seed_index"][~batch["seed_is_padding"]].tolist()
            with pytest.raises(StopIteration):
                sampler.next_batch()
        assert sorted(seen) == np.flatnonzero(shop.task_seeds("spend")["split"] == 2).tolist()


def test_evaluation_is_complete_in_order_and_padded(shop: _headwater.Database) -> None:
    sampler = _sampler(shop, split="val", shuffle=False, batch_size=16)
    assert (sampler.num_seeds, sampler.steps_per_epoch) == (40, 3)
    batches = [sampler.next_batch() for _ in range(3)]
    with pytest.raises(StopIteration):
        sampler.next_batch()
    with pytest.raises(ValueError, match="3 steps"):
        sampler.batch(3)
    index = np.concatenate([batch["seed_index"] for batch in batches])
    padding = np.concatenate([batch["seed_is_padding"] for batch in batches])
    seeds = shop.task_seeds("spend")
    assert index[~padding].tolist() == np.flatnonzero(seeds["split"] == 1).tolist()
    assert padding.tolist() == [False] * 40 + [True] * 8
    real = ~batches[2]["seed_is_padding"]
    np.testing.assert_array_equal(batches[2]["target_value"][real], seeds["value"][batches[2]["seed_index"][real]])


def test_an_epoch_visits_every_seed_once_over_all_ranks(shop: _headwater.Database) -> None:
    shares = [_sampler(shop, batch_size=5, rank=rank, world_size=2) for rank in range(2)]
    index = np.concatenate([sampler.batch(step)["seed_index"] for step in range(4) for sampler in shares])
    assert sorted(index) == np.flatnonzero(shop.task_seeds("spend")["split"] == 0).tolist()


def test_the_label_is_in_no_cell(shop: _headwater.Database) -> None:
    batch = _sampler(shop, ["amount", "spend"], split="all", batch_size=64).batch(0)
    target = batch["cell_is_target"]
    assert (target.sum(axis=1) == 1).all()
    np.testing.assert_array_equal(target.argmax(axis=1), batch["target_cell"])
    assert (batch["cell_value"][target] == 0).all()
    assert (batch["cell_vocab"][target] == -1).all()


def test_no_planted_future_order_is_seen(shop: _headwater.Database) -> None:
    batch = _sampler(shop, split="all", batch_size=120, seq_len=1024, num_neighbors=99, shuffle=False).batch(0)
    manifest = json.loads(shop.manifest)
    at = next(c["id"] for c in manifest["tables"][1]["columns"] if c["name"] == "at")
    std, mean = manifest["time"]["std_us"], manifest["time"]["mean_us"]
    context, cell = np.nonzero(batch["cell_column"] == at)
    times = batch["cell_value"][context, cell].astype(float) * std + mean
    assert len(times) > 1000
    assert (times <= batch["seed_time"][context] + 60e6).all()  # hours apart; f32 keeps seconds
    assert (batch["row_age"] >= 0).all()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"split": "trian"}, "unknown split `trian`"),
        ({"strategy": "newest"}, "uniform, recent"),
        ({"identifiers": "none"}, "all, needed"),
        ({"batch_size": 0}, "batch_size must be between"),
        ({"batch_size": -1}, "batch_size is out of range"),
        ({"seq_len": 0}, "seq_len must be between"),
        ({"max_rows": 40_000}, "max_rows must be between"),
        ({"rank": 2, "world_size": 2}, "rank must be below"),
        ({"rng_seed": -1}, "rng_seed is out of range"),
        ({"rng_seed": 2**64}, "rng_seed is out of range"),
        ({"tasks": []}, "at least one task"),
        ({"tasks": ["spnd"]}, "did you mean `spend`"),
    ],
)
def test_bad_options_are_named(shop: _headwater.Database, options: dict[str, Any], match: str) -> None:
    tasks = options.pop("tasks", ["spend"])
    with pytest.raises(ValueError, match=match):
        _headwater.Sampler(shop, tasks, **options)


def test_bad_arguments_are_named(shop: _headwater.Database) -> None:
    sampler = _sampler(shop)
    for call in (sampler.batch, sampler.explain):
        with pytest.raises(ValueError, match="out of range, found -1"):
            call(-1)
    for state in ("", "{}", "[]"):
        with pytest.raises(ValueError, match="not the state of a sampler"):
            sampler.set_state(state)


def test_a_closed_sampler_raises(shop: _headwater.Database) -> None:
    sampler = _sampler(shop)
    sampler.next_batch()
    sampler.close()
    sampler.close()
    with pytest.raises(RuntimeError, match="closed"):
        sampler.next_batch()


_HEAVY = {"batch_size": 20_000, "seq_len": 2048, "num_neighbors": 1000, "split": "all"}


def _drain(sampler: _headwater.Sampler) -> None:
    while True:
        sampler.next_batch()


def test_other_threads_run_and_closing_is_quick_during_a_wait(shop: _headwater.Database) -> None:
    sampler = _sampler(shop, **_HEAVY)
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            _drain(sampler)
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    began, turns = time.monotonic(), 0
    while time.monotonic() - began < 0.1:
        turns += 1
    assert turns > 100
    began = time.monotonic()
    sampler.close()
    thread.join()
    assert time.monotonic() - began < 1.0
    assert "closed" in str(errors[0])


def test_ctrl_c_ends_a_wait(shop: _headwater.Database) -> None:
    sampler = _sampler(shop, **_HEAVY)
    threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        _drain(sampler)
    sampler.close()
    assert time.monotonic() - began < 2.0


# forking with threads is what is tested; JAX, where another test imported it, warns of it too
@pytest.mark.filterwarnings("ignore::DeprecationWarning", r"ignore:os\.fork\(\) was called:RuntimeWarning")
def test_a_forked_child_raises_instead_of_hanging(shop: _headwater.Database) -> None:
    sampler = _sampler(shop)
    sampler.next_batch()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            sampler.next_batch()
        except RuntimeError as error:
            code = 0 if "fork" in str(error) else 2
        try:
            sampler.batch(0)  # needs no thread
            sampler.close()
            del sampler
        finally:
            os._exit(code)
    began = time.monotonic()
    while time.monotonic() - began < 20:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            assert os.waitstatus_to_exitcode(status) == 0
            break
        time.sleep(0.01)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        pytest.fail("the forked child hangs")
    sampler.next_batch()  # the parent goes on


def test_explain_tells_the_label_and_what_is_hidden(shop: _headwater.Database) -> None:
    sampler = _sampler(shop, split="all", shuffle=False, num_neighbors=4)
    seeds = shop.task_seeds("spend")
    explained = json.loads(sampler.explain(50))
    assert explained["seed_index"] == 50
    scale = json.loads(shop.manifest)["tasks"][0]["statistics"]
    assert explained["label"] == pytest.approx(seeds["value"][50] * scale["std"] + scale["mean"], rel=1e-5)
    assert explained["entity"] == seeds["row"][50]
    assert explained["counts"]["hidden_by_time"] > 0
    assert explained["counts"]["hidden_by_budget"] > 0
    masked = [cell for row in explained["rows"] for cell in row["cells"] if cell["is_target"]]
    assert [cell["value"] for cell in masked] == [None]
    assert explained["rows"][1]["kind"] == "parent"
    with pytest.raises(ValueError, match="position 120"):
        sampler.explain(120)
