"""`tributary report`: one HTML page about a run."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run.")],
    out: Annotated[Path | None, typer.Option(help="HTML file to write; default: report.html in RUN.")] = None,
) -> None:
    """Write one self-contained HTML page: data, metrics beside baselines, curves, errors, cost, configuration.

    Example: tributary report runs/demo --out report.html
    """
    from tributary.evaluate import load
    from tributary.report import write_report

    if not (run / "config.yaml").is_file():
        raise FileNotFoundError(2, "no such run (it holds no config.yaml)", str(run))
    evaluations = load(run)
    if not evaluations:
        raise ValueError(f"{run}: nothing is evaluated yet; run `tributary evaluate {run}` first")
    typer.echo(str(write_report(run, evaluations, out or run / "report.html")))
