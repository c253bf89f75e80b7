import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tributary.checkpoint import CheckpointError, Checkpoints, Progress, check_same_run, leaf_digests

STATE = {"params": {"w": jnp.arange(6.0).reshape(2, 3)}, "step": jnp.int32(0), "ema": {}}


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


def state(step):
    return jax.tree.map(lambda leaf: leaf + step, STATE)


@pytest.fixture
def checkpoints(tmp_path):
    opened = Checkpoints(tmp_path, keep_last=3)
    yield opened
    opened.close()


def test_restores_what_was_saved_and_keeps_the_newest(checkpoints):
    for step in range(1, 6):
        checkpoints.save("last", state(step), progress(step))
    assert checkpoints.steps("last") == [3, 4, 5]
    restored, found = checkpoints.restore("last", STATE)
    assert leaf_digests(restored) == leaf_digests(state(5))
    assert found == progress(5)
    assert checkpoints.restore("last", STATE, step=3)[1].step == 3
    with pytest.raises(CheckpointError, match=r"no step 1; found \[3, 4, 5\]"):
        checkpoints.restore("last", STATE, step=1)
    with pytest.raises(CheckpointError, match="no sound checkpoint"):
        checkpoints.restore("best", STATE)


@pytest.mark.parametrize("damage", ["array", "progress", "uncommitted"])
def test_a_damaged_newest_step_is_skipped_loudly(checkpoints, tmp_path, damage, monkeypatch):
    checkpoints.save("last", state(1), progress(1))
    folder = tmp_path / "checkpoints" / "last" / "2"
    if damage == "array":
        # A wrong digest stands for a bit that flipped unseen.
        wrong = dict.fromkeys(leaf_digests(STATE), "0" * 32)
        monkeypatch.setattr("tributary.checkpoint.leaf_digests", lambda tree: wrong)
        checkpoints.save("last", state(2), progress(2))
        monkeypatch.setattr("tributary.checkpoint.leaf_digests", leaf_digests)
    else:
        checkpoints.save("last", state(2), progress(2))
    if damage == "progress":
        shutil.rmtree(folder / "progress")
    if damage == "uncommitted":
        (folder / "_CHECKPOINT_METADATA").unlink(missing_ok=True)
        shutil.rmtree(folder / "state")
    checkpoints.close()
    again = Checkpoints(tmp_path)
    with pytest.warns(RuntimeWarning, match="last/2: damaged checkpoint skipped"):
        restored, found = again.restore("last", STATE)
    again.close()
    assert found.step == 1
    np.testing.assert_array_equal(restored["params"]["w"], state(1)["params"]["w"])


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
