"""`tributary predict`: answers of a trained run as a parquet file."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def predict(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run.")],
    task: Annotated[str, typer.Option(help="Task to predict.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Seeds to predict.")] = "test",
    max_seeds: Annotated[int | None, typer.Option(min=1, help="At most so many seeds, drawn at random.")] = None,
    database: Annotated[
        Path | None, typer.Option(help="Processed database to predict on, when it is not the run's own.")
    ] = None,
    step: Annotated[str, typer.Option(help="Checkpoint: best, last or a step number.")] = "best",
) -> None:
    """Predict a split of a task: entity key, time, prediction, probability and label of every seed.

    Example: tributary predict runs/demo --task late --out predictions.parquet
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from tributary.cli.console import messages
    from tributary.predict import load_run, write_predictions

    loaded = load_run(run, step=int(step) if step.isdigit() else step, database=database)
    columns = (TextColumn("seeds"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=messages(), disable=not messages().is_terminal) as bars:
        bar = bars.add_task("", total=None)
        num_rows = write_predictions(
            loaded,
            task,
            split,
            out,
            max_seeds=max_seeds,
            progress=lambda done, total: bars.update(bar, completed=done, total=total),
        )
    messages().print(f"{num_rows:,} predictions of step {loaded.step}", markup=False)
    typer.echo(str(out))
