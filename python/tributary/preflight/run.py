"""The checks in order; one that cannot be made ends those that build on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import jax

from tributary.config import RunConfig
from tributary.errors import TributaryError
from tributary.preflight.check import Check
from tributary.preflight.folder import check_folder, check_resumption
from tributary.preflight.labels import check_databases, check_tasks
from tributary.preflight.machine import check_devices, check_disk, check_packages, check_settings
from tributary.preflight.step import check_steps
from tributary.training.devices import Devices
from tributary.training.preparation import Learner, Material


def preflight(config: RunConfig) -> Iterator[Check]:
    """Checks a run before it begins, and says what is found as soon as it is.

    Args:
        config: of the run; process 0 of several checks alone, with its own devices.

    Yields:
        What was looked at. A fail means that training would stop, or learn nothing.
    """
    sections: list[tuple[str, Callable[[], Iterator[Check]]]] = [
        ("packages", lambda: check_packages(config)),
        ("settings", lambda: check_settings(config)),
        ("devices", lambda: check_devices(config)),
        ("run folder", lambda: check_folder(config)),
        ("databases", lambda: _check_training(config)),
    ]
    for name, section in sections:
        try:
            yield from section()
        except (OSError, ValueError, TributaryError) as error:
            yield Check(name, "fail", str(error), "as the message says")


def _check_training(config: RunConfig) -> Iterator[Check]:
    devices = Devices(config.devices.data, config.devices.fsdp)
    devices.check_batch(config.train.batch_size, config.train.accumulate)
    material = Material.open(config, devices)
    yield from check_databases(material)
    has_failed = False
    for check in check_tasks(config, material):
        has_failed |= check.status == "fail"
        yield check
    if has_failed:
        return
    learner = Learner.of(config, material, devices)
    yield from check_resumption(config, material, learner)
    state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(learner.template))
    yield from check_disk(config, state_bytes)
    yield from check_steps(config, devices, material, learner)
