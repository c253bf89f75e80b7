import itertools
import json
import os
import signal
import types

import jax
import numpy as np
import pytest

from fake_database import FakeDatabase, FakeSampler, install
from tributary.config import ConfigError, RunConfig
from tributary.prediction.predict import load_run, predict_split, write_predictions
from tributary.runs.checkpoint import CheckpointError, Checkpoints
from tributary.training.train import TrainingError, TrainingInterrupted, train

TINY = {"d_model": 16, "num_layers": 2, "num_heads": 2, "d_ff": 16}


@pytest.fixture(autouse=True)
def _fakes(monkeypatch):
    install(monkeypatch)


@pytest.fixture(autouse=True, scope="module")
def _compiled_once(tmp_path_factory):
    """The same step is compiled by many runs here: keep it."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = [getattr(jax.config, name) for name in names]
    for name, value in zip(names, (str(tmp_path_factory.mktemp("xla")), 0.0), strict=True):
        jax.config.update(name, value)
    yield
    for name, value in zip(names, before, strict=True):
        jax.config.update(name, value)


def config(tmp_path, *overrides):
    values = {
        "run": {"dir": str(tmp_path), "name": "run"},
        "data": {"database": "fake", "seq_len": 24},
        "model": TINY,
        "train": {
            "steps": 6,
            "batch_size": 4,
            "eval_every": 3,
            "eval_batch_size": 8,
            "checkpoint_every": 2,
            "log_every": 1,
        },
        "optimizer": {"warmup_steps": 2},
    }
    return RunConfig.from_mapping(values, overrides)


def losses(run_dir):
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"]) for line in lines if line["kind"] == "train"]


def parameters(run_dir):
    return [np.asarray(leaf) for leaf in jax.tree.leaves(load_run(run_dir, step="last").params)]


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(tmp_path):
    whole = train(config(tmp_path / "whole"))

    def stop_after_three(report):
        if report.step == 3 and report.validation is None:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingInterrupted) as caught:
        train(config(tmp_path / "cut"), on_progress=stop_after_three)
    assert caught.value.step == 3
    resumed = train(config(tmp_path / "cut"), resume="auto")

    assert [step for step, _ in losses(whole)] == [1, 2, 3, 4, 5, 6]
    assert losses(resumed) == losses(whole)
    for left, right in zip(parameters(whole), parameters(resumed), strict=True):
        np.testing.assert_array_equal(left, right)

    # What a run leaves behind, and what it answers
    history = json.loads((whole / "training_history.json").read_text())
    assert [line["step"] for line in history["validation"]] == [3, 6]
    assert history["best_step"] in (3, 6)
    assert RunConfig.load(whole / "config.yaml") == config(tmp_path / "whole")
    assert json.loads((whole / "environment.json").read_text())["packages"]["jax"]
    _check_predictions(whole, tmp_path)

    with pytest.raises(ConfigError, match="holds a run already"):
        train(config(tmp_path / "whole"))
    with pytest.raises(CheckpointError, match=r"`optimizer.learning_rate`: 0.003 in the checkpoint, 0.1 now"):
        train(config(tmp_path / "whole", "optimizer.learning_rate=0.1"), resume="auto")


def _check_predictions(run_dir, tmp_path):
    run = load_run(run_dir)
    numbers = predict_split(run, "numerical", "test", batch_size=8).to_pydict()
    assert numbers["seed_index"] == list(range(20))
    assert numbers["entity"][1] == "customer 1"
    assert numbers["probability"] == [None] * 20
    truths = predict_split(run, "boolean", "test", batch_size=8).to_pydict()
    assert truths["prediction"] == [probability >= 0.5 for probability in truths["probability"]]
    classes = predict_split(run, "categorical", "val", max_seeds=8).to_pydict()
    assert len(classes["prediction"]) == 8
    part = predict_split(run, "numerical", "test", batch_size=8, max_seeds=13).to_pydict()
    assert len(set(part["seed_index"])) == 13
    assert part["seed_index"] == sorted(part["seed_index"])
    assert set(classes["prediction"] + classes["label"]) <= {"0", "1", "2"}
    moments = predict_split(run, "timestamp", "test")
    assert str(moments.schema.field("prediction").type) == "timestamp[us]"
    out = tmp_path / "out" / "numbers.parquet"
    assert write_predictions(run, "numerical", "test", out, batch_size=8) == 20
    import pyarrow.parquet as pq

    # The batch size changes the order of float additions at most.
    np.testing.assert_allclose(pq.read_table(out)["prediction"].to_numpy(), numbers["prediction"], rtol=1e-6)
    assert not list(out.parent.glob(".*"))
    with pytest.raises(ConfigError, match="did you mean `boolean`"):
        predict_split(run, "bolean", "test")


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_state(tmp_path, monkeypatch):
    monkeypatch.setattr(FakeSampler, "poisoned_step", 1)  # the second batch of the first of four tasks
    with pytest.raises(TrainingError, match=r"step 4: loss nan.*\(task id, seed index\)"):
        train(config(tmp_path, "train.log_every=100"))
    assert Checkpoints(tmp_path / "run").steps("last")[-1] == 4
    assert all(np.isfinite(leaf).all() for leaf in parameters(tmp_path / "run"))

    monkeypatch.setattr(FakeSampler, "poisoned_step", None)
    assert [step for step, _ in losses(train(config(tmp_path, "train.log_every=1"), resume="auto"))] == [5, 6]
    changed = FakeDatabase(tmp_path).manifest.replace('"hash"', '"local"')
    with monkeypatch.context() as embedded_anew:
        embedded_anew.setattr(FakeDatabase, "manifest", property(lambda _: changed, lambda *_: None), raising=False)
        with pytest.raises(CheckpointError, match=r'vectors of .*"hash".*"local".*tributary embed'):
            load_run(tmp_path / "run")
    monkeypatch.setattr(FakeDatabase, "__init__", _renamed(FakeDatabase.__init__))
    with pytest.raises(CheckpointError, match="build b1 in the checkpoint, b2 now"):
        train(config(tmp_path), resume="auto")
    with pytest.raises(CheckpointError, match="b2"):
        load_run(tmp_path / "run")


def _renamed(init):
    def wrapped(self, path, **options):
        init(self, path, **options)
        self.build_id = "b2"

    return wrapped


@pytest.mark.slow
def test_a_time_limit_ends_training_with_a_small_learning_rate(tmp_path, monkeypatch):
    seconds = itertools.count()
    monkeypatch.setattr(
        "tributary.training.journal.time", types.SimpleNamespace(perf_counter=lambda: next(seconds) / 10)
    )
    run_dir = train(config(tmp_path, "train.steps=100000", "train.time_limit_minutes=0.2", "train.eval_every=100000"))
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["kind"] == "validation"
    assert 12.0 <= lines[-1]["elapsed_s"] < 14.0
    rates = [line["learning_rate"] for line in lines if line["kind"] == "train"]
    assert len(rates) > 4
    assert rates[-1] < 0.3 * max(rates)


def test_unknown_task_is_named(tmp_path):
    with pytest.raises(ConfigError, match="has no task `bool`"):
        train(config(tmp_path, "data.tasks=[bool]"))
