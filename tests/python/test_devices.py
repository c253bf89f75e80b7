"""One device, eight simulated ones, two processes: the same training. Children, since JAX fixes its devices once."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tributary.config import ConfigError, RunConfig
from tributary.devices import Devices
from visits import write_visits

MESHES = {"data": (8, 1), "fsdp": (1, 8), "both": (2, 4)}
SETTINGS = [
    "data.seq_len=32",
    "data.tables=[visits]",
    "model.d_model=32",
    "model.num_layers=1",
    "model.attentions=[full]",
    "model.d_ff=32",
    "train.batch_size=16",
    "train.steps=6",
    "train.eval_every=3",
    "train.eval_seeds=16",
    "train.log_every=1",
    "train.checkpoint_every=3",
    "optimizer.warmup_steps=2",
]

# Trains on every mesh, and says what part of the largest arrays of a state that is saved one device holds.
CHILD = """
import json, sys
import jax
import tributary.checkpoint
from tributary.config import RunConfig
from tributary.train import train

def share(tree):
    largest = max(jax.tree.leaves(tree), key=lambda leaf: leaf.nbytes)
    return largest.addressable_data(0).nbytes / largest.nbytes

def save(self, kind, state, progress, save=tributary.checkpoint.Checkpoints.save):
    print(json.dumps({"name": name, "shares": [share(state[part]) for part in ("params", "ema", "opt_state")]}))
    save(self, kind, state, progress)

tributary.checkpoint.Checkpoints.save = save
settings, meshes = json.loads(sys.argv[1]), json.loads(sys.argv[2])
for name, (data, fsdp) in meshes.items():
    own = [f"devices.data={data}", f"devices.fsdp={fsdp}", f"run.name={name}"]
    train(RunConfig.from_mapping({}, [*settings, *own]))
"""


def _child(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
    )


def _output(child: subprocess.Popen[str]) -> str:
    out, err = child.communicate(timeout=800)
    assert child.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Of every run."""
    folder = tmp_path_factory.mktemp("devices")
    database = write_visits(folder, "one", 60)
    return [f"data.database={database}", f"run.dir={folder / 'runs'}", *SETTINGS]


def _train_on(settings: list[str], meshes: dict[str, tuple[int, int]]) -> dict[str, list[float]]:
    """Trains on every mesh; part of the largest parameter, average and moment that one device holds."""
    flags = {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"}
    lines = map(json.loads, _output(_child(CHILD, json.dumps(settings), json.dumps(meshes), **flags)).splitlines())
    return {line["name"]: line["shares"] for line in lines}


@pytest.fixture(scope="module")
def one(settings: list[str]) -> dict[str, list[float]]:
    """The run on one device."""
    return _train_on(settings, {"one": (1, 1)})


def _lines(settings: list[str], name: str) -> list[dict[str, Any]]:
    journal = RunConfig.from_mapping({}, settings).run.path.parent / name / "metrics.jsonl"
    return [json.loads(line) for line in journal.read_text().splitlines()]


def _check_same_training(settings: list[str], name: str) -> None:
    expected, found = _lines(settings, "one"), _lines(settings, name)
    assert len(expected) == len(found) == 8
    for left, right in zip(expected, found, strict=True):
        if left["kind"] == "train":
            for key in ("loss", "gradient_norm", "target_loss", "masked_loss"):
                np.testing.assert_allclose(right[key], left[key], rtol=1e-3, atol=1e-5, err_msg=f"{name}: {key}")
        else:
            np.testing.assert_allclose(right["score"], left["score"], atol=0.02, err_msg=name)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_eight_devices_train_as_one(settings: list[str], one: dict[str, list[float]]) -> None:
    shares = one | _train_on(settings, MESHES)
    for name in MESHES:
        _check_same_training(settings, name)
    assert shares == {"one": [1.0] * 3, "data": [1.0] * 3, "fsdp": [1 / 8] * 3, "both": [1 / 4] * 3}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_processes_train_as_one(settings: list[str], one: dict[str, list[float]]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    common = [*settings, "run.name=two", "devices.data=null", f"devices.coordinator={address}"]
    assert one
    command = "import sys; from tributary.cli import main; main()"
    folder = RunConfig.from_mapping({}, settings).run.path.parent
    (folder.parent / "config.yaml").write_text("data: {}\n")

    def start(*own: str, **environment: str) -> subprocess.Popen[str]:
        overrides = [word for key in [*common, *own] for word in ("--set", key)]
        arguments = ["train", "--config", str(folder.parent / "config.yaml"), "--resume", "auto", *overrides]
        return _child(command, *arguments, **environment)

    children = [start(JAX_NUM_PROCESSES="2", JAX_PROCESS_ID=str(rank)) for rank in range(2)]
    for child in children:
        _output(child)
    _check_same_training(settings, "two")
    # From the middle on, one process alone
    shutil.rmtree(folder / "two" / "checkpoints" / "last" / "6")
    _output(start("devices.coordinator=null", "devices.data=1"))
    _check_same_training(settings, "two")


def test_devices_that_are_not_there_are_named() -> None:
    with pytest.raises(ConfigError, match=r"devices: 3 x 2 \(data x fsdp\) of 1 devices"):
        Devices(3, 2)
    with pytest.raises(ConfigError, match=r"train.batch_size: 30 contexts cannot be divided .* 4 parts .*; 28 can"):
        Devices().check_batch(30, 4)
