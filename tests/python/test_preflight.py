"""What preflight says of labels, settings, memory and disk; the whole of it runs in `test_survive.py`."""

import shutil
import types
from typing import Any

import numpy as np
import pytest

from tributary.config import RunConfig
from tributary.preflight import machine
from tributary.preflight.check import size_text
from tributary.preflight.labels import check_tasks
from tributary.preflight.step import _check_gradients, _check_memory, _check_pace


def config(*overrides: str) -> RunConfig:
    return RunConfig.from_mapping({"data": {"database": "db"}, "train": {"batch_size": 4}}, overrides)


def task_check(stype: str, train: Any, val: Any = (0.0, 1.0), nulls: int = 0, *overrides: str):
    """The check of one task with these labels, and so many training seeds without one."""
    labels = np.array([*train, *[0.0] * nulls, *val])
    seeds = {
        "split": np.array([0] * (len(train) + nulls) + [1] * len(val), np.int8),
        "value": labels.astype(np.float32),
        "vocab": labels.astype(np.int32),
        "is_null": np.array([False] * len(train) + [True] * nulls + [False] * len(val)),
    }
    database = types.SimpleNamespace(task_seeds=lambda name: seeds)
    task = {"name": "churn", "target_stype": stype}
    source = types.SimpleNamespace(database=database, tasks=[task], label=lambda name: name)
    (check,) = check_tasks(config(*overrides), types.SimpleNamespace(sources=[source]))
    assert check.name == "task churn"
    return check


HALVES = [0.0, 1.0] * 60
RARE = [0.0] * 9000 + [1.0] * 60


@pytest.mark.parametrize(
    ("arguments", "status", "advice"),
    [
        (("boolean", HALVES), "ok", ""),
        (("boolean", [1.0] * 50), "fail", "all training labels are the same"),
        (("boolean", []), "fail", "no training seeds"),
        (("boolean", [], HALVES, 9), "fail", "no training seed has a label"),
        (("boolean", RARE), "warn", "positive_weight=auto"),
        (("boolean", RARE, HALVES, 0, "objective.positive_weight=auto"), "ok", ""),
        (("boolean", [0.0] * 90 + [1.0] * 9), "warn", "mostly chance"),
        (("boolean", HALVES, [1.0, 1.0]), "warn", "validation labels are the same"),
        (("boolean", HALVES, []), "warn", "no validation seeds"),
        (("boolean", HALVES, HALVES, 500), "warn", "500 training seeds have no label"),
        (("numerical", [0.5] * 20), "fail", "constant"),
        (("numerical", [0.5, 1.5, -1.0, 99.0]), "warn", "logarithm"),
        (("numerical", [0.5, 1.5, -1.0]), "warn", "fewer training seeds than train.batch_size"),
        (("categorical", [3.0] * 20), "fail", "the same"),
        (("categorical", [3.0, 4.0, 5.0, 3.0]), "ok", ""),
    ],
)
def test_labels_that_teach_nothing_or_little(arguments, status, advice):
    check = task_check(*arguments)
    assert (check.status, advice in check.advice) == (status, True), check
    assert bool(check.advice) == (status != "ok")


def test_settings_that_do_not_go_together():
    (check,) = machine.check_settings(config())
    assert check.status == "ok"
    (check,) = machine.check_settings(config("train.steps=20"))
    assert check.status == "warn"
    assert "optimizer.warmup_steps = 30 is not below train.steps" in check.found
    assert "train.eval_every = 200" in check.found


def test_a_disk_without_room_for_the_checkpoints(monkeypatch, tmp_path):
    def check(free: int, *overrides: str):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=free))
        (found,) = machine.check_disk(config(f"run.dir={tmp_path}", *overrides), 1000)
        return found

    assert check(8000).status == "ok"  # two of last, one of best, one in flight
    assert check(7999).status == "warn"
    assert check(3999).status == "fail"
    assert check(8000, "train.keep_every=10").status == "fail"
    assert "4 checkpoints of 1000 bytes, 7.8 KiB free" in check(8000).found
    assert size_text(3 * 2**30) == "3.0 GiB"


def test_memory_beside_what_there_is(monkeypatch):
    def check(available):
        monkeypatch.setattr("tributary.preflight.step.available_memory", lambda: available)
        analysis = types.SimpleNamespace(temp_size_in_bytes=600, argument_size_in_bytes=400)
        return _check_memory(types.SimpleNamespace(memory_analysis=lambda: analysis))

    assert check((2000, "available")).status == "ok"
    assert check((1100, "available")).status == "warn"
    failed = check((900, "of the device"))
    assert failed.status == "fail"
    assert failed.found == "a step takes 1000 bytes (600 bytes of it temporary), 900 bytes of the device"
    assert "lower train.batch_size" in failed.advice
    assert check(None).status == "warn"
    assert machine.available_memory()[0] > 2**20


def test_parameters_without_a_gradient_are_named():
    def check(blocks: float, encoder: float):
        params = {"blocks": {"w": np.ones(2)}, "encoder": {"w": np.ones(2)}}
        moments = {"mu": {"blocks": {"w": np.full(2, blocks)}, "encoder": {"w": np.full(2, encoder)}}}
        return _check_gradients({"params": params, "opt_state": moments})

    assert check(1.0, 1.0).found == "reached 2 of 2 parameters"
    assert check(1.0, 0.0).status == "ok"
    assert "not ['encoder']['w']" in check(1.0, 0.0).found
    assert check(0.0, 1.0).status == "warn"
    assert check(0.0, 0.0).status == "fail"


def test_how_long_it_will_take():
    check = _check_pace(config("train.steps=7200"), 1.0, 0.1, 60.0, 0.25, "measured")
    assert check.status == "ok"
    assert "1000 ms a step of the largest shape (4 examples/s, 25% of the measured peak)" in check.found
    assert "at most 2.0 hours for 7,200 steps" in check.found
    slow = _check_pace(config(), 0.1, 0.2, 0.0, 0.25, "measured")
    assert (slow.status, "data.threads" in slow.advice) == ("warn", True)
    short = _check_pace(config("train.time_limit_minutes=0.2"), 1.0, 0.1, 2.0, 0.25, "measured")
    assert "allows about 10" in short.found
    assert "within the warm-up" in short.advice
