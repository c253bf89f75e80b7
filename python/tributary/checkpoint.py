"""Checkpoints of a run: everything needed to continue exactly, with a digest per leaf.

Two Orbax managers below `<run>/checkpoints`: `last` keeps the newest steps to resume from, `best` the step with the
best validation metric to predict with. A step without its commit marker, or whose leaves do not match their digests,
is skipped loudly and the one before is taken. Described in `documentation/training.md`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp

Kind = Literal["last", "best"]


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


def leaf_digests(tree: Any) -> dict[str, str]:
    """Digest of the bytes, dtype and shape of every leaf, by its path."""
    digests = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        name = jax.tree_util.keystr(path)
        head = f"{array.dtype} {array.shape} ".encode()
        digests[name] = hashlib.blake2b(head + np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()
    return digests


class Checkpoints:
    """Saves and restores the state of one run.

    Args:
        run_dir: folder of the run.
        keep_last: newest steps kept.
    """

    def __init__(self, run_dir: str | Path, *, keep_last: int = 2):
        root = Path(run_dir).resolve() / "checkpoints"
        self._root = root
        self._managers: dict[Kind, ocp.CheckpointManager] = {
            "last": _open_manager(root / "last", keep_last),
            "best": _open_manager(root / "best", 1),
        }

    def save(self, kind: Kind, state: Any, progress: Progress) -> None:
        """Writes a step and waits until it is committed."""
        manager = self._managers[kind]
        if progress.step in manager.all_steps():
            return
        host = jax.device_get(state)
        record = {**dataclasses.asdict(progress), "digests": leaf_digests(host)}
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(host),
            config=ocp.args.JsonSave(record.pop("config")),
            sampler=ocp.args.JsonSave({"state": record.pop("sampler_state")}),
            progress=ocp.args.JsonSave(record),
        )
        manager.save(progress.step, args=items, force=True)
        manager.wait_until_finished()

    def steps(self, kind: Kind) -> list[int]:
        """Committed steps, oldest first."""
        return sorted(self._managers[kind].all_steps())

    def restore(self, kind: Kind, template: Any, *, step: int | None = None) -> tuple[Any, Progress]:
        """The newest sound step, or the given one.

        Args:
            kind: which steps.
            template: a pytree of arrays or shapes like the one saved.
            step: this step only; None: the newest, and the one before where that is damaged.

        Returns:
            State as numpy arrays, and progress.

        Raises:
            CheckpointError: there is no sound step.
        """
        found = self.steps(kind)
        if step is not None and step not in found:
            raise CheckpointError(f"{self._root / kind}: no step {step}; found {found or 'none'}")
        problems = []
        for candidate in [step] if step is not None else reversed(found):
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

    def check_vectors(self, embedder: dict[str, Any] | None, database: str) -> None:
        """Refuses a database whose vectors are of another embedder than those the model learned to read.

        To be asked before arrays are restored: their shapes depend on the vectors.

        Args:
            embedder: of the database, as its manifest says.
            database: its place, for the message.

        Raises:
            CheckpointError: the vectors are others.
        """
        for kind in self._managers:
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
        names = ("config", "sampler", "progress")
        items = self._managers[kind].restore(
            step, args=ocp.args.Composite(**{name: ocp.args.JsonRestore() for name in names})
        )
        record = dict(items["progress"])
        digests = record.pop("digests")
        return Progress(config=items["config"], sampler_state=items["sampler"]["state"], **record), digests

    def _restore_step(self, kind: Kind, template: Any, step: int) -> tuple[Any, Progress]:
        progress, digests = self._read_records(kind, step)
        hosts = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), template)
        items = self._managers[kind].restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(hosts)))
        state = jax.tree.map(np.asarray, items["state"])
        found = leaf_digests(state)
        wrong = sorted(name for name in digests.keys() | found.keys() if digests.get(name) != found.get(name))
        if wrong:
            raise CheckpointError(f"digest of {wrong[0]} does not match, nor {len(wrong) - 1} more")
        return state, progress

    def close(self) -> None:
        """Waits for writers and frees them; idempotent."""
        for manager in self._managers.values():
            manager.close()


def _open_manager(path: Path, keep: int) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True, enable_async_checkpointing=False)
    return ocp.CheckpointManager(path, options=options)


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
