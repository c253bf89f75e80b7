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
from tributary.model import Outputs, RelationalTransformer, encoders
from tributary.model.encoders import NUMERICAL, TIMESTAMP
from tributary.model.forward import class_logits
from tributary.training.losses import (
    Objective,
    boolean_loss,
    calendar_loss,
    class_loss,
    huber_loss,
    link_loss,
    masked_cells,
    masked_loss,
    objective_loss,
    target_loss,
    weighted_mean,
)
from tributary.training.optim import init_state, learning_rate, make_optimizer, make_train_step

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
    calendar, query = (jnp.asarray(rng.normal(size=(*shape, size)), jnp.float32) for size in (14, dim))
    return Outputs(*scalars, calendar=calendar, query=query)


def naive_calendar(prediction, calendar):
    """Half the squared distance to the unit circle's point, per coordinate and linear beyond 1; mean of the cycles."""
    total = 0.0
    for cycle, (period, start) in enumerate(zip(encoders.CALENDAR_PERIODS, encoders.CALENDAR_STARTS, strict=True)):
        angle = 2 * math.pi * (int(calendar[cycle]) - start) / period
        for found, true in ((prediction[cycle], math.sin(angle)), (prediction[7 + cycle], math.cos(angle))):
            total += _huber(float(found) - true, delta=1.0)
    return total / 7


def naive_truth(log_odds, label, positive_weight=1.0, focal_gamma=0.0):
    probability = 1.0 / (1.0 + np.exp(-np.float64(log_odds)))
    of_label = probability if label else 1.0 - probability
    return -np.log(of_label) * (1.0 - of_label) ** focal_gamma * (positive_weight if label else 1.0)


def test_booleans_weigh_by_label_and_by_how_well_they_are_known():
    log_odds = np.linspace(-4, 4, 9).astype(np.float32)
    for label in (0.0, 1.0):
        for weight, gamma in ((1.0, 0.0), (3.0, 0.0), (0.5, 2.0), (1.0, 0.5)):
            found = boolean_loss(jnp.asarray(log_odds), jnp.full(9, label), weight, gamma)
            np.testing.assert_allclose(found, naive_truth(log_odds, bool(label), weight, gamma), rtol=1e-4)


def test_z_loss_is_the_squared_log_normaliser_of_the_candidates():
    logits, allowed = jnp.array([[1.0, 0.0, 9.0], [5.0, 5.0, 5.0]]), jnp.array([[True, True, False], [False] * 3])
    normaliser = math.log(math.e + 1.0)
    found = class_loss(logits, jnp.array([0, 0]), allowed, 0.1)
    np.testing.assert_allclose(found[0], normaliser - 1.0 + 0.1 * normaliser**2, rtol=1e-6)
    gradient = jax.grad(lambda x: class_loss(x, jnp.array([0, 0]), allowed, 0.1)[0])(logits)
    np.testing.assert_array_equal(gradient[1], 0.0)
    # The loss of a row without candidates is nobody's, and must not spoil the gradient of the others.
    spoilt = jax.grad(lambda x: jnp.sum(jnp.where(allowed[:, 0], class_loss(x, jnp.array([0, 0]), allowed, 0.1), 0.0)))
    np.testing.assert_allclose(spoilt(logits), gradient, rtol=1e-6)


def test_calendar_loss_by_hand():
    rng = np.random.default_rng(0)
    prediction = (2.0 * rng.normal(size=(5, 14))).astype(np.float32)
    calendar = rng.integers((0, 0, 0, 0, 1, 1, 1), (60, 60, 24, 7, 32, 13, 367), (5, 7)).astype(np.int16)
    expected = [naive_calendar(prediction[i], calendar[i]) for i in range(5)]
    np.testing.assert_allclose(calendar_loss(prediction, calendar), expected, rtol=1e-5)
    exact = encoders.calendar_features(calendar)
    np.testing.assert_allclose(calendar_loss(exact, calendar), 0.0, atol=1e-6)


