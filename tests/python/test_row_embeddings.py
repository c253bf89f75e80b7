"""Rows as vectors: the same row has the same vector however it is asked for, and sees nothing later than its time."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tributary.data import Sampler, sampler_options
from tributary.moments import moment_us
from tributary.prediction import parts
from tributary.prediction.predict import Run
from tributary.prediction.row_embeddings import _Job, embed_rows, write_row_embeddings
from untrained_run import NUM_CUSTOMERS, processed, untrained_run, write_shop


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on the shop."""
    folder = tmp_path_factory.mktemp("shop")
    return untrained_run(folder, processed(write_shop(folder / "raw"), folder / "db"), readout=False)


def vectors(table: object) -> np.ndarray:
    """float32 [N, D]."""
    return np.array(table["embedding"].to_pylist(), np.float32)


@pytest.mark.slow
def test_a_table_and_some_of_its_keys_have_the_same_vectors(run: Run) -> None:
    whole = run.embed_rows("orders")
    assert whole["key"].to_pylist() == list(range(200))
    assert whole["time"].to_numpy().tolist() == run.database.row_times("orders").astype("M8[us]").tolist()
    found = vectors(whole)
    assert found.shape == (200, 16)
    assert np.isfinite(found).all()
    assert np.unique(found.round(4), axis=0).shape[0] > 100
    some = run.embed_rows("orders", keys=[150, "3", 42])
    assert some["key"].to_pylist() == [150, 3, 42]
    np.testing.assert_allclose(vectors(some), found[[150, 3, 42]], rtol=1e-4, atol=1e-5)


def test_at_a_time_a_context_is_that_of_the_row_alone_and_nothing_later_is_seen(run: Run) -> None:
    """Questions bring rows at a time; without them, contexts are those of rows as seeds."""
    moment = moment_us("2024-01-20")
    job = _Job.plan(run, "customers", None, "2024-01-20", 8)
    options = sampler_options(run.config.data) | {"shuffle": False, "history": False, "batch_size": 8, "split": "all"}
    with (
        job._open_sampler() as asked,
        Sampler(run.database, tables=["customers"], database_cutoff=moment, **options) as alone,
    ):
        found, expected = next(job._batches(asked, 1)), alone.batch(1)
    for name in ("cell_column", "cell_value", "cell_vocab", "cell_is_padding", "seed_row", "target_cell"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    np.testing.assert_array_equal(found.seed_task, expected.seed_task)
    np.testing.assert_array_equal(np.maximum(found.cell_row - 1, -1), expected.cell_row)
    for name in ("row_hop", "row_table"):
        np.testing.assert_array_equal(getattr(found, name)[:, 1:], getattr(expected, name)[:, :-1], err_msg=name)
    np.testing.assert_array_equal(np.maximum(found.row_parents[:, 1:] - 1, -1), expected.row_parents[:, :-1])
    assert (found.row_has_time & (found.row_age > 0)).any(), "rows know how old they are then"
    assert not expected.row_has_time.any()

    early, late = (vectors(run.embed_rows("customers", keys=[7, 1], time=at)) for at in ("2024-01-02", "2024-02-12"))
    assert np.abs(early - late).max(axis=1).min() > 1e-3
    assert run.embed_rows("customers", time="2024-02-12").num_rows == NUM_CUSTOMERS


def test_what_cannot_be_seen_is_named(run: Run) -> None:
    with pytest.raises(ValueError, match="no table `order`; did you mean `orders`"):
        run.embed_rows("order")
    with pytest.raises(ValueError, match=r"no task of .* asks about its rows at a time.*leave the time out"):
        run.embed_rows("orders", keys=[1], time="2024-02-01")
    with pytest.raises(ValueError, match=r"1 rows cannot be seen at 2024-01-02: 150 .2024-02-07T12:00:00"):
        run.embed_rows("orders", keys=[1, 150], time="2024-01-02")
    with pytest.raises(ValueError, match="no row with 1 of 2 keys: 999"):
        run.embed_rows("customers", keys=[1, 999])


def test_an_interrupted_file_goes_on(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "ROWS_PER_PART", 16)
    options = {"time": "2024-02-12", "batch_size": 8}
    whole, cut = tmp_path / "whole.parquet", tmp_path / "cut.parquet"
    write_row_embeddings(run, "customers", whole, **options)

    def stop(done: int, total: int) -> None:
        if done == 24:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_row_embeddings(run, "customers", cut, progress=stop, **options)
    with pytest.raises(parts.PartsError, match="time: "):
        write_row_embeddings(run, "customers", cut, time="2024-02-13", batch_size=8)
    told: list[int] = []
    write_row_embeddings(run, "customers", cut, progress=lambda done, _: told.append(done), **options)
    assert told == [16, 24, 32, 40]
    assert cut.read_bytes() == whole.read_bytes()
    assert pq.read_table(whole).schema.field("embedding").type.list_size == 16


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["gnn", "tree-lstm", "rt-j"])
def test_every_kind_of_model_has_states_of_rows(run: Run, kind: str) -> None:
    folder = run.path.parent
    other = untrained_run(folder, Path(run.database.path), kind=kind)
    found = vectors(embed_rows(other, "customers", keys=[0, 1, 2, 3]))
    assert found.shape == (4, 16)
    assert np.ptp(found, axis=0).max() > 1e-3
    twice = vectors(embed_rows(dataclasses.replace(other), "customers", keys=[3, 0]))
    np.testing.assert_allclose(twice, found[[3, 0]], rtol=1e-4, atol=1e-5)


def test_the_front_door_keeps_its_names() -> None:
    """Importing a package of the name of a function leaves both usable."""
    import tributary.preprocess

    assert callable(tributary.preprocess)
    assert tributary.preprocess.preprocess.__name__ == "preprocess"
    with pytest.raises(FileNotFoundError):
        tributary.preprocess("nowhere", "elsewhere")
    assert tributary.load_run.__module__ == "tributary.prediction.predict"
