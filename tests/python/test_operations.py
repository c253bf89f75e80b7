"""Operations of a step are those of its matrix products, through loops, branches and nested programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tributary.training.operations import StepOperations, count_operations, peak_operations

A, B = jnp.ones((3, 5)), jnp.ones((5, 7))
PRODUCT = 2 * 3 * 5 * 7


def test_counts_products_two_operations_per_multiplication():
    assert count_operations(lambda a, b: jnp.sin(a @ b), A, B) == PRODUCT
    assert count_operations(jax.jit(lambda a, b: a @ b), A, B) == PRODUCT
    assert count_operations(lambda x: jnp.einsum("bij,bjk->bik", x, x), jnp.ones((4, 6, 6))) == 4 * 2 * 6**3


def test_counts_what_loops_branches_and_backward_passes_do():
    def looped(a, b):
        return jax.lax.scan(lambda total, _: (total + (a @ b).sum(), None), 0.0, None, length=9)[0]

    assert count_operations(looped, A, B) == 9 * PRODUCT
    branches = lambda a, b: jax.lax.cond(a[0, 0] > 0, lambda: a @ b, lambda: jnp.zeros((3, 7)))  # noqa: E731
    assert count_operations(branches, A, B) == PRODUCT
    gradient = jax.grad(lambda a, b: (a @ b).sum(), argnums=(0, 1))
    assert count_operations(gradient, A, B) in (2 * PRODUCT, 3 * PRODUCT)  # the forward product may be left out


def test_a_step_is_traced_once_for_every_shape():
    traced = []

    def step(state, batch, arrays, progress):
        traced.append(batch.shape)
        return state @ batch

    operations = StepOperations(step, jnp.ones((3, 5)), None)
    assert operations(B) == operations(B) == PRODUCT
    assert operations(jnp.ones((5, 2))) == 2 * 3 * 5 * 2
    assert traced == [(5, 7), (5, 2)]


def test_counting_shares_the_trace_of_the_step_that_runs():
    traced = []

    @jax.jit
    def step(state, batch, arrays, progress):
        traced.append(batch.shape)
        return state @ batch * progress

    place = jax.sharding.NamedSharding(jax.make_mesh((1,), ("data",)), jax.sharding.PartitionSpec())
    state, batch = jax.device_put((A, B), place)
    step(state, batch, None, np.float32(0.5))
    assert StepOperations(step, state, None)(batch) == PRODUCT
    assert len(traced) == 1


def test_what_a_processor_could_do_is_measured_once():
    peak, how = peak_operations("float32", 1)
    assert how == "measured"
    assert 1e8 < peak < 1e15
    assert peak_operations("float32", 1) == (peak, how)


ACCELERATORS = [("NVIDIA H100 80GB HBM3", 989.0), ("NVIDIA A10G", 70.0), ("TPU v5 lite", 197.0)]


@pytest.mark.parametrize(("kind", "tera"), ACCELERATORS)
def test_what_an_accelerator_could_do_stands_in_a_table(monkeypatch, kind, tera):
    class Device:
        device_kind, platform = kind, "gpu"

    peak_operations.cache_clear()
    monkeypatch.setattr(jax, "devices", lambda: [Device()])
    assert peak_operations("bfloat16", 2) == (2 * tera * 1e12, "data sheet")
    peak_operations.cache_clear()
