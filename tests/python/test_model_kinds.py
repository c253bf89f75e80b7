"""What every kind of model keeps, whatever it computes: `gnn` and `tree-lstm`; the transformer's own: `test_model`."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fake_database import install
from renumbered import pad, permute_rows
from synthetic_batch import database_arrays, synthetic_batch
from tributary.config import ConfigError, ModelConfig, OptimizerSection, RunConfig
from tributary.model import MODEL_KINDS, build_model, encoders, row_states
from tributary.prediction.predict import load_run, predict_split
from tributary.training.losses import Objective, objective_loss
from tributary.training.optim import init_state, make_train_step
from tributary.training.train import train

KINDS = ("gnn", "tree-lstm")
SIZES = {"d_model": 16, "num_layers": 2, "num_heads": 2, "d_ff": 16}
ARRAYS = database_arrays(16)


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    """(graphdef, parameters), every parameter moved so that nothing starts at zero."""
    graphdef, state = nnx.split(build_model(ModelConfig(kind=kind, link_head=True, **SIZES), 16, rngs=nnx.Rngs(0)))
    rng = np.random.default_rng(0)
    return graphdef, jax.tree.map(lambda x: x + jnp.asarray(rng.normal(scale=0.2, size=x.shape), x.dtype), state)


@pytest.fixture(scope="module")
def predict(model):
    """(batch, cells) -> [B, Q, 4 + D]: all answers for the cells, compiled once per shape."""
    graphdef, state = model

    @jax.jit
    def run(state, batch, cells, is_masked):
        out = nnx.merge(graphdef, state)(batch, ARRAYS, cells, is_masked)
        return jnp.concatenate([jnp.stack([out.number, out.moment, out.truth, out.null], axis=-1), out.query], axis=-1)

    def call(batch, cells=None, is_masked=None):
        cells = np.tile(np.arange(8), (batch.batch_size, 1)) if cells is None else cells
        is_masked = np.zeros_like(batch.cell_is_target) if is_masked is None else is_masked
        return np.asarray(run(state, batch.device_fields(), np.maximum(cells, 0).astype(np.int32), is_masked))

    return call


def test_order_of_rows_and_cells_and_padding_change_nothing(predict):
    batch = synthetic_batch(1, num_padding_seeds=1)
    at = np.tile(batch.target_cell[:, None], (1, 8))
    expected = predict(batch, at)
    moved = permute_rows(batch, np.random.default_rng(0))
    found = predict(pad(moved, S=7, R=3, P=1), np.tile(moved.target_cell[:, None], (1, 8)))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.isfinite(expected).all()


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
    np.testing.assert_array_equal(predict(told, is_masked=is_masked), predict(batch, is_masked=is_masked))
    # ... and a cell that is not hidden does.
    shown = dataclasses.replace(batch, cell_value=batch.cell_value + (batch.cell_stype == encoders.NUMERICAL))
    assert np.abs(predict(shown)[:, 1] - predict(batch)[:, 1]).max() > 1e-3


def distances(batch, b):
    """Links between every two rows of a context; large where there is no way."""
    num_rows = batch.row_table.shape[1]
    far = np.full((num_rows, num_rows), 99)
    np.fill_diagonal(far, 0)
    for child, parents in enumerate(batch.row_parents[b]):
        for parent in parents[parents >= 0]:
            far[child, parent] = far[parent, child] = 1
    for middle in range(num_rows):
        far = np.minimum(far, far[:, middle, None] + far[middle])
    return far


def test_a_row_is_read_within_its_reach_and_not_beyond(kind, predict):
    # Two layers of the gnn see two links; the tree is read to its leaves, but only away from the seed.
    batch = synthetic_batch(3)
    where = {"target": 1, "customer": 3, "order": int(np.flatnonzero(batch.cell_column[0] == 3)[0])}
    cells = np.tile(list(where.values()) + [0] * 5, (batch.batch_size, 1))
    row_of = batch.cell_row[0]
    before = predict(batch, cells)[0]
    for row in range(2, int(row_of.max()) + 1):
        changed = dataclasses.replace(batch, cell_value=batch.cell_value.copy(), cell_vocab=batch.cell_vocab.copy())
        changed.cell_value[0, row_of == row] += 7.0
        words = changed.cell_vocab[0, row_of == row]
        changed.cell_vocab[0, row_of == row] = np.where(words >= 0, 23 - words, -1)
        after = predict(changed, cells)[0]
        for place, cell in enumerate(where.values()):
            own = row_of[cell]
            if kind == "gnn":
                is_read = distances(batch, 0)[own, row] <= 2
            else:
                is_read = distances(batch, 0)[own, row] == batch.row_hop[0, row] - batch.row_hop[0, own]
            differs = np.abs(after[place] - before[place]).max()
            assert (differs > 1e-6) if is_read else (differs == 0.0), (row, cell)


@pytest.mark.slow
def test_every_parameter_gets_gradient(model):
    batch = synthetic_batch(5, batch_size=8, null_cells=True, num_links=4, mask_rate=0.5).device_fields()
    graphdef, state = model

    def loss(state):
        return objective_loss(nnx.merge(graphdef, state), batch, ARRAYS, Objective(mask_rate=0.5))[0]

    gradients = jax.jit(jax.grad(loss))(state)
    for path, gradient in jax.tree_util.tree_leaves_with_path(gradients):
        # A layer of the stack counts on its own.
        parts = gradient if "blocks" in str(path[0]) else [gradient]
        for part in parts:
            assert np.isfinite(part).all(), jax.tree_util.keystr(path)
            assert np.abs(part).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.slow
def test_one_batch_overfits(kind):
    optimizer = OptimizerSection(name="adamw", learning_rate=0.01, ema_decay=None)
    graphdef, state = nnx.split(build_model(ModelConfig(kind=kind, **SIZES), 16, rngs=nnx.Rngs(0)), nnx.Param)

    def loss(params, batch, arrays):
        return objective_loss(nnx.merge(graphdef, params), batch, arrays, Objective(mask_rate=0.0))

    batch, losses = synthetic_batch(6, batch_size=8).device_fields(), []
    step, state = make_train_step(loss, optimizer), init_state(nnx.to_pure_dict(state), optimizer)
    for _ in range(150):
        state, metrics = step(state, batch, ARRAYS, np.float32(0.0))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.02 * losses[0], losses[::10]


@pytest.mark.slow
def test_bfloat16_agrees_with_float32(kind, model):
    batch, cells = synthetic_batch(7).device_fields(), np.tile(np.arange(8, dtype=np.int32), (4, 1))
    halved = build_model(ModelConfig(kind=kind, dtype="bfloat16", link_head=True, **SIZES), 16, rngs=nnx.Rngs(0))
    run = jax.jit(lambda graphdef, state: nnx.merge(graphdef, state)(batch, ARRAYS, cells), static_argnums=0)
    exact, rounded = (run(graphdef, model[1]) for graphdef in (model[0], nnx.split(halved, nnx.Param)[0]))
    for name in ("number", "truth", "query"):
        assert getattr(rounded, name).dtype == jnp.float32
        error = np.abs(getattr(exact, name) - getattr(rounded, name)).max()
        assert 0.0 < error < 0.05 * np.abs(getattr(exact, name)).max(), name


@pytest.mark.slow
def test_the_ordinary_road_trains_saves_restores_and_predicts(kind, tmp_path, monkeypatch):
    install(monkeypatch)
    values = {
        "run": {"dir": str(tmp_path), "name": "run"},
        "data": {"database": "fake", "seq_len": 24, "tasks": ["boolean"]},
        "model": {"kind": kind, **SIZES},
        "objective": {"mask_rate": 0.0},
        "optimizer": {"name": "adamw"},
        "train": {"steps": 2, "batch_size": 4, "eval_every": 2, "eval_batch_size": 4, "eval_seeds": 4},
    }
    run_dir = train(RunConfig.from_mapping(values))
    run = load_run(run_dir)
    assert run.config.model.kind == kind
    truths = predict_split(run, "boolean", "test").to_pydict()
    assert truths["seed_index"] == list(range(20))
    assert all(0.0 < probability < 1.0 for probability in truths["probability"])


def test_links_are_listed_in_both_directions_and_groups_are_of_target_and_relation():
    batch = synthetic_batch(4, batch_size=2)
    links = jax.device_get(row_states.links_of(batch, 6))
    num_rows = batch.row_table.shape[1]
    for b in range(2):
        expected = []
        for child, (parents, keys) in enumerate(zip(batch.row_parents[b], batch.row_parent_keys[b], strict=True)):
            for parent, key in zip(parents[parents >= 0], keys[parents >= 0], strict=True):
                expected += [(parent, child, key), (child, parent, 6 + key)]
        listed = links.target[b] < num_rows
        found = zip(links.source[b][listed], links.target[b][listed], links.relation[b][listed], strict=True)
        assert sorted(expected) == sorted(found)
    group = np.asarray(row_states.number_groups(links, num_rows, 12))
    for b in range(2):
        listed = links.target[b] < num_rows
        names = dict.fromkeys(zip(links.target[b][listed], links.relation[b][listed], strict=True))
        assert len(set(group[b][listed])) == len(names)
        pairs = set(zip(links.target[b][listed], links.relation[b][listed], group[b][listed], strict=True))
        assert len(pairs) == len(names)
        assert set(group[b][listed]) == set(range(len(names)))
        assert (group[b][~listed] == group.shape[1]).all()


def test_softmax_by_index_equals_a_loop():
    rng = np.random.default_rng(0)
    logits, index = rng.normal(scale=30.0, size=(2, 9, 3)).astype(np.float32), rng.integers(0, 5, (2, 9))
    found = np.asarray(row_states.softmax_by(jnp.asarray(logits), jnp.asarray(index, jnp.int32), 4))
    for b in range(2):
        for n in range(5):
            own = np.exp(logits[b, index[b] == n].astype(np.float64))
            expected = own / own.sum(axis=0) if n < 4 else np.zeros_like(own)
            np.testing.assert_allclose(found[b, index[b] == n], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"kind": "tree_lstm"}, "did you mean `tree-lstm`"),
        ({"kind": "gnn", "attentions": ["full"]}, "kind gnn does not read attentions: .*it reads .*num_bases"),
        ({"kind": "tree-lstm", "num_bases": 3}, "kind tree-lstm does not read num_bases: .*it reads .*levels"),
        ({"levels": 3}, "kind transformer does not read levels"),
    ],
)
def test_keys_of_another_kind_are_refused(model, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig.from_mapping({"data": {"database": "none"}, "model": model})


def test_every_kind_of_the_configuration_has_a_model(tmp_path):
    names = ModelConfig.model_fields["kind"].annotation.__args__
    assert set(MODEL_KINDS) == set(names)
    # The sizes of a preset that a kind does not read are left out, and what is written out is read back.
    for name in names:
        config = RunConfig.from_mapping({"data": {"database": "none"}, "model": {"kind": name, "preset": "rt-22m"}})
        (tmp_path / "config.yaml").write_text(config.to_yaml())
        assert RunConfig.load(tmp_path / "config.yaml") == config
