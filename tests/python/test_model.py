import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from synthetic_batch import database_arrays, synthetic_batch
from tributary.config import ModelConfig
from tributary.losses import Objective, objective_loss
from tributary.model import RelationalTransformer, encoders
from tributary.model.attention import Relations, permitted

TINY = ModelConfig(d_model=16, num_layers=2, num_heads=2, d_ff=16, attention="dense")
ARRAYS = database_arrays(16)


@pytest.fixture(scope="module")
def model():
    """A model whose zero-started heads were moved, so that every input reaches the output."""
    model = RelationalTransformer(TINY, 16, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(model)
    leaves, treedef = jax.tree.flatten(state)
    rng = np.random.default_rng(0)
    moved = [leaf + jnp.asarray(rng.normal(scale=0.2, size=leaf.shape), leaf.dtype) for leaf in leaves]
    return nnx.merge(graphdef, jax.tree.unflatten(treedef, moved))


@pytest.fixture(scope="module")
def predict(model):
    """(batch, cells) -> number, truth and query of the cells, compiled once per shape."""
    graphdef, state = nnx.split(model)

    @jax.jit
    def run(state, batch, cells, is_masked):
        out = nnx.merge(graphdef, state)(batch, ARRAYS, cells, is_masked)
        return jnp.concatenate([jnp.stack([out.number, out.moment, out.truth, out.null], axis=-1), out.query], axis=-1)

    def call(batch, cells=None, is_masked=None):
        cells = batch.target_cell[:, None] if cells is None else cells
        is_masked = np.zeros_like(batch.cell_is_target) if is_masked is None else is_masked
        return np.asarray(run(state, batch.device_fields(), np.maximum(cells, 0).astype(np.int32), is_masked))

    return call


def permute_rows(batch, rng):
    """The same contexts with rows renumbered, cells shuffled and padding in between."""
    fields = {f.name: getattr(batch, f.name).copy() for f in dataclasses.fields(batch)}
    for b in range(batch.batch_size):
        order = rng.permutation(batch.row_table.shape[1])  # new position -> old row
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        for name in ("row_table", "row_hop", "row_age", "row_has_time", "row_parents", "row_parent_keys"):
            fields[name][b] = fields[name][b][order]
        parents = fields["row_parents"][b]
        fields["row_parents"][b] = np.where(parents >= 0, place[np.maximum(parents, 0)], -1)
        cells = rng.permutation(batch.seq_len)
        for name in [name for name in fields if name.startswith("cell_")]:
            fields[name][b] = fields[name][b][cells]
        rows = fields["cell_row"][b]
        fields["cell_row"][b] = np.where(rows >= 0, place[np.maximum(rows, 0)], -1)
        if batch.target_cell[b] >= 0:
            fields["target_cell"][b] = np.flatnonzero(cells == batch.target_cell[b])[0]
    return dataclasses.replace(batch, **fields)


def test_order_of_rows_and_cells_and_padding_change_nothing(predict):
    batch = synthetic_batch(1)
    expected = predict(batch)
    np.testing.assert_allclose(predict(permute_rows(batch, np.random.default_rng(0))), expected, rtol=1e-4, atol=1e-5)
    padded = {}
    for name, (dtype, axes) in batch.spec().items():
        widths = [(0, {"S": 7, "R": 3, "P": 1}.get(axis, 0)) for axis in axes]
        empty = True if name == "cell_is_padding" else 0 if dtype in ("bool", "float32") else -1
        padded[name] = np.pad(getattr(batch, name), widths, constant_values=empty)
    np.testing.assert_allclose(predict(dataclasses.replace(batch, **padded)), expected, rtol=1e-4, atol=1e-5)


def test_what_hidden_cells_say_never_reaches_the_output(predict):
    batch = synthetic_batch(2)
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
    np.testing.assert_array_equal(predict(told, cells, is_masked), predict(batch, cells, is_masked))
    # ... and a cell that is not hidden does.
    shown = dataclasses.replace(batch, cell_value=batch.cell_value + (batch.cell_stype == encoders.NUMERICAL))
    assert np.abs(predict(shown) - predict(batch)).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["column", "feature", "neighbor", "temporal"])
def test_a_forbidden_cell_has_exactly_zero_gradient(kind):
    batch = synthetic_batch(4).device_fields()
    config = ModelConfig(
        d_model=16, num_layers=1, num_heads=2, d_ff=16, attentions=(kind,), readout=False, attention="dense"
    )
    model = RelationalTransformer(config, 16, rngs=nnx.Rngs(1))
    query = 3 if kind == "neighbor" else int(batch.target_cell[0])
    cells = np.full((batch.batch_size, 1), query, np.int32)

    def output(value):
        changed = dataclasses.replace(batch, cell_value=value)
        return jnp.sum(model_hidden(model, changed, cells)[0])

    gradient = np.asarray(jax.grad(output)(batch.cell_value))
    relations = Relations.from_batch(batch)
    mask = np.asarray(permitted(kind, relations, relations))[0, query]
    reads_value = np.isin(batch.cell_stype[0], (encoders.NUMERICAL, encoders.TIMESTAMP, encoders.BOOLEAN))
    reads_value &= ~batch.cell_is_target[0]
    allowed = mask | (np.arange(batch.seq_len) == query)
    np.testing.assert_array_equal(gradient[0][~allowed], 0.0)
    assert np.abs(gradient[0][mask & reads_value]).min() > 0 if (mask & reads_value).any() else True
    np.testing.assert_array_equal(gradient[1:], 0.0)


def model_hidden(model, batch, cells):
    """Tokens before the heads, read through heads that pass them on."""
    captured = {}

    def keep(x, *_):
        captured["x"] = x
        raise _CapturedError

    original = type(model.heads).__call__
    type(model.heads).__call__ = lambda self, x, *rest: keep(x, *rest)
    try:
        model(batch, ARRAYS, cells)
    except _CapturedError:
        return captured["x"]
    finally:
        type(model.heads).__call__ = original
    raise AssertionError("the heads were not called")


class _CapturedError(Exception):
    pass


@pytest.mark.slow
def test_every_parameter_gets_gradient(model):
    batch = synthetic_batch(5, batch_size=8, null_cells=True).device_fields()
    graphdef, state = nnx.split(model)

    def loss(state):
        return objective_loss(nnx.merge(graphdef, state), batch, ARRAYS, jax.random.key(0), Objective(mask_rate=0.5))[0]

    gradients = jax.jit(jax.grad(loss))(state)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        # A layer of the stack counts on its own.
        parts = gradient if "blocks" in str(path[0]) else [gradient]
        for part in parts:
            assert np.abs(part).max() > 0, jax.tree_util.keystr(path)


def test_a_readout_block_reads_what_a_whole_block_reads():
    # With one attention and one block, keys are the block's input either way.
    batch = synthetic_batch(6).device_fields()
    sizes = {"d_model": 16, "num_layers": 1, "num_heads": 2, "d_ff": 16, "attentions": ("full",), "attention": "dense"}
    cells = np.tile(np.arange(4, dtype=np.int32), (batch.batch_size, 1))
    outputs = [
        model_hidden(RelationalTransformer(ModelConfig(readout=readout, **sizes), 16, rngs=nnx.Rngs(0)), batch, cells)
        for readout in (True, False)
    ]
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
