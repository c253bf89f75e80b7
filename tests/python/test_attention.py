import jax
import jax.numpy as jnp
import numpy as np
import pytest

from random_relations import naive_link_logits, naive_masks, random_batch
from synthetic_batch import synthetic_batch
from tributary.model.attention import (
    KINDS,
    Relations,
    attention_function,
    blocked,
    chunked,
    dispatch,
    lists,
    permitted,
    structured,
)

NUM_KEYS = 5


@pytest.mark.parametrize("lookback_days", [np.inf, 2.5])
@pytest.mark.parametrize("rng_seed", [0, 1, None])
def test_masks_equal_their_definitions(rng_seed, lookback_days):
    batch = random_batch(rng_seed) if rng_seed is not None else synthetic_batch(3, num_padding_seeds=1)
    relations = Relations.from_batch(batch.device_fields(), lookback_days=lookback_days)
    for kind in KINDS:
        mask = np.asarray(permitted(kind, relations, relations))
        assert mask.any()
        for b in range(batch.batch_size):
            expected = naive_masks(batch, b, lookback_days)[kind]
            np.testing.assert_array_equal(mask[b], expected, err_msg=f"{kind}, context {b}")


def test_an_unknown_kind_is_refused():
    relations = Relations.from_batch(random_batch().device_fields())
    with pytest.raises(ValueError, match="attention `sideways`: expected one of column, feature"):
        permitted("sideways", relations, relations)


def everyday(kinds, *names):
    """All kinds, those not named marked slow: each compiles two programs."""
    return [kind if kind in names else pytest.param(kind, marks=pytest.mark.slow) for kind in kinds]


def attention_inputs(batch, rng_seed=0, H=2, K=4, queries=None):
    """q, k, v, key_bias, link_bias, large enough that weights differ much."""
    rng = np.random.default_rng(rng_seed)
    B, S = batch.cell_row.shape
    Q = S if queries is None else queries.shape[1]
    shapes = ((B, Q, H, K), (B, S, H, K), (B, S, H, K), (B, S, H), (NUM_KEYS, H))
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


@pytest.mark.parametrize("kind", KINDS)
def test_dense_attention_equals_a_loop_and_is_zero_without_keys(kind):
    batch = random_batch(2, batch_size=2)
    q, k, v, key_bias, link_bias = attention_inputs(batch)
    relations = Relations.from_batch(batch.device_fields(), lookback_days=2.5)
    out = np.asarray(attention_function("dense")(kind, q, k, v, relations, key_bias, link_bias))
    for b in range(batch.batch_size):
        mask, links = naive_masks(batch, b, 2.5)[kind], naive_link_logits(kind, batch, b, link_bias)
        links *= kind in ("feature", "neighbor")
        for i, h in np.ndindex(batch.seq_len, 2):
            keys = np.flatnonzero(mask[i])
            if len(keys) == 0:
                np.testing.assert_array_equal(out[b, i, h], 0.0)
                continue
            weight = np.exp(k[b, keys, h] @ q[b, i, h] / 2.0 + key_bias[b, keys, h] + links[h, i, keys])
            np.testing.assert_allclose(out[b, i, h], weight / weight.sum() @ v[b, keys, h], rtol=1e-5, atol=1e-5)


def agree(name, kind, batch, *, queries=None, with_links=True, rng_seed=0, **sizes):
    """Values and gradients of an implementation are those of dense."""
    inputs = attention_inputs(batch, rng_seed, queries=queries, **sizes)
    relations = Relations.from_batch(batch.device_fields(), lookback_days=2.5)

    def outputs(implementation):
        attend = attention_function(implementation)

        def total(q, k, v, key_bias, link_bias):
            out = attend(kind, q, k, v, relations, key_bias, link_bias if with_links else None, queries)
            return jnp.sum(jnp.sin(out)), out

        (_, out), gradients = jax.jit(jax.value_and_grad(total, argnums=range(5), has_aux=True))(*inputs)
        return out, *gradients

    names = ("output", "q", "k", "v", "key_bias", "link_bias")
    for what, expected, found in zip(names, outputs("dense"), outputs(name), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-6, err_msg=f"{name} {kind}: {what}")


@pytest.mark.parametrize("tile_logits", [2 * 40 * 40 * 2, 2 * 40 * 18], ids=["two contexts", "tiles of queries"])
@pytest.mark.parametrize("kind", everyday(KINDS, "neighbor"))
def test_chunked_agrees_with_dense_in_values_and_gradients(kind, tile_logits, monkeypatch):
    monkeypatch.setattr(chunked, "TILE_LOGITS", tile_logits)
    agree("chunked", kind, random_batch(4, batch_size=4))


