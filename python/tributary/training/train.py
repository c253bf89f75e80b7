"""Training, in the order things happen: `train` makes everything ready, `Training.run` is the loop.

Everything a run leaves behind is in its folder: `config.yaml`, `environment.json`, `metrics.jsonl`,
`training_history.json`, `checkpoints/`. Described in `documentation/training.md`.
"""

from __future__ import annotations

import dataclasses
import math
import signal
import tempfile
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

import jax
import numpy as np

from tributary.config import PUBLISHED_KINDS, ConfigError, RunConfig
from tributary.data import Loaded, Loader
from tributary.model.forward import make_forward
from tributary.runs.checkpoint import Checkpoints, Kind, Progress
from tributary.runs.learned import remember
from tributary.runs.retention import Retention
from tributary.training.cost import CostMeter
from tributary.training.devices import Devices
from tributary.training.journal import Journal, Pace
from tributary.training.mixture import sampler_offsets, training_mixture
from tributary.training.operations import StepOperations, peak_operations
from tributary.training.optim import evaluation_params
from tributary.training.preparation import Learner, Material, Start
from tributary.training.validation import Validation, Validator


class TrainingError(ArithmeticError):
    """Loss or gradient is not finite; the message names step and batch."""


class TrainingInterrupted(Exception):  # noqa: N818 - nothing went wrong
    """A signal ended training after the state was saved."""

    def __init__(self, signal_number: int, step: int, run_dir: Path):
        name = signal.Signals(signal_number).name
        super().__init__(f"{name} after step {step}: state saved, continue {run_dir} with --resume auto")
        self.signal_number, self.step, self.run_dir = signal_number, step, run_dir


@dataclasses.dataclass(frozen=True)
class Report:
    """What a running training tells whoever watches it."""

    step: int
    """Steps done."""
    num_steps: int
    """Steps planned."""
    elapsed_s: float
    """Seconds trained."""
    remaining_s: float
    """Seconds left by the present pace, no more than the time limit leaves."""
    loss: float
    """Loss of the step before this one; NaN after the first."""
    examples_per_s: float
    """Contexts per second between the last two lines of the log."""
    input_wait: float
    """Share of that time spent waiting for batches."""
    utilisation: float
    """Operations done in that time, as a part of what the devices could do; see `tributary.training.operations`."""
    validation: Validation | None
    """The validation made after this step, if one was."""


def train(
    config: RunConfig,
    *,
    resume: Literal["never", "auto"] = "never",
    on_progress: Callable[[Report], None] | None = None,
) -> Path:
    """Trains a model.

    Args:
        config: everything there is to decide.
        resume: `auto` continues from the newest sound checkpoint of the run, if there is one.
        on_progress: told after every step, and after every validation; of several processes, only the first tells.

    Returns:
        Folder of the run.

    Raises:
        ConfigError: the run exists already, or the database has no such task.
        CheckpointError: the run to resume had another database or configuration, or the run to start from does not fit.
        TrainingError: loss or gradient is not finite; the last good state is saved.
        TrainingInterrupted: SIGINT or SIGTERM; the state is saved.
    """
    # --- Devices, run folder ----------------------------------------------------------------------------------------
    devices = Devices.of(config.devices)
    devices.check_batch(config.train.batch_size, config.train.accumulate)
    run_dir = config.run.path
    is_free = devices.all(not (run_dir / "config.yaml").exists())
    if resume == "never" and not is_free:
        raise ConfigError(f"{run_dir} holds a run already: continue it with --resume auto, or set another run.name")
    # --- Databases, model and optimiser -----------------------------------------------------------------------------
    material = Material.open(config, devices)
    learner = Learner.of(config, material, devices)
    # --- Beginning or resumption ------------------------------------------------------------------------------------
    checkpoints = Checkpoints(run_dir, retention_of(config))
    if resume == "auto" and checkpoints.steps("last"):
        start = Start.resumed(config, material, learner, devices, checkpoints)
    else:
        start = Start.first(config, material, learner, devices)
    with Interruption() as interruption, checkpoints:
        checkpoints.discard_after(start.position.step)
        if devices.is_first:
            databases = [source.database for source in material.sources]
            remember(run_dir, databases, are_spread=config.model.kind not in PUBLISHED_KINDS)
        # --- Batches, loop ------------------------------------------------------------------------------------------
        with Training(config, devices, material, learner, start, checkpoints, on_progress) as training:
            training.run(interruption)
    return run_dir


