"""The line between Rust and Python: what crosses it, in which types, and how failures arrive."""

import ast
import gc
import json
import os
import re
import shutil
import signal
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tributary import _headwater as native

ROOT = Path(__file__).resolve().parents[2]
DAY = 86_400_000_000
END_OF_TIME = np.iinfo(np.int64).max
ALWAYS = np.iinfo(np.int64).min
START = datetime(2020, 1, 1, tzinfo=UTC)

METADATA = {
    "name": "shop",
    "tables": {
        "customers": {
            "primary_key": "id",
            "columns": {"id": {"stype": "identifier"}, "name": {"stype": "text"}},
        },
        "orders": {
            "primary_key": "id",
            "temporal_column": "ts",
            "columns": {
                "id": {"stype": "identifier"},
                "customer": {"stype": "identifier", "foreign_key": "customers.id"},
                "ts": {"stype": "timestamp"},
                "amount": {"stype": "numerical"},
                "is_gift": {"stype": "boolean"},
                "status": {"stype": "categorical"},
            },
        },
    },
    "tasks": {
        "spend": {
            "table": "labels.parquet",
            "anchor_table": "customers",
            "anchor_key": "customer",
            "target_column": "spend",
            "target_stype": "numerical",
            "observation_time_column": "moment",
            "horizon": "1 day",
            "split": {"val": "2020-01-03", "test": "2020-01-04"},
        },
        "gift": {"anchor_table": "orders", "target_column": "is_gift"},
    },
}


def moments(*days):
    values = [None if day is None else START + timedelta(days=day) for day in days]
    return pa.array(values, pa.timestamp("us", tz="UTC"))


def write_input(folder):
    folder.mkdir()
    (folder / "metadata.json").write_text(json.dumps(METADATA))
    customers = {"id": ["a", "b", "ü"], "name": ["Ada", "Bo", None]}
    pq.write_table(pa.table(customers), folder / "customers.parquet")
    orders = {
        "id": pa.array([7, 8, 9, 10], pa.int32()),
        "customer": ["a", "ü", "nobody", None],
        "ts": moments(0, 1, 2, None),
        "amount": [1.0, 3.0, None, 5.0],
        "is_gift": [True, None, False, True],
        "status": ["paid", "open", None, "paid"],
    }
    pq.write_table(pa.table(orders), folder / "orders.parquet")
    labels = {"customer": ["ü", "a", "b", "a"], "moment": moments(3, 1, 2, 0), "spend": [7.0, 4.0, None, 2.0]}
    pq.write_table(pa.table(labels), folder / "labels.parquet")
    return folder


def make(source, target, dimension=4):
    target.mkdir()
    metadata = native.read_metadata(source)
    native.encode(source, target)
    native.write_task(target, "spend", source / "labels.parquet", metadata=metadata)
    native.write_task(target, "gift", metadata=metadata)
    for which, texts in (("vocab", native.vocab_texts(target)), ("column", native.column_phrases(target))):
        array = np.arange(len(texts) * dimension, dtype=np.float16).reshape(len(texts), dimension)
        native.write_embeddings(target, which, array, '{"kind": "test"}')
    native.publish(target)
    return target


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_input(tmp_path_factory.mktemp("native") / "input")


@pytest.fixture(scope="module")
def path(source):
    return make(source, source.parent / "database")


@pytest.fixture(scope="module")
def database(path):
    return native.Database(path)


# ---- constants, stub, documentation ----------------------------------------------------------------------------------


def test_batch_fields_are_those_of_the_documentation():
    text = (ROOT / "documentation/batch.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([A-Z0-9, ]+) \|", text, re.MULTILINE)
    documented = [(name, dtype, tuple(axes.split(", "))) for name, dtype, axes in rows]
    assert [tuple(field) for field in native.BATCH_FIELDS] == documented
    assert all(np.dtype(dtype).name == dtype for _, dtype, _ in native.BATCH_FIELDS)


def test_constants():
    assert native.STYPES == ("identifier", "numerical", "timestamp", "boolean", "categorical", "text")
    text = (ROOT / "documentation/format.md").read_text()
    assert f"The format version is {native.FORMAT_VERSION};" in text


