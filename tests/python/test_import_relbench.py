"""`tributary import` of RelBench folders: versions 3 and 2, tasks, and what is said when it cannot be."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tributary.importing import Imported, import_source


def _import(source: Path | str, out: Path, **options: Any) -> Imported:
    return import_source(source, out, threads=1, **options)


def _folder(folder: Path) -> Path:
    """A folder of version 3 with one task of every kind."""
    (folder / "db").mkdir(parents=True)
    pq.write_table(pa.table({"who": [1, 2, 3], "kind": ["a", "b", None]}), folder / "db" / "people.parquet")
    days = pa.array([0, 86_400_000_000 * 40, 86_400_000_000 * 80], pa.timestamp("us"))
    sold = pa.table({"person": [1, 1, 2], "day": days, "n": [1, 0, 1], "id": [7, 8, 9]})
    pq.write_table(sold, folder / "db" / "sold.parquet")
    tables = {
        "people": {"pkey": "who", "fkeys": {}},
        "sold": {"time_col": "day", "fkeys": {"person": "people"}},
    }
    manifest = {"name": "rel-x", "val_timestamp": "1970-02-01", "test_timestamp": "1970-03-01", "tables": tables}
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    base = {"entity_table": "people", "entity_col": "who", "time_col": "at", "target_col": "y"}
    tasks = {
        "asked": base
        | {"kind": "forecast", "task_type": "regression", "timedelta": "5 days", "num_eval_timestamps": 2}
        | {"sql": "SELECT timestamp AS at, 1 AS who, 1 AS y FROM timestamps", "remove_columns": [["sold", "n"]]},
        "shipped": base | {"kind": "external", "task_type": "binary_classification", "timedelta": "5 days"},
        "filled": base
        | {"kind": "autocomplete", "task_type": "multiclass_classification", "target_col": "kind"}
        | {"remove_columns": [["people", "kind"], ["sold", "n"]]},
        "linked": {"kind": "forecast", "task_type": "recommendation", "time_col": "at", "timedelta": "5 days"}
        | {"src_entity_table": "people", "src_entity_col": "who", "dst_entity_table": "people", "eval_k": 2}
        | {"dst_entity_col": "whom", "sql": "SELECT timestamp AS at, 1 AS who, [2, 3] AS whom FROM timestamps"},
        "unsaid": {"kind": "forecast", "task_type": "recommendation", "src_entity_table": "people"},
        "many": base | {"kind": "external", "task_type": "multilabel_classification"},
    }
    for name, task in tasks.items():
        (folder / "tasks" / name).mkdir(parents=True)
        (folder / "tasks" / name / "manifest.yaml").write_text(yaml.safe_dump({"name": name, **task}))
    labels = pa.table({"at": days[:1], "who": [1], "y": [1]})
    for split in ("train", "val"):
        pq.write_table(labels, folder / "tasks" / "shipped" / f"{split}.parquet")
    return folder


def test_version_3_with_tasks_of_every_kind(tmp_path: Path) -> None:
    done = _import(_folder(tmp_path / "in"), tmp_path / "out")
    metadata = done.draft.metadata
    assert metadata["name"] == "rel-x"
    # `id` is unique and named like a key, but the manifest says there is none
    assert "primary_key" not in metadata["tables"]["sold"]
    assert metadata["tables"]["sold"]["temporal_column"] == "day"
    assert metadata["tables"]["sold"]["columns"]["person"]["foreign_key"] == "people.who"
    split = {"val": "1970-02-01", "test": "1970-03-01"}
    assert metadata["tasks"] == {
        "asked": {
            "anchor_table": "people",
            "anchor_key": "who",
            "target_column": "y",
            "target_stype": "numerical",
            "observation_time_column": "at",
            "query": "SELECT timestamp AS at, 1 AS who, 1 AS y FROM timestamps",
            "timedelta": "5 days",
            "num_eval_timestamps": 2,
            "split": split,
            "remove_columns": [["sold", "n"]],
        },
        "filled": {
            "anchor_table": "people",
            "target_column": "kind",
            "target_stype": "categorical",
            "split": split,
            "remove_columns": [["sold", "n"]],
        },
        "linked": {
            "anchor_table": "people",
            "anchor_key": "who",
            "target_column": "whom",
            "target_stype": "link",
            "target_table": "people",
            "top_k": 2,
            "observation_time_column": "at",
            "query": "SELECT timestamp AS at, 1 AS who, [2, 3] AS whom FROM timestamps",
            "timedelta": "5 days",
            "num_eval_timestamps": 1,
            "split": split,
        },
        "shipped": {
            "anchor_table": "people",
            "anchor_key": "who",
            "target_column": "y",
            "target_stype": "boolean",
            "observation_time_column": "at",
            "table": "labels/shipped.parquet",
            "horizon": "5 days",
        },
    }
    assert pq.read_table(tmp_path / "out" / "labels" / "shipped.parquet")["split"].to_pylist() == ["train", "val"]
    assert done.warnings == [
        "task many is not imported: multilabel_classification predicts more than one value",
        "task unsaid is not imported: its manifest does not say `src_entity_col`, `dst_entity_table`, `dst_entity_col`",
    ]


def test_version_3_goes_the_whole_road(tmp_path: Path) -> None:
    from tributary.preprocess import preprocess

    _import(_folder(tmp_path / "in"), tmp_path / "out")
    path = tmp_path / "out" / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["tasks"] = {name: metadata["tasks"][name] for name in ("shipped", "linked")}
    path.write_text(json.dumps(metadata))
    outcome = preprocess(tmp_path / "out", tmp_path / "db")
    shipped, linked = outcome.manifest.tasks
    assert dict(shipped.splits) == {"train": 1, "val": 1, "test": 0}
    assert (linked.target_stype, linked.top_k, linked.preview["val"]["mean_links"]) == ("link", 2, 2.0)


def test_a_part_of_the_tables_has_no_tasks(tmp_path: Path) -> None:
    done = _import(_folder(tmp_path / "in"), tmp_path / "out", tables=["people"], with_tasks=False)
    assert done.draft.metadata["tasks"] == {}
    assert any("tasks are imported with all tables alone" in warning for warning in done.warnings)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"people": {"pkey": "whom"}}, "no column `whom`"),
        ({"people": {"pkey": "who"}, "gone": {}}, "table `gone`: no file"),
        ({"people": {}, "sold": {"fkeys": {"person": "people"}}}, "`person` is said to name rows of `people`"),
    ],
)
def test_a_manifest_that_is_not_so_is_refused(tmp_path: Path, said: Any, message: str) -> None:
    folder = _folder(tmp_path / "in")
    manifest = yaml.safe_load((folder / "manifest.yaml").read_text()) | {"tables": said}
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    with pytest.raises(ValueError, match=message):
        _import(folder, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def _with_keys(table: pa.Table, links: dict[str, str], primary_key: str | None, time: str | None) -> pa.Table:
    said = {"fkey_col_to_pkey_table": links, "pkey_col": primary_key, "time_col": time}
    return table.replace_schema_metadata({key: json.dumps(value) for key, value in said.items()})


def test_version_2_says_its_keys_in_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "rel-y"
    (folder / "db").mkdir(parents=True)
    (folder / "tasks" / "buys").mkdir(parents=True)
    days = pa.array([0, 1, 2], pa.timestamp("us"))
    people = pa.table({"who": [1, 2, 3], "x": [1.5, 2.5, None]})
    pq.write_table(_with_keys(people, {}, "who", None), folder / "db" / "people.parquet")
    sold = pa.table({"person": [1, 1, 2], "day": days})
    pq.write_table(_with_keys(sold, {"person": "people"}, None, "day"), folder / "db" / "sold.parquet")
    labels = pa.table({"day": days, "person": [1, 2, 3], "y": [0, 1, 1]})
    for split in ("train", "val", "test"):
        written = _with_keys(labels, {"person": "people"}, None, "day")
        pq.write_table(written, folder / "tasks" / "buys" / f"{split}.parquet")
    done = _import(folder, tmp_path / "out")
    assert done.draft.metadata["tables"]["people"]["primary_key"] == "who"
    assert done.draft.metadata["tables"]["sold"]["temporal_column"] == "day"
    assert done.draft.metadata["tasks"]["buys"] == {
        "table": "labels/buys.parquet",
        "anchor_table": "people",
        "anchor_key": "person",
        "target_column": "y",
        "target_stype": "boolean",
        "observation_time_column": "day",
    }
    assert any("does not say how long a label looks ahead" in warning for warning in done.warnings)


def test_version_2_with_lists_predicts_links(tmp_path: Path) -> None:
    folder = tmp_path / "rel-z"
    (folder / "db").mkdir(parents=True)
    (folder / "tasks" / "likes").mkdir(parents=True)
    days = pa.array([0, 1, 2], pa.timestamp("us"))
    for name in ("people", "things"):
        table = _with_keys(pa.table({"id": [1, 2, 3], "x": [1.5, 2.5, None]}), {}, "id", None)
        pq.write_table(table, folder / "db" / f"{name}.parquet")
    labels = pa.table({"day": days, "person": [1, 2, 3], "thing": [[1], [1, 2], []]})
    for split in ("train", "val"):
        written = _with_keys(labels, {"person": "people", "thing": "things"}, None, "day")
        pq.write_table(written, folder / "tasks" / "likes" / f"{split}.parquet")
    done = _import(folder, tmp_path / "out")
    assert done.draft.metadata["tasks"]["likes"] == {
        "table": "labels/likes.parquet",
        "anchor_table": "people",
        "anchor_key": "person",
        "target_column": "thing",
        "target_stype": "link",
        "target_table": "things",
        "observation_time_column": "day",
    }


def test_by_name_asks_for_the_package(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "relbench", None)
    with pytest.raises(ValueError, match=r"pip install 'relbench>=3'"):
        _import("relbench:rel-f1", tmp_path / "out")


def test_by_name_takes_the_folder_of_the_package(tmp_path: Path, monkeypatch: Any) -> None:
    import types

    folder = _folder(tmp_path / "cache")
    package = types.SimpleNamespace(load_dataset=lambda name: types.SimpleNamespace(dataset_dir=str(folder)))
    monkeypatch.setitem(sys.modules, "relbench", package)
    done = _import("relbench:rel-x", tmp_path / "out", tables=["people"], with_tasks=False)
    assert list(done.draft.metadata["tables"]) == ["people"]


def test_by_name_takes_tasks_that_are_hosted_elsewhere(tmp_path: Path, monkeypatch: Any) -> None:
    import types

    folder = _folder(tmp_path / "cache")
    elsewhere = tmp_path / "elsewhere" / "moved"
    elsewhere.parent.mkdir()
    (folder / "tasks" / "linked").rename(elsewhere)
    hub = types.SimpleNamespace(
        list_task_names=lambda name: ["asked", "moved"] if name == "cache" else [],
        find_task_dir=lambda name, task: {"moved": elsewhere}[task],
    )
    package = types.SimpleNamespace(load_dataset=lambda _: types.SimpleNamespace(dataset_dir=str(folder)), hf=hub)
    monkeypatch.setitem(sys.modules, "relbench", package)
    assert _import("relbench:rel-x", tmp_path / "out").draft.metadata["tasks"]["moved"]["target_stype"] == "link"


def test_by_name_says_what_to_do_without_a_network(tmp_path: Path, monkeypatch: Any) -> None:
    import types

    def load_dataset(name: str) -> None:
        raise OSError("Name or service not known\nplease check your connection")

    monkeypatch.setitem(sys.modules, "relbench", types.SimpleNamespace(load_dataset=load_dataset))
    with pytest.raises(ValueError, match=r"check the name and the network, or give the folder of a data set") as caught:
        _import("relbench:rel-x", tmp_path / "out")
    assert "not known please check" in str(caught.value)
