"""Sampling with labelled examples of other entities in the context, beside the rival's.

Usage: python benches/rival_examples.py [shop] [tpch-0.1] --rival-python PYTHON     (or --make-venv FOLDER)

The rival, `relational-transformer` 1.10.0, looks for examples with 10,000 random walks of length 20 per context by
default and fills the context with local contexts of 256 cells, one per example. Ours shows the number of examples that
the rival's contexts turn out to have, in contexts of 1,024 cells and batches of 32 as well; a batch counts when its
arrays are in numpy. `equal work` walks as far as the rival does: 10,000 times 20 links. The text vectors it copies
into every batch are cut to 8 values: they have nothing to do with examples.

Every run is a process of its own; contexts per CPU-second are over all threads of the process. Medians of `--rounds`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from pathlib import Path
from typing import Any

import rival
import rival_sampler
from measure import Figures, describe, in_turn, measured, run, verdict

WALKS, LENGTH = 10_000, 20
NUM_NEIGHBORS = rival_sampler.RIVAL["walks"][1][0]
SHARE = 0.75  # of the context: the rival's default gives a quarter to the seed
COUNTED = 4  # batches over which examples are counted, outside of the measurement
# options of the sampler by contestant
OURS: dict[str, dict[str, Any]] = {
    "ours, none": {"examples": 0},
    "ours": {},
    "ours, recent": {"example_choice": "recent"},
    "ours, random": {"example_choice": "random"},
    "ours, 1,000 walks": {"example_walks": 1000},
    "ours, equal work": {"example_walks": WALKS, "example_walk_length": LENGTH},
}
RIVAL = "rival walks"
TARGETS = {"ours": 40, "ours, equal work": 1}


def ours(folder: Path, task: str, options: dict[str, Any], seconds: float) -> None:
    """Our sampler, in the caller's thread."""
    import numpy as np

    from tributary import _headwater

    with measured() as figures:
        opened = time.perf_counter()
        sampler = _headwater.Sampler(
            _headwater.Database(folder),
            [task],
            batch_size=rival_sampler.BATCH_SIZE,
            seq_len=rival_sampler.SEQ_LEN,
            num_neighbors=NUM_NEIGHBORS,
            strategy="recent",
            example_share=SHARE,
            history=False,
            prefetch=0,
            **options,
        )
        steps = itertools.count()
        figures |= rival_sampler.draw(lambda: sampler.batch(next(steps)), seconds, opened, 2)
        batches = [sampler.batch(next(steps)) for _ in range(COUNTED)]
        is_task = [batch["row_table"] == batch["row_table"][:, :1] for batch in batches]  # row 0 is of the task's table
        figures["examples"] = np.mean([rows.sum(axis=1) - 1 for rows in is_task])
        figures["cells"] = np.mean([~batch["cell_is_padding"] for batch in batches]) * rival_sampler.SEQ_LEN


def theirs(folder: Path, database: str, seconds: float) -> None:
    """The rival's sampler, in the caller's thread."""
    import numpy as np

    with measured() as figures:
        opened = time.perf_counter()
        next_batch = rival_sampler.rival_batches(folder, database, rival_sampler.STUB_DIMENSION, "walks")
        figures |= rival_sampler.draw(next_batch, seconds, opened, 1)
        batch = {name: np.asarray(array) for name, array in next_batch().items()}
        is_cell = ~batch["is_padding"].astype(bool).reshape(rival_sampler.BATCH_SIZE, -1)
        seeds = batch["seed_node_idxs"].reshape(is_cell.shape)
        shown = [len(np.unique(seeds[context][is_cell[context]])) - 1 for context in range(len(seeds))]
        figures["examples"] = np.mean(shown)
        figures["cells"] = is_cell.sum(axis=1).mean()


def compare(name: str, arguments: argparse.Namespace, python: Path) -> None:
    """Prints one database's figures and ratios."""
    kind = rival.DATABASES[name][0]
    own = rival_sampler.processed(name, arguments, python)
    other = rival.preprocessed(name, arguments, python, rival_sampler.STUB_DIMENSION)

    def start(contestant: str, examples: int = 0) -> Figures:
        is_rival = contestant == RIVAL
        options = ("--contestant", contestant, "--kind", kind, "--seconds", str(arguments.seconds))
        interpreter = python if is_rival else sys.executable
        folder = other if is_rival else own
        return run(interpreter, __file__, folder, *options, "--examples", str(examples), OMP_NUM_THREADS="1")

    found = in_turn([RIVAL], arguments.rounds, start)
    examples = round(found[RIVAL]["examples"])
    found |= in_turn(list(OURS), arguments.rounds, lambda contestant: start(contestant, examples))
    print(f"{name}: contexts of {rival_sampler.SEQ_LEN} cells, {examples} examples, medians of {arguments.rounds}")
    for who, figures in found.items():
        ratio = rival_sampler.rate(figures) / rival_sampler.rate(found[RIVAL])
        target = f"  ({TARGETS[who]} x: {verdict(ratio >= TARGETS[who])})" if who in TARGETS else ""
        print(
            f"  {who:18}{describe(rival_sampler.rate(figures)):>9} contexts/CPU-s {figures['examples']:5.1f} examples"
            f" {figures['cells']:5.0f} cells  peak {figures['peak_mb']:5.0f} MiB {ratio:8.1f} x the rival's{target}",
            flush=True,
        )


def main() -> None:
    """Compares on every database asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("databases", nargs="*", default=["shop", "tpch-0.1"])
    parser.add_argument("--seconds", type=float, default=4.0, help="CPU time of one run")
    parser.add_argument("--contestant", choices=[*OURS, RIVAL], help=argparse.SUPPRESS)
    parser.add_argument("--kind", choices=rival_sampler.TASKS, help=argparse.SUPPRESS)
    parser.add_argument("--examples", type=int, help=argparse.SUPPRESS)
    rival.add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.contestant == RIVAL:
        theirs(Path(arguments.databases[0]), arguments.kind, arguments.seconds)
    elif arguments.contestant:
        options = {"examples": arguments.examples} | OURS[arguments.contestant]
        ours(Path(arguments.databases[0]), rival_sampler.TASKS[arguments.kind][0], options, arguments.seconds)
    else:
        python = rival.rival_python(arguments)
        for name in arguments.databases:
            compare(name, arguments, python)


if __name__ == "__main__":
    main()
