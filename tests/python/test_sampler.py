"""The class `Sampler` from plain Python: what crosses the line, and who is sampled when."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tributary import _headwater

_START = datetime(2020, 1, 1)


@pytest.fixture(scope="module")
def shop(spend_shop: _headwater.Database) -> _headwater.Database:
    """Under the name it has here."""
    return spend_shop


def _sampler(database: _headwater.Database, tasks: list[str] | None = None, **options: Any) -> _headwater.Sampler:
    return _headwater.Sampler(database, tasks or ["spend"], **({"batch_size": 8, "seq_len": 64} | options))


def _same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return list(one) == list(other) and all(one[name].tobytes() == other[name].tobytes() for name in one)


def test_arrays_have_the_promised_types_and_shapes(shop: _headwater.Database) -> None:
    batch = _sampler(shop, max_rows=20).batch(0)
    axes = {"B": 8, "S": 64, "R": 20, "P": 1, "7": 7, "W": 0, "L": 0, "A": 0}
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
    defaults = ["train", None, 32, 1024, None, 16, "uniform", None, False, "all", False, None, None, None, True]
    defaults += [0, 0, 0, 0, 0, "similar", 0.5, 128, 8, True, 0, 0, 1, 0, 2]
    assert list(options.values())[1:] == [[], None, *defaults]


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


def test_a_database_in_memory_gives_the_same_bytes(shop: _headwater.Database, rel_f1: _headwater.Database) -> None:
    options = {"split": "all", "seq_len": 256, "null_cells": True, "prefetch": 2}
    for mapped, task in ((shop, "spend"), (shop, "amount"), (rel_f1, "driver-top3")):
        within = _headwater.Database(mapped.path, in_memory=True)
        one, other = _sampler(mapped, [task], **options), _sampler(within, [task], **options)
        other.set_state(one.get_state())  # it is the same database
        for _ in range(min(20, one.steps_per_epoch)):
            assert _same(one.next_batch(), other.next_batch())
        assert one.explain(3) == other.explain(3)
        seeds, again = mapped.task_seeds(task), within.task_seeds(task)
        assert all(seeds[name].tobytes() == again[name].tobytes() for name in seeds)


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
