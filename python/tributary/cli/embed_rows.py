"""`tributary embed-rows`: rows of a table as vectors of a trained run."""

from pathlib import Path
from typing import Annotated

import typer


def embed_rows(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run.")],
    table: Annotated[str, typer.Argument(metavar="TABLE", help="Table whose rows become vectors.")],
    out: Annotated[Path, typer.Option(help="Parquet file to write.")],
    time: Annotated[
        str | None, typer.Option(help="The moment they are seen at, ISO 8601, UTC; default: each row's own.")
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option(help="This row only; may be given several times. Default: the whole table.")
    ] = None,
    database: Annotated[
        Path | None, typer.Option(help="Processed database to read, when it is not the run's own.")
    ] = None,
    step: Annotated[str, typer.Option(help="Checkpoint: best, last or a step number.")] = "best",
) -> None:
    """Write what a model knows of rows: key, time and a vector of d_model numbers each.

    Example: tributary embed-rows runs/demo planes --out planes.parquet

    An interrupted run goes on where it stood when the same command is given again.
    """
    from tributary.cli.console import messages
    from tributary.cli.progress import ProgressWatcher
    from tributary.prediction.predict import load_run
    from tributary.prediction.row_embeddings import write_row_embeddings

    loaded = load_run(run, step=int(step) if step.isdigit() else step, database=database)
    with ProgressWatcher() as watcher:
        watcher.stage("embed")
        num_rows = write_row_embeddings(
            loaded,
            table,
            out,
            keys=key or None,
            time=time,
            progress=lambda done, total: watcher.progress(f"rows of {table}", done, total, "rows"),
        )
    messages().print(f"{num_rows:,} rows of `{table}`, step {loaded.step}", markup=False)
    typer.echo(str(out))
