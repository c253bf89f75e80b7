"""`tributary query`: a predictive query in one line, tried on the past and kept as a task."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from tributary.query import Preview

_MOMENTS = "Moments"


def query(
    input_dir: Annotated[Path, typer.Argument(metavar="IN", help="Folder with metadata.json and the parquet files.")],
    text: Annotated[str, typer.Argument(metavar="QUERY", help="The query, in quotes.")],
    metadata: Annotated[Path | None, typer.Option(help="Another description than IN/metadata.json.")] = None,
    save: Annotated[
        str | None, typer.Option(metavar="NAME", help="Keep the query as a task of this name in the description.")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="With --save: replace a task of that name.")] = False,
    sql: Annotated[bool, typer.Option("--sql", help="Show the label SQL as well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print task and preview as JSON.")] = False,
    val: Annotated[
        str | None, typer.Option(metavar="TIME", help="First moment of validation.", rich_help_panel=_MOMENTS)
    ] = None,
    test: Annotated[
        str | None, typer.Option(metavar="TIME", help="First moment of test.", rich_help_panel=_MOMENTS)
    ] = None,
    every: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION", help='Time between moments, as "7 days"; else the window.', rich_help_panel=_MOMENTS
        ),
    ] = None,
    num_eval_timestamps: Annotated[
        int | None,
        typer.Option(min=1, help="Most moments of validation and of test, with --val.", rich_help_panel=_MOMENTS),
    ] = None,
    sql_time_limit: Annotated[float, typer.Option(min=0.1, help="Seconds the SQL may take.")] = 30.0,
) -> None:
    """Ask a question about the future in one line; see what it means and what the answers were in the past.

    tributary query data/raw/shop "PREDICT COUNT(orders.*, 0, 30, days) = 0 FOR EACH customers.id
    WHERE COUNT(orders.*, -90, 0, days) > 0"

    Functions: COUNT, COUNT_DISTINCT, SUM, AVG, MIN, MAX, FIRST, LAST, LIST_DISTINCT ... RANK TOP k. Conditions: AND,
    OR, NOT, =, <>, <, <=, >, >=, IN, LIKE, IS NULL. WHERE says who is asked about, ASSUMING what is assumed to happen.
    """
    import dataclasses
    import json

    from tributary.cli.console import output, print_warning
    from tributary.metadata import Description
    from tributary.preprocess import SqlLimits
    from tributary.query import Schedule, compile_query, preview, save_task

    path = metadata or input_dir / "metadata.json"
    description = Description.load(path)
    compiled = compile_query(text, description)
    schedule = Schedule(val, test, every, num_eval_timestamps)
    found = preview(compiled, description, input_dir, schedule, SqlLimits(seconds=sql_time_limit))
    for warning in found.warnings:
        print_warning(warning)
    if save is not None:
        save_task(path, save, found.task, replace=replace)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found), indent=1, ensure_ascii=False))
        return
    _show(output(), found, sql)
    if save is not None:
        output().print(f"kept as task `{save}` in {path}; next: tributary preprocess {input_dir} OUT", markup=False)


def _show(console: "Console", found: "Preview", with_sql: bool) -> None:
    """Tables of the labels of each split, and some of them."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    task = found.task
    asked = f"for each row of {task['anchor_table']}"
    if task["target_stype"] == "link":
        asked = f"to rows of {task['target_table']} {asked}"
    horizon = f", known {task['timedelta']} after the moment" if "timedelta" in task else ""
    console.print(f"{task['target_stype']} {asked}{horizon}", markup=False)
    if with_sql:
        console.print(task.get("query", "(fills in a column; there is no SQL)"), markup=False, soft_wrap=True)
    grid = Table(box=box.SIMPLE_HEAD)
    for name, justify in (("split", "left"), ("labels", "right"), ("moments", "right"), ("from", "left")):
        grid.add_column(name, justify="right" if justify == "right" else "left")
    grid.add_column("to")
    grid.add_column("labels are")
    for name, split in found.splits.items():
        statistics = ", ".join(f"{key} {value:.4g}" for key, value in split.statistics.items())
        moments = "" if split.num_moments is None else f"{split.num_moments:,}"
        cells = (name, f"{split.num_rows:,}", moments, split.first or "", split.last or "", statistics)
        grid.add_row(*(escape(cell) for cell in cells))
    console.print(grid)
    if found.samples:
        samples = Table(box=box.SIMPLE_HEAD)
        for name in found.samples[0]:
            samples.add_column(escape(name))
        for row in found.samples:
            samples.add_row(*(escape(str(value)) for value in row.values()))
        console.print(samples)
