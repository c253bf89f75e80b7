"""`tributary cache`: what vectors are kept, and forgetting them."""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from tributary.embed import Space, VectorCache

_UNITS = {"": 1, "KB": 1_000, "MB": 1_000_000, "GB": 1_000_000_000}


class Action(StrEnum):
    """What to do with the cache."""

    LIST = "list"
    PRUNE = "prune"


def cache(
    action: Annotated[Action, typer.Argument(help="`list` what there is, or `prune` what is no longer wanted.")],
    space: Annotated[list[int] | None, typer.Option(help="Prune this space (its number in the list).")] = None,
    model: Annotated[str | None, typer.Option(help="Prune the spaces of this model.")] = None,
    unused_days: Annotated[
        float | None, typer.Option(min=0, help="Prune spaces that no run has used for so many days.")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(help="Prune the least recently used spaces until the rest is no larger, such as 2GB.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Prune every space.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be pruned, and keep it.")] = False,
) -> None:
    """List or prune the vectors kept between runs and shared by all databases (in the folder TRIBUTARY_CACHE).

    Example: tributary cache prune --unused-days 90
    """
    from tributary.cli.console import output as console
    from tributary.embed import VectorCache, cache_folder

    folder = cache_folder()
    if folder is None:
        raise ValueError("the cache is switched off (TRIBUTARY_CACHE=off)")
    limit = None if max_size is None else _bytes(max_size)
    with VectorCache(folder) as vectors:
        spaces = vectors.spaces()
        if action is Action.LIST:
            console().print(_listing(spaces, str(vectors.path)))
            typer.echo(_total(spaces, vectors))
            return
        if not (space or model or everything or unused_days is not None or limit is not None):
            raise ValueError("prune what? name --space, --model, --unused-days, --max-size or --all")
        chosen = _chosen(spaces, space or [], model, unused_days, everything)
        chosen += _least_recent([one for one in spaces if one not in chosen], limit)
        console().print(_listing(chosen, "would be forgotten" if dry_run else "forgotten"))
        if not dry_run:
            vectors.prune([one.id for one in chosen])
        typer.echo(_total(vectors.spaces(), vectors))


def _chosen(
    spaces: "Sequence[Space]", named: list[int], model: str | None, unused_days: float | None, everything: bool
) -> "list[Space]":
    import time

    known = [space.id for space in spaces]
    unknown = [number for number in named if number not in known]
    if unknown:
        there = ", ".join(map(str, sorted(known))) or "none"
        raise ValueError(f"the cache has no space {unknown[0]} (there are: {there})")
    models = sorted({space.identity["model"] for space in spaces})
    if model is not None and model not in models:
        raise ValueError(f"the cache has nothing of the model `{model}` (there are: {', '.join(models) or 'none'})")
    limit = None if unused_days is None else time.time() - 86_400 * unused_days
    return [
        space
        for space in spaces
        if everything
        or space.id in named
        or space.identity["model"] == model
        or (limit is not None and space.used <= limit)
    ]


def _least_recent(spaces: "Sequence[Space]", max_bytes: int | None) -> "list[Space]":
    """Of spaces, most recently used first, those beyond a size."""
    size, beyond = 0, []
    for space in spaces:
        size += space.num_bytes
        if max_bytes is not None and size > max_bytes:
            beyond.append(space)
            size -= space.num_bytes
    return beyond


def _bytes(size: str) -> int:
    parts = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]B)?", size.strip().upper())
    if parts is None:
        raise ValueError(f"--max-size: expected a size such as 500MB or 2GB, found `{size}`")
    return int(float(parts[1]) * _UNITS[parts[2] or ""])


def _total(spaces: "Sequence[Space]", vectors: "VectorCache") -> str:
    number = sum(space.num_vectors for space in spaces)
    return f"{number:,} vectors of {len(spaces)} spaces; {vectors.path} takes {vectors.path.stat().st_size:,} bytes"


def _listing(spaces: "Sequence[Space]", title: str) -> "Table":
    from datetime import UTC, datetime

    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table("space", "embedder", "model", box=box.SIMPLE_HEAD, title=escape(title))
    for heading in ("dimension", "vectors", "bytes"):
        table.add_column(heading, justify="right")
    table.add_column("last used")
    for space in spaces:
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
