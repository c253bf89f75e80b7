"""Tables that sum up a processed database for a person."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tributary.metadata import ColumnManifest, Manifest, TableManifest, TaskManifest

if TYPE_CHECKING:
    from tributary.preprocess import Outcome, Plan

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def print_summary(console: Console, outcome: "Outcome") -> None:
    """What a run of preprocessing made: rows, nulls, edges, tasks, time."""
    manifest = outcome.manifest
    if outcome.is_up_to_date:
        _say(console, f"{outcome.output} is already up to date")
        return
    console.print(tables_table(manifest))
    if manifest.tasks:
        console.print(tasks_table(manifest))
    seconds = ", ".join(f"{stage} {value:.1f} s" for stage, value in outcome.seconds.items())
    size = sum(manifest.files.values())
    _say(console, f"{outcome.output}: {_bytes(size)}, {manifest.num_texts:,} texts, {seconds}")
    if outcome.vectors is not None and outcome.vectors.found:
        _say(console, f"vectors: {outcome.vectors.found:,} found in the cache, {outcome.vectors.made:,} made")
    if outcome.reused:
        _say(console, f"taken over from an earlier run: {', '.join(outcome.reused)}")
    _say(console, f"next: tributary inspect {outcome.output}")


def print_plan(console: Console, plan: "Plan") -> None:
    """What a run of preprocessing would do."""
    grid = _grid("table", ">parquet")
    for table, size in plan.table_bytes.items():
        grid.add_row(escape(table), _bytes(size))
    console.print(grid)
    for stage, is_made in plan.stages.items():
        _say(console, f"{stage}: {'would be made' if is_made else 'is there already'}")


def tables_table(manifest: Manifest) -> Table:
    """One line per table."""
    names = {table.id: table.name for table in manifest.tables}
    grid = _grid("table", ">rows", ">columns", ">nulls", "time range", "foreign keys")
    for table in manifest.tables:
        grid.add_row(
            escape(table.name),
            f"{table.num_rows:,}",
            f"{len(table.columns):,}",
            f"{sum(column.statistics['nulls'] for column in table.columns):,}",
            _time_range(table),
            "\n".join(
                escape(f"{key.column} → {names[key.parent_table]}: ")
                + f"{key.edges:,} edges, {_alarm(key.dangling)} dangling, {key.null:,} null"
                for key in table.foreign_keys
            ),
        )
    return grid


def tasks_table(manifest: Manifest) -> Table:
    """One line per task."""
    names = {table.id: table.name for table in manifest.tables}
    grid = _grid("task", "of", "target", ">train", ">val", ">test", "labels")
    for task in manifest.tasks:
        grid.add_row(
            escape(task.name),
            escape(names[task.anchor_table]),
            escape(f"{task.target_column} ({task.target_stype})"),
            *(f"{task.splits[split]:,}" for split in ("train", "val", "test")),
            _labels(task),
        )
    return grid


def columns_table(table: TableManifest, columns: Iterable[ColumnManifest]) -> Table:
    """One line per column of a table."""
    keys = {key.column for key in table.foreign_keys}
    grid = _grid(">id", "column", "stype", ">nulls", "statistics", "description")
    for column in columns:
        marks = {
            "primary key": column.name == table.primary_key,
            "foreign key": column.name in keys,
            "time": column.name == table.temporal_column,
        }
        role = ", ".join(mark for mark, is_set in marks.items() if is_set)
        grid.add_row(
            str(column.id),
            escape(column.name),
            column.stype + (f" ({role})" if role else ""),
            f"{column.statistics['nulls']:,}",
            _statistics(table, column),
            escape(column.description),
        )
    return grid


def moment(time_us: int) -> str:
    """A time in microseconds since 1970 as a person writes it; `(end of time)` for the largest."""
    if time_us == 2**63 - 1:
        return "(end of time)"
    try:
        text = (_EPOCH + timedelta(microseconds=time_us)).replace(tzinfo=None).isoformat(sep=" ")
    except OverflowError:
        return f"{time_us} us"
    return text.removesuffix(" 00:00:00")


def _statistics(table: TableManifest, column: ColumnManifest) -> str:
    found = column.statistics
    valid = table.num_rows - found["nulls"]
    match column.stype:
        case "numerical" if "mean" in found and valid:
            text = f"mean {found['mean']:.4g}, std {found['std']:.4g}"
            if "min" in found and "max" in found:
                text += f", {found['min']:.6g} to {found['max']:.6g}"
            return text + (f", {found['non_finite']:,} not finite" if found.get("non_finite") else "")
        case "timestamp" if "min_us" in found:
            return f"{moment(found['min_us'])} to {moment(found['max_us'])}"
        case "boolean" if "true_count" in found and valid:
            return f"{100 * found['true_count'] / valid:.1f}% true"
        case "categorical" | "text" if "distinct" in found:
            return f"{found['distinct']:,} distinct"
    return ""


def _labels(task: TaskManifest) -> str:
    match task.target_stype:
        case "boolean" if task.base_rate is not None:
            return f"{100 * task.base_rate:.1f}% true"
        case "numerical" if task.num_seeds:
            return f"mean {task.statistics['mean']:.4g}, std {task.statistics['std']:.4g}"
        case "categorical":
            return f"{len(task.classes):,} classes"
    return ""


def _time_range(table: TableManifest) -> str:
    for column in table.columns:
        if column.name == table.temporal_column and "min_us" in column.statistics:
            first, last = moment(column.statistics["min_us"]), moment(column.statistics["max_us"])
            return f"{first[:10]} to {last[:10]}"
    return ""


def _grid(*headers: str) -> Table:
    """A plain grid; a header that begins with `>` is right-aligned."""
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for header in headers:
        justify: Literal["left", "right"] = "right" if header.startswith(">") else "left"
        grid.add_column(header.removeprefix(">"), justify=justify, overflow="fold")
    return grid


def _alarm(count: int) -> str:
    return f"[yellow]{count:,}[/yellow]" if count else "0"


def _bytes(count: int) -> str:
    if count < 1024:
        return f"{count} bytes"
    scale, unit = next((s, u) for s, u in ((10, "KiB"), (20, "MiB"), (30, "GiB")) if count < 1024 << s or s == 30)
    return f"{count / (1 << scale):.1f} {unit}"


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
