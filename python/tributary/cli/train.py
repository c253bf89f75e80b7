"""`tributary train`: fit a model to the tasks of a processed database."""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from tributary.training.train import Report


def train(
    config: Annotated[Path, typer.Option("--config", "-c", help="YAML file of the run; see configs/.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Replace one key of the file; repeatable."),
    ] = None,
    resume: Annotated[
        Literal["never", "auto"],
        typer.Option(help="`auto`: continue the run from its newest sound checkpoint, if it has one."),
    ] = "never",
) -> None:
    """Train a model; Ctrl-C or SIGTERM saves the state and ends, `--resume auto` continues exactly.

    Example: tributary train --config configs/demo.yaml --set train.steps=300
    """
    from tributary.cli.console import messages, print_error
    from tributary.config import RunConfig
    from tributary.training.train import TrainingError, TrainingInterrupted
    from tributary.training.train import train as run

    resolved = RunConfig.load(config, overrides or ())
    # Orbax logs, with a traceback, what it raises anyway.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    sys.unraisablehook = _print_unraisable
    databases = ", ".join(str(part.database) for part in resolved.data.parts.values())
    messages().print(f"training {resolved.run.path} on {databases}", markup=False, soft_wrap=True)
    try:
        with TrainingWatcher() as watcher:
            run_dir = run(resolved, resume=resume, on_progress=watcher.show)
    except TrainingInterrupted as interruption:
        messages().print(str(interruption), markup=False, soft_wrap=True)
        raise typer.Exit(128 + interruption.signal_number) from None
    except TrainingError as error:
        print_error(error)
        raise typer.Exit(1) from None
    typer.echo(str(run_dir))


class TrainingWatcher:
    """A bar with loss, pace and remaining time on a terminal, a line now and then elsewhere."""

    _SECONDS_PER_LINE = 15.0

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        from tributary.cli.console import messages

        self._console = messages()
        self._bar = Progress(
            TextColumn("steps"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, text="compiling")
        self._last_line_s = 0.0
        self._loss = float("nan")

    def __enter__(self) -> "TrainingWatcher":
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bar.stop()

    def show(self, report: "Report") -> None:
        """Moves the bar; validations are printed above it."""
        if report.validation is not None:
            score = "none" if report.validation.score is None else f"{report.validation.score:.4f}"
            parts = [
                f"{name}: " + ", ".join(f"{metric} {value:.4g}" for metric, value in metrics.items())
                for name, metrics in report.validation.tasks.items()
            ]
            line = f"step {report.step}: validation score {score} ({'; '.join(parts)})"
            self._console.print(line, markup=False, soft_wrap=True)
            return
        if report.loss == report.loss:
            self._loss = 0.9 * self._loss + 0.1 * report.loss if self._loss == self._loss else report.loss
        loss = f"loss {self._loss:.4f}, " if self._loss == self._loss else ""  # none is known of the first step
        text = (
            f"{loss}{_rate(report.examples_per_s)} examples/s, "
            f"{report.input_wait:.0%} waiting for input, {report.utilisation:.0%} of peak FLOP/s, "
            f"{_memory()}, {_duration(report.remaining_s)} left"
        )
        self._bar.update(self._task, completed=report.step, total=report.num_steps, text=text)
        is_due = report.elapsed_s - self._last_line_s >= self._SECONDS_PER_LINE
        if not self._console.is_terminal and is_due:
            self._last_line_s = report.elapsed_s
            self._console.print(f"step {report.step} of {report.num_steps}: {text}", markup=False, soft_wrap=True)


def _print_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Leaves out writes that Orbax abandons when another one fails, which is raised: they end after its event loop."""
    if not (isinstance(unraisable.exc_value, RuntimeError) and "Event loop is closed" in str(unraisable.exc_value)):
        sys.__unraisablehook__(unraisable)


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 10 else f"{per_s:.2g}"


def _memory() -> str:
    """Highest memory so far: of the devices where they say, else of this process."""
    from tributary.training.cost import device_peak_bytes, peak_memory_bytes

    of_devices = device_peak_bytes()
    return f"{(of_devices or peak_memory_bytes()) / 2**30:.1f} GiB" + (" on the device" if of_devices else "")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
