"""Schedules, frozen parameters, steps in parts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from synthetic_batch import database_arrays, synthetic_batch
from tributary.config import ConfigError, ModelConfig, OptimizerSection
from tributary.model import build_model
from tributary.training.losses import Objective, objective_loss, part_shares
from tributary.training.optim import evaluation_params, freeze, init_state, learning_rate, make_train_step, merge

ARRAYS = database_arrays(16)
TINY = ModelConfig(d_model=16, num_layers=1, num_heads=2, d_ff=16, link_head=True, attentions=("neighbor", "full"))


def _model():
    graphdef, state = nnx.split(build_model(TINY, 16, rngs=nnx.Rngs(0)), nnx.Param)
    rng = np.random.default_rng(0)
    return graphdef, jax.tree.map(
        lambda leaf: leaf + 0.1 * rng.normal(size=leaf.shape).astype(np.float32), nnx.to_pure_dict(state)
    )


def test_schedules():
    def curve(**options):
        config = OptimizerSection(learning_rate=2.0, warmup_steps=0, final_fraction=0.1, **options)
        return [float(learning_rate(config, 10.0, progress)) for progress in (0.0, 0.15, 0.3, 0.65, 1.0)]

    np.testing.assert_allclose(curve(schedule="constant"), [2.0] * 5)
    np.testing.assert_allclose(
        curve(schedule="one-cycle", cycle_rise=0.3), [0.08, (0.08 + 2) / 2, 2.0, (2 + 0.2) / 2, 0.2], rtol=1e-5
    )
    ended = OptimizerSection(learning_rate=2.0, warmup_steps=0, final_fraction=0.0, schedule="one-cycle")
    assert float(learning_rate(ended, 10.0, 1.0)) == 0.0
    warm = OptimizerSection(learning_rate=2.0, warmup_steps=4, schedule="constant")
    assert float(learning_rate(warm, 0.0, 0.0)) == 0.5


@pytest.mark.slow
def test_frozen_groups_are_not_touched_and_take_no_memory():
    graphdef, params = _model()
    trained, frozen = freeze(params, ["backbone", "heads.link_head"])
    assert set(trained) == {"heads"}
    assert "link_head" not in trained["heads"]
    assert jax.tree.structure(merge(trained, frozen)) == jax.tree.structure(params)
    with pytest.raises(ConfigError, match=r"no group `heads\.link`; at `link` there are: .*link_head"):
        freeze(params, ["heads.link"])
    with pytest.raises(ConfigError, match="leaves nothing to train"):
        freeze(params, list(params))

    objective = Objective(mask_rate=0.3)
    config = OptimizerSection(weight_decay=0.5)
    state = init_state(jax.tree.map(jnp.array, params), config, ["backbone", "heads.link_head"])
    num_trained = sum(leaf.size for leaf in jax.tree.leaves(trained))
    assert sum(leaf.size for leaf in jax.tree.leaves(state["ema"])) == num_trained
    moments = sum(leaf.size for leaf in jax.tree.leaves(state["opt_state"]))
    assert 2 * num_trained <= moments < 2 * num_trained + 10
    step = make_train_step(lambda p, b, a: objective_loss(nnx.merge(graphdef, p), b, a, objective), config)
    batch = synthetic_batch(1, num_links=4, mask_rate=0.3).device_fields()
    for _ in range(2):
        state, _ = step(state, batch, ARRAYS, np.float32(0))
    after = evaluation_params(state)
    left = jax.tree_util.tree_leaves_with_path(params)
    right = jax.tree_util.tree_leaves_with_path(after)
    is_trained = {jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(trained)}
    for (path, old), (_, new) in zip(left, right, strict=True):
        assert np.array_equal(old, new) == (jax.tree_util.keystr(path) not in is_trained), path


@pytest.mark.slow
def test_a_step_in_parts_is_the_step():
    graphdef, params = _model()
    # InfoNCE is told apart from words of its own part: without those, parts and whole agree.
    rates = {"numerical": 0.4, "timestamp": 0.4, "boolean": 0.4}
    objective = Objective(mask_rate=rates, positive_weight="auto")
    batch = synthetic_batch(
        5, batch_size=12, num_links=5, mask_rate=0.4, null_cells=True, num_padding_seeds=1
    ).device_fields()
    is_word = np.isin(batch.cell_stype, (4, 5))
    batch.cell_is_masked[is_word] = False
    parts = jax.tree.map(lambda field: field.reshape(3, 4, *field.shape[1:]), batch)
    config = OptimizerSection(name="adamw", learning_rate=0.01)

    def loss(params, batch, arrays, shares=None):
        return objective_loss(nnx.merge(graphdef, params), batch, arrays, objective, shares)

    whole, in_parts = (init_state(jax.tree.map(jnp.array, params), config) for _ in range(2))
    shares = part_shares(parts, ARRAYS, objective)
    assert not np.allclose(shares["target_loss"], 1 / 3)  # or plain means would do
    whole, expected = make_train_step(loss, config)(whole, batch, ARRAYS, np.float32(0))
    step = make_train_step(loss, config, part_shares=lambda b, a: part_shares(b, a, objective))
    in_parts, found = step(in_parts, parts, ARRAYS, np.float32(0))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-5, atol=1e-7, err_msg=name)
    first = [jax.tree.leaves(state["opt_state"]) for state in (whole, in_parts)]
    for left, right in zip(*first, strict=True):
        np.testing.assert_allclose(right, left, rtol=1e-4, atol=1e-8)
