"""What a tracker is told, and what it does."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True)
class TrackedRun:
    """The run that is tracked."""

    folder: Path
    """Its folder, in which a tracker keeps what it needs to go on with the same run after a resumption."""
    name: str
    """Its name."""
    project: str
    """What runs are gathered under."""
    config: Mapping[str, Mapping[str, Any]]
    """Resolved configuration."""
    step: int
    """Steps done; figures of later steps, left by a run that was cut off, are void."""

    def remembered(self, tracker: str) -> str | None:
        """The tracker's own name of this run, where it was started before."""
        path = self._memory(tracker)
        return path.read_text(encoding="utf-8").strip() if path.is_file() else None

    def remember(self, tracker: str, run_id: str) -> None:
        """Keeps the tracker's own name of this run."""
        self._memory(tracker).write_text(run_id + "\n", encoding="utf-8")

    def _memory(self, tracker: str) -> Path:
        return self.folder / f"{tracker}_run_id"


class Tracker(Protocol):
    """Takes figures of a run; made from a `TrackedRun`, raises `ImportError` where its package is missing."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Takes figures by name (`train/loss`, `validation/churn/auroc`)."""

    def close(self, is_finished: bool) -> None:
        """Sends what is left.

        Args:
            is_finished: training came to its end.
        """
