"""`tributary evaluate`: metrics of a trained run beside honest baselines."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table


def evaluate(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folder of a trained run; several: how they scatter, and their average."),
    ],
    task: Annotated[str | None, typer.Option(help="Task to evaluate; default: every task of the run.")] = None,
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    regime: Annotated[
        str,
        typer.Option(help="seed-time: each seed sees all up to its own moment; frozen: nothing after one cut-off."),
    ] = "seed-time",
    database_cutoff: Annotated[
        str | None, typer.Option(help="Cut-off of the frozen regime, as YYYY-MM-DD; default: the split's first seed.")
    ] = None,
    max_seeds: Annotated[int | None, typer.Option(min=1, help="At most so many seeds a task, at random.")] = None,
    database: Annotated[
        Path | None,
        typer.Option(help="Another processed database than the run's own; zero-shot where it was not trained on."),
    ] = None,
    step: Annotated[str, typer.Option(help="Checkpoint: best, last or a step number.")] = "best",
    baselines: Annotated[bool, typer.Option(help="Fit the baselines and score them on the same rows.")] = True,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Also score the model together with LightGBM, weighed on the split val.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Score a run on a split beside a constant, the entity's own past and LightGBM on its history.

    Example: tributary evaluate runs/demo --task flight-late --max-seeds 5000

    Five random numbers of one configuration: tributary evaluate runs/a runs/b runs/c runs/d runs/e --ensemble
    """
    import json

    from tributary.cli.console import output
    from tributary.evaluation.evaluate import evaluate_runs, tasks_of
    from tributary.evaluation.regimes import REGIMES
    from tributary.prediction.predict import load_run

    if split not in ("train", "val", "test"):
        raise ValueError(f"--split {split}: expected train, val or test")
    if regime not in REGIMES:
        raise ValueError(f"--regime {regime}: expected {' or '.join(REGIMES)}")
    if ensemble and not baselines:
        raise ValueError("--ensemble weighs the model with LightGBM: leave out --no-baselines")
    cutoff = _microseconds(database_cutoff)
    loaded = [load_run(run, step=int(step) if step.isdigit() else step, database=database) for run in runs]
    found = []
    for name in [task] if task is not None else tasks_of(loaded[0]):
        with _Bar(name) as bar:
            results, summary = evaluate_runs(
                loaded,
                name,
                split,
                regime,
                database_cutoff=cutoff,
                with_baselines=baselines,
                with_ensemble=ensemble,
                max_seeds=max_seeds,
                progress=bar.update,
            )
        found += results if summary is None else [summary]
        if not as_json:
            _show(found[-1])
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    else:
        for run in runs:
            output().print(f"written: {run / 'evaluation.json'}", markup=False, soft_wrap=True)
        output().print(f"next:    tributary report {' '.join(map(str, runs))}", markup=False, soft_wrap=True)


def _microseconds(text: str | None) -> int | None:
    """A date or time as microseconds since 1970."""
    if text is None:
        return None
    import numpy as np

    try:
        return int(np.datetime64(text, "us").astype(np.int64))
    except ValueError:
        raise ValueError(f"--database-cutoff {text}: expected YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS") from None


_MEAN = "mean +- deviation"


class _Bar:
    """One line of progress for one task: predicting with a bar, then the baselines."""

    def __init__(self, task: str) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from tributary.cli.console import messages

        columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn())
        self._bars = Progress(
            *columns, TimeRemainingColumn(compact=True), console=messages(), disable=not messages().is_terminal
        )
        self._task, self._bar = task, self._bars.add_task(task, total=None)

    def __enter__(self) -> "_Bar":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def update(self, what: str, done: int, total: int) -> None:
        """Shows what is done at the moment."""
        self._bars.update(self._bar, description=f"{self._task}: {what}", completed=done, total=total)


def _show(result: dict[str, Any]) -> None:
    """Prints the table of one task and the verdicts."""
    from rich.text import Text

    from tributary.cli.console import output

    console = output()
    of_all = "" if result["num_evaluated"] == result["num_seeds"] else f" of {result['num_seeds']:,}"
    frozen = f" at {result['database_cutoff']}" if result["database_cutoff"] else ""
    head = f"{result['task']} on {result['split']}, {result['regime']} regime{frozen}: "
    console.print(Text(head, style="bold") + Text(f"{result['num_evaluated']:,}{of_all} seeds"), soft_wrap=True)
    if result["learned"]["kind"] != "trained":
        console.print(f"  {result['learned']['words']}", markup=False, soft_wrap=True)
    console.print(_table(result))
    for line in _said(result):
        console.print(f"  {line}", markup=False, soft_wrap=True)
    console.print()


def _said(result: dict[str, Any]) -> list[str]:
    """What is said below the table."""
    lines = [f"{metric} is undefined: {reason}" for metric, reason in result["undefined"].items()]
    for entry in result["baselines"]:
        lines += [f"{entry['name']}: {entry[key]}" for key in ("remark",) if key in entry]
        if entry["details"].get("left_out"):
            lines.append(f"{entry['name']}: {entry['details']['left_out']}")
    lines += [f"the {result['model']['name']} {verdict}" for verdict in result["verdicts"]]
    if "ensemble" in result:
        lines.append(f"ensemble: {result['ensemble']['description']}")
        lines += [f"the ensemble {verdict}" for verdict in result["ensemble"]["verdicts"]]
    if result.get("differences"):
        lines.append(f"the runs differ by more than their random number: {', '.join(result['differences'])}")
    if "recall_of_context" in result:
        lines.append(f"{100 * result['recall_of_context']:.1f} % of what the labels name was in the contexts")
    return lines + [f"note: {remark}" for remark in result["remarks"]]


def _table(result: dict[str, Any]) -> "Table":
    """Models down, metrics across, the judging metric first and with its interval."""
    from rich import box
    from rich.table import Table

    metrics = sorted(result["model"]["metrics"], key=lambda name: name != result["metric"])
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", min_width=len(_MEAN), overflow="fold")
    for name in metrics:
        table.add_column(f"{name} (95 %)" if name == result["metric"] else name, justify="right")
    for run in result.get("runs", []):
        table.add_row(run["run"], *[_figure(run["metrics"][name]) for name in metrics])
    if "runs" in result:
        means = [f"{result['mean'][n]:.4g} +- {result['std'][n]:.2g}" if n in result["mean"] else "-" for n in metrics]
        table.add_row(_MEAN, *means, style="bold")
    for entry in [result["model"], *([result["ensemble"]] if "ensemble" in result else []), *result["baselines"]]:
        cells = []
        for name in metrics:
            interval = entry["intervals"][name]
            is_shown = name == result["metric"] and interval is not None
            text = f" [{interval[0]:.4g}, {interval[1]:.4g}]".replace("[", "\\[") if is_shown else ""
            cells.append(_figure(entry["metrics"][name]) + text)
        table.add_row(entry["name"], *cells, style="bold" if entry is result["model"] else "")
    return table


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
