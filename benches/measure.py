"""One run of one contestant in a process of its own, measured from inside; many of them in turn.

A benchmark starts itself again with `--contestant NAME`; the child does the work within `measured`, which prints one
line of JSON. CPU time is that of the work alone (user and system, all threads), without the start of the interpreter
and the imports, which would cost the rivals seconds; memory is the process's highest resident set, and the part of it
that was there before the work began is printed beside it.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Figures = dict[str, float]
MARK = "MEASURED "


def cpu_seconds() -> float:
    """CPU time of this process and of the children it waited for, user and system, in seconds."""
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in parts)


def memory_mb(field: str) -> float:
    """Resident memory of this process in MiB: `VmHWM` is the highest so far, `VmRSS` that of this moment."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith(f"{field}:")]
    return int(line.split()[1]) / 1024


@contextmanager
def measured() -> Iterator[Figures]:
    """Measures the work done within; what the work adds to the figures is reported too."""
    figures: Figures = {"before_mb": memory_mb("VmRSS")}
    cpu, wall = cpu_seconds(), time.perf_counter()
    yield figures
    own = {"wall_s": time.perf_counter() - wall, "cpu_s": cpu_seconds() - cpu, "peak_mb": memory_mb("VmHWM")}
    print(MARK + json.dumps(own | figures), flush=True)


def run(python: str | Path, script: str | Path, *arguments: str | Path, **environment: str) -> Figures:
    """Runs one contestant; its failure ends the benchmark with its last words.

    Args:
        python: The interpreter that has what the contestant needs.
        script: The benchmark itself.
        arguments: What makes it that contestant.
        environment: Variables to set for it.

    Returns:
        The figures it printed.
    """
    argv = [str(word) for word in (python, script, *arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, env=os.environ | environment, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode != 0 or not lines:
        sys.exit(f"error: `{' '.join(argv)}` ended with {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}")
    return json.loads(lines[-1].removeprefix(MARK))


def in_turn(contestants: Sequence[str], rounds: int, start: Callable[[str], Figures]) -> dict[str, Figures]:
    """Runs every contestant once per round, in reverse order every other round; the medians of each.

    Args:
        contestants: Their names.
        rounds: How often.
        start: Runs one of them.

    Returns:
        By name, the median of each figure over the rounds.
    """
    found: dict[str, list[Figures]] = {name: [] for name in contestants}
    for round_idx in range(rounds):
        for name in contestants if round_idx % 2 == 0 else reversed(contestants):
            found[name].append(start(name))
    return {name: {field: median(run[field] for run in runs) for field in runs[0]} for name, runs in found.items()}


def median(values: Iterable[float]) -> float:
    """The median."""
    return statistics.median(values)


def folder_bytes(folder: Path, pattern: str = "*") -> int:
    """Bytes of the files under a folder whose names match."""
    return sum(file.stat().st_size for file in folder.rglob(pattern) if file.is_file())


def verdict(is_met: bool) -> str:
    """How a target is reported."""
    return "met" if is_met else "MISSED"


def describe(value: Any) -> str:
    """A count with thousands separated."""
    return f"{value:,.0f}"
