"""`tributary config`: what a configuration comes to, and what its keys mean."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tributary.config.keys import Key

config = typer.Typer(no_args_is_help=True, help="Show what a run's YAML file comes to, and document its keys.")


@config.command()
def show(
    path: Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML file of a run; see configs/.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Replace one key of the file; repeatable."),
    ] = None,
    as_yaml: Annotated[bool, typer.Option("--yaml", help="Print the resolved YAML file alone, to be saved.")] = False,
) -> None:
    """Print every key with its value and where it comes from: default, preset, file or --set.

    Example: tributary config show configs/demo.yaml --set train.steps=300
    """
    from rich.table import Table
    from rich.text import Text

    from tributary.cli.console import output
    from tributary.config import RunConfig
    from tributary.config.keys import resolved_settings, to_text

    if as_yaml:
        typer.echo(RunConfig.load(path, overrides or ()).to_yaml(), nl=False)
        return
    table = Table("key", "value", "from", box=None, pad_edge=False)
    for setting in resolved_settings(path, overrides or ()):
        style = "dim" if setting.origin == "default" else ""
        cells = (setting.name, to_text(setting.value), setting.origin)
        table.add_row(*(Text(cell, style=style, overflow="fold") for cell in cells))
    output().print(table)


@config.command()
def docs(
    key: Annotated[str | None, typer.Argument(metavar="[KEY]", help="A key or a section; default: all.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page documentation/config.md.")] = False,
) -> None:
    """Explain every key: which values it takes, its default, and what it means.

    Example: tributary config docs train.checkpoint_every
    """
    from tributary.config.keys import documented_keys, find_keys, to_markdown

    if markdown:
        typer.echo(to_markdown(), nl=False)
        return
    _print_keys(find_keys(key) if key else [one for keys in documented_keys().values() for one in keys])


def _print_keys(keys: "list[Key]") -> None:
    """A key a paragraph, as terminals are narrower than the descriptions are long."""
    from rich.padding import Padding
    from rich.text import Text

    from tributary.cli.console import output

    for key in keys:
        output().print(Text.assemble((key.name, "bold"), f"  {key.type}; default: {key.default}"))
        output().print(Padding(Text(key.description), (0, 0, 0, 4)))
