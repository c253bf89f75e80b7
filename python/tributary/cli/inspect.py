"""`tributary inspect`: what is in a processed database."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from tributary.metadata import Manifest

_MAX_COLUMNS = 40


def inspect(
    database: Annotated[Path, typer.Argument(metavar="DB", help="A processed database.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON, for scripts.")] = False,
    table: Annotated[str | None, typer.Option(help="Only this table, with all its columns.")] = None,
) -> None:
    """Show the tables, columns with statistics, foreign keys and tasks of a processed database.

    Example: tributary inspect data/processed/shop --table orders
    """
    from tributary.preprocess import open_manifest

    manifest = open_manifest(database)
    if as_json:
        typer.echo(json.dumps(_facts(manifest), ensure_ascii=True))
        return
    from tributary.cli.console import output

    _print(output(), manifest, table)


def _facts(manifest: "Manifest") -> dict[str, object]:
    from dataclasses import asdict

    return {
        "rows": {table.name: table.num_rows for table in manifest.tables},
        "edges": {f"{table.name}.{key.column}": key.edges for table in manifest.tables for key in table.foreign_keys},
        **asdict(manifest),
    }


def _print(console: "Console", manifest: "Manifest", only: str | None) -> None:
    from rich.markup import escape

    from tributary.cli.summary import columns_table, tables_table, tasks_table

    tables = [table for table in manifest.tables if only in (None, table.name)]
    if only is not None and not tables:
        raise ValueError(f"no table `{only}`; there are {', '.join(f'`{t.name}`' for t in manifest.tables)}")
    if only is None:
        console.print(f"[bold]{escape(manifest.name)}[/bold], build {manifest.build_id}")
        console.print(tables_table(manifest))
    for table in tables:
        shown = table.columns if only is not None else table.columns[:_MAX_COLUMNS]
        console.print(f"[bold]{escape(table.name)}[/bold], {table.num_rows:,} rows")
        console.print(columns_table(table, shown))
        if len(shown) < len(table.columns):
            rest = len(table.columns) - len(shown)
            console.print(f"and {rest:,} more columns: --table {escape(table.name)}\n")
    if only is None:
        if manifest.tasks:
            console.print("[bold]tasks[/bold]")
            console.print(tasks_table(manifest))
        embedder = manifest.embedder
        made_by = f"made by {embedder['kind']} ({embedder['dimension']} dimensions)" if embedder else "without vectors"
        console.print(f"vocabulary: {manifest.num_texts:,} texts, {made_by}", markup=False)
        for warning in manifest.all_warnings:
            console.print(f"warning: {warning}", markup=False, soft_wrap=True)
