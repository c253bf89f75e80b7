"""Every kind of model on one task in one run: parameters, CPU-seconds per training step, metric on val and test.

    python benches/model_kinds.py data/processed/rel-f1 driver-position --minutes 5 --time-features hour,weekday,day

Each kind is trained by `training.train` with the sizes of the preset `demo`, the same batches and the same time limit,
and predicts val and test by `prediction.predict`. CPU-seconds are of this process, sampler threads included, from the
third step to the last before the first validation: compilation and validation are left out. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from tributary import metrics
from tributary.config import RunConfig
from tributary.metadata import find_task
from tributary.prediction.predict import load_run, predict_split
from tributary.training.train import Report, train

WARM_UP = 2
"""Steps that may compile."""


def measure(kind: str, arguments: argparse.Namespace, run_dir: Path) -> str:
    """Trains one kind; its row of the table."""
    values = {
        "run": {"dir": str(run_dir), "name": kind},
        "data": {
            "database": arguments.database,
            "tasks": [arguments.task],
            "seq_len": arguments.seq_len,
            "max_hops": 2,
        },
        "model": {"kind": kind},
        "objective": {"mask_rate": 0.0, "huber_delta": 0.2},
        "optimizer": {"learning_rate": 0.002},
        "train": {
            "steps": arguments.steps,
            "time_limit_minutes": arguments.minutes,
            "eval_every": arguments.eval_every,
            "checkpoint_every": arguments.eval_every,
        },
    }
    if arguments.time_features:
        values["model"]["time_features"] = arguments.time_features.split(",")
    clock: dict[int, float] = {}

    def watch(report: Report) -> None:
        if report.validation is None:
            clock[report.step] = time.process_time()

    config = RunConfig.from_mapping(values)
    run = load_run(train(config, on_progress=watch))
    history = json.loads((run_dir / kind / "training_history.json").read_text())
    last = min(max(clock), arguments.eval_every)
    step_s = (clock[last] - clock[WARM_UP]) / (last - WARM_UP) if last > WARM_UP else float("nan")
    cells = [kind, f"{history['num_parameters'] / 1e6:.2f} M", str(max(clock)), f"{step_s:.3f}"]
    task = find_task(run.manifest, arguments.task)
    name = metrics.default_metric(task["target_stype"])
    for split in ("val", "test"):
        table = predict_split(run, arguments.task, split)
        label, prediction, probability = (
            table[column].to_numpy(zero_copy_only=False) for column in ("label", "prediction", "probability")
        )
        found = metrics.compute(task["target_stype"], label, prediction, probability)
        cells.append(f"{found[name]:.3f}")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Reads the arguments, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database")
    parser.add_argument("task", help="numerical or boolean")
    parser.add_argument("--kinds", nargs="+", default=["transformer", "gnn", "tree-lstm"])
    parser.add_argument("--minutes", type=float, default=5.0, help="training time of each kind")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--eval-every", type=int, default=100)
    parser.add_argument("--seq-len", type=int, default=320)
    parser.add_argument("--time-features", default="")
    arguments = parser.parse_args()
    print("| kind | parameters | steps | CPU-s per step | val | test |\n|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.kinds:
            print(measure(kind, arguments, Path(folder)), flush=True)


if __name__ == "__main__":
    main()