def test_the_documented_files_are_the_written_ones(path, database):
    text = (ROOT / "documentation/format.md").read_text()
    files = json.loads(database.manifest)["files"]
    assert {re.sub(r"/\w+\.", "/<x>.", name) for name in files} == {
        *("graph.bin", "vocab.bin", "vocab_embeddings.bin", "column_embeddings.bin", "encode.json"),
        *("tables/<x>.bin", "tasks/<x>.bin", "tasks/<x>.json"),
    }
    assert all(re.sub(r"/\w+\.", lambda m: f"/<{m[0]}", name).split("/<")[0] in text for name in files)
    assert all((path / name).stat().st_size == file["bytes"] for name, file in files.items())


def test_every_manifest_field_is_documented(database):
    text = (ROOT / "documentation/format.md").read_text()
    manifest = json.loads(database.manifest)
    table, task = manifest["tables"][1], manifest["tasks"][0]
    names = [*manifest, *table, *table["columns"][0], *table["foreign_keys"][0], *task]
    statistics = [name for column in table["columns"] for name in column["statistics"]]
    assert [name for name in [*names, *statistics] if f"`{name}`" not in text] == []


def test_the_stub_names_everything():
    stub = ast.parse((ROOT / "python/tributary/_headwater.pyi").read_text())

    def names(body):
        for node in body:
            if isinstance(node, ast.AnnAssign):
                yield node.target.id
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                yield node.name

    def public(owner):
        return {name for name in vars(owner) if not name.startswith("_")}

    assert public(native) == {name for name in names(stub.body) if not name.startswith("_")}
    classes = {node.name: node for node in stub.body if isinstance(node, ast.ClassDef)}
    for name in ("Database", "Sampler"):
        stubbed = {member for member in names(classes[name].body) if not member.startswith("_")}
        assert public(getattr(native, name)) == stubbed


def test_exceptions_are_a_family_under_their_public_name():
    from tributary import errors

    assert issubclass(native.SchemaError, native.TributaryError)
    assert issubclass(native.FormatError, native.TributaryError)
    assert not issubclass(native.TributaryError, ValueError | OSError)
    assert (native.SchemaError.__module__, errors.SchemaError) == ("tributary.errors", native.SchemaError)


# ---- arrays ----------------------------------------------------------------------------------------------------------


def test_columns_come_in_the_units_of_the_user(database):
    amount, is_valid = database.column("orders", "amount")
    assert (amount.dtype, is_valid.dtype, is_valid.tolist()) == (np.float64, np.bool_, [True, True, False, True])
    assert amount[is_valid] == pytest.approx([1.0, 3.0, 5.0], rel=1e-6)
    assert np.isnan(amount[2])
    times, is_valid = database.column("orders", "ts")
    start = int(START.timestamp()) * 1_000_000
    assert (times.dtype, is_valid.tolist()) == (np.int64, [True, True, True, False])
    assert times[:3].tolist() == [start, start + DAY, start + 2 * DAY]
    gifts, is_valid = database.column("orders", "is_gift")
    assert (gifts.dtype, gifts.tolist(), is_valid.tolist()) == (
        np.bool_,
        [True, False, False, True],
        [True, False, True, True],
    )
    status, is_valid = database.column("orders", "status")
    assert (status.dtype, is_valid.tolist(), status[2]) == (np.int32, [True, True, False, True], -1)
    assert database.vocab(status[is_valid]) == ["status is paid", "status is open", "status is paid"]
    names, _ = database.column("customers", "name")
    assert database.vocab(names[:2].tolist()) == ["Ada", "Bo"]


def test_times_parents_and_keys(database):
    start = int(START.timestamp()) * 1_000_000
    times = database.row_times("orders")
    assert (times.dtype, times.tolist()) == (np.int64, [start, start + DAY, start + 2 * DAY, END_OF_TIME])
    assert database.row_times("customers").tolist() == [ALWAYS] * 3
    parents = database.parents(0)
    assert (parents.dtype, parents.tolist()) == (np.int64, [0, 2, -1, -1])
    assert database.row_keys("customers", np.array([2, 0])) == ["ü", "a"]
    assert database.row_keys("orders", np.array([3])) == [10]
    rows = database.find_rows("orders", [9, np.int64(7), 2**64 - 1, -1])
    assert (rows.dtype, rows.tolist()) == (np.int64, [2, 0, -1, -1])
    assert database.find_rows("customers", ["b", "nobody"]).tolist() == [1, -1]
    assert database.find_rows("orders", []).shape == (0,)


