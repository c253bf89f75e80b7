"""Training: one function, in the order things happen.

Everything a run leaves behind is in its folder: `config.yaml`, `environment.json`, `metrics.jsonl`,
`training_history.json`, `checkpoints/`. Described in `documentation/training.md`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

import jax
import numpy as np
from flax import nnx

from tributary.batch import Batch, DatabaseArrays
from tributary.checkpoint import Checkpoints, Kind, Progress, check_same_run
from tributary.config import PUBLISHED_KINDS, ConfigError, RunConfig
from tributary.data import Database, Loaded, Loader, database_arrays
from tributary.journal import Journal, Pace, Position
from tributary.learned import remember
from tributary.losses import Objective, objective_loss
from tributary.mixture import task_mixture
from tributary.optim import evaluation_params, init_state, make_train_step
from tributary.predict import check_judges_rows, describe_model, find_task, make_forward
from tributary.validation import Validation, Validator

RESUMABLE_CHANGES = {
    "data.in_memory",
    "data.prefetch",
    "data.threads",
    "run.dir",
    "train.checkpoint_every",
    "train.keep_last",
    "train.log_every",
    "train.tensorboard",
    "train.time_limit_minutes",
}
"""Keys of a config that may differ when a run is resumed."""


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
    """Contexts per second since the last line of the log."""
    input_wait: float
    """Share of that time spent waiting for batches."""
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
        on_progress: told after every step, and after every validation.

    Returns:
        Folder of the run.

    Raises:
        ConfigError: the run exists already, or the database has no such task.
        CheckpointError: the run to resume had another database or configuration.
        TrainingError: loss or gradient is not finite; the last good state is saved.
        TrainingInterrupted: SIGINT or SIGTERM; the state is saved.
    """
    # --- Run folder, database ---------------------------------------------------------------------------------------
    run_dir = config.run.path
    if resume == "never" and (run_dir / "config.yaml").exists():
        raise ConfigError(f"{run_dir} holds a run already: continue it with --resume auto, or set another run.name")
    database = Database(config.data.database, in_memory=config.data.in_memory)
    tasks = _tasks_of(config, database)
    device = jax.devices()[0]
    arrays = jax.device_put(database_arrays(database, are_spread=config.model.kind not in PUBLISHED_KINDS), device)

    # --- Model and optimiser ----------------------------------------------------------------------------------------
    graphdef, params = describe_model(config.model, arrays.column_vectors.shape[1], config.run.seed)
    num_parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
    objective = Objective(**config.objective.model_dump())

    def loss_function(params: Any, batch: Batch, arrays: DatabaseArrays) -> tuple[jax.Array, dict[str, jax.Array]]:
        return objective_loss(nnx.merge(graphdef, params), batch, arrays, objective)

    train_step = make_train_step(loss_function, config.optimizer)
    state = jax.device_put(init_state(params, config.optimizer), device)

    # --- Batches, resumption ----------------------------------------------------------------------------------------
    mixture = task_mixture(database, tasks, config)
    loader = Loader(mixture, device)
    checkpoints = Checkpoints(run_dir, keep_last=config.train.keep_last)
    position = Position()
    saved_config, builds = config.model_dump(mode="json"), {config.data.database: database.build_id}
    embedder = json.loads(database.manifest)["embedder"]
    if resume == "auto" and checkpoints.steps("last"):
        checkpoints.check_vectors(embedder, database.path)
        restored, progress = checkpoints.restore("last", state)
        check_same_run(progress, saved_config, builds, ignored=RESUMABLE_CHANGES)
        state = jax.device_put(restored, device)
        loader.set_state(progress.sampler_state)
        position = Position(progress.step, progress.elapsed_s, progress.best_metric, progress.best_step)
    validator = Validator(database, tasks, config, make_forward(graphdef), device)
    remember(run_dir, [database], are_spread=config.model.kind not in PUBLISHED_KINDS)
    journal = Journal(run_dir, config, [task["name"] for task in tasks], num_parameters, position)
    pace = Pace(position.elapsed_s)
    limit_s = (config.train.time_limit_minutes or math.inf) * 60.0

    def save(kind: Kind, metric: float | None, sampler_state: str) -> None:
        record = dataclasses.asdict(position)
        record |= {"metric": metric, "sampler_state": sampler_state, "config": saved_config}
        checkpoints.save(kind, state, Progress(**record, builds=builds, embedder=embedder))

    def tell(loss: float, validation: Validation | None) -> None:
        if on_progress is not None:
            num_steps = config.train.steps
            remaining_s = pace.remaining_s(position, num_steps, limit_s)
            rates = (pace.examples_per_s, pace.input_wait)
            on_progress(Report(position.step, num_steps, position.elapsed_s, remaining_s, loss, *rates, validation))

    def validate() -> Validation:
        validation = validator.validate(evaluation_params(state), arrays, position.step)
        is_best = validation.score is not None and validation.score > (position.best_metric or -math.inf)
        if is_best:
            position.best_metric, position.best_step = validation.score, position.step
            save("best", validation.score, loader.get_state())
        journal.write_validation(validation, position)
        tell(math.nan, validation)
        return validation

    # --- Loop -------------------------------------------------------------------------------------------------------
    pending: tuple[Loaded, dict[str, jax.Array]] | None = None
    validation: Validation | None = None
    num_idle = 0
    with Interruption() as interruption, mixture, validator:
        try:
            while position.step < config.train.steps and position.elapsed_s < limit_s:
                # Step
                with pace.waiting():
                    loaded = next(loader)
                done = max(position.step / config.train.steps, position.elapsed_s / limit_s)
                state, metrics = train_step(state, loaded.device, arrays, np.float32(done))
                # Only the step before is read here, so that the device always has one to do.
                loss = _finite_loss(pending, position.step - 1)
                pending, validation = (loaded, metrics), None
                position.step += 1
                position.elapsed_s = pace.tick(config.train.batch_size)
                if position.step % config.train.log_every == 0:
                    loss = _finite_loss(pending, position.step - 1)
                    journal.write_step(position, jax.device_get(metrics), pace)
                    pace.reset()
                tell(loss, None)

                # Validation
                if position.step % config.train.eval_every == 0:
                    _finite_loss(pending, position.step - 1)
                    validation = validate()
                    num_idle = 0 if position.best_step == position.step else num_idle + 1
                    if config.train.patience is not None and num_idle >= config.train.patience:
                        break

                # Checkpoint
                has_stopped = interruption.signal_number is not None
                if has_stopped or position.step % config.train.checkpoint_every == 0:
                    _finite_loss(pending, position.step - 1)
                    save("last", validation.score if validation else None, loader.get_state())
                if has_stopped:
                    raise TrainingInterrupted(interruption.signal_number or 0, position.step, run_dir)

            # --- End ------------------------------------------------------------------------------------------------
            _finite_loss(pending, position.step - 1)
            if validation is None and pending is not None:
                validation = validate()
            save("last", validation.score if validation else None, loader.get_state())
        except TrainingError:
            # Steps after the bad one changed nothing: this is the state before it, and its batch comes next.
            position.step = int(state["step"])
            if pending is not None:
                save("last", None, pending[0].state)
            raise
        finally:
            journal.close(position)
            checkpoints.close()
    return run_dir


def _tasks_of(config: RunConfig, database: Database) -> list[dict[str, Any]]:
    """Tasks to train on, as the manifest describes them."""
    manifest = json.loads(database.manifest)
    names = list(config.data.tasks) or [task["name"] for task in manifest["tasks"]]
    if not names:
        raise ConfigError(f"database `{manifest['name']}` has no task; add one to its metadata.json")
    tasks = [find_task(manifest, name) for name in names]
    for task in tasks:
        if task["splits"]["train"] == 0:
            raise ConfigError(f"task `{task['name']}` has no training seeds")
        check_judges_rows(config.model, task)
    return tasks


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
        seeds = list(zip(loaded.host.seed_task.tolist(), loaded.host.seed_index.tolist(), strict=True))
        raise TrainingError(
            f"step {step}: loss {loss}, gradient norm {norm}; the state before it is saved; "
            f"(task id, seed index) of its batch: {seeds}"
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
