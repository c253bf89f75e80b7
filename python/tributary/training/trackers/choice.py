"""Opens the trackers of a run and passes figures on to them.

A tracker that cannot be opened ends the run before it begins; one that fails later is left with a warning, for a
night's training is worth more than its curves.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from tributary.config import ConfigError
from tributary.training.trackers.interface import TrackedRun, Tracker

_CLASSES = {"tensorboard": "TensorBoardTracker", "mlflow": "MlflowTracker", "wandb": "WandbTracker"}


class Trackers:
    """All trackers of a run as one.

    Args:
        names: of `train.trackers`.
        run: what they are told.

    Raises:
        ConfigError: a tracker's package is missing, or it cannot start.
    """

    def __init__(self, names: Sequence[str], run: TrackedRun):
        self._open: dict[str, Tracker] = {}
        for name in names:
            try:
                self._open[name] = getattr(import_module(f"tributary.training.trackers.{name}"), _CLASSES[name])(run)
            except ImportError as error:
                install = f'pip install "tributary[{name}]"' if name != "tensorboard" else "pip install tensorboard"
                raise ConfigError(f"train.trackers: {name} needs a package ({error}): {install}") from error
            except Exception as error:
                raise ConfigError(f"train.trackers: {name} cannot start: {error}") from error

    def log(self, line: Mapping[str, Any]) -> None:
        """Passes on the figures of a line of `metrics.jsonl`."""
        figures = {name: value for name, value in line.items() if name not in ("kind", "step")}
        values = dict(_flat(line["kind"], figures))
        self._each(lambda tracker: tracker.log(line["step"], values))

    def close(self, is_finished: bool) -> None:
        """Ends all of them; idempotent."""
        self._each(lambda tracker: tracker.close(is_finished))
        self._open.clear()

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            try:
                call(tracker)
            except Exception as error:  # any of the many ways in which a service or a disk can fail
                warnings.warn(f"{name} gets nothing more of this run: {error}", RuntimeWarning, stacklevel=3)
                del self._open[name]


def _flat(prefix: str, values: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Numbers of a nested mapping by their path; lists are left out."""
    found: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(prefix if name == "tasks" else f"{prefix}/{name}", value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append((f"{prefix}/{name}", float(value)))
    return found
