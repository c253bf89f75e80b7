"""Where a run's figures go besides its own files: TensorBoard, MLflow, Weights & Biases.

One file per tracker, each the only one that imports its package; `interface.py` says what a tracker does, `choice.py`
opens those that `train.trackers` names. Described in `documentation/training.md`.
"""

from tributary.training.trackers.choice import Trackers
from tributary.training.trackers.interface import TrackedRun, Tracker

__all__ = ["TrackedRun", "Tracker", "Trackers"]
