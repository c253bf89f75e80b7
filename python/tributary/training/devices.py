"""Where a run computes: one device, several, or several processes with devices each.

Contexts of a batch are divided over all devices; parameters and optimiser state are copied to every group of `fsdp`
devices and divided within it. XLA derives all communication from these annotations, so losses are those of one device
up to the order of additions. Described in `documentation/training.md`, "Devices".
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tributary.batch import Batch
from tributary.config import ConfigError, DevicesSection

MIN_DIVIDED_SIZE = 1024
"""Numbers of the smallest array that FSDP divides; smaller ones are copied to every device."""


class Devices:
    """Places arrays on the devices of a run, and speaks for its processes.

    Args:
        data: groups of devices that hold a copy of the model each; None: as many as there are.
        fsdp: devices of a group.

    Raises:
        ConfigError: there are not as many devices, or several processes do not use all of theirs.
    """

    def __init__(self, data: int | None = 1, fsdp: int = 1):
        devices = jax.devices()
        num_groups = max(1, len(devices) // fsdp) if data is None else data
        self.size = num_groups * fsdp
        self.rank, self.world_size = jax.process_index(), jax.process_count()
        if self.size > len(devices) or (self.world_size > 1 and self.size != len(devices)):
            raise ConfigError(
                f"devices: {num_groups} x {fsdp} (data x fsdp) of {len(devices)} devices"
                + (f" of {self.world_size} processes, which have to be used all" if self.world_size > 1 else "")
            )
        grid = np.array(devices[: self.size]).reshape(num_groups, fsdp)
        self._fsdp, self.mesh = fsdp, Mesh(grid, ("data", "fsdp"))
        self.copied = self._sharding()
        """Sharding of what every device has whole."""

    def _sharding(self, *axes: Any) -> NamedSharding:
        return NamedSharding(self.mesh, PartitionSpec(*axes))  # type: ignore[no-untyped-call]

    @classmethod
    def of(cls, config: DevicesSection) -> Devices:
        """The devices of a configuration; joins the other processes where there are several."""
        _join_processes(config)
        return cls(config.data, config.fsdp)

    def check_batch(self, batch_size: int, num_parts: int) -> None:
        """Refuses a batch whose parts cannot be divided over all devices.

        Raises:
            ConfigError: the message names a size that can.
        """
        unit = self.size * num_parts
        if batch_size % unit:
            fitting = max(unit, batch_size // unit * unit)
            raise ConfigError(
                f"train.batch_size: {batch_size} contexts cannot be divided over {self.size} devices in {num_parts} "
                f"parts (train.accumulate); {fitting} can"
            )

    @property
    def is_first(self) -> bool:
        """This process writes the files of the run."""
        return self.rank == 0

    # --- Onto the devices ---------------------------------------------------------------------------------------------

    def put_batch(self, batch: Batch, *, is_stacked: bool = False) -> Batch:
        """Divides the contexts that this process drew over its devices.

        Args:
            batch: device fields [B, ...], or [parts, B, ...].
            is_stacked: the batch has a leading axis of parts.
        """
        axes = ("data", "fsdp")
        sharding = self._sharding(None, axes) if is_stacked else self._sharding(axes)
        whole: Callable[[np.ndarray], jax.Array] = functools.partial(jax.make_array_from_process_local_data, sharding)
        placed: Batch = jax.device_put(batch, sharding) if self.world_size == 1 else jax.tree.map(whole, batch)
        return placed

    def put_copies(self, tree: Any) -> Any:
        """Puts the same arrays, which every process has, on every device."""
        return self._put(tree, jax.tree.map(lambda _: self.copied, tree))

    def put_state(self, state: Any) -> Any:
        """Puts a training state, which every process has, where `state_shardings` says."""
        return self._put(state, self.state_shardings(state))

    def state_shardings(self, state: Any) -> Any:
        """How every array of a training state is divided within a group; parameters and what belongs to them alike."""
        return jax.tree.map(self._state_sharding, state)

    def _state_sharding(self, leaf: Any) -> NamedSharding:
        if self._fsdp == 1 or leaf.size < MIN_DIVIDED_SIZE:
            return self.copied
        # A leading axis of layers stays whole: the layers are taken one after the other.
        axes = [axis for axis in range(max(0, leaf.ndim - 2), leaf.ndim) if leaf.shape[axis] % self._fsdp == 0]
        if not axes:
            return self.copied
        divided = max(axes, key=lambda axis: leaf.shape[axis])
        names = ["fsdp" if axis == divided else None for axis in range(leaf.ndim)]
        return self._sharding(*names)

    def _put(self, tree: Any, shardings: Any) -> Any:
        if self.size == 1:
            return jax.device_put(tree, shardings)
        # From the host: arrays on one device would be cut up by a program that is compiled for every shape.
        if self.world_size == 1:
            return jax.device_put(jax.tree.map(np.array, tree), shardings)

        def put(leaf: Any, sharding: NamedSharding) -> jax.Array:
            whole = np.asarray(leaf)
            return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

        return jax.tree.map(put, tree, shardings)

    # --- Back, and between processes ----------------------------------------------------------------------------------

    def fetch(self, tree: Any) -> Any:
        """Whole arrays as numpy, on every process; all processes have to ask."""
        if self.world_size == 1:
            return jax.device_get(tree)
        return multihost_utils.process_allgather(tree, tiled=True)

    def all(self, flag: bool) -> bool:
        """Whether it holds on every process; all processes have to ask."""
        return flag if self.world_size == 1 else bool(multihost_utils.process_allgather(np.array(flag)).all())

    def largest(self, values: np.ndarray) -> np.ndarray:
        """The largest over all processes, number by number; all processes have to ask."""
        return values if self.world_size == 1 else multihost_utils.process_allgather(values).max(axis=0)


def _join_processes(config: DevicesSection) -> None:
    """Starts `jax.distributed` where the configuration or the environment says that there are several processes."""
    coordinator = config.coordinator or os.environ.get("JAX_COORDINATOR_ADDRESS")
    if coordinator is None or jax.distributed.is_initialized():
        return
    if coordinator == "auto":
        jax.distributed.initialize()
        return
    numbers: dict[str, Any] = {"num_processes": config.num_processes, "process_id": config.process_id}
    for name, value in numbers.items():
        text = os.environ.get(f"JAX_{name.upper()}")
        if value is None and text is not None:
            if not text.isdigit():
                raise ConfigError(f"environment variable JAX_{name.upper()}: expected a number, found {text!r}")
            numbers[name] = int(text)
        if numbers[name] is None:
            raise ConfigError(f"devices.{name} is needed beside the coordinator {coordinator} (or JAX_{name.upper()})")
    jax.distributed.initialize(coordinator, **numbers)
