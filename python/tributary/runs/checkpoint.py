"""Checkpoints of a run: everything needed to continue exactly, with a digest per leaf.

Two folders of Orbax checkpoints below `<run>/checkpoints`: `last` keeps the newest steps to resume from, `best` those
with the best validation metric to predict with. They are written by a thread of its own while training goes on. A step
without its commit marker, or whose leaves do not match their digests, is skipped loudly and the one before is taken.
Described in `documentation/training.md`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import logging
import math
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from tributary.runs.retention import Retention, age_h, clear_away, ranking, set_aside
from tributary.runs.writer import BackgroundWriter, disk_error

Kind = Literal["last", "best"]
KINDS: tuple[Kind, ...] = ("last", "best")
_MARKER = "_CHECKPOINT_METADATA"
"""File that Orbax writes last; the folder gets its name after that."""


class _ToldOnce(logging.Filter):
    """Orbax writes arrays side by side; of several that fail it raises one, and asyncio logs tracebacks of the rest."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "exception was never retrieved" not in record.getMessage()


_TOLD_ONCE = _ToldOnce()


class CheckpointError(ValueError):
    """There is no checkpoint to restore, or it belongs to something else."""


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a checkpoint knows besides arrays."""

    step: int
    """Training steps done."""
    sampler_state: str
    """JSON of the training sampler; its next batch is that of step `step`."""
    config: dict[str, Any]
    """Resolved configuration of the run."""
    builds: dict[str, str]
    """Build id of every database, by its path."""
    embedder: dict[str, Any] | None
    """What made the vectors the model learned to read, as the manifest of its database says."""
    elapsed_s: float
    """Seconds trained so far."""
    metric: float | None
    """Validation metric at this step, the larger the better; None where it was not validated."""
    best_metric: float | None
    """Largest metric so far."""
    best_step: int | None
    """Step of the largest metric so far."""
    cost: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """What the run cost so far; see `tributary.training.cost`."""
    origin: dict[str, Any] | None = None
    """Where the first parameters came from, as `tributary.training.origin.Origin` has it; None: drawn at random."""


def leaf_digests(tree: Any) -> dict[str, str]:
    """Digest of the bytes, dtype and shape of every leaf, by its path."""
    digests = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        name = jax.tree_util.keystr(path)
        head = f"{array.dtype} {array.shape} ".encode()
        digests[name] = hashlib.blake2b(head + np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()
    return digests


def _record_digest(record: Mapping[str, Any]) -> str:
    """Digest of everything besides arrays."""
    return hashlib.blake2b(json.dumps(record, sort_keys=True).encode(), digest_size=16).hexdigest()


def host_copy(tree: Any) -> Any:
    """Numpy arrays of all leaves that share no memory with the devices; a collective where processes hold parts."""

    def copy(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            if not leaf.is_fully_replicated:
                return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
            leaf = leaf.addressable_data(0)
        return np.array(leaf, copy=True)

    return jax.tree.map(copy, tree)


class Checkpoints:
    """Saves and restores the state of one run.

    Reads as it is; writes inside of a `with` block, which only one run at a time can enter. Of several processes the
    first writes; all of them enter the block and call `save`.

    Args:
        run_dir: folder of the run.
        retention: which steps stay; None: nothing is to be written.
    """

    def __init__(self, run_dir: str | Path, retention: Retention | None = None):
        root = Path(run_dir).resolve() / "checkpoints"
        self._root, self._retention = root, retention
        processes = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(), active_processes={jax.process_index()}, barrier_sync_key_prefix="run"
        )
        # Told to both, and for the arrays once more: else the handlers wait for processes that do not write.
        registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
        arrays = ocp.StandardCheckpointHandler(multiprocessing_options=processes)
        records = ocp.JsonCheckpointHandler(multiprocessing_options=processes)
        for item in (ocp.args.StandardSave, ocp.args.StandardRestore):
            registry.add(None, item, arrays)
        for item in (ocp.args.JsonSave, ocp.args.JsonRestore):
            registry.add(None, item, records)
        options = ocp.CompositeOptions(multiprocessing_options=processes)
        handler = ocp.CompositeCheckpointHandler(composite_options=options, handler_registry=registry)
        self._orbax = ocp.Checkpointer(handler, multiprocessing_options=processes)
        self._writer = BackgroundWriter("checkpoint")
        self._copied: tuple[int, Any] | None = None
        self._is_open = False
        self._lock: int | None = None
        self._found_last = self.steps("last")
        self._metrics = {step: self._metric_on_disk(step) for step in self.steps("best")}

    def _archive(self, kind: Kind) -> Path | None:
        archive = self._retention.archive_dir if self._retention else None
        return archive / self._root.parent.name / kind if archive is not None else None

    # --- Writing ------------------------------------------------------------------------------------------------------

    def save(self, kind: Kind, state: Any, progress: Progress) -> None:
        """Copies the state and has it written while the caller goes on; waits while an earlier step is in flight.

        Raises:
            WriteError: an earlier step could not be written.
        """
        if not self._is_open:
            raise ValueError(f"{self._root}: to write, give a retention and enter the block")
        if self._copied is None or self._copied[0] != progress.step:
            self.wait()
            self._copied = (progress.step, host_copy(state))
        host = self._copied[1]
        if kind == "best":
            self._metrics[progress.step] = _rankable(progress.metric)
        if jax.process_index() == 0:
            self._writer.submit(lambda: self._write(kind, host, progress))

    def is_among_best(self, metric: float) -> bool:
        """Whether a step of this metric would be kept in `best`."""
        kept = ranking(self._metrics)[: self._retention.keep_best if self._retention else 0]
        return self._retention is not None and (
            len(kept) < self._retention.keep_best or metric > self._metrics[kept[-1]]
        )

    def check(self) -> None:
        """Raises what the writer met since the last call; to be called at every step.

        Raises:
            WriteError: a step could not be written, for want of room or of rights.
        """
        if self._writer.check():
            self._copied = None

    def wait(self) -> None:
        """Waits until everything is committed; raises as `check` does."""
        self._writer.wait()
        self._copied = None

    def _write(self, kind: Kind, host: Any, progress: Progress) -> None:
        folder = self._root / kind / str(progress.step)
        if folder.exists():  # made before a crash, by the same computation
            return
        record = dataclasses.asdict(progress)
        record |= {"record_digest": _record_digest(record), "digests": leaf_digests(host)}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(host),
            config=ocp.args.JsonSave(record.pop("config")),
            sampler=ocp.args.JsonSave({"state": record.pop("sampler_state")}),
            progress=ocp.args.JsonSave(record),
        )
        try:
            self._orbax.save(folder, args=items)
        except Exception as error:
            _remove_partial(folder.parent)
            num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(host))
            newest = max(self.steps("last"), default=None)
            safe = f"step {newest} is safe" if newest is not None else "no step is safe"
            advice = f"{safe}; make room, then continue with --resume auto"
            told = disk_error(error, folder, f"the checkpoint of step {progress.step}", num_bytes, advice)
            raise told or error from error
        if kind == "last":
            self._drop_old(progress.step)

    def _drop_old(self, newest: int) -> None:
        """Sets aside and clears away what stays no longer, once a step of `last` is committed."""
        assert self._retention is not None
        ages_h = {step: age_h(self._root / "last" / str(step)) for step in self.steps("last")}
        metrics = {step: self._metrics.get(step, -math.inf) for step in self.steps("best")}
        dropped = {
            "last": self._retention.dropped_last(ages_h),
            "best": self._retention.dropped_best(metrics, newest),
        }
        for kind in KINDS:
            set_aside(self._root / kind, dropped[kind])
            clear_away(self._root / kind, self._archive(kind))

    def discard_after(self, step: int) -> None:
        """Removes steps later than the one that training goes on from: they are damaged, or will be made anew."""
        self._metrics = {known: metric for known, metric in self._metrics.items() if known <= step}
        if self._lock is not None:
            for kind in KINDS:
                set_aside(self._root / kind, [later for later in self.steps(kind) if later > step])
                clear_away(self._root / kind, None)

    # --- Reading ------------------------------------------------------------------------------------------------------

    def steps(self, kind: Kind) -> list[int]:
        """Committed steps, oldest first."""
        return sorted(int(path.name) for path in (self._root / kind).glob("*") if path.name.isdecimal())

    def candidates(self, kind: Kind) -> list[int]:
        """Committed steps in the order in which they are to be restored: the newest first, of `best` the best."""
        found = self.steps(kind)
        return found[::-1] if kind == "last" else ranking({step: self._metric_on_disk(step) for step in found})

    def restore(self, kind: Kind, template: Any, *, step: int | None = None) -> tuple[Any, Progress]:
        """The newest (of `best`: the best) sound step, or the given one.

        Args:
            kind: which steps.
            template: a pytree of arrays or shapes like the one saved.
            step: this step only; None: the newest or best, and the next where that is damaged.

        Returns:
            State as numpy arrays, and progress.

        Raises:
            CheckpointError: there is no sound step.
        """
        found = self.steps(kind)
        if step is not None and step not in found:
            raise CheckpointError(f"{self._root / kind}: no step {step}; found {found or 'none'}")
        problems = []
        for candidate in [step] if step is not None else self.candidates(kind):
            try:
                return self._restore_step(kind, template, candidate)
            except Exception as error:  # damage shows in whatever way the reader meets it
                problem = f"{self._root / kind / str(candidate)}: damaged checkpoint skipped ({_first_line(error)})"
                warnings.warn(problem, RuntimeWarning, stacklevel=2)
                problems.append(problem)
        raise CheckpointError("; ".join([f"{self._root / kind}: no sound checkpoint", *problems]))

    def progress(self, kind: Kind, step: int) -> Progress:
        """What a step knows besides arrays.

        Raises:
            CheckpointError: it cannot be read.
        """
        try:
            return self._read_records(kind, step)[0]
        except Exception as error:
            raise CheckpointError(f"{self._root / kind / str(step)}: cannot be read ({_first_line(error)})") from error

    def _metric_on_disk(self, step: int) -> float:
        """Metric of a step of `best`; the worst where it cannot be read, which whoever restores it says."""
        with contextlib.suppress(CheckpointError):
            return _rankable(self.progress("best", step).metric)
        return -math.inf

    def check_vectors(self, embedder: dict[str, Any] | None, database: str) -> None:
        """Refuses a database whose vectors are of another embedder than those the model learned to read.

        To be asked before arrays are restored: their shapes depend on the vectors.

        Args:
            embedder: of the database, as its manifest says.
            database: its place, for the message.

        Raises:
            CheckpointError: the vectors are others.
        """
        for kind in KINDS:
            for step in reversed(self.steps(kind)):
                try:
                    learned = self.progress(kind, step).embedder
                except CheckpointError:
                    continue  # whoever restores it says so
                if learned != embedder:
                    raise CheckpointError(
                        f"{self._root.parent}: the model reads vectors of {json.dumps(learned)}, those of {database}"
                        f" are of {json.dumps(embedder)}; embed the database as the model needs it: tributary embed"
                    )
                return

    def _read_records(self, kind: Kind, step: int) -> tuple[Progress, dict[str, str]]:
        folder = self._root / kind / str(step)
        if not (folder / _MARKER).is_file():
            raise CheckpointError(f"its commit marker {_MARKER} is missing")
        names = ("config", "sampler", "progress")
        items = self._orbax.restore(folder, args=ocp.args.Composite(**{name: ocp.args.JsonRestore() for name in names}))
        record = {"config": items["config"], "sampler_state": items["sampler"]["state"], **items["progress"]}
        digests, record_digest = record.pop("digests"), record.pop("record_digest", None)
        if record_digest not in (None, _record_digest(record)):  # None: made before there was one
            raise CheckpointError("digest of its records does not match")
        return Progress(**record), digests

    def _restore_step(self, kind: Kind, template: Any, step: int) -> tuple[Any, Progress]:
        progress, digests = self._read_records(kind, step)
        hosts = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), template)
        items = self._orbax.restore(
            self._root / kind / str(step), args=ocp.args.Composite(state=ocp.args.StandardRestore(hosts))
        )
        state = jax.tree.map(np.asarray, items["state"])
        found = leaf_digests(state)
        wrong = sorted(name for name in digests.keys() | found.keys() if digests.get(name) != found.get(name))
        if wrong:
            raise CheckpointError(f"digest of {wrong[0]} does not match, nor {len(wrong) - 1} more")
        return state, progress

    # --- End ----------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Waits for the writer and frees the folder; idempotent.

        Raises:
            WriteError: a step could not be written.
        """
        try:
            self._writer.wait()
        finally:
            self._writer.close()
            self._orbax.close()
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def __enter__(self) -> Self:
        """Takes the folder to write in.

        Raises:
            CheckpointError: another process holds it, or has since this object was made.
        """
        if self._retention is None:
            raise ValueError(f"{self._root}: give a retention to write")
        self._is_open = True
        logging.getLogger("asyncio").addFilter(_TOLD_ONCE)
        if jax.process_index() == 0:
            for kind in KINDS:
                (self._root / kind).mkdir(parents=True, exist_ok=True)
            self._lock = _lock(self._root / ".lock")
            if self.steps("last") != self._found_last:
                raise CheckpointError(f"{self._root}: another process trained this run meanwhile; start again")
            for kind in KINDS:
                _remove_partial(self._root / kind)
                clear_away(self._root / kind, self._archive(kind))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            self.close()
        except OSError as late:
            if error is None:
                raise
            warnings.warn(str(late), RuntimeWarning, stacklevel=2)


