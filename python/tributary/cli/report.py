"""`tributary report`: one HTML page about a run."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN [OTHER...]", help="Folder of an evaluated run; others to set beside it."),
    ],
    beside: Annotated[list[Path] | None, typer.Option(help="The same as OTHER: an ablated run, say.")] = None,
    out: Annotated[Path | None, typer.Option(help="HTML file to write; default: report.html in RUN.")] = None,
) -> None:
    """Write one self-contained HTML page: data, metrics beside baselines, curves, errors, cost, configuration.

    Example: tributary report runs/demo --out report.html

    Ablations as bars: tributary report runs/whole runs/no-history runs/no-full-attention
    """
    from tributary.evaluation.evaluate import load
    from tributary.report import write_report

    run, *others = runs
    if not (run / "config.yaml").is_file():
        raise FileNotFoundError(2, "no such run (it holds no config.yaml)", str(run))
    evaluations = load(run)
    if not evaluations:
        raise ValueError(f"{run}: nothing is evaluated yet; run `tributary evaluate {run}` first")
    page = write_report(run, evaluations, out or run / "report.html", beside=[*(beside or []), *others])
    typer.echo(str(page))
