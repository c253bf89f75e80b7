import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from synthetic_batch import BOOLEAN, CATEGORICAL, IDENTIFIER, TEXT, database_arrays, synthetic_batch
from tributary.config import ModelConfig, OptimizerSection
from tributary.losses import (
    Objective,
    boolean_loss,
    choose_masked_cells,
    class_loss,
    huber_loss,
    masked_loss,
    objective_loss,
    target_loss,
    weighted_mean,
)
from tributary.model import Outputs, RelationalTransformer
from tributary.model.encoders import NUMERICAL, TIMESTAMP
from tributary.optim import init_state, learning_rate, make_optimizer, make_train_step

ARRAYS = database_arrays(16)
TINY = ModelConfig(d_model=16, num_layers=2, num_heads=2, d_ff=16)


def test_losses_of_one_cell_by_hand():
    np.testing.assert_allclose(huber_loss(jnp.array([0.1, 2.0]), jnp.zeros(2), 0.5), [0.01, 1.75], rtol=1e-6)
    np.testing.assert_allclose(
        boolean_loss(jnp.array([0.0, 2.0]), jnp.array([1.0, 0.0])), [0.6931472, 2.126928], rtol=1e-6
    )
    logits = jnp.array([[1.0, 0.0, 9.0]])
    allowed = jnp.array([[True, True, False]])
    np.testing.assert_allclose(class_loss(logits, jnp.array([0]), allowed), [math.log(1 + math.exp(-1))], rtol=1e-6)
    assert float(weighted_mean(jnp.array([1.0, jnp.nan]), jnp.array([2.0, 0.0]))) == 1.0
    assert float(weighted_mean(jnp.array([1.0]), jnp.array([0.0]))) == 0.0


class ClassKeys:
    """Stands for a model whose class keys are the vectors themselves."""

    class heads:  # noqa: N801
        @staticmethod
        def class_keys(vectors):
            return vectors.astype(jnp.float32)


def outputs_for(shape, rng_seed=0, dim=16):
    rng = np.random.default_rng(rng_seed)
    scalars = [jnp.asarray(rng.normal(size=shape), jnp.float32) for _ in range(4)]
    return Outputs(*scalars, query=jnp.asarray(rng.normal(size=(*shape, dim)), jnp.float32))


def test_target_loss_by_hand():
    batch = synthetic_batch(0, batch_size=6, num_padding_seeds=1)
    unlabelled = np.array([False, False, False, False, True, False])
    batch = dataclasses.replace(batch, target_is_null=batch.target_is_null | unlabelled)
    outputs = outputs_for((6, 3))
    loss, parts = target_loss(ClassKeys, outputs, batch.device_fields(), ARRAYS, Objective())
    # Contexts 0 to 3 ask a number, a boolean, a class and a moment; 4 has no label, 5 is padding.
    vectors = ARRAYS.vocab_vectors[:3].astype(np.float32)
    logits = vectors @ np.asarray(outputs.query[2, 0])
    expected = [
        _huber(float(outputs.number[0, 0]) - batch.target_value[0]),
        np.logaddexp(0, outputs.truth[1, 0]) - batch.target_value[1] * outputs.truth[1, 0],
        np.log(np.exp(logits).sum()) - logits[batch.target_vocab[2]],
        _huber(float(outputs.moment[3, 0]) - batch.target_value[3]),
    ]
    np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-5)
    names = ("number", "truth", "word", "moment")
    np.testing.assert_allclose([parts[f"target_{name}_loss"] for name in names], expected, rtol=1e-5)
    assert int(parts["num_unknown_classes"]) == 0
    foreign = dataclasses.replace(batch, target_vocab=np.where(batch.target_vocab >= 0, 20, -1).astype(np.int32))
    loss, parts = target_loss(ClassKeys, outputs, foreign.device_fields(), ARRAYS, Objective())
    np.testing.assert_allclose(loss, np.mean(np.delete(expected, 2)), rtol=1e-5)
    assert int(parts["num_unknown_classes"]) == 1


def _huber(error, delta=0.1):
    return error**2 / (2 * delta) if abs(error) <= delta else abs(error) - delta / 2


