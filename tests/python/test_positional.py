import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from synthetic_batch import synthetic_batch
from tributary.model import positional
from tributary.model.positional import PearlPositions, WalkPositions, random_features, row_positions
from tributary.model.rows import cells_of_rows, rows_of_cells

DTYPES = {"dtype": jnp.dtype("float32"), "param_dtype": jnp.dtype("float32")}


def pearl(basis, num_samples=5):
    """A graph network of two layers whose projection is not zero."""
    layer = PearlPositions(6, basis=basis, num_layers=2, num_samples=num_samples, width=4, **DTYPES, rngs=nnx.Rngs(0))
    layer.out_kernel[...] = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32)
    return layer


def naive_pearl(layer, batch, b, start):
    """Row by row and sample by sample: [R, 4] before norm and projection."""
    num_rows = batch.row_table.shape[1]
    parents = [[p for p in batch.row_parents[b, r] if p >= 0] for r in range(num_rows)]
    children = [[c for c in range(num_rows) for p in parents[c] if p == r] for r in range(num_rows)]
    total = np.zeros((num_rows, 4))
    for sample in start.T:
        x = np.where(batch.row_table[b] >= 0, sample, 0.0)[:, None]
        for kernel in (layer.layer_0_kernel, layer.layer_1_kernel):
            mean = lambda rows, x=x: x[rows].mean(axis=0) if rows else np.zeros(x.shape[1])  # noqa: E731
            mixed = [np.concatenate([x[r], mean(parents[r]), mean(children[r])]) for r in range(num_rows)]
            z = np.array(mixed) @ np.asarray(kernel[...], np.float64)
            x = z / (1.0 + np.exp(-z))
        total += x
    return total


@pytest.mark.parametrize("basis", [True, False])
def test_pearl_equals_its_definition(basis, monkeypatch):
    monkeypatch.setattr(positional, "SAMPLES_AT_A_TIME", 4)  # several parts, the last one filled up
    batch, layer = synthetic_batch(0, batch_size=2), pearl(basis)
    found = np.asarray(layer(batch.device_fields()))
    start = np.eye(12) if basis else np.asarray(random_features(12, 5))
    for b in range(2):
        pooled = naive_pearl(layer, batch, b, start) / (1 if basis else 5)
        normed = pooled / np.sqrt((pooled**2).mean(axis=1, keepdims=True) + 1e-6)
        real = batch.row_table[b] >= 0
        np.testing.assert_allclose(found[b, real], (normed @ layer.out_kernel[...])[real], rtol=1e-3, atol=1e-4)


def renumbered(batch, order):
    """The batch with its rows in another order: row `order[i]` becomes row i."""
    place = np.argsort(order)
    per_row = [name for name, (_, axes) in batch.spec().items() if axes[1:2] == ("R",)]
    fields = {name: getattr(batch, name)[:, order] for name in per_row}
    parents = fields["row_parents"]
    fields["row_parents"] = np.where(parents >= 0, place[np.maximum(parents, 0)], -1).astype(np.int16)
    return dataclasses.replace(batch, **fields).device_fields()


@pytest.mark.parametrize("basis", [True, False])
def test_renumbering_rows_renumbers_encodings(basis, monkeypatch):
    batch, layer = synthetic_batch(1, batch_size=2), pearl(basis)
    order = np.random.default_rng(0).permutation(12)
    expected = np.asarray(layer(batch.device_fields()))[:, order]
    if not basis:
        # Random features are the numbers of the rows': where they go along, so do the encodings.
        features = random_features(12, 5)[order]
        monkeypatch.setattr(positional, "random_features", lambda *_: features)
    np.testing.assert_allclose(layer(renumbered(batch, order)), expected, rtol=1e-4, atol=1e-5)


def test_random_features_are_always_the_same_whatever_the_padding():
    few, many = np.asarray(random_features(4, 3)), np.asarray(random_features(9, 3))
    np.testing.assert_array_equal(many[:4], few)
    assert len(np.unique(many)) == 27
    assert abs(float(np.std(random_features(200, 16))) - 1.0) < 0.05


def test_pearl_tells_rows_apart_by_their_place_alone():
    batch = synthetic_batch(2, batch_size=1)
    found = np.asarray(pearl(basis=True)(batch.device_fields()))[0]
    orders = np.flatnonzero(batch.row_table[0] == 1)
    assert len(orders) > 1
    np.testing.assert_allclose(found[orders[0]], found[orders[1]], atol=1e-5)  # alike in the graph
    assert np.abs(found[0] - found[1]).max() > 0.1  # task row, customer
    assert np.abs(found[1] - found[orders[0]]).max() > 0.1


def test_walk_positions_project_probabilities_and_their_roots():
    batch = synthetic_batch(3, walk_features=4)
    layer = WalkPositions(3, 6, **DTYPES, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(layer(batch.device_fields()), 0.0)
    kernel = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32)
    layer.out_kernel[...] = jnp.asarray(kernel)
    walk = batch.row_walk[:, :, :3]
    expected = walk @ kernel[:3] + np.sqrt(walk) @ kernel[3:]
    np.testing.assert_allclose(layer(batch.device_fields()), expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"reads 5 steps .*positional_steps.*, found 4 .* walk_features"):
        WalkPositions(5, 6, **DTYPES, rngs=nnx.Rngs(0))(batch.device_fields())


def test_positions_by_name():
    sizes = {"num_steps": 2, "num_layers": 2, "num_samples": 3, "width": 4}
    kinds = {
        kind: row_positions(kind, 6, **sizes, **DTYPES, rngs=nnx.Rngs(0))
        for kind in ("none", "walk", "pearl-random", "pearl-basis")
    }
    assert kinds["none"] is None
    assert isinstance(kinds["walk"], WalkPositions)
    assert (kinds["pearl-random"].basis, kinds["pearl-basis"].basis) == (False, True)


def test_rows_and_their_cells():
    batch = synthetic_batch(4, batch_size=2)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, 12, 3)).astype(np.float32)
    cells = rng.normal(size=(2, batch.seq_len, 3)).astype(np.float32)
    spread = np.asarray(cells_of_rows(rows, batch.device_fields()))
    mean = np.asarray(rows_of_cells(cells, batch.device_fields()))
    for b in range(2):
        for s in range(batch.seq_len):
            expected = 0.0 if batch.cell_is_padding[b, s] else rows[b, batch.cell_row[b, s]]
            np.testing.assert_allclose(spread[b, s], expected, rtol=1e-6)
        for r in range(12):
            own = (batch.cell_row[b] == r) & ~batch.cell_is_padding[b]
            expected = cells[b, own].mean(axis=0) if own.any() else np.zeros(3)
            np.testing.assert_allclose(mean[b, r], expected, rtol=1e-5, atol=1e-6)
