import re
import shutil
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tributary.runs.checkpoint import CheckpointError, Checkpoints, Progress, check_same_run, leaf_digests
from tributary.runs.retention import Retention

STATE = {"params": {"w": jnp.arange(6.0).reshape(2, 3)}, "step": jnp.int32(0), "ema": {}}
# Small arrays lie inside of Orbax's index; this one has a file of its own.
LARGE = {**STATE, "params": {"w": jnp.asarray(np.random.default_rng(0).normal(size=(64, 64)), jnp.float32)}}


def progress(step, **changes):
    values = {
        "sampler_state": "{}",
        "config": {"train": {"steps": 5}},
        "builds": {"db": "b1"},
        "embedder": {"kind": "hash", "dimension": 16},
        "elapsed_s": 1.5,
        "metric": None,
        "best_metric": 0.5,
        "best_step": 1,
    }
    return Progress(step=step, **{**values, **changes})


def state(step, start=STATE):
    return jax.tree.map(lambda leaf: leaf + step, start)


@pytest.fixture
def checkpoints(tmp_path):
    with Checkpoints(tmp_path, Retention(keep_last=3)) as opened:
        yield opened


def test_restores_what_was_saved_and_keeps_the_newest(checkpoints, tmp_path):
    for step in range(1, 6):
        checkpoints.save("last", state(step), progress(step))
    checkpoints.wait()
    assert checkpoints.steps("last") == [3, 4, 5]
    assert not list((tmp_path / "checkpoints" / "last" / "removed").iterdir())
    restored, found = checkpoints.restore("last", STATE)
    assert leaf_digests(restored) == leaf_digests(state(5))
    assert found == progress(5)
    assert checkpoints.restore("last", STATE, step=3)[1].step == 3
    with pytest.raises(CheckpointError, match=r"no step 1; found \[3, 4, 5\]"):
        checkpoints.restore("last", STATE, step=1)
    with pytest.raises(CheckpointError, match="no sound checkpoint"):
        checkpoints.restore("best", STATE)


def test_the_state_is_copied_before_the_step_overwrites_it(checkpoints, monkeypatch):
    """The writer is held back until the array it was given has other values."""
    may_write, leaf = threading.Event(), np.zeros((2, 3), np.float32)
    monkeypatch.setattr(checkpoints, "_write", _after(may_write, checkpoints._write))
    checkpoints.save("last", {**STATE, "params": {"w": leaf}}, progress(1))
    checkpoints.check()  # nothing failed, and nobody waits
    assert checkpoints.steps("last") == []
    leaf += 1.0
    may_write.set()
    checkpoints.wait()
    np.testing.assert_array_equal(checkpoints.restore("last", STATE)[0]["params"]["w"], np.zeros((2, 3)))


def _after(event, function):
    def waiting(*arguments):
        event.wait(10)
        function(*arguments)

    return waiting


def test_the_best_are_kept_by_metric_and_restored_in_its_order(checkpoints, tmp_path):
    kept = Retention(keep_best=2)
    for step, metric in enumerate((0.1, 0.5, 0.3, 0.2), start=1):
        assert checkpoints.is_among_best(metric) == (step in (1, 2, 3, 4)[: 1 if step > 2 else 2])
        checkpoints.save("best", state(step), progress(step, metric=metric))
    checkpoints.save("last", state(2), progress(2))
    checkpoints.wait()
    assert checkpoints.steps("best") == [2, 3, 4]  # later ones than the newest of `last` stay
    assert checkpoints.restore("best", STATE)[1].step == 2
    assert kept.dropped_best({1: 0.1, 2: 0.5, 3: 0.3}, until=3) == [1]
    checkpoints.discard_after(2)
    assert checkpoints.steps("best") == [2]


def test_what_stays_by_count_multiple_and_age(tmp_path):
    ages = {10: 9.0, 20: 5.0, 30: 3.0, 40: 1.0}
    assert Retention(keep_last=1).dropped_last(ages) == [10, 20, 30]
    assert Retention(keep_last=1, keep_every=20).dropped_last(ages) == [10, 30]
    assert Retention(keep_last=1, keep_hours=4.0).dropped_last(ages) == [10, 20]
    archive = tmp_path / "archive"
    with Checkpoints(tmp_path / "run", Retention(keep_last=1, archive_dir=archive)) as opened:
        for step in (1, 2):
            opened.save("last", state(step), progress(step))
    moved = Checkpoints(tmp_path / "elsewhere")
    moved._root = archive / "run"
    assert moved.restore("last", STATE)[1] == progress(1)


def _damage(folder, damage):
    data = max((folder / "state" / "ocdbt.process_0" / "d").iterdir(), key=lambda path: path.stat().st_size)
    if damage == "missing file":
        data.unlink()
    elif damage == "flipped byte":
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
    elif damage == "truncated file":
        data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    elif damage == "changed record":
        record = folder / "progress" / "metadata"
        record.write_text(record.read_text().replace('"elapsed_s": 1.5', '"elapsed_s": 2.5'))
    elif damage == "missing record":
        shutil.rmtree(folder / "progress")
    elif damage == "missing marker":
        (folder / "_CHECKPOINT_METADATA").unlink()
    elif damage == "half deleted":
        for path in sorted(path for path in folder.rglob("*") if path.is_file())[::2]:
            path.unlink()


