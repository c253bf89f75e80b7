"""What an evaluation may call itself: frozen only without later labels, zero-shot only without any gradient."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from parquet_database import ParquetDatabase
from test_baselines import shop_metadata, write_shops
from tributary.config import RunConfig
from tributary.evaluation.asof import END_OF_TIME
from tributary.evaluation.features import DAY_US, Task
from tributary.evaluation.regimes import check_frozen, resolve_cutoff, trained_tasks, what_was_learned
from tributary.prediction.predict import Run


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> ParquetDatabase:
    return ParquetDatabase(write_shops(tmp_path_factory.mktemp("shops")), shop_metadata())


def make_run(folder: Path, database: ParquetDatabase, data: dict, *, steps: int = 9, start: Path | None = None) -> Run:
    """A run's folder with what training wrote, opened on `database`."""
    folder.mkdir(parents=True)
    config = {"data": data, "train": {} if start is None else {"init_from": str(start)}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "training_history.json").write_text(json.dumps({"num_steps": steps}))
    parts = dict.fromkeys(field.name for field in dataclasses.fields(Run))
    parts |= {"path": folder, "database": database, "manifest": json.loads(database.manifest)}
    return Run(**{**parts, "config": RunConfig.from_mapping({"data": {"database": "x"}})})


def test_cutoff_of_each_regime(shops):
    task = Task.load(shops, "amount")
    assert resolve_cutoff(task, "test", "seed-time", None) is None
    assert resolve_cutoff(task, "test", "frozen", None) == task.time[task.split == 2].min()
    assert resolve_cutoff(task, "test", "frozen", 5) == 5
    with pytest.raises(ValueError, match="regime `thawed`: expected one of seed-time, frozen"):
        resolve_cutoff(task, "test", "thawed", None)
    with pytest.raises(ValueError, match="split `later`"):
        resolve_cutoff(task, "later", "frozen", None)
    with pytest.raises(ValueError, match="belongs to the frozen regime"):
        resolve_cutoff(task, "test", "seed-time", 5)
    timeless = dataclasses.replace(task, time=np.full(len(task.time), END_OF_TIME))
    with pytest.raises(ValueError, match="its seeds have no time"):
        resolve_cutoff(timeless, "test", "frozen", None)


def test_a_model_that_learned_later_labels_is_not_frozen(shops, tmp_path):
    task = Task.load(shops, "amount")
    run = make_run(tmp_path / "run", shops, {"database": shops.path, "tasks": ["amount"]})
    learned = what_was_learned(run, task)
    last = int(task.time[task.split == 0].max()) + 7 * DAY_US
    assert (learned.kind, learned.until_us, learned.because) == ("trained", last, "labels of `amount`")
    check_frozen(learned, "amount", last)
    check_frozen(learned, "amount", None)
    with pytest.raises(ValueError, match=r"trained on labels of `amount` up to 2020-\d\d-\d\d.* so it is not frozen"):
        check_frozen(learned, "amount", last - 1)


def test_rows_that_were_seeds_count_up_to_their_limit(shops, tmp_path):
    task, times = Task.load(shops, "amount"), shops.row_times("sales")
    times = times[times < END_OF_TIME]
    data = {"database": shops.path, "tasks": ["amount"], "tables": ["sales"]}
    whole = what_was_learned(make_run(tmp_path / "whole", shops, data), task)
    assert (whole.until_us, whole.because) == (times.max(), "rows of `sales`")
    limit = int(task.time[task.split == 1].min())
    bounded = {**data, "tables": ["*"], "tasks": None, "rows_until": "val"}
    until = what_was_learned(make_run(tmp_path / "bounded", shops, bounded), task)
    assert (until.kind, until.until_us) == ("zero-shot task", times[times < limit].max())
    dated = {**bounded, "rows_until": "2020-02-01"}
    first = what_was_learned(make_run(tmp_path / "dated", shops, dated), task)
    assert first.until_us == times[times <= np.datetime64("2020-02-01", "us").astype(int)].max()


def test_zero_shot_is_said_of_databases_and_tasks_never_trained_on(shops, tmp_path):
    amount, big = Task.load(shops, "amount"), Task.load(shops, "big")
    other = make_run(tmp_path / "other", shops, {"database": "/elsewhere/hospital"})
    assert what_was_learned(other, amount).kind == "zero-shot"
    assert what_was_learned(other, amount).until_us is None
    run = make_run(tmp_path / "run", shops, {"database": shops.path, "tasks": ["amount"]})
    assert [what_was_learned(run, task).kind for task in (amount, big)] == ["trained", "zero-shot task"]
    every = make_run(tmp_path / "every", shops, {"database": shops.path})
    assert trained_tasks(every) == {"amount", "big", "class"}
    imported = make_run(tmp_path / "imported", shops, {"database": shops.path}, steps=0)
    assert what_was_learned(imported, amount).kind == "zero-shot"


def test_what_a_run_started_from_counts_too(shops, tmp_path):
    amount = Task.load(shops, "amount")
    several = {"databases": {"a": {"path": "/elsewhere/a"}, "b": {"path": shops.path, "tasks": ["amount"]}}}
    make_run(tmp_path / "pretrained", shops, several)
    run = make_run(tmp_path / "tuned", shops, {"database": "/elsewhere/c"}, start=tmp_path / "pretrained")
    assert what_was_learned(run, amount).kind == "trained"
    (tmp_path / "pretrained" / "config.yaml").unlink()
    with pytest.raises(FileNotFoundError, match="started from this run, which is gone"):
        what_was_learned(run, amount)


def test_another_build_of_the_same_database_is_not_zero_shot(shops, tmp_path):
    rebuilt = tmp_path / "shops-again"
    rebuilt.mkdir()
    manifest = {**json.loads(shops.manifest), "build_id": "another"}
    (rebuilt / "metadata.json").write_text(json.dumps(manifest))
    run = make_run(tmp_path / "run", shops, {"database": str(rebuilt)})
    assert what_was_learned(run, Task.load(shops, "amount")).kind == "trained"
