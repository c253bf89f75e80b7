"""`tributary predict`: answers of a trained run as a parquet file."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from tributary.data import Database
    from tributary.seeds import Seeds


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
    from tributary.predict import calibration_of, load_run, write_predictions

    if (task is None) == (query is None):
        raise ValueError("say what to predict: --task NAME, or --query QUERY with --raw IN")
    named = int(step) if step.isdigit() else step
    if query is not None:
        if key or seeds_from is not None or max_seeds is not None or raw is None or quantiles or top:
            raise ValueError("--query needs --raw IN, and says itself whom and what it asks (WHERE, IN)")
        _ask(run, query, raw, metadata, out, time, database, named)
        return
    assert task is not None
    loaded = load_run(run, step=named, database=database)
    seeds = _seeds(loaded.database, task, key, time, seeds_from)
    levels = _levels(quantiles)
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
    messages().print(f"{num_rows:,} predictions of step {loaded.step}", markup=False)
    typer.echo(str(out))


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
