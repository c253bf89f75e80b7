"""Which checkpoints stay, and where the others go.

A step that no longer stays is first renamed into `removed/`, which takes no time that a crash could fall into, and
then archived or removed; what a crash left there is cleared away later. Described in `documentation/training.md`.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

REMOVED = "removed"
"""Folder, beside the steps, of those that stay no longer."""


@dataclasses.dataclass(frozen=True)
class Retention:
    """What is kept of the checkpoints of a run."""

    keep_last: int = 2
    """Newest steps."""
    keep_best: int = 1
    """Steps of the best validation metric."""
    keep_every: int | None = None
    """Multiples of this step stay for good."""
    keep_hours: float | None = None
    """Steps younger than this stay."""
    archive_dir: Path | None = None
    """Folder that the others are moved to; None: they are removed."""

    def dropped_last(self, ages_h: Mapping[int, float]) -> list[int]:
        """Steps of `last` that stay no longer.

        Args:
            ages_h: by step, hours since it was written.
        """
        newest = sorted(ages_h)[-self.keep_last :]
        return [
            step
            for step, age_h in sorted(ages_h.items())
            if step not in newest
            and (self.keep_every is None or step % self.keep_every)
            and (self.keep_hours is None or age_h > self.keep_hours)
        ]

    def dropped_best(self, metrics: Mapping[int, float], until: int) -> list[int]:
        """Steps of `best` that stay no longer.

        Those later than the newest of `last` take no part: whoever resumes finds the best of before.

        Args:
            metrics: by step, the larger the better.
            until: newest step of `last`.
        """
        ranked = ranking({step: metric for step, metric in metrics.items() if step <= until})
        return sorted(ranked[self.keep_best :])


def ranking(metrics: Mapping[int, float]) -> list[int]:
    """Steps from the best to the worst; of equal ones the earlier first."""
    return sorted(metrics, key=lambda step: (-metrics[step], step))


def age_h(folder: Path) -> float:
    """Hours since a step was written."""
    return (time.time() - folder.stat().st_mtime) / 3600.0


def set_aside(root: Path, steps: Iterable[int]) -> None:
    """Renames steps of a folder into its `removed/`."""
    for step in steps:
        target = root / REMOVED / str(step)
        if target.exists():
            shutil.rmtree(target)
        target.parent.mkdir(exist_ok=True)
        (root / str(step)).rename(target)


def clear_away(root: Path, archive: Path | None) -> None:
    """Archives or removes what lies in `removed/`.

    Args:
        root: folder of the steps.
        archive: where they go; None: nowhere.
    """
    for folder in sorted((root / REMOVED).glob("*")):
        if archive is not None:
            archive.mkdir(parents=True, exist_ok=True)
            partial = archive / f".{folder.name}.partial"
            for leftover in (partial, archive / folder.name):
                shutil.rmtree(leftover, ignore_errors=True)
            shutil.copytree(folder, partial)
            partial.rename(archive / folder.name)
        shutil.rmtree(folder)
