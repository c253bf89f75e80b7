"""MLflow: a run of the experiment `train.project`.

Goes to the server of `MLFLOW_TRACKING_URI`; without one into `mlflow.db` beside the runs, which needs no server:
`mlflow ui --backend-store-uri sqlite:///runs/mlflow.db` shows it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import mlflow
from mlflow.entities import Metric, Param

from tributary.training.trackers.interface import TrackedRun

_NUM_PARAMS = 100
"""Parameters that one call may set."""


class MlflowTracker:
    """Logs to MLflow."""

    def __init__(self, run: TrackedRun):
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{run.folder.resolve().parent / 'mlflow.db'}"
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        known = run.remembered("mlflow")
        if known is not None:
            self._run_id = known
            self._client.update_run(known, status="RUNNING")
            return
        experiment = self._client.get_experiment_by_name(run.project)
        experiment_id = experiment.experiment_id if experiment else self._client.create_experiment(run.project)
        self._run_id = self._client.create_run(experiment_id, run_name=run.name).info.run_id
        run.remember("mlflow", self._run_id)
        settings = [(section, *item) for section, keys in run.config.items() for item in keys.items()]
        params = [Param(f"{section}.{key}", str(value)) for section, key, value in settings]
        for start in range(0, len(params), _NUM_PARAMS):
            self._client.log_batch(self._run_id, params=params[start : start + _NUM_PARAMS])

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Takes figures by name."""
        now_ms = int(1000 * time.time())
        self._client.log_batch(self._run_id, [Metric(name, value, now_ms, step) for name, value in values.items()])

    def close(self, is_finished: bool) -> None:
        """Says how the run ended."""
        self._client.set_terminated(self._run_id, "FINISHED" if is_finished else "KILLED")
