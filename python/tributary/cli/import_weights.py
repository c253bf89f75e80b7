"""`tributary import-weights`: a run of published weights, without training."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def import_weights(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="safetensors file of a published model.")],
    preset: Annotated[Literal["rt-v1", "rt-plurel", "rt-j"], typer.Option(help="Which published model it is.")],
    database: Annotated[Path, typer.Option(help="Processed database to predict on.")],
    out: Annotated[Path, typer.Option(help="Folder of the run to make.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set one key of the run's configuration; repeatable."),
    ] = None,
) -> None:
    """Turn published weights into a run that `predict` and `evaluate` accept.

    Example: tributary import-weights model.safetensors --preset rt-j --database data/processed/shop --out runs/rt-j
    """
    from tributary.cli.console import messages, print_warning
    from tributary.import_weights import import_weights as run

    done = run(file, preset=preset, database=database, out=out, overrides=overrides or ())
    for warning in done.warnings:
        print_warning(warning)
    messages().print(f"{done.num_parameters:,} parameters of {preset}", markup=False)
    typer.echo(str(done.run_dir))
