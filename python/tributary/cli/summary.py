"""Tables that sum up a processed database for a person."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tributary.metadata import ColumnManifest, Manifest, TableManifest

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
    grid = _grid("table", ">rows", ">columns", ">parquet", ">processed")
    for table in plan.tables:
        sizes = (_bytes(table.input_bytes), f"~{_bytes(table.output_bytes)}")
        grid.add_row(escape(table.name), f"{table.num_rows:,}", f"{table.num_columns:,}", *sizes)
    console.print(grid)
    rows, size = sum(table.num_rows for table in plan.tables), sum(table.input_bytes for table in plan.tables)
    parts = ", ".join(f"{part} {_bytes(count)}" for part, count in plan.output_bytes.items())
    _say(console, f"in: {rows:,} rows, {_bytes(size)}; out: about {_bytes(sum(plan.output_bytes.values()))} ({parts})")
    if plan.texts is not None:
        texts = plan.texts
        _say(
            console,
            f"to embed: {texts.num_to_make:,} of {texts.num_texts:,} distinct texts, {texts.num_cached:,} are in the"
            f" cache; {texts.num_columns:,} phrases of columns"
            + (f"; and what the labels of {', '.join(texts.open_tasks)} add" if texts.open_tasks else ""),
        )
    for stage, is_made in plan.stages.items():
        _say(console, f"{stage}: {'would be made' if is_made else 'is there already'}")
    for stage, seconds in plan.seconds.items():
        _say(console, f"time of {stage}: {'depends on the endpoint' if seconds is None else f'about {_span(seconds)}'}")


def tables_table(manifest: Manifest) -> Table:
    """One line per table; every count of dirt stands in a column of its own."""
    names = {table.id: table.name for table in manifest.tables}
    grid = _grid("table", ">rows", ">cols", ">nulls", ">NaN/inf", ">overflow", "time range", "foreign keys")
    for table in manifest.tables:
        statistics = [column.statistics for column in table.columns]
        grid.add_row(
            escape(table.name),
            f"{table.num_rows:,}",
            f"{len(table.columns):,}",
            f"{sum(found['nulls'] for found in statistics):,}",
            _alarm(sum(found.get("non_finite", 0) for found in statistics)),
            _alarm(sum(found.get("overflow", 0) for found in statistics)),
            _time_range(table),
            "\n".join(
                escape(f"{key.column} → {names[key.parent_table]}: ")
                + f"{key.edges:,} edges, {_alarm(key.dangling)} dangling, {key.null:,} null"
                for key in table.foreign_keys
            ),
        )
    return grid


def tasks_table(manifest: Manifest) -> Table:
    """One line per task and split: how many labels, of which time, and what they look like."""
    names = {table.id: table.name for table in manifest.tables}
    grid = _grid("task", "of", "target", "split", ">seeds", ">null", "observation times", "labels")
    for task in manifest.tasks:
        head = (task.name, names[task.anchor_table], f"{task.target_column} ({task.target_stype})")
        for split, found in task.preview.items():
            grid.add_row(
                *map(escape, head),
                split,
                f"{found['rows']:,}" if found["rows"] else "[yellow]0[/yellow]",
                f"{found['nulls']:,}",
                _times(found),
                escape(labels_text(found)),
            )
            head = ("", "", "")
    return grid


def labels_text(found: Mapping[str, Any]) -> str:
    """What the labels of one split look like, in a line; `found` is a part of `TaskManifest.preview`."""
    if "base_rate" in found:
        return f"{100 * found['base_rate']:.1f}% true"
    if "quantiles" in found:
        low, median, high = (f"{found['quantiles'][place]:.4g}" for place in (1, 3, 5))
        return f"mean {found['mean']:.4g}, std {found['std']:.4g}; 5% {low}, median {median}, 95% {high}"
    if "quantiles_us" in found:
        first, median, last = (moment(found["quantiles_us"][place]) for place in (0, 3, 6))
        return f"{first} to {last}, median {median}"
    if "mean_links" in found:
        return f"{found['mean_links']:.3g} rows on average, {found['num_targets']:,} distinct"
    if "num_classes" in found:
        top = [f"{each['value'][:40]} {100 * each['count'] / found['rows']:.0f}%" for each in found["classes"][:3]]
        return f"{found['num_classes']:,} distinct: {', '.join(top)}"
    return ""


def _times(found: Mapping[str, Any]) -> str:
    if "min_time_us" not in found:
        return "(end of time)" if found["rows"] else ""
    first, last = moment(found["min_time_us"]), moment(found["max_time_us"])
    return first if first == last else f"{first} to {last}"


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
            text = f"{moment(found['min_us'])} to {moment(found['max_us'])}"
            return text + (f", {found['overflow']:,} overflow" if found.get("overflow") else "")
        case "boolean" if "true_count" in found and valid:
            return f"{100 * found['true_count'] / valid:.1f}% true"
        case "categorical" | "text" if "distinct" in found:
            return f"{found['distinct']:,} distinct"
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


def _span(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 0.1):.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)
