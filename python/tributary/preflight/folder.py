"""What the run folder holds."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator

from tributary.config import RunConfig
from tributary.preflight.check import Check, judged
from tributary.runs.checkpoint import CheckpointError, Checkpoints, check_same_run
from tributary.training.preparation import RESUMABLE_CHANGES, Learner, Material


def check_folder(config: RunConfig) -> Iterator[Check]:
    """Whether the run can be written."""
    folder = config.run.path.resolve()
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    can_write = existing.is_dir() and os.access(existing, os.W_OK)
    found = f"{config.run.path}" + ("" if can_write else f": {existing} cannot be written")
    yield judged("run folder", found, fail="" if can_write else "set run.dir to a folder that you may write")


def check_resumption(config: RunConfig, material: Material, learner: Learner) -> Iterator[Check]:
    """Whether a run of the folder can go on."""
    if not (config.run.path / "config.yaml").exists():
        yield Check("resumption", "ok", "a new run")
        return
    checkpoints = Checkpoints(config.run.path)
    if not checkpoints.steps("last"):
        advice = "it begins anew with --resume auto; or set another run.name"
        yield Check("resumption", "warn", "the folder holds a run without a checkpoint", advice)
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            checkpoints.check_vectors(material.embedder, str(material.sources[0].data.database))
            _, progress = checkpoints.restore("last", learner.template)
            check_same_run(progress, config.model_dump(mode="json"), material.builds, ignored=RESUMABLE_CHANGES)
        except CheckpointError as error:
            yield Check("resumption", "fail", str(error), "set another run.name, or take back what differs")
            return
    damaged = [str(one.message) for one in caught if "damaged" in str(one.message)]
    found = "; ".join([f"the folder holds a run at step {progress.step:,} of {config.train.steps:,}", *damaged])
    if progress.step >= config.train.steps:
        yield Check("resumption", "warn", found, "it has come to its end: raise train.steps, or set another run.name")
    else:
        yield Check("resumption", "warn", found, "continue it with --resume auto, or set another run.name")
