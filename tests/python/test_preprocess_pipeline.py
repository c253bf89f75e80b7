"""The whole road of preprocessing: what is made, what is reused, what is refused."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tributary import _headwater
from tributary.embed import make_embedder
from tributary.errors import SchemaError
from tributary.preprocess import Outcome, PreprocessOptions, SqlLimits, open_manifest, plan, preprocess, verify


class Recorder:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.items: set[tuple[str, str]] = set()
        self.warnings: list[str] = []

    def stage(self, name: str) -> None:
        self.stages.append(name)

    def progress(self, item: str, done: int, total: int, unit: str) -> None:
        assert 0 <= done <= total
        self.items.add((item, unit))

    def warn(self, message: str) -> None:
        self.warnings.append(message)


def _digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(path.relative_to(folder).as_posix().encode())
        found.update(path.read_bytes() if path.is_file() else b"")
    return found.hexdigest()


def _run(shop: Any, output: Path, **options: Any) -> tuple[Outcome, Recorder]:
    watcher = Recorder()
    outcome = preprocess(shop.folder, output, options=PreprocessOptions(**options), watcher=watcher)
    return outcome, watcher


def test_everything_is_there(shop, tmp_path: Path) -> None:
    shop.write()
    outcome, watcher = _run(shop, tmp_path / "db")
    assert watcher.stages == ["encode", "tasks", "embed", "publish"]
    assert {("orders", "rows"), ("churn", "tasks"), ("vocabulary", "texts")} <= watcher.items
    assert not outcome.is_up_to_date
    manifest = outcome.manifest
    assert {table.name: table.num_rows for table in manifest.tables} == {"customers": 12, "products": 5, "orders": 60}
    assert {key.column: key.edges for table in manifest.tables for key in table.foreign_keys} == {
        "customer_id": 60,
        "product_id": 60,
    }
    assert [task.name for task in manifest.tasks] == ["churn", "spend", "country"]
    assert [sum(task.splits.values()) for task in manifest.tasks[:1]] == [12]
    assert manifest.embedder == {"kind": "hash", "model": "tributary-feature-hash-2", "dimension": 256}
    assert len(verify(tmp_path / "db")) >= 16
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db", "shop"]


def test_vectors_are_those_of_the_texts(shop, tmp_path: Path) -> None:
    shop.write()
    embedder = make_embedder("hash", dimension=32)
    preprocess(shop.folder, tmp_path / "db", embedder=embedder)
    texts = _headwater.vocab_texts(tmp_path / "db")
    assert "country is DE" in texts
    vectors = _headwater.Database(tmp_path / "db").embeddings("vocab")
    np.testing.assert_array_equal(vectors, embedder.embed(texts).astype(np.float16))
    columns = _headwater.Database(tmp_path / "db").embeddings("column")
    assert len(columns) == len(_headwater.column_phrases(tmp_path / "db"))


def test_the_same_again_touches_nothing(shop, tmp_path: Path) -> None:
    shop.write()
    _run(shop, tmp_path / "db")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "db").rglob("*")}
    for force in (False, True):
        outcome, watcher = _run(shop, tmp_path / "db", force=force, threads=1)
        assert outcome.is_up_to_date
        assert watcher.stages == []
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "db").rglob("*")} == before


def test_threads_do_not_change_a_byte(shop, tmp_path: Path) -> None:
    shop.write()
    for threads in (1, 3):
        _run(shop, tmp_path / str(threads), threads=threads)
    assert _digest(tmp_path / "1") == _digest(tmp_path / "3")


def test_other_data_need_force(shop, tmp_path: Path) -> None:
    shop.write()
    _run(shop, tmp_path / "db")
    before = _digest(tmp_path / "db")
    shop.tables["products"]["price"][0] = 99.0
    shop.write()
    with pytest.raises(FileExistsError, match="made from other data, tasks or options; --force replaces it"):
        _run(shop, tmp_path / "db")
    assert _digest(tmp_path / "db") == before
    outcome, _ = _run(shop, tmp_path / "db", force=True)
    assert outcome.reused == ()
    _run(shop, tmp_path / "fresh")
    assert _digest(tmp_path / "db") == _digest(tmp_path / "fresh") != before


def _redone(shop: Any, output: Path) -> set[str]:
    """What a forced run makes anew; the result equals one made from nothing."""
    shop.write()
    outcome, watcher = _run(shop, output, force=True)
    made = set(outcome.made)
    assert made.isdisjoint(outcome.reused)
    tasks = {item for item, unit in watcher.items if unit == "tasks"}
    assert {f"task {task}" for task in tasks} == {stage for stage in made if stage.startswith("task ")}
    _run(shop, output.parent / "fresh")
    assert _digest(output) == _digest(output.parent / "fresh")
    return made


def _insert(tasks: dict[str, Any], place: int, name: str, task: dict[str, Any]) -> dict[str, Any]:
    entries = list(tasks.items())
    return dict([*entries[:place], (name, task), *entries[place:]])


_PRICE = {"anchor_table": "products", "target_column": "price", "target_stype": "numerical"}


@pytest.mark.parametrize("place", [0, 1, 3])
def test_a_new_task_anywhere_is_made_alone(shop, tmp_path: Path, place: int) -> None:
    """The others get other numbers, and nothing else of them changes; the vectors of the texts stay."""
    shop.write()
    _run(shop, tmp_path / "db")
    shop.metadata["tasks"] = _insert(shop.metadata["tasks"], place, "price", _PRICE)
    assert _redone(shop, tmp_path / "db") == {"task price", "embed columns"}


@pytest.mark.parametrize("place", [0, 2, 3])
def test_a_new_task_with_texts_moves_those_of_the_others(shop, tmp_path: Path, place: int) -> None:
    texts = dict(shop.metadata["tasks"]["churn"], target_column="mood", target_stype="categorical")
    texts["query"] = "SELECT id AS customer_id, TIMESTAMP '2020-02-01' AS obs_time, 'so ' || id AS mood FROM customers"
    shop.metadata["tasks"]["mood"] = texts
    shop.write()
    _run(shop, tmp_path / "db")
    other = dict(texts, query=texts["query"].replace("so ", "even "))
    shop.metadata["tasks"] = _insert(shop.metadata["tasks"], place, "other mood", other)
    assert _redone(shop, tmp_path / "db") == {"task other mood", "embed texts", "embed columns"}


def test_a_changed_task_in_the_middle_is_made_alone(shop, tmp_path: Path) -> None:
    shop.write()
    _run(shop, tmp_path / "db")
    shop.metadata["tasks"]["spend"]["query"] += " HAVING sum(o.amount) > 1"
    assert _redone(shop, tmp_path / "db") == {"task spend"}


@pytest.mark.parametrize("removed", [["country", "spend"], ["churn"], ["churn", "spend", "country"]])
def test_a_removed_task_costs_the_phrases_of_columns(shop, tmp_path: Path, removed: list[str]) -> None:
    shop.write()
    _run(shop, tmp_path / "db")
    for task in removed:
        del shop.metadata["tasks"][task]
    assert _redone(shop, tmp_path / "db") == {"embed columns"}


def test_tasks_in_another_order_are_not_made_again(shop, tmp_path: Path) -> None:
    shop.write()
    _run(shop, tmp_path / "db")
    shop.metadata["tasks"] = dict(reversed(shop.metadata["tasks"].items()))
    assert _redone(shop, tmp_path / "db") == {"embed columns"}


def test_another_embedder_only_embeds(shop, tmp_path: Path) -> None:
    shop.write()
    _run(shop, tmp_path / "db")
    watcher = Recorder()
    embedder = make_embedder("hash", dimension=16)
    preprocess(shop.folder, tmp_path / "db", embedder=embedder, options=PreprocessOptions(force=True), watcher=watcher)
    assert watcher.stages == ["embed", "publish"]
    assert open_manifest(tmp_path / "db").embedder == embedder.identity


def test_a_damaged_output_is_replaced_without_its_files(shop, tmp_path: Path) -> None:
    shop.write()
    _run(shop, tmp_path / "db")
    before = _digest(tmp_path / "db")
    graph = tmp_path / "db" / "graph.bin"
    content = bytearray(graph.read_bytes())
    content[-1] ^= 1
    graph.write_bytes(content)
    outcome, _ = _run(shop, tmp_path / "db", force=True)
    assert outcome.reused == ()
    assert _digest(tmp_path / "db") == before
    (tmp_path / "db" / "metadata.json").write_text("{}")
    with pytest.raises(FileExistsError, match=r"is damaged .*--force"):
        _run(shop, tmp_path / "db")
    _run(shop, tmp_path / "db", force=True)
    assert _digest(tmp_path / "db") == before


def test_a_stopped_run_is_continued(shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a kill: the staging folder stays, and the next run finds the finished stages in it."""
    shop.write()
    _run(shop, tmp_path / "fresh")
    from tributary.preprocess.staging import Staging

    monkeypatch.setattr(Staging, "_release", lambda staging: os.close(staging._lock))
    monkeypatch.setattr(_headwater, "publish", lambda *_: (_ for _ in ()).throw(RuntimeError("killed")))
    with pytest.raises(RuntimeError, match="killed"):
        _run(shop, tmp_path / "db")
    monkeypatch.undo()
    outcome, watcher = _run(shop, tmp_path / "db")
    assert watcher.stages == ["publish"]
    assert set(outcome.reused) == {"encode", "task churn", "task spend", "task country", "embed texts", "embed columns"}
    assert _digest(tmp_path / "db") == _digest(tmp_path / "fresh")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db", "fresh", "shop"]


