"""Several databases in one run, rows as seeds, and fine-tuning on another database; on small real databases."""

from __future__ import annotations

import copy
import dataclasses
import json
import warnings
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tributary import _headwater
from tributary.batch import END_OF_TIME
from tributary.config import ConfigError, RunConfig
from tributary.data import Sampler, database_arrays
from tributary.embed import make_embedder
from tributary.prediction.predict import load_run, predict_split
from tributary.preprocess import preprocess
from tributary.runs.checkpoint import CheckpointError, Checkpoints
from tributary.training.databases import ROWS, RowSeeds, _frozen, join, open_sources
from tributary.training.mixture import training_mixture
from tributary.training.train import train
from visits import START, write_visits

DAY_US = 86_400_000_000
MODEL = {"d_model": 16, "num_layers": 1, "num_heads": 2, "d_ff": 16, "attentions": ["neighbor", "full"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Databases `one` and `two`."""
    folder = tmp_path_factory.mktemp("databases")
    write_visits(folder, "one", 60)
    write_visits(folder, "two", 40)
    return folder


def _config(folder: Path, *overrides: str, **sections: Any) -> RunConfig:
    values = {
        "run": {"dir": str(folder / "runs")},
        "data": {
            "databases": {
                "one": {"path": str(folder / "one"), "tables": ["*"], "tasks": None},
                "two": {"path": str(folder / "two"), "tables": ["visits"]},
            },
            "seq_len": 32,
            "max_shapes": 1,
        },
        "model": MODEL,
        "optimizer": {"warmup_steps": 2},
        "train": {"steps": 6, "batch_size": 8, "eval_every": 3, "eval_seeds": 16, "log_every": 1},
    }
    for section, keys in sections.items():
        values[section] = {**copy.deepcopy(values.get(section, {})), **keys}
    return RunConfig.from_mapping(values, overrides)


def _single(folder: Path, name: str, *overrides: str, **sections: Any) -> RunConfig:
    data = {"databases": {}, "database": str(folder / name)}
    return _config(folder, *overrides, **{**sections, "data": {**data, **sections.get("data", {})}})


def test_a_batch_means_the_same_among_the_arrays_of_several_databases(folder: Path) -> None:
    sources, joined = join(open_sources(_config(folder).data), are_spread=True)
    for source in sources:
        own = database_arrays(source.database)
        with Sampler(source.database, ["comes"], tables=["visits"], task_weights=[1, 1], num_links=4) as sampler:
            batch = sampler.batch(0)
        moved = source.offsets.move(batch)
        looked_up = {
            "cell_column": ("column_vectors", "column_offset"),
            "cell_vocab": ("vocab_vectors",),
            "row_parent_keys": ("foreign_key_vectors",),
            "link_key": ("foreign_key_vectors",),
        }
        for name, arrays in looked_up.items():
            ids, new = getattr(batch, name), getattr(moved, name)
            assert new.dtype == ids.dtype
            np.testing.assert_array_equal(new < 0, ids < 0)
            assert (ids >= 0).any(), name
            for array in arrays:
                expected = getattr(own, array)[ids[ids >= 0]]
                np.testing.assert_array_equal(getattr(joined, array)[new[new >= 0]], expected, err_msg=name)
        task = moved.seed_task[batch.seed_task == 0][0]
        np.testing.assert_array_equal(joined.task_classes[task, :1], own.task_classes[0, :1])
    assert sources[1].offsets.column == len(database_arrays(sources[0].database).column_vectors)
    assert not np.array_equal(moved.cell_column, batch.cell_column)
    # One compiled step for all: as many places for parents as the database with the most foreign keys has
    wide = dataclasses.replace(sources[1].offsets, num_parents=4).move(batch)
    assert wide.row_parents.shape == wide.row_parent_keys.shape == (*batch.row_parents.shape[:2], 4)
    assert (wide.row_parents[:, :, batch.row_parents.shape[2] :] == -1).all()
    np.testing.assert_array_equal(wide.row_parents[:, :, : batch.row_parents.shape[2]], batch.row_parents)


def test_rows_that_are_seeds_end_before_what_is_judged(folder: Path) -> None:
    first_val = START + timedelta(days=40)
    until = {"val": first_val, "test": START + timedelta(days=50), "2020-01-11": START + timedelta(days=10)}
    for rows_until, end in until.items():
        (source,) = open_sources(_single(folder, "one", data={"tables": ["*"], "rows_until": rows_until}).data)
        rows = RowSeeds.of(source, "train", 0.5)
        with rows.sampler(source, batch_size=64, seq_len=64, num_neighbors=64) as sampler:
            batches = [sampler.batch(step) for step in range(20)]
        end_us = (end - datetime(1970, 1, 1)) // timedelta(microseconds=1)
        times = np.concatenate([batch.seed_time for batch in batches])
        timed = times[times < np.iinfo(np.int64).max]
        assert end_us - 4 * 3_600_000_000 < timed.max() <= end_us, rows_until
        # A visitor has no time and sees the last visits there are: of the 1,440, only those before.
        seen = max(batch.row_table[batch.row_table >= 0].size for batch in batches)
        assert seen > 64
    (source,) = open_sources(_single(folder, "one", data={"tables": ["*"], "rows_until": "end"}).data)
    assert source.rows_until_us is None


def test_the_frozen_regime_shows_old_databases(folder: Path, rel_f1: _headwater.Database) -> None:
    of_rel_f1 = {"databases": {}, "database": rel_f1.path, "tasks": ["driver-position"]}
    config = _config(folder, data={**of_rel_f1, "regime": "frozen", "max_hops": 2})
    (source,) = open_sources(config.data)
    seeds = rel_f1.task_seeds("driver-position")
    val, test = (seeds["time"][seeds["split"] == code] for code in (1, 2))
    options = {"batch_size": 64, "seq_len": 64, "num_neighbors": 8, "strategy": "recent"}

    def latest(sampler: Sampler) -> tuple[np.ndarray, np.ndarray]:
        """Of every seed: its time, and the time of the latest row it sees; microseconds."""
        with sampler:
            batch = sampler.batch(0)
        age = np.where(batch.row_has_time & (np.arange(batch.row_age.shape[1]) > 0), batch.row_age, np.inf)
        known = np.isfinite(age.min(axis=1))
        return batch.seed_time[known], (batch.seed_time - age.min(axis=1) * DAY_US)[known]

    time, seen = latest(source.task_sampler("driver-position", "val", **options))
    assert len(time) > 40
    assert time.max() > val.min() + 365 * DAY_US
    assert (seen <= val.min() + DAY_US).all()  # ages are float32 days
    span = max(val.max() - val.min(), test.max() - test.min())
    time, seen = latest(source.task_sampler("driver-position", "train", **options))
    lags = (time - seen) / span
    assert 0.3 < np.median(lags) < 0.8
    assert lags.min() < 0.15
    (now,) = open_sources(_config(folder, data={**of_rel_f1, "max_hops": 2}).data)
    time, seen = latest(now.task_sampler("driver-position", "train", **options))
    assert np.median((time - seen) / span) < 0.1
    # seeds without a time have one regime
    assert _frozen({"time": np.full(3, END_OF_TIME), "split": np.arange(3)}, "train") == {}
    assert _frozen({"time": np.full(3, END_OF_TIME), "split": np.arange(3)}, "val") == {}


def test_shares_of_databases(folder: Path) -> None:
    config = _config(folder, "data.databases.one.share=3", "data.databases.two.share=1")
    with training_mixture(open_sources(config.data), config) as mixture:
        names = [mixture.source(step) for step in range(400)]
        assert abs(sum(name == f"one/{ROWS}" for name in names) - 300) <= 1
        assert {"two/comes", f"two/{ROWS}"} < set(names)
        assert len({mixture.draw().size for _ in range(12)}) == 1  # max_shapes
    with pytest.raises(ConfigError, match="two has no share; give all of them one, or none"):
        _config(folder, "data.databases.one.share=3")


def test_mistakes_are_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.databases has no `three`"):
        _config(folder, "data.databases.three.share=1")
    with pytest.raises(ConfigError, match=r"unknown key `data.databases.one.tabels`"):
        _config(folder, "data.databases.one.tabels=[a]")
    with pytest.raises(ConfigError, match=r"`data.tasks`: belongs to each of data.databases"):
        _config(folder, "data.tasks=[comes]")
    with pytest.raises(ConfigError, match=r"data.databases.one: neither tasks nor tables"):
        _config(folder, "data.databases.one.tables=[]")
    with pytest.raises(ConfigError, match=r"rows_until.*expected ISO 8601.*or one of val, test, end"):
        _config(folder, "data.rows_until=tomorrow")
    preprocess(folder / "two-raw", tmp_path / "other", embedder=make_embedder("hash", dimension=32))
    with pytest.raises(ConfigError, match=r"vectors of `two` are of .*32.*those of `one` of .*16.*tributary embed"):
        open_sources(_config(folder, f"data.databases.two.path={tmp_path / 'other'}").data)
    early = _single(folder, "one", data={"tables": ["visits"], "rows_until": "2019-01-01"})
    with pytest.raises(ConfigError, match=r"no row of visits is a train seed up to data.rows_until: 2019-01-01"):
        training_mixture(open_sources(early.data), early)


@pytest.mark.slow
def test_pretraining_then_fine_tuning_elsewhere(folder: Path) -> None:
    config = _config(folder, "run.name=pretrained", "train.steps=12", "train.eval_every=6")
    run = train(config)
    history = json.loads((run / "training_history.json").read_text())
    assert set(history["validation"][-1]["tasks"]) == {f"one/{ROWS}", "two/comes", f"two/{ROWS}"}
    assert history["tasks"] == ["two/comes"]
    with pytest.raises(ConfigError, match=r"several databases \(one, two\): say which one"):
        load_run(run)
    zero_shot = load_run(run, database=folder / "one")
    assert predict_split(zero_shot, "comes", "test").num_rows == 8
    assert predict_split(load_run(run, database="two"), "comes", "test").num_rows == 8

    # From there to the other database, the backbone as it is
    start = [f"train.init_from={run}", "run.name=tuned", "train.freeze=backbone"]
    tuned_config = _single(folder, "one", *start)
    tuned = train(tuned_config)
    origin = json.loads((tuned / "origin.json").read_text())
    assert (origin["run"], origin["step"], origin["fresh"]) == (str(run), zero_shot.step, [])
    assert set(origin["builds"]) == {str(folder / "one"), str(folder / "two")}
    before, after = zero_shot.params, load_run(tuned).params
    for group in set(before) - {"heads"}:
        for old, new in zip(jax.tree.leaves(before[group]), jax.tree.leaves(after[group]), strict=True):
            np.testing.assert_array_equal(new, old, err_msg=group)
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (before["heads"], after["heads"])), strict=True))
    assert Checkpoints(tuned).progress("last", 6).origin == origin
    assert [line["step"] for line in _lines(train(tuned_config, resume="auto"))][-1] == 6

    with pytest.raises(
        CheckpointError, match=r"does not fit.*_kernel \[1, 16, 16\] there, \[1, 32, 32\] here.*d_model: 16"
    ):
        train(_single(folder, "one", *start[:1], "run.name=wide", "model.d_model=32"))
    with pytest.raises(CheckpointError, match="holds no run"):
        train(_single(folder, "one", "run.name=nothing", f"train.init_from={folder}"))
    link = ["model.link_head=true", "data.num_links=4", "train.steps=1", "run.name=links"]
    linked = _single(folder, "one", *start[:1], *link)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(linked)
    told = " ".join(str(each.message) for each in caught if each.category is RuntimeWarning)
    assert "has no heads.link_head" in told
    assert "start at random" in told


def _lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_pretraining_on_rows_alone_is_judged_by_held_out_rows(folder: Path) -> None:
    config = _single(
        folder,
        "one",
        "run.name=rows",
        data={"tables": ["*"], "tasks": None},
        train={"steps": 60, "eval_every": 60, "batch_size": 16},
    )
    (validation,) = [line for line in _lines(train(config)) if line["kind"] == "validation"]
    result = validation["tasks"][ROWS]
    assert 0.02 < result["score"] == validation["score"] < 1.0
    assert result["num_seeds"] > 0
