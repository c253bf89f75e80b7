"""A processed database made by the native stages alone: no embedder, no child process, no staging to resume."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from tributary import _headwater


def process(raw: Path, metadata: Mapping[str, Any], folder: Path) -> _headwater.Database:
    """Processes the parquet files in `raw` into the new folder `folder` and opens it."""
    folder.mkdir(parents=True)
    description = folder.parent / f"{folder.name}.metadata.json"
    description.write_text(json.dumps(metadata))
    _headwater.encode(raw, folder, metadata=description, threads=1)
    normalised = _headwater.read_metadata(description)
    for name, task in metadata.get("tasks", {}).items():
        labels = None
        if "query" in task:
            labels = folder.parent / f"{folder.name}.labels.parquet"
            with duckdb.connect() as connection:
                for table, described in metadata["tables"].items():
                    file = raw / described.get("file", f"{table}.parquet")
                    connection.execute(f"CREATE VIEW \"{table}\" AS SELECT * FROM read_parquet('{file}')")
                pq.write_table(connection.sql(task["query"]).to_arrow_table(), labels)
        elif "table" in task:
            labels = raw / task["table"]
        _headwater.write_task(folder, name, labels, metadata=normalised)
    _headwater.publish(folder)
    return _headwater.Database(folder)
