"""`tributary predict`: answers of a trained run as a parquet file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from tributary.data import Database
    from tributary.explain import Explanation
    from tributary.seeds import Seeds

_NUM_PATHS = 12
"""Paths that are printed."""


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    task: Annotated[str | None, typer.Option(help="Task to predict.")] = None,
    query: Annotated[
        str | None, typer.Option(help="Or a predictive query; with --raw. See documentation/query.md.")
    ] = None,
    raw: Annotated[
        Path | None, typer.Option(metavar="IN", help="With --query: folder of metadata.json and the parquet files.")
    ] = None,
    metadata: Annotated[
        Path | None, typer.Option(help="With --query: another description than IN/metadata.json.")
    ] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Seeds to predict.")] = "test",
    key: Annotated[
        list[str] | None, typer.Option(help="Predict this entity in place of a split; may be given several times.")
    ] = None,
    time: Annotated[str | None, typer.Option(help="The moment of the keys or the query, ISO 8601, UTC.")] = None,
    seeds_from: Annotated[
        Path | None,
        typer.Option(help="Predict the keys and times of a parquet, CSV or Arrow file in place of a split."),
    ] = None,
    max_seeds: Annotated[int | None, typer.Option(min=1, help="At most so many seeds, drawn at random.")] = None,
    quantiles: Annotated[
        str | None, typer.Option(help="Of numbers and times: quantiles besides, as 0.05,0.5,0.95.")
    ] = None,
    top: Annotated[int, typer.Option(min=0, help="Of categories and texts: so many classes with probabilities.")] = 0,
    explain: Annotated[
        Path | None,
        typer.Option(help="Parquet file of what changes each answer: cells, rows and paths that are taken out."),
    ] = None,
    explain_html: Annotated[Path | None, typer.Option(help="With --explain: a page that draws some of it.")] = None,
    explain_seeds: Annotated[
        int | None, typer.Option(min=1, help="With --explain: at most so many seeds; default: all that are predicted.")
    ] = None,
    database: Annotated[
        Path | None, typer.Option(help="Processed database to predict on, when it is not the run's own.")
    ] = None,
    step: Annotated[str, typer.Option(help="Checkpoint: best, last or a step number.")] = "best",
) -> None:
    """Predict a split of a task: entity key, time, prediction, probability and label of every seed.

    Example: tributary predict runs/demo --task late --out predictions.parquet

    Any entity at any time, without labels: --key 17 --key 42 --time 2024-06-01, or --seeds-from questions.parquet.

    A long prediction that was interrupted goes on where it stood when the same command is given again.

    A question that is no task yet: --raw data/raw/shop --query "PREDICT COUNT(orders.*, 0, 30, days) = 0 FOR EACH
    customers.id". A run that was trained on other questions answers, too, from the labels of the past it is shown.
    """
    from tributary.cli.console import messages
    from tributary.cli.progress import ProgressWatcher
    from tributary.explain import write_explanations
    from tributary.predict import calibration_of, load_run, write_predictions

    if (task is None) == (query is None):
        raise ValueError("say what to predict: --task NAME, or --query QUERY with --raw IN")
    named = int(step) if step.isdigit() else step
    if query is not None:
        if key or seeds_from is not None or max_seeds is not None or raw is None or quantiles or top or explain:
            raise ValueError("--query needs --raw IN, and says itself whom and what it asks (WHERE, IN)")
        _ask(run, query, raw, metadata, out, time, database, named)
        return
    assert task is not None
    loaded = load_run(run, step=named, database=database)
    seeds = _seeds(loaded.database, task, key, time, seeds_from)
    levels = _levels(quantiles)
    if explain is None and (explain_html is not None or explain_seeds is not None):
        raise ValueError("--explain-html and --explain-seeds say how to explain: add --explain FILE")
    with ProgressWatcher() as watcher:
        watcher.stage("predict")
        if levels:
            calibration_of(loaded, task, lambda done, total: watcher.progress("calibration", done, total, "seeds"))
        num_rows = write_predictions(
            loaded,
            task,
            split,
            out,
            max_seeds=max_seeds,
            seeds=seeds,
            quantiles=levels,
            top=top,
            progress=lambda done, total: watcher.progress("predictions", done, total, "seeds"),
        )
        if explain is not None:
            limits = [limit for limit in (max_seeds, explain_seeds) if limit is not None]
            found = write_explanations(
                loaded,
                task,
                split,
                explain,
                html=explain_html,
                seeds=seeds,
                max_seeds=min(limits) if limits else None,
                progress=lambda done, total: watcher.progress("explanations", done, total, "seeds"),
            )
    messages().print(f"{num_rows:,} predictions of step {loaded.step}", markup=False)
    if explain is not None:
        messages().print(_paths_table(found))
    for path in (out, explain, explain_html):
        if path is not None:
            typer.echo(str(path))


def _paths_table(found: "Explanation") -> "Table":
    """The weightiest paths and columns."""
    from rich.markup import escape
    from rich.table import Table

    grid = Table(title=f"What changes the answers most, in {found.unit}")
    for name in ("path", "column", "seeds", "mean size", "mean change"):
        grid.add_column(name, justify="left" if name in ("path", "column") else "right", overflow="fold")
    for line in found.paths.slice(0, _NUM_PATHS).to_pylist():
        column = f"{line['table']}.{line['column']}" if line["column"] is not None else f"all of {line['table']}"
        figures = (f"{line['num_seeds']:,}", f"{line['mean_size']:.4g}", f"{line['mean_change']:+.4g}")
        grid.add_row(escape(line["path"]), escape(column), *figures)
    return grid


def _ask(
    run: Path,
    query: str,
    raw: Path,
    metadata: Path | None,
    out: Path,
    time: str | None,
    database: Path | None,
    step: str | int,
) -> None:
    """Answers a predictive query."""
    from tributary.ask import ask
    from tributary.cli.console import messages, print_warning
    from tributary.cli.progress import ProgressWatcher

    with ProgressWatcher() as watcher:
        asked = ask(
            run,
            query,
            input_dir=raw,
            metadata=metadata,
            out=out,
            time=time,
            database=database,
            step=step,
            watcher=watcher,
            progress=lambda done, total: watcher.progress("predictions", done, total, "seeds"),
        )
    for warning in asked.warnings:
        print_warning(warning)
    messages().print(f"{asked.num_rows:,} predictions", markup=False)
    typer.echo(str(out))


def _levels(text: str | None) -> list[float]:
    """Levels of quantiles."""
    try:
        return sorted(float(level) for level in (text or "").split(",") if level.strip())
    except ValueError:
        raise ValueError(f"--quantiles {text}: expected numbers between 0 and 1, as 0.05,0.5,0.95") from None


def _seeds(
    database: "Database", task: str, keys: list[str] | None, time: str | None, table: Path | None
) -> "Seeds | None":
    """Seeds of the user's own, if any are given."""
    from tributary.seeds import seeds_from_keys, seeds_from_table

    if table is not None and (keys or time is not None):
        raise ValueError("--seeds-from brings keys and times of its own; leave out --key and --time")
    if table is not None:
        return seeds_from_table(database, task, table)
    if not keys:
        if time is not None:
            raise ValueError("--time is the moment keys are asked about; add --key")
        return None
    return seeds_from_keys(database, task, keys, time)
