"""A stand-in for `tributary.Database` that reads parquet and metadata.json directly, slow and obvious.

It offers the methods the baselines and the evaluation use, so that they are tested without the native module.
"""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import numpy as np

END_OF_TIME = np.iinfo(np.int64).max
ALWAYS = np.iinfo(np.int64).min
UNITS = {"hour": 3_600_000_000, "day": 86_400_000_000}


def parse_horizon(text: str | None) -> int | None:
    """`"12 hours"` as microseconds; None without one."""
    if not text:
        return None
    number, unit = text.split()
    return int(number) * UNITS[unit.rstrip("s")]


class ParquetDatabase:
    """The tables of a folder of parquet files under the names of a metadata.json."""

    def __init__(self, raw: Path | str, metadata: dict | Path | str) -> None:
        self.metadata = metadata if isinstance(metadata, dict) else json.loads(Path(metadata).read_text())
        self.path, self.build_id = str(raw), "parquet"
        self.connection = duckdb.connect()
        for table, description in self.metadata["tables"].items():
            file = Path(raw) / description.get("file", f"{table}.parquet")
            self.connection.execute(f"CREATE VIEW \"{table}\" AS SELECT * FROM read_parquet('{file}')")
        self._vocabulary: list[str] = []
        self._ids: dict[str, int] = {}
        self._seeds: dict[str, dict[str, np.ndarray]] = {}
        self._manifest = self._describe()

    # ---- what tributary.Database offers -------------------------------------------------------------------------

    @property
    def manifest(self) -> str:
        return json.dumps(self._manifest)

    def column(self, table: str, column: str) -> tuple[np.ndarray, np.ndarray]:
        stype = self.metadata["tables"][table]["columns"][column]["stype"]
        return self._typed([row[0] for row in self._fetch(f'SELECT "{column}" FROM "{table}"')], stype)

    def row_times(self, table: str) -> np.ndarray:
        column = self.metadata["tables"][table].get("temporal_column")
        num_rows = self._fetch(f'SELECT count(*) FROM "{table}"')[0][0]
        if column is None:
            return np.full(num_rows, ALWAYS)
        times = self._fetch(f'SELECT epoch_us("{column}") FROM "{table}"')
        return np.array([END_OF_TIME if t is None else t for (t,) in times], np.int64)

    def parents(self, foreign_key_id: int) -> np.ndarray:
        for table in self._manifest["tables"]:
            for key in table["foreign_keys"]:
                if key["id"] == foreign_key_id:
                    index = self._index(self._manifest["tables"][key["parent_table"]]["name"])
                    values = self._fetch(f'SELECT "{key["column"]}" FROM "{table["name"]}"')
                    return np.array([index.get(v, -1) for (v,) in values], np.int64)
        raise ValueError(f"no foreign key {foreign_key_id}")

    def row_keys(self, table: str, rows: np.ndarray) -> list:
        keys = list(self._index(table))
        return [keys[row] for row in rows]

    def vocab(self, ids: list[int]) -> list[str]:
        return [self._vocabulary[i] for i in ids]

    def task_seeds(self, task: str) -> dict[str, np.ndarray]:
        if task not in self._seeds:
            self._seeds[task] = self._make_seeds(task)
        return self._seeds[task]

    # ---- how -----------------------------------------------------------------------------------------------------

    def _fetch(self, query: str) -> list[tuple]:
        return self.connection.execute(query).fetchall()

    def _index(self, table: str) -> dict:
        key = self.metadata["tables"][table]["primary_key"]
        return {v: i for i, (v,) in enumerate(self._fetch(f'SELECT "{key}" FROM "{table}"'))}

    def _intern(self, text: str) -> int:
        if text not in self._ids:
            self._ids[text] = len(self._vocabulary)
            self._vocabulary.append(text)
        return self._ids[text]

    def _typed(self, values: list, stype: str) -> tuple[np.ndarray, np.ndarray]:
        is_valid = np.array([v is not None for v in values], bool)
        if stype == "timestamp":
            epoch = [0 if v is None else np.datetime64(v, "us").astype(np.int64) for v in values]
            return np.array(epoch, np.int64), is_valid
        if stype == "boolean":
            return np.array([bool(v) for v in values]), is_valid
        if stype in ("categorical", "text"):
            return np.array([-1 if v is None else self._intern(str(v)) for v in values], np.int32), is_valid
        return np.array([0.0 if v is None else float(v) for v in values], np.float64), is_valid

    def _describe(self) -> dict:
        column_id = key_id = 0
        tables: list[dict] = []
        names = list(self.metadata["tables"])
        for name, description in self.metadata["tables"].items():
            columns, keys = [], []
            for column, detail in description["columns"].items():
                if detail["stype"] == "ignored":
                    continue
                columns.append({"id": column_id, "name": column, "stype": detail["stype"], "statistics": {}})
                column_id += 1
                if "foreign_key" in detail:
                    parent = detail["foreign_key"].split(".")[0]
                    keys.append({"id": key_id, "column": column, "parent_table": names.index(parent)})
                    key_id += 1
            num_rows = self._fetch(f'SELECT count(*) FROM "{name}"')[0][0]
            head = {"name": name, "num_rows": num_rows, "primary_key": description.get("primary_key")}
            head["temporal_column"] = description.get("temporal_column")
            tables.append({**head, "columns": columns, "foreign_keys": keys})
        tasks = [self._describe_task(tables, i, name) for i, name in enumerate(self.metadata.get("tasks", {}))]
        name = self.metadata["name"]
        return {"name": name, "build_id": self.build_id, "tables": tables, "tasks": tasks, "num_tables": len(tables)}

    def _describe_task(self, tables: list[dict], task_id: int, name: str) -> dict:
        task = self.metadata["tasks"][name]
        kind = "table" if "query" in task else "cell"
        described = {"id": task_id, "name": name, "kind": kind, "horizon_us": parse_horizon(task.get("horizon"))}
        described["anchor_table"] = list(self.metadata["tables"]).index(task["anchor_table"])
        for field in ("anchor_key", "target_column", "target_stype", "observation_time_column"):
            described[field] = task.get(field)
        ids = {(t["name"], c["name"]): c["id"] for t in tables for c in t["columns"]}
        described["remove_columns"] = [ids[t, c] for t, c in task.get("remove_columns", []) if (t, c) in ids]
        described["metric"] = task.get("metric")
        described["statistics"] = {"mean": 0.0, "std": 1.0}
        return described

    def _make_seeds(self, name: str) -> dict[str, np.ndarray]:
        task = self.metadata["tasks"][name]
        key, target, moment = task["anchor_key"], task["target_column"], task["observation_time_column"]
        query = task.get("query") or f'SELECT * FROM "{task["anchor_table"]}"'
        rows = self._fetch(
            f'SELECT "{key}", epoch_us("{moment}"), "{target}" FROM ({query}) ORDER BY "{moment}", "{key}"'
        )
        index = self._index(task["anchor_table"])
        stype = task["target_stype"]
        values, is_valid = self._typed([row[2] for row in rows], stype)
        time = np.array([row[1] for row in rows], np.int64)
        cuts = [np.datetime64(task["split"][s], "us").astype(np.int64) for s in ("val", "test")]
        in_vocabulary = stype in ("categorical", "text")
        return {
            "row": np.array([index[row[0]] for row in rows], np.int64),
            "time": time,
            "split": np.searchsorted(cuts, time, side="right").astype(np.int8),
            "value": np.zeros(len(rows), np.float32) if in_vocabulary else values.astype(np.float32),
            "vocab": values if in_vocabulary else np.full(len(rows), -1, np.int32),
            "is_null": ~is_valid,
        }