@pytest.mark.parametrize("stage", ["encode", "write_task", "write_embeddings", "publish"])
def test_an_error_in_any_stage_leaves_nothing(
    shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    shop.write()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_headwater, stage, fail)
    with pytest.raises(OSError, match="No space left"):
        _run(shop, tmp_path / "db")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop"]


def test_labels_from_a_ready_table(shop, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = shop.write()
    labels = {
        "customer_id": [1, 2, 3, 4],
        "obs_time": np.array(["2020-02-01"] * 4, dtype="datetime64[us]"),
        "tier": ["gold", "silver", "gold", "lead"],
        "split": ["train", "train", "val", "test"],
    }
    pq.write_table(pa.table(labels), folder / "tier_labels.parquet")
    shop.metadata["tasks"]["tier"] = {
        "table": "tier_labels.parquet",
        "anchor_table": "customers",
        "anchor_key": "customer_id",
        "target_column": "tier",
        "target_stype": "categorical",
        "observation_time_column": "obs_time",
    }
    shop.write()
    outcome, _ = _run(shop, tmp_path / "db")
    tier = outcome.manifest.tasks[-1]
    assert dict(tier.splits) == {"train": 2, "val": 1, "test": 1}
    texts = _headwater.vocab_texts(tmp_path / "db")
    assert {texts[idx].rsplit(" ", 1)[-1] for idx in tier.classes} == {"gold", "silver", "lead"}
    labels["tier"][0] = "lead"
    pq.write_table(pa.table(labels), folder / "tier_labels.parquet")
    again, watcher = _run(shop, tmp_path / "db", force=True)
    assert "task churn" in again.reused
    assert "task tier" not in again.reused
    assert watcher.stages[0] == "tasks"


def test_a_wrong_query_is_found_before_encoding(shop, tmp_path: Path) -> None:
    shop.metadata["tasks"]["spend"]["query"] = (
        "SELECT 1 AS customer_id, TIMESTAMP '2020-02-01' AS obs_time, 2.0 AS spent"
    )
    shop.write()
    watcher = Recorder()
    with pytest.raises(
        SchemaError, match="query of task `spend`: the result has no column `spend`; did you mean `spent`"
    ):
        preprocess(shop.folder, tmp_path / "db", watcher=watcher)
    assert watcher.stages == []
    assert not (tmp_path / "db").exists()


def test_a_slow_query_is_stopped(shop, tmp_path: Path) -> None:
    shop.metadata["tasks"]["churn"]["query"] = (
        "SELECT id AS customer_id, TIMESTAMP '2020-02-01' AS obs_time,"
        " (SELECT count(*) FROM range(1000000000000)) > 0 AS churn FROM customers"
    )
    shop.write()
    with pytest.raises(SchemaError, match="query of task `churn`: took longer than 1 seconds"):
        _run(shop, tmp_path / "db", sql=SqlLimits(seconds=1))
    assert not (tmp_path / "db").exists()


def test_an_input_that_changes_meanwhile_is_refused(shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shop.write()
    encode = _headwater.encode

    def encode_and_change(*arguments: Any, **options: Any) -> str:
        report = encode(*arguments, **options)
        shop.tables["products"]["price"][0] = 7.0
        shop.write()
        return report

    monkeypatch.setattr(_headwater, "encode", encode_and_change)
    with pytest.raises(SchemaError, match="changed while they were read"):
        _run(shop, tmp_path / "db")
    assert sorted(path.name for path in tmp_path.iterdir()) == [folder.name]


def test_a_plan_writes_nothing(shop, tmp_path: Path) -> None:
    shop.write()
    stages = ["encode", "task churn", "task spend", "task country", "embed texts", "embed columns"]
    planned = plan(shop.folder, tmp_path / "db")
    assert planned.stages == dict.fromkeys(stages, True)
    sizes = {table.name: table.input_bytes for table in planned.tables}
    assert sizes["orders"] == (shop.folder / "orders.parquet").stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop"]
    _run(shop, tmp_path / "db")
    assert plan(shop.folder, tmp_path / "db").stages == dict.fromkeys(stages, False)
    with pytest.raises(FileExistsError, match="--force"):
        plan(shop.folder, tmp_path / "db", options=PreprocessOptions(strict=True))


def test_output_and_input_stay_apart(shop, tmp_path: Path) -> None:
    folder = shop.write()
    with pytest.raises(ValueError, match="lies in the input folder"):
        _run(shop, folder / "db")
    with pytest.raises(ValueError, match="holds the input folder"):
        _run(shop, tmp_path)
    with pytest.raises(ValueError, match="lies in the input folder"):
        _run(shop, folder)


def test_a_foreign_folder_is_never_replaced(shop, tmp_path: Path) -> None:
    shop.write()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years of work")
    for force in (False, True):
        with pytest.raises(FileExistsError, match="not a processed database"):
            _run(shop, tmp_path / "precious", force=force)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="is not a folder"):
        _run(shop, tmp_path / "file", force=True)
    assert (tmp_path / "precious" / "thesis.txt").read_text() == "years of work"


def test_the_input_is_never_written(shop, tmp_path: Path) -> None:
    folder = shop.write()
    before = {path: path.stat() for path in [folder, *folder.iterdir()]}
    _run(shop, tmp_path / "db")
    assert {path: path.stat().st_mtime_ns for path in [folder, *folder.iterdir()]} == {
        path: stat.st_mtime_ns for path, stat in before.items()
    }


def test_another_description(shop, tmp_path: Path) -> None:
    folder = shop.write()
    os.rename(folder / "metadata.json", tmp_path / "described.json")
    outcome, _ = _run(shop, tmp_path / "db", metadata=tmp_path / "described.json")
    assert len(outcome.manifest.tables) == 3
    stages = json.loads((tmp_path / "db" / "stages.json").read_text())
    assert str(tmp_path) not in json.dumps(stages)
