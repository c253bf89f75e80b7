"""How much a step computes, and how much the devices could: what MFU is made of.

Counted are the matrix products of a step as it is traced: forward, backward, what `remat` computes again, and the
optimiser's; padding and masked pairs of cells count as work. Attention of the core (`native`) is not counted, and a
loop whose length depends on the data (structured attention) once, so the count is a lower bound there. Everything else
(norms, softmax, gathers) is not counted, as is usual. Described in `documentation/training.md`, "Progress".
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

# Dense products per second of one device, 1e12: (bfloat16, float32 as JAX multiplies it by default).
# Sources: data sheets of NVIDIA (tensor cores, without sparsity; float32 as TF32 where there is one) and Google Cloud
# TPU documentation (float32 inputs are multiplied as bfloat16).
_PEAKS_TERA: dict[str, tuple[float, float]] = {
    "B200": (2250.0, 1125.0),
    "H200": (989.0, 494.0),
    "H100 PCIe": (756.0, 378.0),
    "H100": (989.0, 494.0),
    "GH200": (989.0, 494.0),
    "A100": (312.0, 156.0),
    "L40S": (362.0, 183.0),
    "L4": (121.0, 60.0),
    "A10G": (70.0, 35.0),
    "A10": (125.0, 62.5),
    "V100": (125.0, 15.7),
    "T4": (65.0, 8.1),
    "RTX 4090": (165.0, 82.6),
    "RTX 3090": (71.0, 35.6),
    "TPU v2": (45.0, 45.0),
    "TPU v3": (123.0, 123.0),
    "TPU v4": (275.0, 275.0),
    "TPU v5 lite": (197.0, 197.0),
    "TPU v5e": (197.0, 197.0),
    "TPU v5p": (459.0, 459.0),
    "TPU v5": (459.0, 459.0),
    "TPU v6 lite": (918.0, 918.0),
    "TPU v6e": (918.0, 918.0),
}
_MEASURED_SIZE = 1024
"""Edge of the matrices that are multiplied where the table has no entry."""


def count_operations(function: Callable[..., Any], *arguments: Any) -> float:
    """Floating-point operations of the matrix products in one call, over all devices; two per multiplication."""
    return _of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of_jaxpr(jaxpr: core.Jaxpr) -> float:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation: core.JaxprEqn) -> float:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left: Any = equation.invars[0].aval
        out: Any = equation.outvars[0].aval
        return float(2 * math.prod(out.shape) * math.prod(left.shape[axis] for axis in contracted))
    inner = [_of_jaxpr(jaxpr) for jaxpr in core.jaxprs_in_params(parameters)]
    if name == "cond":
        return max(inner, default=0.0)
    times = 1
    if name == "scan":
        times = parameters["length"]
    elif name == "shard_map":
        times = parameters["mesh"].size
    elif name == "pallas_call":
        times = math.prod(size for size in parameters["grid_mapping"].grid if isinstance(size, int))
    return times * sum(inner)


class StepOperations:
    """Operations of a training step for a batch, counted once for every shape of batch, from the trace that runs it.

    Args:
        train_step: (state, batch, arrays, progress) -> ...; traced, never run.
        state: arrays or shapes.
        arrays: of the database.
    """

    def __init__(self, train_step: Callable[..., Any], state: Any, arrays: Any):
        self._train_step = train_step
        self._state, self._arrays = (jax.tree.map(_shape_of, tree) for tree in (state, arrays))
        self._counted: dict[tuple[tuple[int, ...], ...], float] = {}

    def __call__(self, batch: Any) -> float:
        """Operations of the step on this batch."""
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
        if shapes not in self._counted:
            progress = _shape_of(np.float32(0.0))
            abstract = jax.tree.map(_shape_of, batch)
            self._counted[shapes] = count_operations(self._train_step, self._state, abstract, self._arrays, progress)
        return self._counted[shapes]


def _shape_of(leaf: Any) -> jax.ShapeDtypeStruct:
    """What a trace sees of an array: with its sharding, or the step that runs would be traced a second time."""
    sharding = getattr(leaf, "sharding", None)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)  # type: ignore[no-untyped-call]


@functools.cache
def peak_operations(dtype: str, num_devices: int) -> tuple[float, str]:
    """What devices could do per second, and how that is known.

    Args:
        dtype: of the computation, `float32` or `bfloat16`.
        num_devices: over all processes.

    Returns:
        Operations per second of all of them together; `data sheet` or `measured`.
    """
    device = jax.devices()[0]
    kind = device.device_kind
    for name, peaks in _PEAKS_TERA.items():
        if name.lower() in kind.lower():
            return peaks[dtype != "bfloat16"] * 1e12 * num_devices, "data sheet"
    # Simulated devices of a processor share its cores.
    count = jax.process_count() if device.platform == "cpu" else num_devices
    return _measured(dtype) * count, "measured"


def _measured(dtype: str) -> float:
    """What a plain product reaches on one device; the best of three."""
    x = jnp.ones((_MEASURED_SIZE, _MEASURED_SIZE), dtype)
    product = jax.jit(jnp.matmul)
    product(x, x).block_until_ready()
    spent = []
    for _ in range(3):
        start = time.perf_counter()
        product(x, x).block_until_ready()
        spent.append(time.perf_counter() - start)
    return 2.0 * _MEASURED_SIZE**3 / min(spent)