def test_link_loss_by_hand():
    batch = synthetic_batch(4, batch_size=5, num_padding_seeds=1, num_links=6)
    log_odds = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    pairs = [pair for pair in np.ndindex(5, 6) if batch.link_child[pair] >= 0]
    expected = np.mean([naive_truth(log_odds[pair], batch.link_is_true[pair]) for pair in pairs])
    np.testing.assert_allclose(link_loss(log_odds, batch.device_fields()), expected, rtol=1e-5)
    without = synthetic_batch(4, num_links=3)
    none = dataclasses.replace(without, link_child=np.full_like(without.link_child, -1)).device_fields()
    assert float(link_loss(log_odds[:4, :3], none)) == 0.0


@pytest.mark.slow
def test_losses_and_gradients_are_finite_for_extreme_predictions():
    extremes = jnp.array([-1e30, -1e4, -100.0, 0.0, 100.0, 1e4, 1e30])
    calendar = jnp.ones((7, 7), jnp.int16)
    allowed = jnp.ones((7, 2), bool)
    functions = {
        "huber": lambda x: huber_loss(x, jnp.ones(7), 0.1),
        "calendar": lambda x: calendar_loss(jnp.tile(x[:, None], (1, 14)), calendar),
        "class": lambda x: class_loss(jnp.stack([x, -x], axis=-1), jnp.zeros(7, jnp.int32), allowed),
    }
    for label in (0.0, 1.0):
        for gamma in (0.0, 0.5, 2.0):
            functions[f"boolean {label} {gamma}"] = lambda x, label=label, gamma=gamma: boolean_loss(
                x, jnp.full(7, label), 2.0, gamma
            )
    for name, function in functions.items():
        values, gradients = function(extremes), jax.grad(lambda x, f=function: jnp.sum(f(x)))(extremes)
        assert values.dtype == gradients.dtype == np.float32, name
        assert np.isfinite(values).all(), name
        assert np.isfinite(gradients).all(), name
    # A squared logarithm outgrows float32 beyond 1e19: no logit of a model is near.
    wide = lambda x: class_loss(jnp.stack([x, -x], axis=-1), jnp.zeros(7, jnp.int32), allowed, 1e-3)  # noqa: E731
    assert np.isfinite(jax.grad(lambda x: jnp.sum(wide(x)))(jnp.clip(extremes, -1e4, 1e4))).all()


def test_a_class_never_seen_can_be_answered():
    batch = synthetic_batch(6).device_fields()
    outputs = outputs_for((4, 1))
    classes = np.full((4, 4), -1, np.int32)
    classes[2, :3] = (0, 1, 2)
    before = class_logits(ClassKeys, outputs.query[:, 0], batch, dataclasses.replace(ARRAYS, task_classes=classes))
    classes[2, 3] = 17  # a value of the vocabulary that was no class in training
    after = class_logits(ClassKeys, outputs.query[:, 0], batch, dataclasses.replace(ARRAYS, task_classes=classes))
    np.testing.assert_array_equal(after[2, :3], before[2, :3])
    assert float(before[2, 3]) < -1e29
    own = np.asarray(outputs.query[2, 0]) @ ARRAYS.vocab_vectors[17].astype(np.float32)
    np.testing.assert_allclose(after[2, 3], own, rtol=1e-5)


def test_links_are_part_of_the_objective():
    batch = synthetic_batch(7, num_links=4).device_fields()
    outputs = dataclasses.replace(outputs_for((4, 1)), link=jnp.linspace(-1.0, 1.0, 16).reshape(4, 4))

    class Stub(ClassKeys):
        def __call__(self, *_):
            return outputs

    objective = Objective(mask_rate=0.0, link_weight=0.7)
    total, metrics = objective_loss(Stub(), batch, ARRAYS, objective)
    np.testing.assert_allclose(metrics["link_loss"], link_loss(outputs.link, batch))
    np.testing.assert_allclose(total, metrics["target_loss"] + 0.7 * metrics["link_loss"], rtol=1e-6)
    total, metrics = objective_loss(Stub(), batch, ARRAYS, dataclasses.replace(objective, link_weight=0.0))
    assert "link_loss" not in metrics
    np.testing.assert_allclose(total, metrics["target_loss"])


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


