"""What a run writes down besides checkpoints, and how fast it goes.

`metrics.jsonl` has a line per logged step and per validation; `training_history.json` is the summary that reports
read; `environment.json` says where it ran; `plots/` has the curves; trackers are told the same figures.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

import jax
import numpy as np

from tributary.config import RunConfig
from tributary.runs.writer import disk_error
from tributary.training.cost import CostMeter, device_peak_bytes, peak_memory_bytes
from tributary.training.trackers import TrackedRun, Trackers
from tributary.training.validation import Validation

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pyarrow", "pydantic")
_FIRST_PLOTS_S = 30.0
"""Seconds before the first curves; a run that ends sooner draws them once, when it ends."""


@dataclasses.dataclass
class Position:
    """Where training stands."""

    step: int = 0
    """Steps done."""
    elapsed_s: float = 0.0
    """Seconds trained, over all resumptions."""
    best_metric: float | None = None
    """Largest validation score."""
    best_step: int | None = None
    """Step of the largest validation score."""


class Rates(NamedTuple):
    """How fast a number of steps went."""

    examples_per_s: float
    """Contexts per second."""
    input_wait: float
    """Share of the time spent waiting for batches."""
    utilisation: float
    """Operations of the steps as a part of what the devices could do in that time."""


class Pace:
    """Seconds trained, and the rates of the steps since the last line of the log, validations left out.

    Args:
        elapsed_s: seconds trained before.
        peak: floating-point operations per second that the devices could do.
    """

    def __init__(self, elapsed_s: float, peak: float):
        self._start, self._peak = time.perf_counter() - elapsed_s, peak
        self._first_step_s: tuple[int, float] | None = None
        self._logged: Rates | None = None
        self._begin()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time inside as a step's waiting for input."""
        start = time.perf_counter()
        yield
        self.waits_ms.append(1000 * (time.perf_counter() - start))

    def tick(self, num_examples: int, operations: float) -> float:
        """Counts a step; returns the seconds trained."""
        self._num_examples += num_examples
        self._operations += operations
        return time.perf_counter() - self._start

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the time inside out of the rates."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def log(self) -> Rates:
        """Rates of the window, which ends with it; call it when its last step is done."""
        self._logged = self._measured()
        self._begin()
        return self._logged

    def _begin(self) -> None:
        self._num_examples, self._operations, self._since = 0, 0.0, time.perf_counter()
        self.waits_ms: list[float] = []
        """Milliseconds that each step of this window waited for its batch."""

    def _measured(self) -> Rates:
        spent_s = max(1e-9, time.perf_counter() - self._since)
        return Rates(
            self._num_examples / spent_s, sum(self.waits_ms) / 1000 / spent_s, self._operations / spent_s / self._peak
        )

    @property
    def rates(self) -> Rates:
        """Of the last whole window, which do not jump as those of steps under way do; before there is one, so far."""
        return self._logged or self._measured()

    def remaining_s(self, position: Position, num_steps: int, limit_s: float) -> float:
        """Seconds left at the pace since the first step of this process (which compiled), within the limit."""
        if self._first_step_s is None:
            self._first_step_s = (position.step, position.elapsed_s)
        first_step, first_s = self._first_step_s
        per_step = (position.elapsed_s - first_s) / max(1, position.step - first_step)
        return max(0.0, min((num_steps - position.step) * per_step, limit_s - position.elapsed_s))


