"""A compiled query tried on the raw data: its labels, counted and shown."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tributary.metadata import Description
from tributary.preprocess.labels import LabelQueries
from tributary.preprocess.progress import Silence, Watcher
from tributary.preprocess.sql_engine import SqlEngine, SqlLimits
from tributary.query.compile import LABEL, Compiled
from tributary.query.schedule import Schedule, scheduled_task
from tributary.query.statement import MOMENT, quoted

_SAMPLES = 5
_CLASSES = 10
_WHO = "query"


@dataclasses.dataclass(frozen=True)
class SplitPreview:
    """The labels of a split."""

    num_rows: int
    num_moments: int | None
    first: str | None
    """Earliest moment; None where the question has none."""
    last: str | None
    statistics: dict[str, float]
    """Of the known labels: base rate, or mean and quantiles, or shares of classes."""


@dataclasses.dataclass(frozen=True)
class Preview:
    """What a query asks, and what the answers were in the past."""

    task: dict[str, Any]
    """The task as `metadata.json` has it."""
    splits: dict[str, SplitPreview]
    """By name; `all` where the split is drawn by a hash of the entity."""
    samples: list[dict[str, Any]]
    """Some labels."""
    warnings: tuple[str, ...]


class _Warnings(Silence):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def warn(self, message: str) -> None:
        self.texts.append(message)


def preview(
    compiled: Compiled,
    description: Description,
    input_dir: Path,
    schedule: Schedule | None = None,
    limits: SqlLimits | None = None,
) -> Preview:
    """Asks a query of the past.

    Args:
        compiled: a query.
        description: the database it was compiled for.
        input_dir: folder of the parquet files.
        schedule: when it asks.
        limits: what the SQL may take.

    Raises:
        SchemaError: the SQL fails or takes too much.
        ValueError: there are too few moments.
    """
    warnings = _Warnings()
    task, labels = past_labels(compiled, description, input_dir, schedule, limits, warnings)
    if not labels.num_rows:
        warnings.warn("no label was found: nobody is asked about, or nothing ever happens in the window")
    parts = _parts(labels)
    return Preview(
        task,
        {name: _split_preview(part, task["target_stype"]) for name, part in parts.items()},
        _samples(labels),
        (*compiled.warnings, *warnings.texts),
    )


def past_labels(
    compiled: Compiled,
    description: Description,
    input_dir: Path,
    schedule: Schedule | None = None,
    limits: SqlLimits | None = None,
    watcher: Watcher | None = None,
) -> tuple[dict[str, Any], pa.Table]:
    """The task of a query and all of its labels.

    Args:
        compiled: a query.
        description: the database it was compiled for.
        input_dir: folder of the parquet files.
        schedule: when it asks.
        limits: what the SQL may take.
        watcher: told what the user should know.

    Returns:
        The task, and a table of the entity's key, `moment` (unless no moment is asked), `label`, and `split` where it
        is one by time.
    """
    limits = limits or SqlLimits()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        task = scheduled_task(compiled, schedule or Schedule(), *extent(compiled, description, input_dir, limits))
        asked = _as_query(task, compiled)
        described = Description.load_json({**json.loads(description.text), "tasks": {_WHO: asked}})
        queries = LabelQueries(described, described.tasks, input_dir, scratch, limits)
        try:
            return task, pq.read_table(queries.run(_WHO, watcher or Silence()))
        finally:
            queries.close()


def extent(
    compiled: Compiled, description: Description, input_dir: Path, limits: SqlLimits
) -> tuple[int | None, int | None]:
    """First and last time among the tables of the target."""
    if not compiled.clocks:
        return None, None
    with tempfile.TemporaryDirectory() as scratch:
        files = description.table_files(input_dir)
        with SqlEngine(files, Path(scratch), limits, compiled.clocks) as engine:
            return engine.extent(_WHO)


def _as_query(task: Mapping[str, Any], compiled: Compiled) -> dict[str, Any]:
    """The task as one whose labels a query makes."""
    if "query" in task:
        return dict(task)
    entity = compiled.query.entity
    columns = f"{quoted(entity.name)}, {quoted(task['target_column'])} AS {LABEL}"
    sql = f"SELECT {columns} FROM {quoted(task['anchor_table'])}"
    return {**task, "query": sql, "anchor_key": entity.name, "target_column": LABEL}


def _parts(labels: pa.Table) -> dict[str, pa.Table]:
    if "split" not in labels.column_names:
        return {"all": labels}
    return {name: labels.filter(pc.equal(labels["split"], name)) for name in ("train", "val", "test")}


def _split_preview(labels: pa.Table, stype: str) -> SplitPreview:
    known = labels.filter(labels[LABEL].is_valid())
    moments = known[MOMENT] if MOMENT in known.column_names else None
    first, last = (None, None) if moments is None else (pc.min(moments).as_py(), pc.max(moments).as_py())
    return SplitPreview(
        known.num_rows,
        None if moments is None else pc.count_distinct(moments).as_py(),
        None if first is None else str(first),
        None if last is None else str(last),
        _statistics(known[LABEL], stype) if known.num_rows else {},
    )


def _statistics(labels: pa.ChunkedArray, stype: str) -> dict[str, float]:
    if stype == "boolean":
        return {"base rate": pc.mean(labels.cast(pa.int8())).as_py()}
    if stype == "link":
        lengths, named = pc.list_value_length(labels), pc.count_distinct(pc.list_flatten(labels)).as_py()
        return {"mean length": pc.mean(lengths).as_py(), "longest": float(pc.max(lengths).as_py()), "distinct": named}
    if stype == "numerical":
        numbers = labels.cast(pa.float64())
        quantiles = pc.quantile(numbers, [0.0, 0.1, 0.5, 0.9, 1.0]).to_pylist()
        found = dict(zip(("least", "10 %", "median", "90 %", "most"), quantiles, strict=True))
        return {"mean": pc.mean(numbers).as_py(), **found}
    if stype == "timestamp":
        return {}
    counts = sorted(pc.value_counts(labels).to_pylist(), key=lambda each: (-each["counts"], str(each["values"])))
    return {str(each["values"]): each["counts"] / len(labels) for each in counts[:_CLASSES]}


def _samples(labels: pa.Table) -> list[dict[str, Any]]:
    """Some rows, evenly spaced."""
    step = max(1, labels.num_rows // _SAMPLES)
    return [_plain(row) for row in labels.take(list(range(0, labels.num_rows, step))[:_SAMPLES]).to_pylist()]


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, (int, float, str, bool, list)) or value is None else str(value)
        for name, value in row.items()
    }