def test_seeds_have_true_types(database):
    seeds = database.task_seeds("spend")
    dtypes = {"row": "int64", "time": "int64", "split": "int8", "value": "float32", "vocab": "int32", "is_null": "bool"}
    assert {name: array.dtype.name for name, array in seeds.items()} == dtypes
    task = json.loads(database.manifest)["tasks"][0]
    assert (seeds["row"].tolist(), seeds["split"].tolist()) == ([0, 0, 2], [0, 0, 2])
    assert seeds["value"] * task["statistics"]["std"] + task["statistics"]["mean"] == pytest.approx([2.0, 4.0, 7.0])
    assert (task["statistics"], task["splits"]) == ({"mean": 3.0, "std": 1.0}, {"train": 2, "val": 0, "test": 1})
    gifts = database.task_seeds("gift")
    assert (gifts["row"].tolist(), gifts["value"].tolist(), gifts["vocab"].tolist()) == ([0, 2], [1, 0], [-1, -1])


def test_vectors_keep_their_type_and_shape(database):
    for which, number in (("vocab", 4), ("column", 12)):
        array = database.embeddings(which)
        assert (array.dtype, array.shape) == (np.float16, (number, 4))
        assert array.flags.c_contiguous
        assert (array.ravel() == np.arange(number * 4)).all()


def test_arrays_own_their_memory(source):
    copy = make(source, source.parent / "short-lived")
    database = native.Database(copy)
    arrays = [database.column("orders", "ts")[0], database.parents(0), database.embeddings("vocab")]
    arrays += database.task_seeds("spend").values()
    before = [array.copy() for array in arrays]
    del database
    shutil.rmtree(copy)
    gc.collect()
    for array, expected in zip(arrays, before, strict=True):
        assert (array == expected).all()
        assert array.flags.writeable
        array[:] = 0


def test_writing_into_an_array_changes_nothing_in_the_database(database):
    database.row_times("orders")[:] = 0
    database.embeddings("column")[:] = 0
    assert database.row_times("orders")[3] == END_OF_TIME
    assert database.embeddings("column")[-1, -1] == 47


def test_vectors_may_lie_in_any_order_in_memory(source):
    folder = source.parent / "strided"
    folder.mkdir()
    native.encode(source, folder)
    texts = native.column_phrases(folder)
    array = np.arange(len(texts) * 2, dtype=np.float16).reshape(2, len(texts)).T
    native.write_embeddings(folder, "column", array, '{"kind": "test"}')
    vocabulary = np.zeros((len(native.vocab_texts(folder)), 2), np.float16)
    native.write_embeddings(folder, "vocab", vocabulary, '{"kind": "test"}')
    native.publish(folder)
    assert (native.Database(folder).embeddings("column") == array).all()


# ---- JSON ------------------------------------------------------------------------------------------------------------


def test_rows_and_summary(database, path):
    row = json.loads(database.rows("orders", 1))
    assert {cell["column"]: cell["value"] for cell in row["cells"]} == {
        "id": 8,
        "customer": "ü",
        "ts": "2020-01-02",
        "amount": 3.0,
        "is_gift": None,
        "status": "open",
    }
    summary = json.loads(database.summary())
    assert (summary["rows"], summary["edges"]) == ({"customers": 3, "orders": 4}, {"orders.customer": 2})
    assert (database.path, database.build_id) == (str(path), summary["build_id"])


def test_the_digest_is_the_same_for_the_same_input(source, path):
    again = make(source, source.parent / "again")
    assert native.verify(again) == native.verify(path)
    assert native.encode_fingerprint(source)[:16] == native.Database(path).build_id


# ---- failures --------------------------------------------------------------------------------------------------------


def test_missing_files_are_os_errors_with_their_path(tmp_path):
    for call in (native.Database, native.verify, native.read_metadata, native.publish, native.vocab_texts):
        with pytest.raises(FileNotFoundError) as caught:
            call(tmp_path / "gone")
        assert caught.value.filename.startswith(str(tmp_path / "gone"))


