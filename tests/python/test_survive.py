"""Trainings that are killed, and a disk that is full: by the commands a person types."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_kills_at_any_moment_leave_the_losses_as_they_were(tmp_path):
    words = [sys.executable, SCRIPTS / "kill_training.py", "--kills", "3", "--folder", tmp_path / "here"]
    keys = ["train.steps=30", "train.eval_every=10"]
    done = subprocess.run(
        [*words, *(word for key in keys for word in ("--set", key))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 kills of" in done.stdout
    assert "all 30 losses" in done.stdout

    # What the last run left behind is all there, and a full disk ends a new one well.
    run = max((tmp_path / "here" / "runs").glob("killed-*/"))
    history = json.loads((run / "training_history.json").read_text())
    assert history["cost"]["examples"] == 30 * 8
    assert history["cost"]["operations"] > 1e6
    assert history["cost"]["sessions"] >= 1
    assert all(0 < line["utilisation"] < 2 for line in history["train"])
    assert {path.name for path in (run / "plots").iterdir()} >= {"loss.svg", "validation.svg", "learning_rate.svg"}
    assert list((run / "tensorboard").iterdir())
    _check_full_disk(tmp_path / "here")


def _check_full_disk(folder: Path) -> None:
    """A limit on the size of a file stands for a full disk: the first checkpoint does not fit."""
    code = "from tributary.cli import main; main()"
    keys = [f"run.dir={folder / 'runs'}", "run.name=full", "train.steps=20", "train.trackers=[]"]
    words = ["train", "--config", str(folder / "config.yaml"), *(word for key in keys for word in ("--set", key))]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "false"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, 16_000)),
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "the checkpoint of step 5 could not be written (file too large): it needs up to " in done.stderr
    assert "no step is safe; make room" in done.stderr
