"""Kills a training again and again, resumes it, and compares every loss with those of a run that nobody disturbed.

Usage: python scripts/kill_training.py [--kills 50] [--config FILE --set SECTION.KEY=VALUE]... [--folder FOLDER]

Without `--config` a small shop is made and preprocessed in the folder, and a tiny model is trained on it. First one
training runs to its end. Then another of the same configuration is killed with SIGKILL, every second time at a random
moment of a save (an unfinished checkpoint lies on the disk), else after a random number of steps or at a random moment
of its start, and resumed with `--resume auto`. One that reaches its end is compared and followed by
a new one until there were enough kills; the last one is let run to its end. Compared are all lines of
`metrics.jsonl` but for times and memory, to the bit, and the digests of the last checkpoint. Exit code 1 and the first
difference if there is one.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

DAY_US = 86_400_000_000
QUERY = """SELECT c.id AS customer, m.moment, EXISTS (SELECT 1 FROM orders o WHERE o.customer = c.id
AND o.ts > m.moment AND o.ts <= m.moment + INTERVAL 30 DAY) AS buys FROM customers c,
(SELECT unnest(generate_series(TIMESTAMP '2024-02-01', TIMESTAMP '2024-10-01', INTERVAL 30 DAY)) AS moment) m"""
SMALL = {
    "data": {"seq_len": 48, "num_neighbors": 8},
    "model": {"d_model": 16, "num_layers": 2, "num_heads": 2, "d_ff": 32},
    "optimizer": {"warmup_steps": 5},
    "train": {
        "steps": 400,
        "batch_size": 8,
        "eval_every": 20,
        "eval_seeds": 32,
        "checkpoint_every": 5,
        "log_every": 1,
    },
}
OF_THE_MACHINE = (
    "elapsed_s",
    "examples_per_s",
    "input_wait",
    "input_wait_ms",
    "utilisation",
    "peak_memory_bytes",
    "device_peak_bytes",
)
"""What may differ between two runs."""


def make_shop(folder: Path) -> Path:
    """A processed database of 60 customers, every second of whom buys often."""
    rng, count = np.random.default_rng(0), 60
    raw = folder / "raw"
    raw.mkdir(parents=True)
    pq.write_table(pa.table({"id": np.arange(count), "age": rng.integers(18, 80, count)}), raw / "customers.parquet")
    customer = np.concatenate([np.full(20 if one % 2 else 1, one) for one in range(count)])
    moments = ((19_723 + rng.uniform(0, 330, len(customer))) * DAY_US).astype(np.int64)  # from 2024-01-01
    orders = {"id": np.arange(len(customer)), "customer": customer, "ts": pa.array(moments, pa.timestamp("us"))}
    pq.write_table(pa.table(orders | {"amount": rng.lognormal(3, 1, len(customer))}), raw / "orders.parquet")
    key, number = {"stype": "identifier"}, {"stype": "numerical"}
    columns = {
        "id": key,
        "customer": {**key, "foreign_key": "customers.id"},
        "ts": {"stype": "timestamp"},
        "amount": number,
    }
    task = {
        "query": QUERY,
        "anchor_table": "customers",
        "anchor_key": "customer",
        "target_column": "buys",
        "target_stype": "boolean",
        "observation_time_column": "moment",
        "horizon": "30 days",
        "split": {"val": "2024-07-01", "test": "2024-08-15"},
    }
    tables = {
        "customers": {"primary_key": "id", "columns": {"id": key, "age": number}},
        "orders": {"primary_key": "id", "temporal_column": "ts", "columns": columns},
    }
    (raw / "metadata.json").write_text(json.dumps({"name": "shop", "tables": tables, "tasks": {"buys": task}}))
    run_command("preprocess", str(raw), str(folder / "db"), "--embedder", "hash")
    return folder / "db"


def command(*words: str) -> list[str]:
    """The command line of this package in a process of its own."""
    return [sys.executable, "-c", "from tributary.cli import main; main()", *words]


def run_command(*words: str) -> None:
    """Runs one to its end, which must be a good one."""
    done = subprocess.run(command(*words), capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"error: tributary {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")


class Run:
    """A training under a name.

    Args:
        words: `--config` and `--set` of the command line.
        runs: folder of the runs.
        name: of this one.
    """

    def __init__(self, words: list[str], runs: Path, name: str):
        self.folder = runs / name
        self._words = ["train", *words, "--set", f"run.dir={runs}", "--set", f"run.name={name}", "--resume", "auto"]
        self.errors = runs / f"{name}.stderr"

    def start(self) -> subprocess.Popen[bytes]:
        """Starts or resumes it."""
        with self.errors.open("ab") as errors:
            return subprocess.Popen(command(*self._words), stdout=subprocess.DEVNULL, stderr=errors)

    def is_saving(self) -> bool:
        """Whether an unfinished checkpoint lies there."""
        return any(self.folder.glob("checkpoints/*/*.orbax-checkpoint-tmp*"))

    def size(self) -> tuple[int, float]:
        """Size in bytes and time of the journal, which every step changes."""
        path = self.folder / "metrics.jsonl"
        return (path.stat().st_size, path.stat().st_mtime) if path.exists() else (0, 0.0)

    def lines(self) -> list[dict[str, Any]]:
        """Lines of the journal, without what is of the machine."""
        texts = (self.folder / "metrics.jsonl").read_text().splitlines()
        return [
            {name: value for name, value in json.loads(text).items() if name not in OF_THE_MACHINE} for text in texts
        ]

    def digests(self) -> dict[str, str]:
        """Digests of the arrays of the newest checkpoint."""
        steps = [path for path in (self.folder / "checkpoints" / "last").iterdir() if path.name.isdecimal()]
        newest = max(steps, key=lambda path: int(path.name))
        record = json.loads((newest / "progress" / "metadata").read_text())
        found: dict[str, str] = record["digests"]
        return found


class Killer:
    """Starts trainings and kills them: in turn within a save, after some steps, within a save, while it starts.

    Args:
        rng: of the moments.
    """

    def __init__(self, rng: random.Random):
        self._rng, self._turn = rng, 0
        self._start_s = 5.0
        """Seconds that the last training took to its first step."""

    def kill(self, run: Run) -> str | None:
        """Starts a training, or resumes it, and kills it.

        Returns:
            What it was doing: starting, training, saving; None where it came to its end before.
        """
        is_due = (self._within_a_save, self._after_steps, self._within_a_save, self._while_starting)[self._turn % 4](
            run
        )
        self._turn += 1
        began, before, has_begun = time.monotonic(), run.size(), False
        process = run.start()
        while process.poll() is None and not is_due():
            if not has_begun and run.size() != before:
                has_begun, self._start_s = True, time.monotonic() - began
            time.sleep(0.002)
        if process.poll() is not None:
            if process.returncode:
                sys.exit(f"error: training ended with {process.returncode}:\n{run.errors.read_text()[-3000:]}")
            return None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        if run.size() == before:  # an unfinished checkpoint is the last one's
            return "starting"
        return "saving" if run.is_saving() else "training"

    def _within_a_save(self, run: Run) -> Callable[[], bool]:
        left, was_saving, delay_s = self._rng.randint(1, 4), False, self._rng.uniform(0.0, 0.03)

        def is_due() -> bool:
            nonlocal left, was_saving
            is_saving = run.is_saving()
            left -= is_saving and not was_saving
            was_saving = is_saving
            if is_saving and left <= 0:
                time.sleep(delay_s)
            return is_saving and left <= 0

        return is_due

    def _after_steps(self, run: Run) -> Callable[[], bool]:
        num_bytes, delay_s = self._rng.uniform(0.0, 30_000.0), self._rng.uniform(0.0, 0.3)
        before = run.size()[0]

        def is_due() -> bool:
            is_grown = run.size()[0] - before > num_bytes
            if is_grown:
                time.sleep(delay_s)
            return is_grown

        return is_due

    def _while_starting(self, run: Run) -> Callable[[], bool]:
        limit = time.monotonic() + self._rng.uniform(0.0, self._start_s)
        return lambda: time.monotonic() > limit


def compare(whole: Run, killed: Run) -> None:
    """Ends the program where two runs differ."""
    left, right = whole.lines(), killed.lines()
    for expected, found in zip(left, right, strict=False):
        if expected != found:
            sys.exit(
                f"DIFFERENT: {killed.folder}\nundisturbed: {json.dumps(expected)}\nkilled:      {json.dumps(found)}"
            )
    if len(left) != len(right):
        sys.exit(f"DIFFERENT: {killed.folder} has {len(right)} lines, the undisturbed run {len(left)}")
    if whole.digests() != killed.digests():
        sys.exit(f"DIFFERENT: {killed.folder}: arrays of the last checkpoint")


def disturb(words: list[str], runs: Path, num_kills: int, rng_seed: int) -> None:
    """One training undisturbed, others killed; prints what happened."""
    whole = Run(words, runs, "undisturbed")
    if whole.start().wait():
        sys.exit(f"error: training did not end well:\n{whole.errors.read_text()[-3000:]}")
    killer, doing, number, killed = Killer(random.Random(rng_seed)), Counter[str](), 1, Run(words, runs, "killed-1")
    while sum(doing.values()) < num_kills:
        activity = killer.kill(killed)
        if activity is not None:
            doing[activity] += 1
            print(f"kill {sum(doing.values())} of {killed.folder.name}, while {activity}", flush=True)
            continue
        compare(whole, killed)
        number += 1
        killed = Run(words, runs, f"killed-{number}")
    if killed.start().wait():
        sys.exit(f"error: training did not end well:\n{killed.errors.read_text()[-3000:]}")
    compare(whole, killed)
    steps = sum(line["kind"] == "train" for line in whole.lines())
    skipped = sum(path.read_text().count("damaged checkpoint skipped") for path in runs.glob("killed-*.stderr"))
    told = ", ".join(f"{count} while {activity}" for activity, count in sorted(doing.items()))
    print(f"{num_kills} kills of {number} runs ({told}), {skipped} damaged checkpoints skipped: all {steps} losses,")
    print("validations and final arrays equal those of the undisturbed run, to the bit")


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--config", type=Path, help="of a training limited by steps; default: a tiny one")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--folder", type=Path, help="where everything goes and stays; default: a temporary one")
    parser.add_argument("--rng-seed", type=int, default=0)
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="kill-training-"))
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "compiled"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    (folder / "runs").mkdir(parents=True)
    config = arguments.config
    if config is None:
        config = folder / "config.yaml"
        data = {"database": str(make_shop(folder)), **SMALL["data"]}
        config.write_text(json.dumps({**SMALL, "data": data}))
    words = ["--config", str(config), *(word for key in arguments.set for word in ("--set", key))]
    disturb(words, folder / "runs", arguments.kills, arguments.rng_seed)
    if arguments.folder is None:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
