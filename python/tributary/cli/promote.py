"""`tributary promote`: put a run where it is served from, if it is good enough."""

from pathlib import Path
from typing import Annotated

import typer


def promote(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained and evaluated run.")],
    to: Annotated[Path, typer.Option(help="Folder to serve from; the model there before stays as TO.previous.")],
    metric_threshold: Annotated[
        list[str] | None,
        typer.Option(metavar="[TASK:]METRIC=VALUE", help="A metric to reach, as auroc=0.75 or mae=3; may be repeated."),
    ] = None,
    beats: Annotated[
        list[str] | None, typer.Option(help="Baseline to beat: constant, entity or lightgbm; may be repeated.")
    ] = None,
    not_worse_than: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Refuse what is worse than this model beyond the 95 % interval on the same rows; default: the model "
            "at TO, if there is one; none: nothing.",
        ),
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Task to look at; default: all that were evaluated.")] = None,
    split: Annotated[str, typer.Option(help="Split that was evaluated: test or val.")] = "test",
    regime: Annotated[str, typer.Option(help="Regime that was evaluated: seed-time or frozen.")] = "seed-time",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what the gates say, and promote nothing.")] = False,
) -> None:
    """Copy the evaluated checkpoint of RUN to a place for serving if it passes every gate; exit code 1 if not.

    Example: tributary promote runs/churn --to models/churn --metric-threshold auroc=0.75 --beats lightgbm
    """
    from tributary.cli.console import output
    from tributary.evaluation.promote import FILE, Gates, Threshold, check
    from tributary.evaluation.promote import promote as run_promotion

    other = to if not_worse_than is None and (to / FILE).is_file() else None
    if not_worse_than not in (None, "none"):
        other = Path(str(not_worse_than))
        if not other.is_dir():
            raise FileNotFoundError(2, "no such model (--not-worse-than)", str(other))
    thresholds = [Threshold.parse(text) for text in metric_threshold or []]
    gates = Gates(thresholds, beats or [], other, task or [], split, regime)
    checks = check(run, gates)
    for found in checks:
        output().print(f"{'passed' if found.is_passed else 'FAILED'}  {found.words}", markup=False, soft_wrap=True)
    if not all(found.is_passed for found in checks):
        output().print(f"not promoted: {run} stays where it is, and {to} as it was", markup=False, soft_wrap=True)
        raise typer.Exit(1)
    if not dry_run:
        output().print(f"promoted: {run_promotion(run, to, checks, gates)}", markup=False, soft_wrap=True)
