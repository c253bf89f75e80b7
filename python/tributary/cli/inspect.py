"""`tributary inspect`: what is in a processed database."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def inspect(
    database: Annotated[Path, typer.Argument(metavar="DB", help="A processed database.")],
    pattern: Annotated[
        str | None, typer.Argument(metavar="[PATTERN]", help="With --vocabulary: only texts that contain this.")
    ] = None,
    table: Annotated[
        str | None, typer.Option(metavar="TABLE", help="This table with every column, its keys and their fan-out.")
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(metavar="TABLE.COLUMN", help="This column with its histogram or most frequent values."),
    ] = None,
    row: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="TABLE KEY", help="The row with this key, or #N for its number, with its neighbours."),
    ] = None,
    task: Annotated[str | None, typer.Option(metavar="TASK", help="This task with its splits and labels.")] = None,
    vocabulary: Annotated[bool, typer.Option("--vocabulary", help="The texts of the vocabulary.")] = False,
    limit: Annotated[int | None, typer.Option(min=0, help="How many values, neighbours or texts are listed.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Read every row of large tables too, not a sample.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one page for a browser, with the schema drawn.")
    ] = None,
) -> None:
    """Show a processed database: its tables, columns, keys, tasks and files, or one of them in detail.

    Example: tributary inspect data/processed/shop --row orders 17
    """
    from tributary._headwater import Database

    found = Database(database)
    if html is not None:
        if as_json or vocabulary or any(asked is not None for asked in (pattern, table, column, row, task)):
            raise ValueError("--html writes a page of the whole database; give it alone or with --full")
        html.write_text(found.page(full=full), encoding="utf-8", newline="\n")
        text = f"{html}\n"
    else:
        text = found.inspect(
            table=table,
            column=column,
            row=row,
            task=task,
            vocabulary=vocabulary,
            pattern=pattern,
            limit=limit,
            full=full,
            json=as_json,
        )
    _print(text)


def _print(text: str) -> None:
    """Prints the text in the stream's encoding; what it cannot write becomes `?`."""
    encoding = sys.stdout.encoding or "utf-8"
    typer.echo(text.encode(encoding, "replace").decode(encoding), nl=False)
