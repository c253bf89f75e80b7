"""`tributary verify`: is every byte what was published?"""

from pathlib import Path
from typing import Annotated

import typer


def verify(
    database: Annotated[Path, typer.Argument(metavar="DB", help="A processed database.")],
    digest: Annotated[bool, typer.Option("--digest", help="Print the digest alone, for scripts.")] = False,
) -> None:
    """Read and hash every byte of a processed database; exit code 2 and the place of the damage if there is any.

    Example: tributary verify data/processed/shop
    """
    from tributary.preprocess import verify as run

    found = run(database)
    typer.echo(found if digest else f"{database} is sound, digest {found}")