def retention_of(config: RunConfig) -> Retention:
    """Which checkpoints a run keeps."""
    train = config.train
    archive = Path(train.archive_dir) if train.archive_dir else None
    return Retention(train.keep_last, train.keep_best, train.keep_every, train.keep_hours, archive)


class Training:
    """A training under way: `run` is the loop, the methods below it are its steps in the order they come.

    Args:
        config: of the run.
        devices: of the run.
        material: its databases.
        learner: its model.
        start: where it begins.
        checkpoints: of its folder.
        on_progress: told after every step, and after every validation.
    """

    def __init__(
        self,
        config: RunConfig,
        devices: Devices,
        material: Material,
        learner: Learner,
        start: Start,
        checkpoints: Checkpoints,
        on_progress: Callable[[Report], None] | None,
    ):
        self._config, self._devices, self._material, self._learner = config, devices, material, learner
        self._checkpoints, self._state, self._position = checkpoints, start.state, start.position
        self._origin, self._meter = start.origin, CostMeter(start.cost)
        self._on_progress = on_progress if devices.is_first else None
        self._mixture = training_mixture(material.sources, config, devices)
        self._loader = Loader(self._mixture, devices, sampler_offsets(material.sources))
        if start.sampler_state is not None:
            self._loader.set_state(start.sampler_state)
        forward = make_forward(learner.graphdef)
        self._validator = Validator(material.sources, config, learner.graphdef, forward, learner.draw_params, devices)
        self._journal = self._open_journal()
        self._operations = StepOperations(learner.train_step, start.state, material.arrays)
        self._pace = Pace(self._position.elapsed_s, peak_operations(config.model.dtype, devices.size)[0])
        self._limit_s = (config.train.time_limit_minutes or math.inf) * 60.0
        self._pending: tuple[Loaded, dict[str, jax.Array]] | None = None
        self._validation: Validation | None = None
        self._num_idle = int(devices.largest(np.array(self._journal.validations_since_best())))
        self._agreed_s = self._position.elapsed_s

    def _open_journal(self) -> Journal:
        """Files of the run; those of other processes than the first are thrown away."""
        config, run_dir = self._config, self._config.run.path
        if not self._devices.is_first:
            self._scratch = tempfile.TemporaryDirectory(prefix="tributary-")
            run_dir = Path(self._scratch.name)
            config = config.model_copy(
                update={"train": config.train.model_copy(update={"trackers": (), "plots": False})}
            )
        names, num_parameters = self._material.task_names, self._learner.num_parameters
        return Journal(run_dir, config, names, num_parameters, self._position, self._meter, self._origin)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            self._journal.__exit__(kind, error, trace)
        finally:
            self._validator.close()
            self._mixture.close()

    # --- Loop -------------------------------------------------------------------------------------------------------

    def run(self, interruption: Interruption) -> None:
        """Trains to the end, or until a signal comes."""
        train, position = self._config.train, self._position
        try:
            while position.step < train.steps and position.elapsed_s < self._limit_s:
                self._step()
                signal_number = self._agree(interruption)
                if position.step % train.eval_every == 0:
                    self._validate()
                    if train.patience is not None and self._num_idle >= train.patience:
                        break
                if signal_number or position.step % train.checkpoint_every == 0:
                    self._save_last()
                if signal_number:
                    self._checkpoints.wait()
                    raise TrainingInterrupted(signal_number, position.step, self._config.run.path)
            if self._validation is None and self._pending is not None:
                self._validate()
            self._save_last()
        except TrainingError:
            self._save_before_bad_step()
            raise

    def _step(self) -> None:
        """One step. Only the loss of the step before is read, so that the device always has one to do."""
        train, position = self._config.train, self._position
        with self._pace.waiting():
            loaded = next(self._loader)
        done = max(position.step / train.steps, position.elapsed_s / self._limit_s)
        arrays = self._material.arrays
        self._state, metrics = self._learner.train_step(self._state, loaded.device, arrays, np.float32(done))
        loss = _finite_loss(self._pending, position.step - 1)
        self._pending, self._validation = (loaded, metrics), None
        position.step += 1
        operations = self._operations(loaded.device)
        self._meter.operations += operations
        position.elapsed_s = self._pace.tick(train.batch_size, operations)
        self._checkpoints.check()
        if position.step % train.log_every == 0:
            loss = self._wait()
            self._journal.write_step(jax.device_get(metrics), self._pace)
        self._tell(loss, None)

    def _wait(self) -> float:
        """Waits for the step under way, and returns its loss."""
        return _finite_loss(self._pending, self._position.step - 1)

    def _agree(self, interruption: Interruption) -> int:
        """Number of the signal that came, 0 for none. Several processes go by the same signal and the same clock."""
        signal_number = interruption.signal_number or 0
        if self._devices.world_size == 1:
            return signal_number
        if self._position.step % self._config.train.log_every:  # not worth waiting for the step
            self._position.elapsed_s = self._agreed_s
            return 0
        found = self._devices.largest(np.array([self._position.elapsed_s, signal_number]))
        self._position.elapsed_s = self._agreed_s = float(found[0])
        return int(found[1])

    def _validate(self) -> None:
        self._wait()
        position = self._position
        params = evaluation_params(self._state)
        with self._pace.paused():
            validation = self._validator.validate(params, self._material.arrays, position.step)
        score = validation.score
        if score is not None and (position.best_metric is None or score > position.best_metric):
            position.best_metric, position.best_step = score, position.step
        if score is not None and self._checkpoints.is_among_best(score):
            self._save("best", score, self._loader.get_state())
        self._num_idle = 0 if position.best_step == position.step else self._num_idle + 1
        self._validation = validation
        self._journal.write_validation(validation)
        self._tell(math.nan, validation)

    def _save_last(self) -> None:
        self._wait()
        self._save("last", self._validation.score if self._validation else None, self._loader.get_state())

    def _save_before_bad_step(self) -> None:
        """Steps after the bad one changed nothing: this is the state before it, and its batch comes next."""
        self._position.step = int(self._state["step"])
        if self._pending is not None:
            self._save("last", None, self._pending[0].state)

    def _save(self, kind: Kind, metric: float | None, sampler_state: str) -> None:
        record = dataclasses.asdict(self._position)
        record |= {"metric": metric, "sampler_state": sampler_state, "config": self._config.model_dump(mode="json")}
        record |= {"builds": self._material.builds, "embedder": self._material.embedder, "origin": self._origin}
        record |= {"cost": self._meter.cost()}
        self._checkpoints.save(kind, self._state, Progress(**record))

    def _tell(self, loss: float, validation: Validation | None) -> None:
        if self._on_progress is None:
            return
        position, num_steps = self._position, self._config.train.steps
        remaining_s = self._pace.remaining_s(position, num_steps, self._limit_s)
        rates = self._pace.rates
        self._on_progress(Report(position.step, num_steps, position.elapsed_s, remaining_s, loss, *rates, validation))


def _finite_loss(pending: tuple[Loaded, dict[str, jax.Array]] | None, step: int) -> float:
    """Waits for a step and returns its loss, NaN where there is none.

    Raises:
        TrainingError: its loss or gradient is not finite.
    """
    if pending is None:
        return math.nan
    loaded, metrics = pending
    loss, norm = float(metrics["loss"]), float(metrics["gradient_norm"])
    if not (math.isfinite(loss) and math.isfinite(norm)):
        seeds = [
            seed
            for batch in loaded.host
            for seed in zip(batch.seed_task.tolist(), batch.seed_index.tolist(), strict=True)
        ]
        raise TrainingError(
            f"step {step}: loss {loss}, gradient norm {norm}; the state before it is saved; "
            f"(task id, seed index) of its batch of `{loaded.name}`: {seeds}"
        )
    return loss


class Interruption:
    """Turns SIGINT and SIGTERM into a flag the loop looks at; a second one takes effect at once.

    Outside the main thread, where handlers cannot be set, it does nothing.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._previous: dict[int, Any] = {}

    def _handle(self, number: int, frame: types.FrameType | None) -> None:
        self.signal_number = number
        for signal_number, previous in self._previous.items():
            signal.signal(signal_number, previous)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)
