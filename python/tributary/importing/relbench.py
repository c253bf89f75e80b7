"""RelBench folders: version 3 (`manifest.yaml`), version 2 (what tables are stands in their parquet files), by name.

The manifests say everything about keys, links and times, so nothing of these is inferred. Tasks keep their SQL, window,
splits and hidden columns; tasks with labels alone keep these.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tributary.importing.duck import connect, exactly, plain_columns, stream
from tributary.importing.source import Findings, SourceTable, chosen
from tributary.infer import DeclaredTable

_STYPES = {
    "binary_classification": "boolean",
    "regression": "numerical",
    "multiclass_classification": "categorical",
    "recommendation": "link",
    "link_prediction": "link",
}
_NEEDED = {
    True: ("src_entity_table", "src_entity_col", "dst_entity_table", "dst_entity_col"),
    False: ("entity_table", "target_col"),
}
"""What the manifest of a task has to say, by whether it predicts links."""
_SPLITS = ("train", "val", "test")
_SETTLED = frozenset({"primary_key", "foreign_keys", "temporal_column"})


def is_relbench(folder: Path) -> bool:
    """Whether a folder is one of RelBench's."""
    if (folder / "manifest.yaml").is_file():
        return isinstance(_yaml(folder / "manifest.yaml").get("tables"), dict)
    files = _files(folder)
    return bool(files) and all(_has_keys(file) for file in files)


