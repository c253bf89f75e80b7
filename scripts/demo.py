"""The whole road on a real database: fetch, preprocess, train, evaluate, predict, report. `make demo` runs this.

Every stage is the command a person would type, shown before it runs, with its wall time behind it. The last lines
say how good the model is on the test span, how good the baselines are on the same rows, and what to type next.

    python scripts/demo.py            # a stopped or finished demo is continued, stages already done are skipped
    python scripts/demo.py --fresh    # processes and trains anew
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RAW = "data/raw/nycflights13"
METADATA = "data/metadata/nycflights13.json"
DATABASE = "data/processed/nycflights13"
CONFIG = "configs/demo.yaml"
RUN = "runs/demo"
REPORT = f"{RUN}/report.html"
TASK = "flight-late"
EVALUATED = 3000
PREDICTED = 1000


def stages(tributary: str) -> list[tuple[str, list[str]]]:
    """Name and command of every stage, in order."""
    predictions = f"{RUN}/predictions-{TASK}.parquet"
    predict = ["predict", RUN, "--task", TASK, "--out", predictions, "--max-seeds", str(PREDICTED)]
    return [
        ("fetch", [sys.executable, "scripts/fetch_nycflights13.py", RAW]),
        ("preprocess", [tributary, "preprocess", RAW, DATABASE, "--metadata", METADATA]),
        ("train", [tributary, "train", "--config", CONFIG, "--resume", "auto"]),
        ("evaluate", [tributary, "evaluate", RUN, "--max-seeds", str(EVALUATED)]),
        ("predict", [tributary, *predict]),
        ("report", [tributary, "report", RUN, "--out", REPORT]),
    ]


def run_stage(number: int, total: int, name: str, command: Sequence[str]) -> float:
    """Run one stage in the foreground; its wall time in seconds.

    Raises:
        subprocess.CalledProcessError: the stage failed; it has said why.
    """
    shown = [Path(command[0]).name, *command[1:]]
    print(f"\n[{number}/{total}] {name}: {shlex.join(shown)}", flush=True)
    started = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True)
    seconds = time.perf_counter() - started
    print(f"[{number}/{total}] {name}: {seconds:.1f} s", flush=True)
    return seconds


def summary(evaluations: Sequence[dict[str, Any]], seconds: dict[str, float]) -> str:
    """The last lines: stages, test metrics beside baselines, the report, the next command.

    Example:
        >>> print(summary([], {"fetch": 2.0}).splitlines()[0])
        fetch 2 s, 2 s in all
    """
    total = sum(seconds.values())
    lines = [", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()) + f", {total:.0f} s in all"]
    for result in evaluations:
        metric = result["metric"]
        better = "lower" if metric in ("mae", "rmse", "nmae") else "higher"
        rows = f"{result['num_evaluated']:,} of {result['num_seeds']:,} {result['split']} rows"
        lines += ["", f"{result['task']} ({rows}, {result['regime']} regime): {metric}, {better} is better"]
        for entry in [result["model"], *result["baselines"]]:
            value, interval = entry["metrics"][metric], entry["intervals"][metric]
            figure = "undefined" if value is None else f"{value:.4g}"
            span = "" if interval is None else f"   95 % interval {interval[0]:.4g} to {interval[1]:.4g}"
            lines.append(f"  {entry['name']:<10}{figure:>9}{span}")
        lines += [f"  the model {verdict.split(':')[0]}" for verdict in result["verdicts"]]
    lines += ["", f"report:  {REPORT}   (open it in a browser)"]
    lines += [f"next:    tributary sample {DATABASE} --task {TASK} --seed-index 0   (what one prediction reads)"]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run every stage; the exit code of the first that fails."""
    parser = argparse.ArgumentParser(description="Tributary on nycflights13, from download to report.")
    parser.add_argument("--fresh", action="store_true", help="process and train anew instead of continuing")
    arguments = parser.parse_args(argv)
    tributary = Path(sys.executable).with_name("tributary")
    if not tributary.is_file():
        print(f"error: {tributary} is missing: run `make build` first", file=sys.stderr)
        return 2
    if arguments.fresh:
        for folder in (DATABASE, RUN):
            shutil.rmtree(ROOT / folder, ignore_errors=True)
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    seconds: dict[str, float] = {}
    todo = stages(str(tributary))
    for number, (name, command) in enumerate(todo, start=1):
        try:
            seconds[name] = run_stage(number, len(todo), name, command)
        except subprocess.CalledProcessError as failure:
            print(f"error: the stage `{name}` failed with exit code {failure.returncode}, see above", file=sys.stderr)
            return failure.returncode
        except KeyboardInterrupt:
            print(f"\nstopped during `{name}`; `make demo` continues there", file=sys.stderr)
            return 130
    evaluations = json.loads((ROOT / RUN / "evaluation.json").read_text(encoding="utf-8"))["evaluations"]
    print("\n" + summary(evaluations, seconds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
