"""One epoch over a real database: how long, how many contexts per CPU-second, how much memory, how soon the first.

    python benches/epoch.py data/processed/rel-f1 [--task driver-dnf] [--rounds 5]

Batches of 32 contexts of 1,024 cells, the sampler's defaults, count when their arrays are in numpy. Every run is a
process of its own: in the caller's thread, with one worker and with two, from a mapped database and from one in memory.
A last run opens the database cold, without the system's cache of its files, where the system lets it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from measure import Figures, cpu_seconds, in_turn, measured, memory_mb, run, verdict

from tributary import _headwater

BATCH_SIZE, SEQ_LEN = 32, 1024
MAX_BATCH_MB = 3.0
CONTESTANTS = {
    "no threads": {"threads": 0, "prefetch": 0},
    "1 thread": {"threads": 1, "prefetch": 2},
    "2 threads": {"threads": 2, "prefetch": 4},
    "no threads, in memory": {"threads": 0, "prefetch": 0, "in_memory": True},
    "no threads, cold files": {"threads": 0, "prefetch": 0, "is_cold": True},
}


def forget(folder: Path) -> None:
    """Asks the system to drop its cache of the database's files."""
    for file in folder.rglob("*.bin"):
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def epoch(folder: Path, task: str, *, in_memory: bool = False, is_cold: bool = False, **options: int) -> None:
    """Opens the database and draws every training seed once; prints the figures."""
    if is_cold:
        forget(folder)
    with measured() as figures:
        opened = time.perf_counter()
        database = _headwater.Database(folder, in_memory=in_memory)
        sampler = _headwater.Sampler(database, [task], batch_size=BATCH_SIZE, seq_len=SEQ_LEN, **options)
        batch = sampler.next_batch()
        first_s = time.perf_counter() - opened
        batch_mb = sum(array.nbytes for array in batch.values()) / 1e6
        distinct = np.unique(batch["cell_vocab"]).size
        cells = int((~batch["cell_is_padding"]).sum())
        wall, cpu = time.perf_counter(), cpu_seconds()
        for _ in range(1, sampler.steps_per_epoch):
            batch = sampler.next_batch()
        wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
        contexts = BATCH_SIZE * (sampler.steps_per_epoch - 1)
        figures |= {
            "first_ms": 1000 * first_s,
            "seeds": sampler.num_seeds,
            "cells": cells / BATCH_SIZE,
            "batch_mb": batch_mb,
            "vectors_mb": distinct * 256 * 2 / 1e6,
            "per_cpu_s": contexts / cpu,
            "per_s": contexts / wall,
            "own_mb": memory_mb("VmRSS") - figures["before_mb"],
        }
        sampler.close()


def main() -> None:
    """Runs every contestant in turn and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path)
    parser.add_argument("--task", default="driver-dnf")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        epoch(arguments.database, arguments.task, **CONTESTANTS[arguments.contestant])
        return

    def start(name: str) -> Figures:
        return run(sys.executable, __file__, arguments.database, "--task", arguments.task, "--contestant", name)

    found = in_turn(list(CONTESTANTS), arguments.rounds, start)
    one = found["no threads"]
    name = json.loads((arguments.database / "metadata.json").read_text())["name"]
    print(
        f"{name}, {arguments.task}: {one['seeds']:,.0f} seeds, contexts of up to {SEQ_LEN:,} cells (first batch: "
        f"{one['cells']:,.0f} on average); medians of {arguments.rounds}"
    )
    print(f"{'':24}{'epoch':>9}{'CPU':>9}{'contexts/CPU-s':>16}{'contexts/s':>12}{'first batch':>13}{'memory':>9}")
    for name, figures in found.items():
        print(
            f"{name:24}{figures['wall_s']:7.2f} s{figures['cpu_s']:7.2f} s{figures['per_cpu_s']:16,.0f}"
            f"{figures['per_s']:12,.0f}{figures['first_ms']:10.1f} ms{figures['own_mb']:5.0f} MiB"
        )
    print(
        f"a batch of {BATCH_SIZE} x {SEQ_LEN:,}: {one['batch_mb']:.2f} MB (below {MAX_BATCH_MB:g}: "
        f"{verdict(one['batch_mb'] < MAX_BATCH_MB)}), its distinct vectors {one['vectors_mb']:.2f} MB"
    )
    gain = found["2 threads"]["per_s"] / found["1 thread"]["per_s"]
    print(f"two threads give {gain:.2f} x one, by the clock (1.8 on two free cores: {verdict(gain >= 1.8)})")


if __name__ == "__main__":
    main()
