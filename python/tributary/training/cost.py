"""What a run costs: time of the processor, operations, memory. Kept in every checkpoint, so that it adds up.

What was done after the checkpoint that a killed run resumed from is lost, and its cost with it.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from typing import Any

import jax


class CostMeter:
    """Adds up what training costs, over all resumptions.

    Args:
        before: what `cost` said in the checkpoint that training goes on from; empty for a new run.
    """

    def __init__(self, before: Mapping[str, float]):
        self._before = {name: before.get(name, 0.0) for name in ("cpu_s", "operations", "sessions")}
        self._peaks = {name: before.get(name, 0.0) for name in ("peak_memory_bytes", "device_peak_bytes")}
        self._start_cpu_s = _cpu_s()
        self.operations = self._before["operations"]
        """Floating-point operations of the steps' matrix products so far."""

    def cost(self) -> dict[str, float]:
        """What it cost so far, by name.

        `cpu_s`: seconds of all cores; `operations`: of the matrix products; `sessions`: processes that trained one
        after another; `peak_memory_bytes`: of this process; `device_peak_bytes`: of its devices, 0 where these do not
        say.
        """
        peaks = {"peak_memory_bytes": peak_memory_bytes(), "device_peak_bytes": device_peak_bytes()}
        return {
            "cpu_s": round(self._before["cpu_s"] + _cpu_s() - self._start_cpu_s, 3),
            "operations": self.operations,
            "sessions": int(self._before["sessions"]) + 1,
            **{name: max(self._peaks[name], float(value)) for name, value in peaks.items()},
        }


def _cpu_s() -> float:
    """User and system seconds of this process and the children it waited for."""
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in parts)


def peak_memory_bytes() -> int:
    """Highest resident memory of this process so far."""
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else 1024 * highest


def device_peak_bytes() -> int:
    """Highest memory in use on this process's devices so far, added up; 0 where they do not say (processors)."""
    statistics: list[dict[str, Any]] = [device.memory_stats() or {} for device in jax.local_devices()]
    return sum(int(each.get("peak_bytes_in_use", 0)) for each in statistics)
