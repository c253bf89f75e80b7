"""`tributary preprocess`: parquet files and their description to a processed database."""

from pathlib import Path
from typing import Annotated

import typer

_DATA, _SQL = "Data", "Task SQL"


def preprocess(
    input_dir: Annotated[
        Path, typer.Argument(metavar="IN", help="Folder with metadata.json and the parquet files; never written to.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make; absent or complete at every moment.")],
    metadata: Annotated[
        Path | None,
        typer.Option(help="Another description than IN/metadata.json.", rich_help_panel=_DATA),
    ] = None,
    embedder: Annotated[
        str,
        typer.Option(
            envvar="TRIBUTARY_EMBEDDER",
            help="What turns texts into vectors: `local` (a sentence encoder in this process), `local-static` (its"
            " tokens' vectors, for millions of texts), `endpoint` (a server that speaks OpenAI's /v1/embeddings) or"
            " `hash` (feature hashing, which knows no meaning).",
            rich_help_panel=_DATA,
        ),
    ] = "local",
    embedder_url: Annotated[
        str | None,
        typer.Option(help="Address of `endpoint`; else TRIBUTARY_EMBEDDER_URL.", rich_help_panel=_DATA),
    ] = None,
    embedder_model: Annotated[
        str | None,
        typer.Option(help="Model of `endpoint`; else TRIBUTARY_EMBEDDER_MODEL.", rich_help_panel=_DATA),
    ] = None,
    dimension: Annotated[int, typer.Option(min=8, help="Length of the vectors of texts.", rich_help_panel=_DATA)] = 256,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="A foreign key that names no row is an error, not a counted null.", rich_help_panel=_DATA
        ),
    ] = False,
    stats_until: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Take means and deviations from rows before this time only (ISO 8601, UTC).",
            rich_help_panel=_DATA,
        ),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace an output made from something else, keeping stages that still fit."),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Check description and queries, count rows and texts, say what would be done and how large it"
            " gets; write nothing.",
        ),
    ] = False,
    threads: Annotated[
        int,
        typer.Option(min=0, envvar="TRIBUTARY_THREADS", help="Threads; 0 takes every core. Same result for any."),
    ] = 0,
    memory: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="GiB",
            help="Keys, links, times and texts beyond this go to scratch files beside OUT; by default a quarter of the"
            " free memory. Same result for any.",
        ),
    ] = None,
    sql_time_limit: Annotated[
        float, typer.Option(min=0.1, help="Seconds the query of one task may take.", rich_help_panel=_SQL)
    ] = 30.0,
    sql_memory: Annotated[
        float, typer.Option(min=0.25, help="GiB the query of one task may take.", rich_help_panel=_SQL)
    ] = 2.0,
) -> None:
    """Turn parquet files and their metadata.json into a processed database.

    [bold]Stages[/bold]: encode (tables, keys, links), tasks (labels and their splits), embed (vectors of texts and \
columns), publish. Each is redone only when what it was made from has changed: a new or changed task redoes that \
task alone, another embedder only the vectors. A run that was stopped or killed is continued by the next one, and \
the same input again changes nothing.

    [bold]What is in the data[/bold] is counted, never guessed: nulls, NaN and infinities, moments out of range, keys \
that name no row. The summary at the end shows the counts and what the labels of every split look like; they stay in \
OUT/metadata.json. A mistake is one message that names file, table, column and row, exit code 2, and no output.

    [bold]Label SQL[/bold] may read `timestamps(timestamp)` and `{timedelta}`, as RelBench's does; the fields of a \
task are described in documentation/data_model.md.

    Example: tributary preprocess data/raw/shop data/processed/shop

    Before a long run: tributary preprocess IN OUT --dry-run

    After editing a task: tributary preprocess IN OUT --force

    Without a look at test rows: tributary preprocess IN OUT --stats-until 2024-01-01
    """
    from tributary.cli.console import output as console
    from tributary.cli.progress import ProgressWatcher
    from tributary.cli.summary import print_plan, print_summary
    from tributary.embed import make_embedder
    from tributary.preprocess import PreprocessOptions, SqlLimits, plan
    from tributary.preprocess import preprocess as run

    options = PreprocessOptions(
        metadata=metadata,
        threads=threads,
        memory=None if memory is None else int(memory * 2**30),
        strict=strict,
        stats_until=stats_until,
        force=force,
        sql=SqlLimits(seconds=sql_time_limit, memory_bytes=int(sql_memory * 2**30)),
    )
    maker = make_embedder(embedder, dimension=dimension, url=embedder_url, model=embedder_model)
    with ProgressWatcher() as watcher:
        if dry_run:
            planned = plan(input_dir, output, embedder=maker, options=options, watcher=watcher)
            for warning in planned.warnings:
                watcher.warn(warning)
            print_plan(console(), planned)
            return
        outcome = run(input_dir, output, embedder=maker, options=options, watcher=watcher)
    if not outcome.is_up_to_date:  # stages taken over from an earlier run have not spoken yet
        for warning in outcome.manifest.all_warnings:
            watcher.warn(warning)
    print_summary(console(), outcome)
