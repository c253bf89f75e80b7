"""Fine-tuning: a run whose parameters are at first those of another run, on the same or another database.

Described in `documentation/training.md`, "Fine-tuning".
"""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tributary.config import ModelConfig, RunConfig
from tributary.model.forward import describe_model
from tributary.runs.checkpoint import CheckpointError, Checkpoints, Kind, leaf_digests
from tributary.training.optim import evaluation_params, init_state


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where the first parameters of a run came from; written into its folder and its checkpoints."""

    run: str
    """Folder of the run."""
    checkpoint: str
    """best or last."""
    step: int
    """Step the parameters are of."""
    builds: Mapping[str, str]
    """Build ids of the databases that it was trained on, by path."""
    digests: Mapping[str, str]
    """Digest of every array that was taken, as `leaf_digests` names them."""
    fresh: tuple[str, ...]
    """Groups of the model that the other run has not: drawn at random."""
    unused: tuple[str, ...]
    """Groups of the other run that the model has not."""


def take_params(
    run_dir: str | Path, kind: Kind, params: Any, model: ModelConfig, embedder: Mapping[str, Any] | None
) -> tuple[Any, Origin]:
    """The parameters of another run in the place of freshly drawn ones.

    Args:
        run_dir: folder of the run.
        kind: which of its checkpoints; the newest where none is the best.
        params: freshly drawn parameters of the model, nested dicts.
        model: its configuration, for messages.
        embedder: of the databases to train on, as their manifests say.

    Raises:
        CheckpointError: there is no sound checkpoint, its vectors are of another embedder, or the models do not fit.
    """
    run_dir = Path(run_dir)
    if not (run_dir / "config.yaml").exists():
        raise CheckpointError(f"train.init_from: {run_dir} holds no run; give the folder that `tributary train` made")
    config = RunConfig.load(run_dir / "config.yaml")
    checkpoints = Checkpoints(run_dir)
    found = checkpoints.steps(kind)
    if not found:
        warnings.warn(f"train.init_from: {run_dir} has no {kind} checkpoint: taking last", RuntimeWarning, stacklevel=3)
        kind = "last"
    step = next(iter(checkpoints.candidates(kind)), None)
    if step is None:
        raise CheckpointError(f"train.init_from: {run_dir} has no checkpoint")
    learned = checkpoints.progress(kind, step).embedder
    if learned is None or learned != embedder:
        raise CheckpointError(
            f"train.init_from: {run_dir} learned to read vectors of {json.dumps(learned)}, the databases have those of "
            f"{json.dumps(embedder)}; embed them as the run needs it: tributary embed"
        )
    _, others = describe_model(config.model, learned["dimension"])
    template = jax.eval_shape(lambda params: init_state(params, config.optimizer, config.train.freeze), others)
    state, progress = checkpoints.restore(kind, template)
    taken = _flat(evaluation_params(state))
    own = _flat(params)
    _check_fit(run_dir, taken, own, config.model, model)
    origin = Origin(
        run=str(run_dir),
        checkpoint=kind,
        step=progress.step,
        builds=progress.builds,
        digests=leaf_digests({name: taken[name] for name in taken if name in own}),
        fresh=_groups(own.keys() - taken.keys()),
        unused=_groups(taken.keys() - own.keys()),
    )
    _tell(origin)
    merged = jax.tree_util.tree_map_with_path(lambda path, leaf: taken.get(_name(path), np.asarray(leaf)), params)
    return merged, origin


def _name(path: tuple[Any, ...]) -> str:
    return ".".join(str(key.key) for key in path)


def _flat(params: Any) -> dict[str, np.ndarray]:
    return {_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


def _groups(names: Any) -> tuple[str, ...]:
    """Names without their last part."""
    return tuple(sorted({name.rpartition(".")[0] or name for name in names}))


def _check_fit(
    run_dir: Path,
    taken: Mapping[str, np.ndarray],
    own: Mapping[str, np.ndarray],
    other: ModelConfig,
    model: ModelConfig,
) -> None:
    common = sorted(taken.keys() & own.keys())
    wrong = [name for name in common if taken[name].shape != own[name].shape]
    if common and not wrong:
        return
    keys = [key for key in type(model).model_fields if getattr(model, key) != getattr(other, key)]
    settings = ", ".join(f"model.{key}: {getattr(other, key)!r} there, {getattr(model, key)!r} here" for key in keys)
    arrays = ", ".join(f"{name} {list(taken[name].shape)} there, {list(own[name].shape)} here" for name in wrong[:3])
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    what = f"arrays of other shapes: {arrays}{more}" if wrong else "no array in common"
    raise CheckpointError(
        f"train.init_from: {run_dir} does not fit the model: {what}; settings that differ: {settings}"
    )


def _tell(origin: Origin) -> None:
    if origin.fresh:
        what = f"{origin.run} has no {', '.join(origin.fresh)}: these parameters start at random"
        warnings.warn(f"train.init_from: {what}", RuntimeWarning, stacklevel=4)
    if origin.unused:
        what = f"the model has no {', '.join(origin.unused)}: these parameters of {origin.run} are left out"
        warnings.warn(f"train.init_from: {what}", RuntimeWarning, stacklevel=4)
