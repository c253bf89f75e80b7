import dataclasses

import jax
import numpy as np
import pytest

from fake_database import FakeDatabase, FakeSampler
from synthetic_batch import synthetic_batch
from tributary.batch import HOST_FIELDS, Batch
from tributary.data import BATCH_FIELDS, Loader, database_arrays, trim
from tributary.training.devices import Devices
from tributary.training.mixture import Mixture


def arrays():
    batch = synthetic_batch(0)
    return {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}


def test_batch_has_exactly_the_native_fields():
    assert [(name, dtype, tuple(axes)) for name, dtype, axes in BATCH_FIELDS] == [
        (name, dtype, axes) for name, (dtype, axes) in Batch.spec().items()
    ]


def test_from_arrays_names_every_mistake():
    wrong = arrays()
    del wrong["row_age"]
    wrong["cell_age"] = wrong["cell_row"]
    wrong["cell_value"] = wrong["cell_value"].astype(np.float64)
    wrong["cell_vocab"] = wrong["cell_vocab"][:, :-1]
    wrong["seed_task"] = wrong["seed_task"][:, None]
    with pytest.raises(ValueError, match="not a batch") as caught:
        Batch.from_arrays(wrong)
    for part in (
        "field `row_age` is missing",
        "field `cell_age` is unknown",
        "field `cell_value`: expected dtype float32, found float64",
        "field `cell_vocab`: expected S = 32, found shape (4, 31)",
        "field `seed_task`: expected axes (B), found shape (4, 1)",
    ):
        assert part in str(caught.value)


def test_device_fields_leave_64_bit_fields_on_the_host():
    batch = synthetic_batch(0)
    fields = batch.device_fields()
    assert all(getattr(fields, name) is None for name in HOST_FIELDS)
    assert len(jax.tree.leaves(fields)) == len(Batch.spec()) - len(HOST_FIELDS)
    assert all(leaf.dtype.itemsize <= 4 for leaf in jax.tree.leaves(jax.device_put(fields)))


def test_loader_hands_out_every_batch_with_the_state_to_get_it_again():
    options = {"batch_size": 4, "shuffle": False}

    def source():
        return Mixture({"numerical": FakeSampler(None, ["numerical"], split="val", **options)}, {"numerical": 1.0})

    loader = Loader(source(), Devices())
    loaded = list(loader)
    assert len(loaded) == 6
    assert np.array_equal(loaded[2].device.cell_value, loaded[2].host[0].cell_value)

    again = Loader(source(), Devices())
    again.set_state(loaded[3].state)
    np.testing.assert_array_equal(next(again).host[0].cell_value, loaded[3].host[0].cell_value)
    # One batch is already ahead, yet the state names the one not handed out.
    third = Loader(source(), Devices())
    third.set_state(again.get_state())
    np.testing.assert_array_equal(next(third).host[0].cell_value, loaded[4].host[0].cell_value)


def test_database_arrays_follow_the_manifest():
    found = database_arrays(FakeDatabase("fake"))
    np.testing.assert_array_equal(found.task_classes[2], [0, 1, 2])
    assert (found.task_classes[[0, 1, 3]] == -1).all()
    # Column 5 is a boolean with 3 true cells of 10; the label column 12 follows its training labels.
    np.testing.assert_allclose(found.column_offset[5], np.log(3.5 / 7.5), rtol=1e-6)
    true_share = FakeDatabase("fake").task_seeds("boolean")["value"][:64].sum()
    np.testing.assert_allclose(found.column_offset[12], np.log((true_share + 0.5) / (64.5 - true_share)), rtol=1e-6)
    np.testing.assert_array_equal(found.foreign_key_vectors[0], found.column_vectors[3])
    np.testing.assert_array_equal(found.foreign_key_vectors[3], found.column_vectors[12])


def test_a_trimmed_batch_loses_nothing_but_padding():
    batch = synthetic_batch(0, seq_len=64, max_rows=12)
    cut = trim(batch, (48, 12))
    assert cut.cell_value.shape == (4, 48)
    assert cut.cell_calendar.shape == (4, 48, 7)
    assert cut.row_parents.shape == (4, 12, 2)
    assert batch.cell_is_padding[:, 48:].all()
    Batch.from_arrays({field.name: getattr(cut, field.name) for field in dataclasses.fields(cut)})
    assert trim(batch, (16, 12)) is batch


def test_a_mixture_keeps_its_shares_and_continues_from_its_state():
    def mixture():
        samplers = {name: FakeSampler(None, [name], batch_size=4) for name in ("numerical", "boolean")}
        return Mixture(samplers, {"numerical": 3.0, "boolean": 1.0})

    first = mixture()
    tasks = [next(first).seed_task[0] for _ in range(8)]
    assert tasks.count(0) == 6
    state = first.get_state()
    again = mixture()
    again.set_state(state)
    for _ in range(3):
        np.testing.assert_array_equal(next(first).cell_value, next(again).cell_value)
    other = Mixture({"numerical": FakeSampler(None, ["numerical"])}, {"numerical": 1.0})
    with pytest.raises(ValueError, match="state of shares"):
        other.set_state(state)