# Orbax leaves reads of the other arrays behind when one fails; they end after its event loop.
leaves_reads_behind = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@leaves_reads_behind
@pytest.mark.parametrize(
    "damage",
    ["missing file", "flipped byte", "truncated file", "changed record", "missing record", "missing marker",
     "half deleted"],
)  # fmt: skip
def test_a_damaged_newest_step_is_skipped_loudly(tmp_path, damage):
    with Checkpoints(tmp_path, Retention()) as checkpoints:
        for step in (1, 2):
            checkpoints.save("last", state(step, LARGE), progress(step))
    _damage(tmp_path / "checkpoints" / "last" / "2", damage)
    with Checkpoints(tmp_path, Retention()) as again:
        with pytest.warns(RuntimeWarning, match="last/2: damaged checkpoint skipped"):
            restored, found = again.restore("last", LARGE)
        assert found == progress(1)
        np.testing.assert_array_equal(restored["params"]["w"], state(1, LARGE)["params"]["w"])
        # Training goes on from there and makes the step anew.
        again.discard_after(1)
        again.save("last", state(2, LARGE), progress(2))
        again.wait()
        assert again.restore("last", LARGE)[1] == progress(2)


@leaves_reads_behind
def test_no_flipped_byte_of_any_file_goes_unnoticed(tmp_path):
    """Whatever byte changes: the step is refused, or it gives exactly what was saved."""
    with Checkpoints(tmp_path, Retention()) as checkpoints:
        checkpoints.save("last", state(2, LARGE), progress(2))
    reader, num_refused = Checkpoints(tmp_path), 0
    for path in sorted((tmp_path / "checkpoints" / "last" / "2").rglob("*")):
        for place in (0.0, 0.3, 0.7) if path.is_file() else ():
            sound = path.read_bytes()
            content = bytearray(sound)
            content[int(place * len(sound))] ^= 1
            path.write_bytes(content)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", RuntimeWarning)
                    restored, found = reader.restore("last", LARGE)
            except CheckpointError:
                num_refused += 1
            else:
                assert leaf_digests(restored) == leaf_digests(state(2, LARGE))
                assert found == progress(2)
            path.write_bytes(sound)
    assert num_refused > 10


def test_what_a_writer_that_was_cut_off_left_behind_is_cleared_away(tmp_path):
    root = tmp_path / "checkpoints" / "last"
    (root / "7.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    (root / "removed" / "3").mkdir(parents=True)
    assert Checkpoints(tmp_path).steps("last") == []
    with Checkpoints(tmp_path, Retention()) as opened:
        assert sorted(path.name for path in root.iterdir()) == ["removed"]
        assert not list((root / "removed").iterdir())
        with pytest.raises(CheckpointError, match=r"process \d+ of .* is training this run"):
            Checkpoints(tmp_path, Retention()).__enter__()
        with pytest.raises(ValueError, match="give a retention"):
            Checkpoints(tmp_path).save("last", STATE, progress(1))
        opened.save("last", STATE, progress(1))


@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a file's size stands for a full disk")
def test_a_disk_that_takes_no_more_is_reported_at_the_next_step(tmp_path):
    """In a child, whose limits are its own: the step before stays sound, and the place and sizes are named."""
    code = f"""
import resource, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
from test_checkpoint import STATE, progress
from tributary.runs.checkpoint import Checkpoints
from tributary.runs.retention import Retention
large = {{**STATE, "params": {{"w": np.random.default_rng(0).normal(size=(100, 1000))}}}}
with Checkpoints({str(tmp_path)!r}, Retention()) as checkpoints:
    checkpoints.save("last", STATE, progress(1))
    checkpoints.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    checkpoints.save("last", large, progress(2))
    for _ in range(1000):
        time.sleep(0.01)
        checkpoints.check()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    message = done.stderr.splitlines()[-1]
    assert re.search(
        r"WriteError: .*step 2 could not be written \(file too large\): it needs up to 800,004 bytes, ", message
    )
    assert re.search(r"[\d,]+ are free in .*; step 1 is safe; make room, .*--resume auto: '.*/last/2'", message)
    assert sorted(path.name for path in (tmp_path / "checkpoints" / "last").iterdir()) == ["1"]
    assert Checkpoints(tmp_path).restore("last", STATE)[1] == progress(1)


def test_digest_sees_value_dtype_and_shape():
    plain = leaf_digests({"a": np.zeros(4, np.float32)})
    assert plain != leaf_digests({"a": np.zeros(4, np.int32)})
    assert plain != leaf_digests({"a": np.zeros((2, 2), np.float32)})
    assert plain != leaf_digests({"a": np.array([0, 0, 0, -0.0], np.float32)})


def test_another_database_or_config_is_refused_with_both_shown():
    found = progress(1)
    check_same_run(found, {"train": {"steps": 5}}, {"db": "b1"}, ignored=set())
    check_same_run(found, {"train": {"steps": 9}}, {"db": "b1"}, ignored={"train.steps"})
    with pytest.raises(CheckpointError, match=r"`train.steps`: 5 in the checkpoint, 9 now"):
        check_same_run(found, {"train": {"steps": 9}}, {"db": "b1"}, ignored=set())
    with pytest.raises(CheckpointError, match=r"database `db`: build b1 in the checkpoint, b2 now"):
        check_same_run(found, {"train": {"steps": 5}}, {"db": "b2"}, ignored=set())
