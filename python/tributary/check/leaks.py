"""Label leaks: columns that may know the future, and columns that give a task's label away."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.metrics import roc_auc_score

from tributary.check.finding import Finding
from tributary.errors import TributaryError
from tributary.infer import leak_suspects
from tributary.infer.profile import Profiler, quoted
from tributary.metadata import Description, TaskDescription
from tributary.preprocess import SqlLimits
from tributary.preprocess.labels import LabelQueries
from tributary.preprocess.progress import Silence

_GIVEN_AWAY = 0.98
_FEWEST = 100
_MOST_LABELS = 20_000
_LABELS = "labels of a task"


def check_leaks(
    profiler: Profiler,
    description: Description,
    input_dir: Path,
    limits: SqlLimits,
    progress: Callable[[str], None] = lambda item: None,
) -> Iterator[Finding]:
    """Columns that know the future by their own nature, then those that know a label too well.

    Args:
        profiler: the tables.
        description: what they mean.
        input_dir: their files.
        limits: what a label query may take.
        progress: told the name of each task that is looked at.
    """
    removed = {tuple(place) for task in description.tasks for place in task.raw.get("remove_columns") or ()}
    for suspect in leak_suspects(profiler, description.tables):
        if (suspect.table, suspect.column) not in removed:
            fix = f'put ["{suspect.table}", "{suspect.column}"] into `remove_columns` of the tasks it could help'
            yield Finding("warning", "may know the future", f"{suspect.table}.{suspect.column}", suspect.reason, fix)
    for task in description.tasks:
        progress(task.name)
        yield from _task(profiler, description, task, input_dir, limits)


def _task(
    profiler: Profiler, description: Description, task: TaskDescription, input_dir: Path, limits: SqlLimits
) -> Iterator[Finding]:
    """Columns of the entity's own row that rank the labels nearly perfectly, by value or by being empty."""
    try:
        labels = _labels(profiler, description, task, input_dir, limits)
    except TributaryError as error:
        yield Finding("error", "label query", f"task {task.name}", str(error).splitlines()[0], "correct the query")
        return
    truth = _truth(labels["label"], task.target_stype)
    if truth is None:
        return
    hidden = {tuple(place) for place in task.raw.get("remove_columns") or ()}
    for column in labels.column_names[1:]:
        values = labels[column]
        if (task.anchor_table, column) in hidden or (task.is_cell_masking and column == task.target_column):
            continue
        for what, numbers in (
            ("its values rank", _numbers(values)),
            ("whether it is empty tells", _numbers(values.is_null())),
        ):
            score = _separation(truth, numbers)
            if score >= _GIVEN_AWAY:
                message = f"{what} the labels almost perfectly (AUROC {score:.3f} over {len(truth):,} labels)"
                fix = f'put ["{task.anchor_table}", "{column}"] into `remove_columns` if it is filled in later'
                place = f"task {task.name}: {task.anchor_table}.{column}"
                yield Finding("warning", "label leak", place, message, fix)
                break


def _labels(
    profiler: Profiler, description: Description, task: TaskDescription, input_dir: Path, limits: SqlLimits
) -> pa.Table:
    """Label and columns of the entity's row, of at most so many labels."""
    table = description.tables[task.anchor_table]
    columns = [c for c, each in table["columns"].items() if each["stype"] not in ("identifier", "ignored", "text")]
    listed = "".join(f", e.{quoted(column)}" for column in columns)
    entity = quoted(task.anchor_table)
    sample = f"USING SAMPLE reservoir({_MOST_LABELS} ROWS) REPEATABLE (0)"
    if task.is_cell_masking:
        target = quoted(task.target_column)
        return profiler.table(f"SELECT {target} AS label{listed} FROM {entity} e WHERE {target} IS NOT NULL {sample}")
    with tempfile.TemporaryDirectory() as folder:
        path = _label_file(description, task, input_dir, Path(folder), limits)
        key = table["primary_key"]
        profiler.add(_LABELS, [path])
        return profiler.table(
            f"SELECT l.{quoted(task.target_column)} AS label{listed} FROM {quoted(_LABELS)} l JOIN {entity} e"
            f" ON e.{quoted(key)} = l.{quoted(task.anchor_key or key)} WHERE label IS NOT NULL {sample}"
        )


def _label_file(
    description: Description, task: TaskDescription, input_dir: Path, scratch: Path, limits: SqlLimits
) -> Path:
    if task.table is not None:
        return input_dir / task.table
    queries = LabelQueries(description, [task], input_dir, scratch, limits)
    try:
        return queries.run(task.name, Silence())
    finally:
        queries.close()


def _truth(labels: pa.ChunkedArray, stype: str) -> np.ndarray | None:
    """Bool [N]: labels as two sides, each large enough; None where there are none."""
    numbers = _numbers(labels)
    if stype not in ("boolean", "numerical") or numbers is None:
        return None
    sides = numbers > (0.5 if stype == "boolean" else np.median(numbers))
    small = min(int(sides.sum()), int((~sides).sum()))
    return sides if small >= _FEWEST // 2 else None


def _numbers(values: pa.ChunkedArray) -> np.ndarray | None:
    """float64 [N], NaN where null; None where the values are no numbers."""
    kind, types = values.type, pa.types
    if types.is_timestamp(kind) or types.is_date(kind):
        values = values.cast(pa.timestamp("us", getattr(kind, "tz", None)), safe=False).cast(pa.int64())
    elif not any(
        is_kind(kind) for is_kind in (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal)
    ):
        return None
    return np.asarray(pc.fill_null(values.cast(pa.float64(), safe=False), float("nan")).to_numpy())


def _separation(truth: np.ndarray, numbers: np.ndarray | None) -> float:
    """AUROC of numbers for the two sides, in the better direction; 0.5 where they say nothing."""
    if numbers is None:
        return 0.5
    known = np.isfinite(numbers)
    sides = truth[known]
    if known.sum() < _FEWEST or sides.all() or not sides.any():
        return 0.5
    score = float(roc_auc_score(sides, numbers[known]))
    return max(score, 1 - score)
