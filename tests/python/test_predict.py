"""Predictions: units that travel with the run, quantiles, classes, parts that are gone on with, long files of seeds."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tributary.prediction import parts
from tributary.prediction.calibration import make_calibration
from tributary.prediction.parts import Parts, PartsError
from tributary.prediction.predict import Run, predict_split, write_predictions
from tributary.runs.checkpoint import CheckpointError
from tributary.runs.learned import FILE, find_learned, read_learned, write_learned
from tributary.seeds import seeds_from_keys, seeds_from_table
from untrained_run import NUM_CUSTOMERS, learned_of, processed, untrained_run, write_shop

ASKED = {"keys": list(range(12)), "time": "2024-02-12"}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A processed shop."""
    folder = tmp_path_factory.mktemp("shop")
    return processed(write_shop(folder / "raw"), folder / "db")


@pytest.fixture(scope="module")
def run(database: Path) -> Run:
    """A run on it."""
    return untrained_run(database.parent, database)


# --- Units ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_another_build_is_read_on_the_scale_that_was_learned(run: Run, database: Path, tmp_path: Path) -> None:
    write_learned(tmp_path, [learned_of(database)])
    (learned,) = read_learned(tmp_path)
    later = processed(write_shop(tmp_path / "raw", with_later=True), tmp_path / "db")
    moved, lost = untrained_run(tmp_path, later, learned), untrained_run(tmp_path, later)
    before = run.predict("spend", **ASKED)["prediction"].to_numpy()
    after, wrong = (each.predict("spend", **ASKED)["prediction"].to_numpy() for each in (moved, lost))
    np.testing.assert_allclose(after, before, rtol=2e-4)
    assert np.abs(wrong - before).min() > before.std(), "without what the run remembers the answers are others"
    assert np.ptp(before) > 0.1 * run.targets["spend"].std, "the answers differ from each other"
    labels = predict_split(moved, "spend", "test")["label"].to_numpy()
    assert labels.max() > 9e3, "labels are in the unit of the new build"

    whens = [each.predict("when", keys=[5, 6, 150], time=None)["prediction"] for each in (run, moved)]
    seconds = [when.cast(pa.int64()).to_numpy() / 1e6 for when in whens]
    np.testing.assert_allclose(seconds[1], seconds[0], atol=3600 * 24)
    classes = [each.predict("country", keys=[0, 1, 2], time=ASKED["time"], top=9).to_pydict() for each in (run, moved)]
    assert sorted(classes[0]["top_classes"][0]) == ["DE", "FR", "IT"]
    assert classes[1]["top_classes"] == classes[0]["top_classes"], "the new country is none the model chooses from"
    np.testing.assert_allclose(classes[1]["top_probabilities"], classes[0]["top_probabilities"], atol=1e-3)


def test_a_build_that_cannot_be_read_is_refused(database: Path, tmp_path: Path) -> None:
    learned = learned_of(database)
    age = dataclasses.replace(learned.columns["customers.age"], stype="categorical")
    changed = dataclasses.replace(learned, build_id="other", columns={**learned.columns, "customers.age": age})
    with pytest.raises(CheckpointError, match=r"`customers.age` is numerical, the model was trained on it as categori"):
        untrained_run(tmp_path, database, changed)
    fewer = {name: column for name, column in learned.columns.items() if name != "customers.age"}
    with pytest.warns(RuntimeWarning, match="not trained on: customers.age"):
        untrained_run(tmp_path, database, dataclasses.replace(changed, columns=fewer))

    opened = untrained_run(tmp_path, database).database
    options = {"are_spread": True, "is_trained": True}
    with pytest.raises(CheckpointError, match=r"build b0 of nowhere is gone"):
        find_learned(tmp_path, opened, {"nowhere": "b0"}, **options)
    write_learned(tmp_path, [dataclasses.replace(changed, name="bakery")])
    with pytest.warns(RuntimeWarning, match="`shop` is none that the run was trained on .`bakery`"):
        assert find_learned(tmp_path, opened, {"nowhere": "b0"}, **options) is None
    damaged = bytearray((tmp_path / FILE).read_bytes())
    damaged[-3] ^= 1
    (tmp_path / FILE).write_bytes(damaged)
    with pytest.raises(CheckpointError, match="digest does not match"):
        read_learned(tmp_path)


