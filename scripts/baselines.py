"""What a model has to beat: every baseline on every task of a processed database, both regimes.

    python scripts/baselines.py data/processed/rel-f1 [--task driver-dnf] [--split test] [--rng-seeds 5]

Prints one line per task, regime and baseline: the task's metric with its 95 % bootstrap interval and the wall time;
with several LightGBM seeds also their mean and deviation.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np

import tributary
from tributary import baselines, judge_links, metrics
from tributary.asof import END_OF_TIME
from tributary.features import Task
from tributary.judge import metric_of
from tributary.judge_links import score_lists
from tributary.link_baselines import RANKINGS
from tributary.links import LinkTask
from tributary.regimes import REGIMES, resolve_cutoff

FITS = {"constant": baselines.constant, "entity": baselines.entity_mean, "lightgbm": baselines.lightgbm}


def score(database: tributary.Database, task: Task, split: str, cutoff: int | None, name: str, **options: Any) -> Any:
    """Fit one baseline and score it on every labelled seed of a split: (scores, details)."""
    seeds = np.flatnonzero((task.split == baselines.SPLITS[split]) & ~np.isnan(task.label))
    fitted = FITS[name](database, task.name, database_cutoff=cutoff, **options)
    found = fitted.predict(seeds)
    std = baselines.train_label_std(database, task.name)
    label = task.label[seeds]
    return metrics.score(task.target_stype, label, found.prediction, found.probability, std), fitted.details


def score_list(database: tributary.Database, task: Task, split: str, cutoff: int | None, name: str) -> Any:
    """The same of a link task."""
    loaded = LinkTask.load(database, task.name)
    seeds = np.flatnonzero(loaded.split == baselines.SPLITS[split])
    ranking = RANKINGS[name](database, task.name, database_cutoff=cutoff)
    return score_lists(loaded, seeds, ranking.predict(seeds)), ranking.details


def print_task(database: tributary.Database, name: str, split: str, num_rng_seeds: int) -> None:
    """All baselines of one task."""
    task = Task.load(database, name)
    is_link = task.target_stype == "link"
    described = next(each for each in json.loads(database.manifest)["tasks"] if each["name"] == name)
    metric = judge_links.metric_of(described) if is_link else metric_of(database, task)
    for regime in REGIMES:
        if regime == "frozen" and (task.time == END_OF_TIME).all():
            continue
        cutoff = resolve_cutoff(task, split, regime, None)
        for baseline in RANKINGS if is_link else FITS:
            values, started = [], time.perf_counter()
            for rng_seed in range(num_rng_seeds if baseline == "lightgbm" else 1):
                options = {"rng_seed": rng_seed} if baseline == "lightgbm" else {}
                scores, details = (score_list if is_link else score)(database, task, split, cutoff, baseline, **options)
                values.append(scores.values[metric])
            seconds = (time.perf_counter() - started) / len(values)
            line = f"{name:<24}{regime:<11}{baseline:<10}{metric:<10}"
            if values[0] is None:
                print(f"{line}undefined: {scores.undefined[metric]}")
                continue
            low, high = scores.intervals[metric]
            spread = f" +- {np.std(values):.4f} over {len(values)} seeds" if len(values) > 1 else ""
            trained = f"  {details['num_train']:,} rows" if "num_train" in details else ""
            line += f"{np.mean(values):>9.4f}{spread}  [{low:.4f}, {high:.4f}]"
            print(f"{line}  {seconds:.1f} s{trained}", flush=True)


def main(argv: list[str] | None = None) -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description="Baselines of a processed database.")
    parser.add_argument("database", help="folder of the processed database")
    parser.add_argument("--task", help="one task; default: every one that has metrics")
    parser.add_argument("--split", default="test", choices=list(baselines.SPLITS))
    parser.add_argument("--rng-seeds", type=int, default=1, help="LightGBM fits to average")
    arguments = parser.parse_args(argv)
    try:
        database = tributary.Database(arguments.database)
        described = json.loads(database.manifest)["tasks"]
        tasks = [task["name"] for task in described if task["target_stype"] in metrics.NAMES]
        for name in tasks if arguments.task is None else [arguments.task]:
            print_task(database, name, arguments.split, max(1, arguments.rng_seeds))
    except (ValueError, OSError, tributary.TributaryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