@pytest.mark.parametrize("kind", everyday(lists.LISTED_KINDS, "feature"))
def test_structured_agrees_with_dense_in_values_and_gradients(kind, monkeypatch):
    monkeypatch.setattr(lists, "TILE", 8)
    monkeypatch.setattr(lists, "CHUNK", 16)
    monkeypatch.setattr(structured, "CHUNK", 16)
    agree("structured", kind, random_batch(4, seq_len=45))


@pytest.mark.parametrize("with_links", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_native_agrees_with_dense_in_values_and_gradients(kind, with_links):
    agree("native", kind, random_batch(4, seq_len=45), with_links=with_links)


@pytest.mark.parametrize("kind", KINDS)
def test_native_agrees_for_some_queries_and_any_width_of_head(kind):
    batch = random_batch(6, batch_size=3, seq_len=70)
    queries = np.random.default_rng(1).integers(0, batch.seq_len, (batch.batch_size, 21)).astype(np.int32)
    agree("native", kind, batch, queries=queries, H=3, K=20)


@pytest.mark.parametrize(
    ("backend", "num_devices", "num_cells", "num_logits", "expected"),
    [
        ("cpu", 1, 64, 100, "native"),
        ("cpu", 1, 1024, 2**24, "native"),
        ("cpu", 2, 64, 100, "dense"),
        ("cpu", 2, 256, 2**24, "chunked"),
        ("cpu", 2, 1024, 2**24, "structured"),
        ("gpu", 1, 1024, 2**24, "dense"),
    ],
)
def test_auto_takes_the_core_where_a_processor_is_the_only_device(
    backend, num_devices, num_cells, num_logits, expected, monkeypatch
):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "device_count", lambda: num_devices)
    assert dispatch.chosen(num_cells, num_logits) == expected


@pytest.mark.parametrize("kind", everyday(KINDS, "neighbor"))
def test_pallas_agrees_with_dense_in_values_and_gradients(kind, monkeypatch):
    monkeypatch.setattr(blocked, "target_of_backend", lambda: blocked.Target("interpret", 16))
    agree("pallas", kind, random_batch(4, seq_len=45))


@pytest.mark.parametrize("target", [blocked.Target("gpu", 64), blocked.Target("tpu", 128)], ids=["gpu", "tpu"])
@pytest.mark.parametrize("kind", ["feature", "neighbor", "temporal"])
@pytest.mark.slow
def test_pallas_lowers(kind, target):
    batch = random_batch(4, seq_len=130)
    inputs = attention_inputs(batch, K=32)
    relations = Relations.from_batch(batch.device_fields(), lookback_days=2.5)

    def total(q, k, v, key_bias, link_bias):
        out = blocked.pallas_attention(kind, q, k, v, relations, key_bias, link_bias, target=target)
        return jnp.sum(out)

    platform = {"gpu": "cuda", "tpu": "tpu"}[target.platform]
    kernels = {"gpu": "__gpu$xla.gpu.triton", "tpu": "tpu_custom_call"}[target.platform]
    allowed = [jax.export.DisabledSafetyCheck.custom_call(kernels)]
    gradient = jax.jit(jax.grad(total, argnums=range(5)))
    exported = jax.export.export(gradient, platforms=[platform], disabled_checks=allowed)(*inputs)
    assert exported.mlir_module().count(kernels) >= 3  # forward, queries, keys


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dense", "chunked", "structured", "native"])
def test_some_queries_get_what_all_get(name):
    batch = random_batch(5)
    q, k, v, key_bias, link_bias = attention_inputs(batch)
    relations = Relations.from_batch(batch.device_fields())
    attend = attention_function(name)
    queries = np.random.default_rng(0).integers(0, batch.seq_len, (batch.batch_size, 7)).astype(np.int32)
    for kind in KINDS:
        whole = attend(kind, q, k, v, relations, key_bias, link_bias)
        some = attend(
            kind,
            np.take_along_axis(q, queries[:, :, None, None], axis=1),
            k,
            v,
            relations,
            key_bias,
            link_bias,
            queries,
        )
        expected = np.take_along_axis(np.asarray(whole), queries[:, :, None, None], axis=1)
        np.testing.assert_allclose(some, expected, rtol=1e-5, atol=1e-6, err_msg=kind)