# --- Quantiles and classes -----------------------------------------------------------------------------------------


def test_quantiles_cover_as_they_say_and_never_cross() -> None:
    rng = np.random.default_rng(0)

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        predictions = rng.uniform(0, 10, count)
        return predictions, predictions + rng.gamma(2.0, 1.0 + predictions) - 3.0  # skewed, and wider to the right

    calibration = make_calibration(*drawn(2000))
    predictions, labels = drawn(20_000)
    levels = [0.01, 0.05, 0.1, 0.5, 0.9, 0.95, 0.99]
    found = calibration.quantiles(predictions, levels)
    assert (np.diff(found, axis=1) >= 0).all()
    np.testing.assert_allclose((labels[:, None] <= found).mean(axis=0), levels, atol=0.02)
    for low, high in ((0, 3), (7, 10)):
        part = (predictions >= low) & (predictions < high)
        inside = (labels >= found[:, 1]) & (labels <= found[:, 5])
        assert 0.86 < inside[part].mean() < 0.94, "within groups of similar predictions, too"
    for level, message in ((1.0, "between 0 and 1"), (1e-4, "needs 9,999 labelled validation seeds, found 2,000")):
        with pytest.raises(ValueError, match=message):
            calibration.quantiles(predictions, [level])


def test_a_finite_sample_is_rounded_outwards() -> None:
    calibration = make_calibration(np.zeros(9), np.arange(1.0, 10.0))
    found = calibration.quantiles(np.zeros(1), [0.1, 0.15, 0.5, 0.81, 0.9])
    assert found.tolist() == [[1.0, 1.0, 5.0, 9.0, 9.0]]
    times = np.array(["2024-01-01", "2024-01-02"], "datetime64[us]")
    late = make_calibration(times[[0] * 9], times[[1] * 9]).quantiles(times, [0.2])
    assert late[:, 0].tolist() == [times[1].item(), np.datetime64("2024-01-03", "us").item()]


def test_a_run_keeps_its_calibration_and_answers_quantiles(run: Run) -> None:
    table = run.predict("spend", **ASKED, quantiles=[0.1, 0.9])
    assert table.column_names[4:8] == ["prediction", "probability", "quantile_0.1", "quantile_0.9"]
    low, point, high = (table[name].to_numpy() for name in ("quantile_0.1", "prediction", "quantile_0.9"))
    assert (low < high).all()
    assert (run.path / "calibration" / "spend.json").is_file()
    val = predict_split(run, "spend", "val")
    errors = np.sort(val["label"].to_numpy() - val["prediction"].to_numpy())
    np.testing.assert_allclose(high - point, errors[int(np.ceil(0.9 * 41)) - 1], rtol=1e-6)
    for task, options, message in (
        ("buys", {"quantiles": [0.1]}, "asks for a boolean value: quantiles are of numbers and times"),
        ("spend", {"top": 2}, "asks for a numerical value: only categories and texts"),
        ("spend", {"quantiles": [0.001]}, "needs 999 labelled validation seeds, found 40"),
    ):
        with pytest.raises(ValueError, match=message):
            run.predict(task, **ASKED, **options)


# --- Parts ---------------------------------------------------------------------------------------------------------


