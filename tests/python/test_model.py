import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from renumbered import pad, permute_rows
from synthetic_batch import database_arrays, synthetic_batch
from tributary.config import ModelConfig
from tributary.model import RelationalTransformer, encoders
from tributary.model.attention import Relations, permitted
from tributary.training.losses import Objective, objective_loss

SIZES = {"d_model": 16, "num_layers": 2, "num_heads": 2, "d_ff": 16, "attention": "dense"}
TINY = ModelConfig(**SIZES)
ALL_OPTIONS = {
    "attentions": ("column", "feature", "neighbor", "temporal", "full"),
    "lookback_days": 30.0,
    "age_cycles": ("hour", "day", "week", "year"),
    "variable_selection": True,
    "positional": "pearl-basis",
    "positional_layers": 2,
    "positional_width": 4,
    "output_gates": True,
    "link_bias": True,
    "link_head": True,
}
ARRAYS = database_arrays(16)


def moved_model(**options):
    """A model whose zero-started parameters were moved, so that every input reaches the output."""
    model = RelationalTransformer(ModelConfig(**{**SIZES, **options}), 16, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(model)
    leaves, treedef = jax.tree.flatten(state)
    rng = np.random.default_rng(0)
    moved = [leaf + jnp.asarray(rng.normal(scale=0.2, size=leaf.shape), leaf.dtype) for leaf in leaves]
    return nnx.merge(graphdef, jax.tree.unflatten(treedef, moved))


@pytest.fixture(scope="module")
def model():
    """A model with every option on."""
    return moved_model(**ALL_OPTIONS)


@pytest.fixture(scope="module")
def predict(model):
    """(batch, cells) -> all answers for the cells, and those for links, compiled once per shape."""
    graphdef, state = nnx.split(model)

    @jax.jit
    def run(state, batch, cells, is_masked):
        out = nnx.merge(graphdef, state)(batch, ARRAYS, cells, is_masked)
        scalars = jnp.stack([out.number, out.moment, out.truth, out.null], axis=-1)
        return jnp.concatenate([scalars, out.calendar, out.query], axis=-1), out.link

    def call(batch, cells=None, is_masked=None):
        cells = batch.target_cell[:, None] if cells is None else cells
        is_masked = np.zeros_like(batch.cell_is_target) if is_masked is None else is_masked
        answers, links = run(state, batch.device_fields(), np.maximum(cells, 0).astype(np.int32), is_masked)
        return np.concatenate([answers.reshape(batch.batch_size, -1), links], axis=1)

    return call


def test_order_of_rows_and_cells_and_padding_change_nothing(predict):
    batch = synthetic_batch(1, num_links=4)
    expected = predict(batch)
    np.testing.assert_allclose(predict(permute_rows(batch, np.random.default_rng(0))), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(predict(pad(batch, S=7, R=3, P=1)), expected, rtol=1e-4, atol=1e-5)


def test_what_hidden_cells_say_never_reaches_the_output(predict):
    batch = synthetic_batch(2, num_links=4)
    is_masked = np.zeros_like(batch.cell_is_target)
    is_masked[:, 5:8] = ~batch.cell_is_padding[:, 5:8]
    hidden = is_masked | batch.cell_is_target | batch.cell_is_padding
    told = dataclasses.replace(
        batch,
        cell_value=np.where(hidden, 3.3, batch.cell_value).astype(np.float32),
        cell_vocab=np.where(hidden, 5, batch.cell_vocab).astype(np.int32),
        cell_calendar=np.where(hidden[..., None], 2, batch.cell_calendar).astype(np.int16),
        cell_is_null=hidden | batch.cell_is_null,
        target_value=batch.target_value + 1.0,
    )
    cells = np.tile(np.arange(8), (batch.batch_size, 1))
    expected = predict(batch, cells, is_masked)
    np.testing.assert_array_equal(predict(told, cells, is_masked), expected)
    # Cells that the sampler masked are hidden alike.
    np.testing.assert_array_equal(predict(dataclasses.replace(told, cell_is_masked=is_masked), cells), expected)
    # ... and a cell that is not hidden does.
    shown = dataclasses.replace(batch, cell_value=batch.cell_value + (batch.cell_stype == encoders.NUMERICAL))
    assert np.abs(predict(shown) - predict(batch)).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["column", "feature", "neighbor", "temporal", "full"])
def test_a_forbidden_cell_has_exactly_zero_gradient(kind):
    batch = synthetic_batch(4, batch_size=2).device_fields()
    model = moved_model(**{**ALL_OPTIONS, "attentions": (kind,), "readout": False, "num_layers": 1})
    cells = np.tile(np.arange(batch.seq_len, dtype=np.int32), (2, 1))

    @jax.jit
    def gradients(value):
        """[S, B, S]: of every cell's state in context 0 by every cell's value."""
        of = lambda value: model.states(dataclasses.replace(batch, cell_value=value), ARRAYS, cells)  # noqa: E731
        return jax.jacrev(lambda value: jnp.sum(of(value)[1][0], axis=-1))(value)

    found = np.asarray(gradients(batch.cell_value))
    relations = Relations.from_batch(batch, lookback_days=30.0)
    allowed = np.asarray(permitted(kind, relations, relations))[0] | np.eye(batch.seq_len, dtype=bool)
    np.testing.assert_array_equal(found[:, 0][~allowed], 0.0)
    np.testing.assert_array_equal(found[:, 1], 0.0)
    reads_value = np.isin(batch.cell_stype[0], (encoders.NUMERICAL, encoders.TIMESTAMP, encoders.BOOLEAN))
    read = allowed & (reads_value & ~batch.cell_is_target[0]) & ~batch.cell_is_padding[0, :, None]
    assert read.sum() > reads_value.sum()
    assert (np.abs(found[:, 0][read]) > 0).mean() > 0.99


@pytest.mark.slow
def test_every_parameter_gets_gradient():
    batch = synthetic_batch(5, batch_size=8, null_cells=True, num_links=6, mask_rate=0.5).device_fields()
    graphdef, state = nnx.split(moved_model(**{**ALL_OPTIONS, "positional": "pearl-random"}))
    objective = Objective(mask_rate=0.5, positive_weight=2.0, focal_gamma=1.5, z_loss=1e-3)

    def loss(state):
        return objective_loss(nnx.merge(graphdef, state), batch, ARRAYS, objective)[0]

    gradients = jax.jit(jax.grad(loss))(state)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        # A layer of the stack counts on its own.
        parts = gradient if "blocks" in str(path[0]) else [gradient]
        for part in parts:
            assert np.isfinite(part).all()
            assert np.abs(part).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.slow
def test_options_that_start_at_zero_leave_an_untrained_model_as_it_is():
    batch = synthetic_batch(8, batch_size=2, walk_features=3).device_fields()
    sizes = {**SIZES, "num_layers": 1, "attentions": ("feature", "neighbor")}

    def states(**options):
        model = RelationalTransformer(ModelConfig(**sizes, **options), 16, rngs=nnx.Rngs(0))
        return model.states(batch, ARRAYS, batch.target_cell[:, None])[1]

    expected = states()
    walk = {"positional": "walk", "positional_steps": 3}
    for options in (walk, {"output_gates": True, "link_bias": True, "variable_selection": True}):
        np.testing.assert_array_equal(states(**options), expected, err_msg=str(options))


@pytest.mark.slow
def test_loops_and_recomputation_change_no_result():
    batch = synthetic_batch(9, batch_size=2).device_fields()
    results = []
    for options in ({"readout": False}, {"readout": False, "scan": False, "remat": True}):
        graphdef, state = nnx.split(moved_model(**options))

        def loss(state, graphdef=graphdef):
            outputs = nnx.merge(graphdef, state)(batch, ARRAYS, batch.target_cell[:, None])
            return jnp.sum(jnp.sin(outputs.query)) + jnp.sum(outputs.number)

        results.append(jax.tree.leaves(jax.jit(jax.value_and_grad(loss))(state)))
    for scanned, written_out in zip(*results, strict=True):
        np.testing.assert_allclose(written_out, scanned, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_bfloat16_agrees_with_float32():
    batch = synthetic_batch(10, batch_size=16, num_links=4).device_fields()
    answers = []
    for dtype in ("float32", "bfloat16"):
        graphdef, state = nnx.split(moved_model(**ALL_OPTIONS, dtype=dtype))
        outputs = jax.jit(lambda s, g=graphdef: nnx.merge(g, s)(batch, ARRAYS, batch.target_cell[:, None]))(state)
        assert {leaf.dtype for leaf in jax.tree.leaves(outputs)} == {np.dtype("float32")}
        answers.append(np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(outputs)]))
    # bfloat16 has 8 bits: 0.4 % per rounding, tens of them on the way.
    error, size = answers[1] - answers[0], np.std(answers[0])
    assert np.sqrt(np.mean(error**2)) < 0.03 * size
    assert np.abs(error).max() < 0.2 * size


