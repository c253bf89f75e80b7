"""`tributary cache`: what vectors are kept, and forgetting them."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from tributary.embed import VectorCache


class Action(StrEnum):
    """What to do with the cache."""

    LIST = "list"
    PRUNE = "prune"


def cache(
    action: Annotated[Action, typer.Argument(help="`list` what there is, or `prune` what is no longer wanted.")],
    space: Annotated[list[int] | None, typer.Option(help="Prune this space (its number in the list).")] = None,
    unused_days: Annotated[
        float | None, typer.Option(min=0, help="Prune spaces that no run has used for so many days.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Prune every space.")] = False,
) -> None:
    """List or prune the vectors kept between runs and shared by all databases (in the folder TRIBUTARY_CACHE).

    Example: tributary cache prune --unused-days 90
    """
    from tributary.cli.console import output as console
    from tributary.embed import VectorCache, cache_folder

    folder = cache_folder()
    if folder is None:
        raise ValueError("the cache is switched off (TRIBUTARY_CACHE=off)")
    with VectorCache(folder) as vectors:
        if action is Action.LIST:
            console().print(_listing(vectors))
            return
        if not (space or everything or unused_days is not None):
            raise ValueError("prune what? name --space, --unused-days or --all")
        chosen = _chosen(vectors, space or [], unused_days, everything)
        removed = vectors.prune(chosen)
        typer.echo(f"{removed:,} vectors of {len(chosen)} spaces forgotten; {vectors.path.stat().st_size:,} bytes left")


def _chosen(vectors: "VectorCache", named: list[int], unused_days: float | None, everything: bool) -> list[int]:
    import time

    spaces = {space.id: space for space in vectors.spaces()}
    unknown = [number for number in named if number not in spaces]
    if unknown:
        raise ValueError(f"the cache has no space {unknown[0]} (there are: {', '.join(map(str, sorted(spaces)))})")
    limit = None if unused_days is None else time.time() - 86_400 * unused_days
    return [
        number
        for number, space in sorted(spaces.items())
        if everything or number in named or (limit is not None and space.used <= limit)
    ]


def _listing(vectors: "VectorCache") -> "Table":
    from datetime import UTC, datetime

    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table("space", "embedder", "model", box=box.SIMPLE_HEAD, title=escape(str(vectors.path)))
    for heading in ("dimension", "vectors", "bytes"):
        table.add_column(heading, justify="right")
    table.add_column("last used")
    for space in vectors.spaces():
        used = datetime.fromtimestamp(space.used, UTC)
        identity = space.identity
        table.add_row(
            str(space.id),
            identity["kind"],
            escape(identity["model"]),
            str(identity["dimension"]),
            f"{space.num_vectors:,}",
            f"{space.num_bytes:,}",
            f"{used:%Y-%m-%d %H:%M}",
        )
    return table