def test_a_bad_description_is_a_schema_error(tmp_path):
    (tmp_path / "metadata.json").write_text('{"name": "x", "tabels": {}}')
    with pytest.raises(native.SchemaError, match=r"tabels.*did you mean `tables`"):
        native.read_metadata(tmp_path)


def test_a_damaged_file_is_a_format_error(source):
    copy = make(source, source.parent / "damaged")
    graph = copy / "graph.bin"
    content = bytearray(graph.read_bytes())
    content[-65] ^= 1
    graph.write_bytes(content)
    with pytest.raises(native.FormatError, match=r"graph\.bin"):
        native.verify(copy)
    graph.write_bytes(content[:-1])
    with pytest.raises(native.FormatError, match=r"graph\.bin"):
        native.Database(copy)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda d: d.column("order", "id"), "did you mean `orders`"),
        (lambda d: d.column("orders", "amonut"), "did you mean `amount`"),
        (lambda d: d.task_seeds("spent"), "did you mean `spend`"),
        (lambda d: d.row_keys("orders", np.array([4])), "row 4"),
        (lambda d: d.row_keys("orders", np.array([-1])), "row -1"),
        (lambda d: d.rows("orders", 4), "row 4"),
        (lambda d: d.find_rows("orders", ["7"]), "integers"),
        (lambda d: d.find_rows("customers", [7]), "strings"),
        (lambda d: d.parents(1), "foreign key 1"),
        (lambda d: d.vocab([-1]), "-1"),
        (lambda d: d.vocab([4]), "id 4"),
        (lambda d: d.embeddings("text"), "`vocab` or `column`"),
    ],
)
def test_wrong_arguments_are_value_errors(database, call, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        call(database)


def test_arguments_of_wrong_types_are_type_errors(database):
    with pytest.raises(TypeError):
        database.row_keys("orders", np.array([0.0]))
    with pytest.raises(TypeError):
        database.find_rows("orders", [1.5])
    with pytest.raises(TypeError):
        native.write_embeddings("x", "vocab", np.zeros((1, 1), np.float32), "{}")


def test_an_unreadable_time_is_a_value_error(source, tmp_path):
    with pytest.raises(ValueError, match="stats_until `soon`"):
        native.encode(source, tmp_path, stats_until="soon")


# ---- long calls ------------------------------------------------------------------------------------------------------


def test_progress_is_told_in_the_calling_thread(source, tmp_path):
    calls = []
    native.encode(source, tmp_path, progress=lambda *news: calls.append((*news, threading.get_ident())))
    assert {call[3] for call in calls} == {threading.get_ident()}
    assert {call[:3] for call in calls} >= {("customers", 3, 3), ("orders", 4, 4)}


def test_an_exception_in_progress_ends_the_stage(source, tmp_path):
    def stop(*_):
        raise LookupError("enough")

    with pytest.raises(LookupError, match="enough"):
        native.encode(source, tmp_path, progress=stop)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    rows = 400_000
    table = {"id": np.arange(rows), "x": np.linspace(0, 1, rows), "name": [f"row {row}" for row in range(rows)]}
    pq.write_table(pa.table(table), folder / "rows.parquet")
    columns = {"id": {"stype": "identifier"}, "x": {"stype": "numerical"}, "name": {"stype": "text"}}
    description = {"name": "large", "tables": {"rows": {"primary_key": "id", "columns": columns}}}
    (folder / "metadata.json").write_text(json.dumps(description))
    return folder


def test_other_threads_run_during_a_long_call(large, tmp_path):
    turns, is_done = 0, threading.Event()

    def count():
        nonlocal turns
        while not is_done.wait(0.001):
            turns += 1

    thread = threading.Thread(target=count)
    before = sys.getswitchinterval()
    sys.setswitchinterval(100)  # without a release of the lock no other thread gets a turn
    thread.start()
    try:
        native.encode(large, tmp_path, threads=1)
        during = turns
    finally:
        sys.setswitchinterval(before)
        is_done.set()
        thread.join()
    assert during > 3


def test_ctrl_c_ends_a_long_call(large, tmp_path):
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - the signal may come just after the call
        timer.start()
        native.encode(large, tmp_path, threads=1)
        timer.join()
        threading.Event().wait(1)
