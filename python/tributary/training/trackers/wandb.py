"""Weights & Biases: a run of the project `train.project`.

Without `WANDB_API_KEY` or `WANDB_MODE` nothing leaves the machine: the run is written into its folder, and
`wandb sync` sends it later.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping

import wandb

from tributary.training.trackers.interface import TrackedRun


class WandbTracker:
    """Logs to Weights & Biases."""

    def __init__(self, run: TrackedRun):
        run_id = run.remembered("wandb") or uuid.uuid4().hex[:16]
        run.remember("wandb", run_id)
        is_told = "WANDB_API_KEY" in os.environ or "WANDB_MODE" in os.environ
        self._run = wandb.init(
            project=run.project,
            name=run.name,
            id=run_id,
            resume="allow",
            dir=str(run.folder),
            config={section: dict(keys) for section, keys in run.config.items()},
            mode=None if is_told else "offline",
        )
        # Steps that are done again after a resumption are told apart from the order of the calls.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Takes figures by name."""
        self._run.log({**values, "step": step})

    def close(self, is_finished: bool) -> None:
        """Sends what is left."""
        self._run.finish(exit_code=0 if is_finished else 1)
