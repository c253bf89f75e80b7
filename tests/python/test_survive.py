"""Trainings that are killed, and a disk that is full: by the commands a person types."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"

pytestmark = pytest.mark.slow


def test_kills_at_any_moment_leave_the_losses_as_they_were(tmp_path):
    words = [sys.executable, SCRIPTS / "kill_training.py", "--kills", "2", "--folder", tmp_path / "here"]
    keys = ["train.steps=20", "train.eval_every=10"]
    done = subprocess.run(
        [*words, *(word for key in keys for word in ("--set", key))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 kills of" in done.stdout
    assert "all 20 losses" in done.stdout

    # What the last run left behind is all there, and a full disk ends a new one well.
    run = max((tmp_path / "here" / "runs").glob("killed-*/"))
    history = json.loads((run / "training_history.json").read_text())
    assert history["cost"]["examples"] == 20 * 8
    assert history["cost"]["operations"] > 1e6
    assert history["cost"]["sessions"] >= 1
    assert all(0 < line["utilisation"] < 2 for line in history["train"])
    assert {path.name for path in (run / "plots").iterdir()} >= {"loss.svg", "validation.svg", "learning_rate.svg"}
    assert list((run / "tensorboard").iterdir())
    _check_full_disk(tmp_path / "here")
    _check_preflight(tmp_path / "here", run)


def _check_preflight(folder: Path, run: Path) -> None:
    """All is well with a new run, an old one is said to be there, and a fault is found before a step is compiled."""

    def preflight(*keys: str) -> tuple[int, dict[str, dict[str, str]]]:
        code = "from tributary.cli import main; main()"
        words = ["preflight", str(folder / "config.yaml"), "--json", *(word for key in keys for word in ("--set", key))]
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, {check["name"]: check for check in json.loads(done.stdout)["checks"]}

    code, checks = preflight(f"run.dir={run.parent}", f"run.name={run.name}", "train.steps=20", "train.eval_every=10")
    assert code == 0, checks
    assert "holds a run at step 20 of 20" in checks["resumption"]["found"]
    names = ("packages", "task buys", "disk", "batches", "memory", "loss", "gradients")
    assert {name: checks[name]["status"] for name in names} == dict.fromkeys(names, "ok")
    assert "verified" in checks["database shop"]["found"]

    code, checks = preflight("data.tasks=[sells]")
    assert code == 1
    assert "has no task `sells`" in checks["databases"]["found"]


def _check_full_disk(folder: Path) -> None:
    """A limit on the size of a file stands for a full disk: the first checkpoint does not fit."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, 16_000))"
    code = f"{limit}; from tributary.cli import main; main()"
    keys = [f"run.dir={folder / 'runs'}", "run.name=full", "train.steps=20", "train.trackers=[]"]
    words = ["train", "--config", str(folder / "config.yaml"), *(word for key in keys for word in ("--set", key))]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "the checkpoint of step 5 could not be written (file too large): it needs up to " in done.stderr
    assert "no step is safe; make room" in done.stderr