def _has_keys(file: Path) -> bool:
    try:
        return b"fkey_col_to_pkey_table" in (pq.read_schema(file).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def find_by_name(name: str) -> tuple[Path, tuple[Path, ...]]:
    """The folder of a data set that the package `relbench` (3) finds or downloads, and tasks that lie elsewhere.

    Raises:
        ValueError: the package is not installed, or it neither has nor can download the data set.
    """
    other_way = "or give the folder of a data set that is on this machine already"
    try:
        import relbench
    except ModuleNotFoundError:
        raise ValueError(f"relbench:{name} needs the package: pip install 'relbench>=3', {other_way}") from None
    if not hasattr(relbench, "load_dataset"):
        raise ValueError(f"relbench:{name} needs version 3 of the package: pip install 'relbench>=3', {other_way}")
    try:
        folder = Path(relbench.load_dataset(name).dataset_dir)
        own = {path.parent.name for path in folder.glob("tasks/*/manifest.yaml")}
        hub: Any = getattr(relbench, "hf", None)
        hosted = [] if hub is None else hub.list_task_names(folder.name)
        found = [hub.find_task_dir(folder.name, task) for task in hosted if task not in own]
    except Exception as error:  # whatever the package and its downloads raise
        said = str(error).strip() or type(error).__name__
        raise ValueError(
            f"relbench:{name}: the package found no such data set and could not download it; check the name and the"
            f" network, {other_way} ({' '.join(said.split())})"
        ) from error
    return folder, tuple(path for path in found if path is not None)


class RelbenchSource:
    """A RelBench folder.

    Args:
        folder: of version 3 or 2.
        wanted: tables to import; none: all, with the tasks.
        more_tasks: folders of tasks that lie elsewhere.

    Raises:
        ValueError: a manifest says what is not so.
    """

    def __init__(self, folder: Path, wanted: tuple[str, ...] = (), more_tasks: tuple[Path, ...] = ()):
        self.name = folder.resolve().name
        self.findings = Findings()
        self._folder = folder
        manifest = folder / "manifest.yaml"
        tables = self._manifest_tables(manifest) if manifest.is_file() else self._own_tables()
        self._files = {table: tables[table][1] for table in chosen(sorted(tables), wanted, str(folder))}
        for table, file in self._files.items():
            self.findings.declared[table] = self._declared(table, tables[table][0], file, tables)
        if set(self._files) == set(tables):
            self.findings.tasks = {}
            self._add_tasks(_yaml(manifest) if manifest.is_file() else {}, more_tasks)
        else:
            self.findings.warnings.append("tasks are imported with all tables alone; --table left some out")
        self._connection = connect()

    def __enter__(self) -> RelbenchSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def tables(self) -> list[SourceTable]:
        """The tables, with their numbers of rows."""
        return [SourceTable(table, pq.read_metadata(file).num_rows) for table, file in self._files.items()]

    def batches(self, table: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The rows of a table."""
        relation = f"read_parquet({exactly(self._files[table])})"
        return stream(self._connection, f"SELECT {plain_columns(self._connection, relation)} FROM {relation}")

    def _manifest_tables(self, path: Path) -> dict[str, tuple[Mapping[str, Any], Path]]:
        manifest = _yaml(path)
        self.name = str(manifest.get("name") or self.name)
        found: dict[str, tuple[Mapping[str, Any], Path]] = {}
        for table, said in manifest["tables"].items():
            file = self._folder / "db" / f"{table}.parquet"
            if not file.is_file():
                raise ValueError(f"{path}: table `{table}`: no file {file}")
            found[table] = (said, file)
        return found

    def _own_tables(self) -> dict[str, tuple[Mapping[str, Any], Path]]:
        found: dict[str, tuple[Mapping[str, Any], Path]] = {}
        for file in _files(self._folder):
            keys, primary_key, time = _own_keys(file)
            found[file.stem] = ({"pkey": primary_key, "time_col": time, "fkeys": keys}, file)
        return found

    def _declared(
        self, table: str, said: Mapping[str, Any], file: Path, tables: Mapping[str, tuple[Mapping[str, Any], Path]]
    ) -> DeclaredTable:
        columns = pq.read_schema(file).names
        links = dict(said.get("fkeys") or {})
        for column in [said.get("pkey"), said.get("time_col"), *links]:
            if column is not None and column not in columns:
                raise ValueError(f"{file}: no column `{column}`, which is said to be a key or the time of `{table}`")
        for column, parent in links.items():
            if parent not in tables or not tables[parent][0].get("pkey"):
                raise ValueError(f"{file}: `{column}` is said to name rows of `{parent}`, which has no primary key")
        return DeclaredTable(said.get("pkey"), links, said.get("time_col"), settled=_SETTLED)

    def _add_tasks(self, manifest: Mapping[str, Any], more: tuple[Path, ...]) -> None:
        own = [path for path in self._folder.glob("tasks/*") if path.is_dir()]
        for folder in sorted([*own, *more], key=lambda path: path.name):
            path = folder / "manifest.yaml"
            made = self._task(_yaml(path), manifest, folder) if path.is_file() else self._own_task(folder)
            if isinstance(made, str):
                self.findings.warnings.append(f"task {folder.name} is not imported: {made}")
            elif self.findings.tasks is not None:
                self.findings.tasks[folder.name] = made

    def _task(self, said: Mapping[str, Any], manifest: Mapping[str, Any], folder: Path) -> Mapping[str, Any] | str:
        """A task of version 3; a text: why it is none here."""
        stype = _STYPES.get(said["task_type"])
        if stype is None:
            return f"{said['task_type']} predicts more than one value"
        missing = [name for name in _NEEDED[stype == "link"] if said.get(name) is None]
        if missing:
            return f"its manifest does not say {', '.join(f'`{name}`' for name in missing)}"
        split = {"val": str(manifest["val_timestamp"]), "test": str(manifest["test_timestamp"])}
        task: dict[str, Any]
        if stype == "link":
            task = {"anchor_table": said["src_entity_table"], "target_column": said["dst_entity_col"]}
            task |= {"target_stype": stype, "target_table": said["dst_entity_table"]}
            task |= {"top_k": said["eval_k"]} if said.get("eval_k") else {}
        else:
            task = {"anchor_table": said["entity_table"], "target_column": said["target_col"], "target_stype": stype}
        if said.get("remove_columns"):
            task["remove_columns"] = [list(place) for place in said["remove_columns"]]
        if said["kind"] == "autocomplete":
            hidden = [
                place for place in task.pop("remove_columns", []) if place != [said["entity_table"], said["target_col"]]
            ]
            stype = self._cell_stype(said["entity_table"], said["target_col"], stype)
            return {**task, "target_stype": stype, "split": split, **({"remove_columns": hidden} if hidden else {})}
        task |= {"anchor_key": said["src_entity_col" if stype == "link" else "entity_col"]}
        task |= {"observation_time_column": said["time_col"]} if said.get("time_col") else {}
        if said.get("sql"):
            task |= {"query": said["sql"], "timedelta": said["timedelta"], "split": split}
            return {**task, "num_eval_timestamps": said.get("num_eval_timestamps", 1)}
        labels = self._labels(folder)
        if labels is None:
            return "it has neither SQL nor labels"
        if said.get("timedelta"):
            task["horizon"] = said["timedelta"]
        return {**task, "table": labels}

    def _cell_stype(self, table: str, column: str, stype: str) -> str:
        """The stype of a cell task is that of its column, which inference chooses: numbers may be classes."""
        kind = pq.read_schema(self._files[table]).field(column).type
        return "categorical" if stype == "boolean" and pa.types.is_string(kind) else stype

    def _own_task(self, folder: Path) -> Mapping[str, Any] | str:
        """A task of version 2: its labels, whose keys stand in their files."""
        first = folder / "train.parquet"
        if not first.is_file() or not _has_keys(first):
            return "no train.parquet that says what it is of"
        keys, _, time = _own_keys(first)
        schema = pq.read_schema(first)
        others = [name for name in schema.names if name not in keys and name != time and not name.startswith("__")]
        lists = [name for name in keys if pa.types.is_list(schema.field(name).type)]
        if len(keys) == 2 and len(lists) == 1 and not others:
            others = lists
        if len(keys) - len(lists) != 1 or len(others) != 1:
            return f"its labels have {len(keys)} entities and {len(others)} targets, expected one of each"
        column, anchor = next((name, table) for name, table in keys.items() if name not in lists)
        task: dict[str, Any] = {
            "table": self._labels(folder),
            "anchor_table": anchor,
            "anchor_key": column,
            "target_column": others[0],
        }
        if lists:
            task |= {"target_stype": "link", "target_table": keys[lists[0]]}
        else:
            task["target_stype"] = _stype_of(folder, others[0])
        self.findings.warnings.append(
            f"task {folder.name}: version 2 does not say how long a label looks ahead; add `horizon`, or past labels"
            " stay hidden"
        )
        return {**task, "observation_time_column": time} if time else task

    def _labels(self, folder: Path) -> str | None:
        """Puts the labels of a task into one file with their splits; its path."""
        parts = []
        for split in _SPLITS:
            file = folder / f"{split}.parquet"
            if file.is_file():
                table = pq.read_table(file)
                parts.append(table.append_column("split", pa.array([split] * table.num_rows, pa.string())))
        if not parts:
            return None
        path = f"labels/{folder.name}.parquet"
        table = pa.concat_tables([part.replace_schema_metadata(None) for part in parts], promote_options="permissive")
        self.findings.label_files[path] = table
        return path


def _files(folder: Path) -> list[Path]:
    return sorted((folder / "db").glob("*.parquet")) or sorted(folder.glob("*.parquet"))


def _own_keys(file: Path) -> tuple[dict[str, str], str | None, str | None]:
    """Foreign keys, primary key and time, as version 2 writes them into a parquet file."""
    said = {key.decode(): value for key, value in (pq.read_schema(file).metadata or {}).items()}
    try:
        keys, primary_key, time = (
            json.loads(said.get(name, b"null")) for name in ("fkey_col_to_pkey_table", "pkey_col", "time_col")
        )
    except ValueError:
        raise ValueError(f"{file}: what it says of its keys is no JSON") from None
    return dict(keys or {}), primary_key, time


def _stype_of(folder: Path, column: str) -> str:
    """The stype of a label: two values are a truth, fractions numbers, texts classes."""
    labels = pq.read_table(folder / "train.parquet", columns=[column])[column].combine_chunks()
    if pa.types.is_string(labels.type) or pa.types.is_large_string(labels.type):
        return "categorical"
    return "boolean" if set(labels.unique().to_pylist()) <= {0, 1, None} else "numerical"


def _yaml(path: Path) -> Mapping[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: no YAML: {str(error).splitlines()[0]}") from None
    return found if isinstance(found, dict) else {}