class Journal:
    """Files of a run.

    Args:
        run_dir: folder of the run.
        config: resolved configuration.
        tasks: names of the tasks.
        num_parameters: of the model.
        meter: of what it costs.
        position: where training stands, kept up by the loop; lines of later steps, left by a run that was cut off,
            are dropped.
        origin: where the first parameters came from, as `training.origin.Origin` has it; None: drawn at random.

    Raises:
        WriteError: a file cannot be written; of every method.
    """

    def __init__(
        self,
        run_dir: Path,
        config: RunConfig,
        tasks: list[str],
        num_parameters: int,
        position: Position,
        meter: CostMeter,
        origin: Mapping[str, Any] | None = None,
    ):
        self._dir, self._config, self._tasks, self._num_parameters = run_dir, config, tasks, num_parameters
        self._position, self._meter = position, meter
        _write(run_dir / "config.yaml", config.to_yaml())
        _write(run_dir / "environment.json", json.dumps(describe_environment(), indent=2) + "\n")
        if origin is not None:
            _write(run_dir / "origin.json", json.dumps(origin, indent=2) + "\n")
        self._path = run_dir / "metrics.jsonl"
        self._lines = _lines_until(self._path, position.step)
        _write(self._path, "".join(json.dumps(line) + "\n" for line in self._lines))
        self._file = self._path.open("ab", buffering=0)
        settings = config.model_dump(mode="json")
        tracked = TrackedRun(run_dir, config.run.name, config.train.project, settings, position.step)
        self._trackers = Trackers(config.train.trackers, tracked)
        self._no_plots_until = time.perf_counter() + _FIRST_PLOTS_S

    def _append(self, line: dict[str, Any]) -> None:
        self._lines.append(line)
        text = (json.dumps(line) + "\n").encode()
        with _telling(self._path, len(text)):
            while text:
                text = text[self._file.write(text) :]
        self._trackers.log(line)

    def validations_since_best(self) -> int:
        """Validations behind the best one."""
        best = self._position.best_step
        return sum(line["kind"] == "validation" and (best is None or line["step"] > best) for line in self._lines)

    def write_step(self, metrics: Mapping[str, np.ndarray], pace: Pace) -> None:
        """A line for the steps since the last one, which ends a window of the pace; metrics are of the last step."""
        waits_ms = [round(wait, 3) for wait in pace.waits_ms]
        rates = pace.log()._asdict()
        rates |= {"peak_memory_bytes": peak_memory_bytes(), "device_peak_bytes": device_peak_bytes()}
        values = {name: float(value) for name, value in metrics.items()}
        line = {"kind": "train", "step": self._position.step, "elapsed_s": self._position.elapsed_s}
        line |= {**rates, **values}
        self._append(line | {"input_wait_ms": waits_ms})

    def write_validation(self, validation: Validation) -> None:
        """A line for a validation, and the history up to it."""
        line = {"kind": "validation", "elapsed_s": self._position.elapsed_s, **dataclasses.asdict(validation)}
        self._append(line)
        self.write_history()
        self._draw()

    def _draw(self) -> None:
        """Curves, where the last ones took long enough ago that drawing costs less than a hundredth of the time."""
        if self._config.train.plots and time.perf_counter() > self._no_plots_until:
            from tributary.training.run_plots import (
                write_plots,  # Matplotlib takes longer to import than a small run to train
            )

            start = time.perf_counter()
            try:
                write_plots(self._dir / "plots", self._history())
            except OSError as error:
                warnings.warn(f"{self._dir / 'plots'}: curves are not drawn: {error}", RuntimeWarning, stacklevel=3)
            spent = time.perf_counter() - start
            self._no_plots_until = start + 100.0 * spent

    def write_history(self) -> None:
        """The summary, written anew."""
        _write(self._dir / "training_history.json", json.dumps(self._history(), indent=1) + "\n")

    def _history(self) -> dict[str, Any]:
        position = self._position
        return {
            "name": self._config.run.name,
            "database": ", ".join(str(part.database) for part in self._config.data.parts.values()),
            "tasks": self._tasks,
            "num_parameters": self._num_parameters,
            "num_steps": position.step,
            "batch_size": self._config.train.batch_size,
            "elapsed_s": position.elapsed_s,
            "best_step": position.best_step,
            "best_score": position.best_metric,
            "cost": {
                "wall_s": position.elapsed_s,
                "examples": position.step * self._config.train.batch_size,
                **self._meter.cost(),
            },
            "train": [line for line in self._lines if line["kind"] == "train"],
            "validation": [line for line in self._lines if line["kind"] == "validation"],
        }

    def close(self, *, is_finished: bool = True) -> None:
        """Writes the history, draws the curves and closes the files.

        Args:
            is_finished: training came to its end.
        """
        try:
            self.write_history()
            self._no_plots_until = 0.0
            self._draw()
        finally:
            self._file.close()
            self._trackers.close(is_finished)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            self.close(is_finished=error is None)
        except OSError as late:  # why training ended is the error to show
            if error is None:
                raise
            warnings.warn(str(late), RuntimeWarning, stacklevel=2)


def describe_environment() -> dict[str, Any]:
    """Versions, machine and devices."""
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "num_cpus": os.cpu_count(),
        "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        "devices": [f"{device.platform}:{device.device_kind}" for device in jax.devices()],
        "command": sys.argv,
    }


def _lines_until(path: Path, step: int) -> list[dict[str, Any]]:
    """Lines of steps up to `step`; a last line cut off by a crash is dropped."""
    lines: list[dict[str, Any]] = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() and step else []:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            break
        if line["step"] <= step:
            lines.append(line)
    return lines


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with _telling(path, len(text)):
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)


@contextlib.contextmanager
def _telling(path: Path, num_bytes: int) -> Iterator[None]:
    """Turns a failing disk into an error that says what it takes."""
    try:
        yield
    except OSError as error:
        advice = "make room, then continue with --resume auto"
        raise disk_error(error, path, "it", num_bytes, advice) or error from error
