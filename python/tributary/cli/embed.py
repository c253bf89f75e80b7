"""`tributary embed`: new vectors for a processed database."""

from pathlib import Path
from typing import Annotated

import typer


def embed(
    database: Annotated[Path, typer.Argument(metavar="DB", help="A processed database.")],
    embedder: Annotated[
        str,
        typer.Option(
            envvar="TRIBUTARY_EMBEDDER",
            help="What turns texts into vectors: `local`, `local-static`, `endpoint` or `hash`.",
        ),
    ] = "local",
    dimension: Annotated[int, typer.Option(min=8, help="Length of the vectors.")] = 256,
    embedder_url: Annotated[
        str | None, typer.Option(help="Address of `endpoint`; else TRIBUTARY_EMBEDDER_URL.")
    ] = None,
    embedder_model: Annotated[
        str | None, typer.Option(help="Model of `endpoint`; else TRIBUTARY_EMBEDDER_MODEL.")
    ] = None,
) -> None:
    """Give a processed database the vectors of another embedder, without encoding or querying again.

    Example: tributary embed data/processed/shop --embedder local
    """
    from tributary.cli.progress import ProgressWatcher
    from tributary.embed import make_embedder
    from tributary.preprocess import reembed

    maker = make_embedder(embedder, dimension=dimension, url=embedder_url, model=embedder_model)
    with ProgressWatcher() as watcher:
        done = reembed(database, maker, watcher=watcher)
    counts = done.counts
    typer.echo(f"{database}: vectors of {done.manifest.num_texts:,} texts by {embedder} in {done.seconds:.1f} s")
    typer.echo(f"{counts.found:,} found in the cache, {counts.made:,} made")
