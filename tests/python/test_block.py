"""Layers of a block, selection of variables and link head against their equations in documentation/model.md."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from random_relations import naive_link_logits, naive_masks, random_batch
from synthetic_batch import database_arrays, synthetic_batch
from tributary.model.attention import Relations, attention_function
from tributary.model.block import BlockSizes, GatedMLP, RelationalAttention, Surroundings
from tributary.model.encoders import VariableSelection
from tributary.model.heads import LinkHead

DTYPES = {"dtype": jnp.dtype("float32"), "param_dtype": jnp.dtype("float32")}
B, S, D, H, K, G, E, F = 2, 24, 6, 2, 3, 4, 5, 5
SIZES = {
    "d_model": D,
    "num_heads": H,
    "d_ff": 7,
    "embedding_dim": E,
    "num_row_features": G,
    "age_feature": 0,
    "output_scale": 0.5,
}


def move(module, rng):
    """Every parameter gets a random part, so that none is zero or one; the parameters by name."""
    state = nnx.state(module)
    moved = jax.tree.map(lambda leaf: leaf + jnp.asarray(rng.normal(scale=0.4, size=leaf.shape), leaf.dtype), state)
    nnx.update(module, moved)
    return {
        ".".join(str(key) for key in path if key != "value"): np.asarray(leaf, np.float64)
        for path, leaf in nnx.to_flat_state(nnx.state(module, nnx.Param))
    }


def rms(x, scale):
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * scale


@pytest.mark.parametrize(
    ("kind", "has_options"), [("neighbor", True), ("feature", True), ("full", True), ("full", False)]
)
def test_attention_equals_its_equation(kind, has_options):
    rng = np.random.default_rng(0)
    batch = random_batch(3, batch_size=B, seq_len=S)
    sizes = BlockSizes(**SIZES, qk_norm=has_options, output_gates=has_options, link_bias=has_options)
    layer = RelationalAttention(sizes, kind=kind, attend=attention_function("dense"), **DTYPES, rngs=nnx.Rngs(0))
    p = move(layer, rng)
    x, features = rng.normal(size=(B, S, D)), rng.normal(size=(B, S, G))
    keys, cell_bias = rng.normal(size=(F, E)), rng.normal(size=(B, S))
    surroundings = Surroundings(
        relations=Relations.from_batch(batch.device_fields()),
        row_features=features.astype(np.float32),
        foreign_key_vectors=keys.astype(np.float16),
        cell_bias=cell_bias.astype(np.float32) if has_options else None,
    )
    found = np.asarray(layer(x.astype(np.float32), surroundings))
    normed = rms(x, p["norm.scale"])
    q, k, v = ((normed @ p[f"{name}_kernel"]).reshape(B, S, H, K) for name in "qkv")
    assert ("q_norm.scale" in p) == has_options
    if has_options:
        q, k = rms(q, p["q_norm.scale"]), rms(k, p["k_norm.scale"])
    for b in range(B):
        mask = naive_masks(batch, b)[kind]
        mixed = np.zeros((S, H, K))
        for h in range(H):
            logits = q[b, :, h] @ k[b, :, h].T / np.sqrt(K) + features[b] @ p["row_bias"][:, h]
            if has_options:
                logits += cell_bias[b]
            if has_options and kind != "full":
                logits += naive_link_logits(kind, batch, b, keys.astype(np.float16) @ p["link_bias"])[h]
            weight = np.where(mask, np.exp(logits), 0.0)
            mixed[:, h] = weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-20) @ v[b, :, h]
            if has_options:
                mixed[:, h] *= 2.0 / (1.0 + np.exp(-normed[b] @ p["output_gate"][:, h : h + 1]))
        expected = mixed.reshape(S, D) @ p["out_kernel"]
        np.testing.assert_allclose(found[b], expected, rtol=2e-3, atol=2e-4)


def test_mlp_equals_its_equation():
    rng = np.random.default_rng(1)
    mlp = GatedMLP(BlockSizes(**SIZES), **DTYPES, rngs=nnx.Rngs(0))
    p = move(mlp, rng)
    x = rng.normal(size=(B, 3, D))
    normed = rms(x, p["norm.scale"])
    gate = normed @ p["gate_kernel"]
    expected = (gate / (1.0 + np.exp(-gate)) * (normed @ p["up_kernel"])) @ p["down_kernel"]
    np.testing.assert_allclose(mlp(x.astype(np.float32)), expected, rtol=1e-4, atol=1e-5)


def test_variable_selection_equals_its_equation():
    rng = np.random.default_rng(2)
    batch, arrays = synthetic_batch(0, num_padding_seeds=1), database_arrays(16)
    selection = VariableSelection(16, D, **DTYPES, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(selection(batch.device_fields(), arrays), 0.0, atol=1e-6)  # every weight starts at 1
    p = move(selection, rng)
    found = np.exp(np.asarray(selection(batch.device_fields(), arrays)))
    vectors = arrays.column_vectors.astype(np.float64)
    for b, s in np.ndindex(batch.cell_row.shape):
        if batch.cell_is_padding[b, s]:
            assert found[b, s] == 1.0
            continue
        own, asked = vectors[batch.cell_column[b, s]], vectors[batch.cell_column[b, batch.target_cell[b]]]
        score = (own @ p["column_kernel"]) @ (asked @ p["question_kernel"]) / np.sqrt(D) + own @ p["column_bias"][:, 0]
        np.testing.assert_allclose(found[b, s], 2.0 / (1.0 + np.exp(-score)), rtol=1e-4)
    assert 0.0 < found.min() < found.max() < 2.0


def test_link_head_equals_its_equation_and_starts_undecided():
    rng = np.random.default_rng(3)
    batch, arrays = synthetic_batch(1, num_links=5), database_arrays(16)
    head = LinkHead(16, D, **DTYPES, rngs=nnx.Rngs(0))
    rows = rng.normal(size=(4, 12, D))
    judge = lambda: head(rows.astype(np.float32), batch.device_fields(), arrays.foreign_key_vectors)  # noqa: E731
    np.testing.assert_array_equal(judge(), 0.0)
    p = move(head, rng)
    found = np.asarray(judge())
    normed = rms(rows, p["norm.scale"])
    for b, pair in zip(*np.nonzero(batch.link_child >= 0), strict=True):
        key = arrays.foreign_key_vectors[batch.link_key[b, pair]].astype(np.float64)
        child, parent = normed[b, batch.link_child[b, pair]], normed[b, batch.link_parent[b, pair]]
        diagonal = 1.0 + key @ p["key_kernel"]
        score = ((child @ p["child_kernel"]) * diagonal * (parent @ p["parent_kernel"])).sum() / np.sqrt(D)
        np.testing.assert_allclose(found[b, pair], score + (key @ p["key_bias"])[0], rtol=1e-3, atol=1e-4)
