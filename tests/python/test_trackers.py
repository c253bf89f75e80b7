"""Trackers get the lines of the journal; one that is missing says what to install, one that fails is left behind."""

import sys
import types
from pathlib import Path

import pytest

from tributary.config import ConfigError
from tributary.training.trackers import TrackedRun, Trackers

LINES = [
    {"kind": "train", "step": 5, "loss": 0.5, "input_wait_ms": [1.0, 2.0]},
    {
        "kind": "validation",
        "step": 5,
        "score": 0.25,
        "tasks": {"churn": {"auroc": 0.75, "num_seeds": 8}, "empty": {}},
    },
]


def run_of(folder: Path, step: int = 0) -> TrackedRun:
    folder.mkdir(exist_ok=True, parents=True)
    return TrackedRun(folder, "demo", "trials", {"train": {"steps": 9}, "run": {"seed": 1}}, step)


def log_all(names, run):
    trackers = Trackers(names, run)
    for line in LINES:
        trackers.log(line)
    trackers.close(is_finished=True)
    trackers.close(is_finished=True)


def test_tensorboard_reads_back_what_was_logged_without_tensorflow(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_all(["tensorboard"], run_of(tmp_path / "run"))
    later = Trackers(["tensorboard"], run_of(tmp_path / "run", step=4))  # resumed before step 5, which is done again
    later.log({"kind": "train", "step": 5, "loss": 0.125})
    later.close(is_finished=False)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [(one.step, one.value) for one in events.Scalars("train/loss")] == [(5, 0.125)]
    assert "tensorflow" not in sys.modules


class FakeMlflow(types.ModuleType):
    """As much of MLflow as is called."""

    def __init__(self):
        super().__init__("mlflow")
        self.calls = []
        self.entities = types.ModuleType("mlflow.entities")
        self.entities.Metric = self.entities.Param = lambda *values: values

    def MlflowClient(self, tracking_uri):  # noqa: N802
        self.calls.append(("client", tracking_uri))
        return self

    def get_experiment_by_name(self, name):
        return None

    def create_experiment(self, name):
        self.calls.append(("experiment", name))
        return "7"

    def create_run(self, experiment_id, run_name):
        self.calls.append(("run", experiment_id, run_name))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="abc"))

    def update_run(self, run_id, status):
        self.calls.append(("again", run_id, status))

    def log_batch(self, run_id, metrics=(), params=()):
        self.calls += [("metric", run_id, name, value, step) for name, value, _, step in metrics]
        self.calls += [("param", run_id, *param) for param in params]

    def set_terminated(self, run_id, status):
        self.calls.append(("end", run_id, status))


def forget(monkeypatch, name):
    monkeypatch.delitem(sys.modules, f"tributary.training.trackers.{name}", raising=False)


def test_mlflow_goes_to_a_file_beside_the_runs_and_on_with_the_same_run(tmp_path, monkeypatch):
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.setitem(sys.modules, "mlflow.entities", fake.entities)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    forget(monkeypatch, "mlflow")
    log_all(["mlflow"], run_of(tmp_path / "run"))
    assert fake.calls[:3] == [
        ("client", f"sqlite:///{tmp_path / 'mlflow.db'}"),
        ("experiment", "trials"),
        ("run", "7", "demo"),
    ]
    assert ("param", "abc", "train.steps", "9") in fake.calls
    assert ("metric", "abc", "train/loss", 0.5, 5) in fake.calls
    assert ("metric", "abc", "validation/churn/auroc", 0.75, 5) in fake.calls
    assert fake.calls[-1] == ("end", "abc", "FINISHED")
    fake.calls.clear()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://there")
    Trackers(["mlflow"], run_of(tmp_path / "run", step=3)).close(is_finished=False)
    assert fake.calls == [("client", "http://there"), ("again", "abc", "RUNNING"), ("end", "abc", "KILLED")]
    forget(monkeypatch, "mlflow")


class FakeWandb(types.ModuleType):
    """As much of wandb as is called."""

    def __init__(self):
        super().__init__("wandb")
        self.started, self.logged, self.ends = [], [], []

    def init(self, **options):
        self.started.append(options)
        return self

    def define_metric(self, name, step_metric=None):
        pass

    def log(self, values):
        self.logged.append(values)

    def finish(self, exit_code):
        self.ends.append(exit_code)


def test_wandb_stays_on_the_machine_unless_told_and_goes_on_with_the_same_run(tmp_path, monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    forget(monkeypatch, "wandb")
    log_all(["wandb"], run_of(tmp_path / "run"))
    monkeypatch.setenv("WANDB_MODE", "online")
    Trackers(["wandb"], run_of(tmp_path / "run", step=3)).close(is_finished=False)
    first, second = fake.started
    assert (first["project"], first["mode"], first["dir"]) == ("trials", "offline", str(tmp_path / "run"))
    assert second["mode"] is None
    assert second["id"] == first["id"]
    assert fake.logged[0] == {"train/loss": 0.5, "step": 5}
    assert fake.ends == [0, 1]
    forget(monkeypatch, "wandb")


def test_a_missing_package_is_named_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    forget(monkeypatch, "wandb")
    with pytest.raises(ConfigError, match=r'train.trackers: wandb needs a package .*pip install "tributary\[wandb\]"'):
        Trackers(["wandb"], run_of(tmp_path))


def test_one_that_fails_is_left_behind_loudly_and_the_others_go_on(tmp_path, monkeypatch):
    fake = FakeWandb()
    fake.log = lambda values: 1 / 0
    monkeypatch.setitem(sys.modules, "wandb", fake)
    forget(monkeypatch, "wandb")
    trackers = Trackers(["wandb", "tensorboard"], run_of(tmp_path))
    with pytest.warns(RuntimeWarning, match="wandb gets nothing more of this run: division by zero"):
        trackers.log(LINES[0])
    trackers.log(LINES[0])
    trackers.close(is_finished=True)
    assert fake.ends == []
    assert list((tmp_path / "tensorboard").iterdir())
    forget(monkeypatch, "wandb")