@pytest.mark.slow
def test_a_readout_block_reads_what_a_whole_block_reads():
    # With one attention and one block, keys are the block's input either way.
    batch = synthetic_batch(6).device_fields()
    sizes = {"d_model": 16, "num_layers": 1, "num_heads": 2, "d_ff": 16, "attentions": ("full",), "attention": "dense"}
    cells = np.tile(np.arange(4, dtype=np.int32), (batch.batch_size, 1))
    outputs = []
    for readout in (True, False):
        model = RelationalTransformer(ModelConfig(readout=readout, **sizes), 16, rngs=nnx.Rngs(0))
        outputs.append(model.states(batch, ARRAYS, cells)[1])
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-6)


def test_an_untrained_model_predicts_the_start_of_each_column():
    batch = synthetic_batch(7).device_fields()
    outputs = RelationalTransformer(TINY, 16, rngs=nnx.Rngs(0))(batch, ARRAYS, batch.target_cell[:, None])
    np.testing.assert_array_equal(outputs.truth[:, 0], [0.0, -1.0, 0.0, 0.0])  # the second asks the boolean task
    np.testing.assert_array_equal(outputs.null, 0.0)


def test_stype_codes_are_the_native_ones():
    headwater = pytest.importorskip("tributary._headwater")
    names = ("identifier", "numerical", "timestamp", "boolean", "categorical", "text")
    assert tuple(headwater.STYPES) == names
    codes = [getattr(encoders, name.upper()) for name in names]
    assert codes == list(range(6))