def _lock(path: Path) -> int:
    """Takes the lock of a folder, which the system gives back when the process ends in whatever way."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 100).decode() or "another process"
        os.close(descriptor)
        raise CheckpointError(
            f"{path.parent}: {holder} is training this run; wait for it, or take another run.name"
        ) from None
    except OSError as error:  # some network file systems
        warnings.warn(
            f"{path}: no lock to be had ({error}): see to it that nobody else trains this run",
            RuntimeWarning,
            stacklevel=3,
        )
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"process {os.getpid()} of {os.uname().nodename}".encode())
    return descriptor


def _remove_partial(root: Path) -> None:
    """Removes what a writer that was cut off left behind, or most of it: the rest goes when the run is next opened.

    Orbax may still be writing files of a step that has failed, so a folder can fill up while it is emptied.
    """
    for folder in root.glob("*.orbax-checkpoint-tmp*"):
        shutil.rmtree(folder, ignore_errors=True)


def _rankable(metric: float | None) -> float:
    return -math.inf if metric is None or math.isnan(metric) else metric


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def check_same_run(progress: Progress, config: dict[str, Any], builds: dict[str, str], *, ignored: set[str]) -> None:
    """Refuses to continue a run with another database or configuration.

    Args:
        progress: of the checkpoint.
        config: resolved configuration of today.
        builds: build ids of the databases opened today.
        ignored: `section.key` names that may differ.

    Raises:
        CheckpointError: something differs; the message shows the saved and the present value.
    """
    differences = []
    for path in sorted(progress.builds.keys() | builds.keys()):
        saved, present = progress.builds.get(path), builds.get(path)
        if saved != present:
            differences.append(f"database `{path}`: build {saved} in the checkpoint, {present} now")
    for section in sorted(progress.config.keys() | config.keys()):
        saved_section, present_section = progress.config.get(section, {}), config.get(section, {})
        for key in sorted(saved_section.keys() | present_section.keys()):
            saved, present = saved_section.get(key), present_section.get(key)
            if saved != present and f"{section}.{key}" not in ignored:
                differences.append(f"`{section}.{key}`: {saved!r} in the checkpoint, {present!r} now")
    if differences:
        raise CheckpointError(
            "cannot resume: " + "; ".join(differences) + "; take back the change or train under another run.name"
        )
