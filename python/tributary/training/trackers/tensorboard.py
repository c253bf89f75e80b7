"""TensorBoard event files in the folder of the run; `tensorboard --logdir runs` shows them. No TensorFlow."""

from __future__ import annotations

import time
from collections.abc import Mapping

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from tributary.training.trackers.interface import TrackedRun


class TensorBoardTracker:
    """Writes `<run>/tensorboard`."""

    def __init__(self, run: TrackedRun):
        self._writer = EventFileWriter(str(run.folder / "tensorboard"))
        if run.step:  # a start voids what earlier files say of this step and later ones
            session = SessionLog(status=SessionLog.START)
            self._writer.add_event(Event(wall_time=time.time(), step=run.step + 1, session_log=session))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Takes figures by name."""
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._writer.add_event(Event(wall_time=time.time(), step=step, summary=summary))

    def close(self, is_finished: bool) -> None:
        """Writes what is left."""
        self._writer.close()