def test_masked_loss_by_hand():
    batch = synthetic_batch(1, null_cells=True)
    cells = np.tile(np.arange(2, 30), (4, 1)).astype(np.int32)
    pick = lambda name: np.take_along_axis(getattr(batch, name), cells, axis=1)  # noqa: E731
    is_masked = ~pick("cell_is_padding") & (pick("cell_stype") != IDENTIFIER)
    outputs = outputs_for(cells.shape)
    loss, parts = masked_loss(
        ClassKeys, outputs, batch.device_fields(), ARRAYS, cells, is_masked, Objective(null_weight=0.5)
    )
    stype, value, vocab, column, is_null = (
        pick(name) for name in ("cell_stype", "cell_value", "cell_vocab", "cell_column", "cell_is_null")
    )
    words = {
        (column[i], vocab[i]) for i in np.ndindex(cells.shape) if is_masked[i] and vocab[i] >= 0 and not is_null[i]
    }
    typed, nulls = [], []
    for i in np.ndindex(cells.shape):
        if not is_masked[i]:
            continue
        nulls.append(np.logaddexp(0, outputs.null[i]) - is_null[i] * outputs.null[i])
        if is_null[i]:
            continue
        if stype[i] == NUMERICAL:
            typed.append(_huber(float(outputs.number[i]) - value[i]))
        elif stype[i] == TIMESTAMP:
            typed.append(_huber(float(outputs.moment[i]) - value[i]))
        elif stype[i] == BOOLEAN:
            typed.append(np.logaddexp(0, outputs.truth[i]) - value[i] * outputs.truth[i])
        else:
            assert stype[i] in (CATEGORICAL, TEXT)
            candidates = [word for of_column, word in sorted(words) if of_column == column[i]]
            logits = ARRAYS.vocab_vectors[candidates].astype(np.float32) @ np.asarray(outputs.query[i])
            typed.append(np.log(np.exp(logits).sum()) - logits[candidates.index(vocab[i])])
    np.testing.assert_allclose(parts["masked_null_loss"], np.mean(nulls), rtol=1e-5)
    np.testing.assert_allclose(loss, np.mean(typed) + 0.5 * np.mean(nulls), rtol=1e-4)


def test_masked_cells_are_predictable_ones_at_the_rate_and_follow_from_the_key():
    batch = synthetic_batch(2, batch_size=64, seq_len=40, num_padding_seeds=4)
    objective = Objective(mask_rate=0.3)
    cells, is_chosen = jax.device_get(choose_masked_cells(batch.device_fields(), jax.random.key(1), objective))
    assert cells.shape == (64, 12)
    again = jax.device_get(choose_masked_cells(batch.device_fields(), jax.random.key(1), objective))
    np.testing.assert_array_equal(cells, again[0])
    other = jax.device_get(choose_masked_cells(batch.device_fields(), jax.random.key(2), objective))
    assert (other[0] != cells).any()
    pick = lambda name: np.take_along_axis(getattr(batch, name), cells, axis=1)[is_chosen]  # noqa: E731
    assert not pick("cell_is_target").any()
    assert not pick("cell_is_padding").any()
    assert (pick("cell_stype") != IDENTIFIER).all()
    assert not is_chosen[batch.seed_is_padding].any()
    for b in range(64):
        assert len(set(cells[b][is_chosen[b]])) == is_chosen[b].sum()
    predictable = ~batch.cell_is_padding & ~batch.cell_is_target & (batch.cell_stype != IDENTIFIER)
    share = is_chosen.sum() / predictable[~batch.seed_is_padding].sum()
    assert 0.2 < share < 0.35


@pytest.mark.slow
def test_one_batch_is_learnt_by_heart():
    batch = synthetic_batch(3, batch_size=8).device_fields()
    model = RelationalTransformer(TINY, 16, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(model, nnx.Param)
    objective = Objective(mask_rate=0.0, huber_delta=0.5)

    def loss(params, batch, arrays, key):
        return objective_loss(nnx.merge(graphdef, params), batch, arrays, key, objective)

    optimizer = OptimizerSection(learning_rate=0.01, warmup_steps=5)
    state, step = init_state(nnx.to_pure_dict(state), optimizer), make_train_step(loss, optimizer, 0)
    curve = []
    for i in range(80):
        state, metrics = step(state, batch, ARRAYS, np.float32(i / 80))
        curve.append(float(metrics["loss"]))
    assert curve[0] > 0.3
    assert curve[-1] < 0.02


def test_learning_rate_curve():
    config = OptimizerSection(learning_rate=1.0, warmup_steps=4, final_fraction=0.1)
    assert float(learning_rate(config, 0.0, 0.0)) == 0.25
    assert float(learning_rate(config, 10.0, 0.0)) == 1.0
    np.testing.assert_allclose(learning_rate(config, 10.0, 0.5), 0.55, rtol=1e-6)
    np.testing.assert_allclose(learning_rate(config, 10.0, 1.0), 0.1, rtol=1e-6)


def test_muon_moves_only_the_matrices_of_blocks():
    params = {
        "blocks": {"q_kernel": jnp.ones((2, 4, 4)), "row_bias": jnp.ones((2, 4, 2))},
        "heads": {"scalar_kernel": jnp.ones((4, 4))},
    }
    gradients = jax.tree.map(lambda x: jnp.arange(x.size, dtype=x.dtype).reshape(x.shape) - 3.3, params)
    optimizer = make_optimizer(OptimizerSection(weight_decay=0.0, clip_norm=1e9))
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    # Adam's first step is the sign of the gradient; Muon's is orthogonal up to its scale, layer by layer.
    np.testing.assert_allclose(np.abs(updates["heads"]["scalar_kernel"]), 1.0, rtol=1e-3)
    np.testing.assert_allclose(np.abs(updates["blocks"]["row_bias"]), 1.0, rtol=1e-3)
    singular = np.linalg.svd(updates["blocks"]["q_kernel"], compute_uv=False)
    assert (singular[:, 0] < 1.3 * 0.2 * 2.0).all()
    assert float(optax.global_norm(updates)) > 0
