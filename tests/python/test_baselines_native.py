"""The baselines on a processed database: the native `Database` gives what the obvious stand-in gives."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import tributary
from parquet_database import ParquetDatabase
from test_baselines import shop_metadata, write_shops
from tributary.embed import make_embedder
from tributary.evaluation import baselines
from tributary.evaluation.features import FeatureBuilder, Task
from tributary.preprocess import PreprocessOptions, preprocess


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> tuple[ParquetDatabase, tributary.Database]:
    folder = tmp_path_factory.mktemp("native")
    metadata = shop_metadata(remove=[["sales", "secret"]])
    write_shops(folder / "raw")
    (folder / "raw" / "metadata.json").write_text(json.dumps(metadata))
    preprocess(folder / "raw", folder / "processed", embedder=make_embedder("hash"), options=PreprocessOptions())
    return ParquetDatabase(folder / "raw", metadata), tributary.Database(str(folder / "processed"))


def in_order(task: Task) -> np.ndarray:
    """Seeds sorted by (time, row), whatever order a database keeps them in."""
    return np.lexsort((task.row, task.time))


@pytest.mark.parametrize("name", ["amount", "big", "class"])
def test_seeds_and_labels_are_the_same(databases, name):
    plain, native = (Task.load(database, name) for database in databases)
    ours, theirs = in_order(native), in_order(plain)
    for field in ("row", "time", "split"):
        np.testing.assert_array_equal(getattr(native, field)[ours], getattr(plain, field)[theirs])
    if name != "class":
        np.testing.assert_allclose(native.label[ours], plain.label[theirs], rtol=1e-5)
    assert native.horizon_us == plain.horizon_us
    assert native.hidden == plain.hidden == {("sales", "secret")}


@pytest.mark.parametrize("cutoff", [None, 1_588_291_200_000_000])
def test_features_are_the_same(databases, cutoff):
    features = []
    for database in databases:
        task = Task.load(database, "amount")
        features.append(FeatureBuilder(database, task).build(in_order(task), database_cutoff=cutoff))
    plain, native = features
    assert [n for n in native.names if "share of" not in n] == [n for n in plain.names if "share of" not in n]
    np.testing.assert_allclose(native.array(), plain.array(), rtol=2e-3, atol=2e-3)


def test_lightgbm_predicts_a_processed_database(databases):
    _, native = databases
    task = Task.load(native, "amount")
    rows = np.flatnonzero(task.split == baselines.TEST)
    error = {}
    for fit in (baselines.constant, baselines.lightgbm):
        fitted = fit(native, "amount")
        error[fitted.name] = np.abs(fitted.predict(rows).prediction - task.label[rows]).mean()
    assert error["lightgbm"] < 0.5 * error["constant"]


def test_unknown_database_is_a_missing_file(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        tributary.Database(str(tmp_path / "nowhere"))
