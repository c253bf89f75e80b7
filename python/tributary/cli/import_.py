"""`tributary import`: files or a database to a folder of parquet files with a drafted description."""

from pathlib import Path
from typing import Annotated

import typer


def import_(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="Folder or file (parquet, CSV, TSV, JSON lines, .gz), SQLite or DuckDB file, postgresql:// or mysql://"
            " URL, RelBench folder, relbench:NAME.",
        ),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to make.")],
    name: Annotated[str | None, typer.Option(help="Name of the database; by default that of the source.")] = None,
    table: Annotated[list[str] | None, typer.Option(help="Import this table; repeatable; by default all.")] = None,
    schema: Annotated[str | None, typer.Option(help="Schema of a database, if not its default.")] = None,
    views: Annotated[bool, typer.Option("--views", help="Also the views of a database.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a folder that an import made.")] = False,
    tasks: Annotated[bool, typer.Option(help="Also propose tasks, where the source has none.")] = True,
    why: Annotated[bool, typer.Option("--why", help="Show the reason of every choice, and what was rejected.")] = False,
    memory: Annotated[float, typer.Option(min=0.2, metavar="GIB", help="Memory that counting may take.")] = 2.0,
    threads: Annotated[int, typer.Option(min=0, envvar="TRIBUTARY_THREADS", help="Threads; 0 takes every core.")] = 0,
) -> None:
    """Read a folder of files or a database into parquet files with a drafted metadata.json; the source stays as it is.

    Example: tributary import postgresql://reader@db.example.org/shop data/raw/shop

    The password may stand in the URL, in PGPASSWORD or in ~/.pgpass; it is written nowhere.
    """
    from tributary.cli.console import output
    from tributary.cli.metadata import show_draft
    from tributary.cli.progress import ProgressWatcher
    from tributary.importing import import_source

    with ProgressWatcher() as watcher:
        done = import_source(
            source,
            out,
            name=name,
            tables=table or (),
            schema=schema,
            views=views,
            force=force,
            with_tasks=tasks,
            memory_gib=memory,
            threads=threads,
            watcher=watcher,
        )
    show_draft(output(), done.draft, why)
    output().print(
        f"{out}/metadata.json: read it and correct it; next: tributary preprocess {out} PROCESSED",
        markup=False,
        soft_wrap=True,
    )