def test_an_interrupted_prediction_goes_on_and_ends_with_the_same_bytes(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "ROWS_PER_PART", 16)
    seeds = seeds_from_keys(run.database, "buys", list(range(NUM_CUSTOMERS)) * 2, "2024-02-12")
    whole, cut = tmp_path / "whole.parquet", tmp_path / "cut.parquet"
    assert write_predictions(run, "buys", "test", whole, seeds=seeds) == 80
    told: list[int] = []

    def stop(done: int, total: int) -> None:
        told.append(done)
        if len(told) == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(run, "buys", "test", cut, seeds=seeds, progress=stop)
    with pytest.raises(PartsError, match=r"task: buys there, spend now.*delete .*cut.parquet.parts"):
        write_predictions(run, "spend", "test", cut, seeds=seeds)
    with pytest.raises(PartsError, match="number of seeds: 80 there, 40 now"):
        write_predictions(
            run, "buys", "test", cut, seeds=seeds_from_keys(run.database, "buys", range(40), "2024-02-12")
        )
    told.clear()
    assert write_predictions(run, "buys", "test", cut, seeds=seeds, progress=lambda done, _: told.append(done)) == 80
    assert told == [48, 56, 64, 72, 80], "what was written is not predicted again"
    assert cut.read_bytes() == whole.read_bytes()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["cut.parquet", "whole.parquet"]
    assert pq.read_table(whole)["entity"].to_pylist() == list(range(NUM_CUSTOMERS)) * 2


def test_a_part_of_a_split_is_sorted_and_continued(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "ROWS_PER_PART", 8)
    monkeypatch.setattr(parts, "ROWS_PER_SORT", 10)
    expected = predict_split(run, "spend", "test", max_seeds=27)
    out = tmp_path / "part.parquet"

    def stop(done: int, total: int) -> None:
        if done == 16:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_predictions(run, "spend", "test", out, max_seeds=27, progress=stop)
    assert write_predictions(run, "spend", "test", out, max_seeds=27) == 27
    assert pq.read_table(out).equals(expected)
    index = expected["seed_index"].to_numpy()
    assert (np.diff(index) > 0).all()


def test_parts_survive_being_killed(tmp_path: Path) -> None:
    """A process that appends rows for ever is killed at any moment; the next one finds a whole beginning."""
    script = """
import sys, pyarrow as pa
from tributary.prediction import parts
parts.ROWS_PER_PART = 5
with parts.Parts(sys.argv[1], pa.schema([("n", pa.int64())]), {"what": "numbers"}) as found:
    for n in range(found.num_rows, 10**9):
        found.append(pa.table({"n": [n]}))
"""
    out = tmp_path / "numbers.parquet"
    schema = pa.schema([("n", pa.int64())])
    found = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", script, str(out)])
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("*.parts/part-*.parquet"))) < 1 + found // 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with pytest.raises(PartsError, match="another process is writing it"), Parts(out, schema, {"what": "numbers"}):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with Parts(out, schema, {"what": "numbers"}) as again:
            assert again.num_rows > found
            assert again.num_rows % 5 == 0
            found = again.num_rows
    with Parts(out, schema, {"what": "numbers"}) as again:
        again.finish()
    assert pq.read_table(out)["n"].to_pylist() == list(range(found))


# --- Seeds ---------------------------------------------------------------------------------------------------------


def test_a_long_file_of_seeds_is_read_in_order_and_all_unknown_keys_are_counted(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tributary.seeds._CHUNK", 1000)
    keys = np.arange(25_000) % NUM_CUSTOMERS
    times = np.datetime64("2024-02-01", "us") + np.arange(25_000)
    table = pa.table({"id": keys, "moment": times})
    for name, write in (("a.parquet", pq.write_table), ("a.csv", _write_csv), ("a.feather", _write_feather)):
        write(table, tmp_path / name)
        seeds = seeds_from_table(run.database, "buys", tmp_path / name)
        np.testing.assert_array_equal(seeds.rows, keys)
        np.testing.assert_array_equal(seeds.times, times.astype(np.int64))
    wrong = keys.copy()
    wrong[[1500, 20_000]] = [900, 901]
    pq.write_table(pa.table({"id": wrong, "moment": times}), tmp_path / "wrong.parquet")
    message = r"no row with 2 of 25,000 keys: 900 \(place 1500\), 901 \(place 20000\)"
    with pytest.raises(ValueError, match=message):
        seeds_from_table(run.database, "buys", tmp_path / "wrong.parquet")


def _write_csv(table: pa.Table, path: Path) -> None:
    import pyarrow.csv

    pyarrow.csv.write_csv(table, path)


def _write_feather(table: pa.Table, path: Path) -> None:
    import pyarrow.feather

    pyarrow.feather.write_feather(table, path)