@pytest.mark.parametrize(
    "objective",
    [
        Objective(null_weight=0.5),
        Objective(calendar_weight=2.0, positive_weight=3.0, focal_gamma=2.0, z_loss=0.1, huber_delta=0.5),
    ],
)
def test_masked_loss_by_hand(objective):
    batch = synthetic_batch(1, null_cells=True)
    cells = np.tile(np.arange(2, 30), (4, 1)).astype(np.int32)
    pick = lambda name: np.take_along_axis(getattr(batch, name), cells, axis=1)  # noqa: E731
    is_masked = ~pick("cell_is_padding") & (pick("cell_stype") != IDENTIFIER)
    outputs = outputs_for(cells.shape)
    loss, parts = masked_loss(ClassKeys, outputs, batch.device_fields(), ARRAYS, cells, is_masked, objective)
    calendar = np.take_along_axis(batch.cell_calendar, cells[:, :, None], axis=1)
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
            typed.append(_huber(float(outputs.number[i]) - value[i], objective.huber_delta))
        elif stype[i] == TIMESTAMP:
            cycles = naive_calendar(outputs.calendar[i], calendar[i])
            moment = _huber(float(outputs.moment[i]) - value[i], objective.huber_delta)
            typed.append(moment + objective.calendar_weight * cycles)
        elif stype[i] == BOOLEAN:
            typed.append(naive_truth(outputs.truth[i], value[i], objective.positive_weight, objective.focal_gamma))
        else:
            assert stype[i] in (CATEGORICAL, TEXT)
            candidates = [word for of_column, word in sorted(words) if of_column == column[i]]
            logits = ARRAYS.vocab_vectors[candidates].astype(np.float32) @ np.asarray(outputs.query[i])
            normaliser = np.log(np.exp(logits).sum())
            typed.append(normaliser - logits[candidates.index(vocab[i])] + objective.z_loss * normaliser**2)
    np.testing.assert_allclose(parts["masked_null_loss"], np.mean(nulls), rtol=1e-5)
    np.testing.assert_allclose(loss, np.mean(typed) + objective.null_weight * np.mean(nulls), rtol=1e-4)


def test_masked_cells_are_those_of_the_sampler_up_to_a_number():
    batch = synthetic_batch(2, batch_size=64, seq_len=40, num_padding_seeds=4, mask_rate=0.3)
    cells, is_chosen = jax.device_get(masked_cells(batch.device_fields(), Objective(mask_rate=0.2)))
    assert cells.shape == (64, 8)
    numbers = batch.cell_is_masked.sum(axis=1)
    assert (numbers > 8).any()
    assert (numbers < 8).any()
    for b in range(64):
        expected = np.flatnonzero(batch.cell_is_masked[b])[:8]
        np.testing.assert_array_equal(cells[b][is_chosen[b]], expected)
    assert Objective(mask_rate={"text": 0.5, "numerical": 0.1}, mask_columns=0.2).num_masked(40) == 24
    assert Objective(mask_rate={}).num_masked(40) == 0


@pytest.mark.slow
def test_one_batch_is_learnt_by_heart():
    batch = synthetic_batch(3, batch_size=8).device_fields()
    model = RelationalTransformer(TINY, 16, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(model, nnx.Param)
    objective = Objective(mask_rate=0.0, huber_delta=0.5)

    def loss(params, batch, arrays):
        return objective_loss(nnx.merge(graphdef, params), batch, arrays, objective)

    optimizer = OptimizerSection(learning_rate=0.01, warmup_steps=5)
    state, step = init_state(nnx.to_pure_dict(state), optimizer), make_train_step(loss, optimizer)
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
