"""Speed and quality of the embedders: `python benches/embedder.py [--texts N] [--rounds N] [--peer-python PYTHON]`.

Speed: strings per second of short texts ("carrier is delta 7", about 7 tokens) and long ones (about 58 tokens), the
tokenising included, after one call that loads; on one core and on two, each in a process of its own that is bound to
them; the embedders take turns, and CPU seconds stand beside the wall clock, because the machine may be shared.
Quality: rank correlation with the hand-graded pairs of `similarity.tsv`; rank correlation of all cosines with those of
the full-width model; how often the nearest neighbour is the same.

`--peer-python` names the Python of an environment with sentence-transformers, which runs the same texts in the same
run on the same cores (`python -m venv peer && peer/bin/pip install sentence-transformers`).
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

_HERE = Path(__file__).resolve().parent
_COLUMNS = ["carrier", "origin", "model of plane", "country", "status", "color", "driver", "category"]
# fmt: off
_WORDS = [
    "delta", "united", "alaska", "boeing", "airbus", "german", "french", "red", "blue", "late", "early", "north",
    "south", "small", "large", "engine", "wing", "market", "street", "river", "stone", "gold", "silver", "music",
    "paper", "table", "chair", "doctor", "teacher", "student", "summer", "winter", "morning", "evening",
]
# fmt: on
_PEER = "sentence-transformers"
_RIVAL = """
import json, os, sys, time
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu")
print("ready", flush=True)
for line in sys.stdin:
    texts = json.loads(line)
    wall, cpu = time.perf_counter(), time.process_time()
    model.encode(texts, batch_size=64, normalize_embeddings=True)
    print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]), flush=True)
"""


class _Rival:
    """sentence-transformers in an environment of its own, kept waiting between its turns."""

    def __init__(self, python: str, weights: Path) -> None:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            [python, "-W", "ignore", "-c", _RIVAL, os.fspath(weights)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def speed(self, texts: list[str]) -> tuple[float, float]:
        """Wall-clock and CPU seconds."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(texts), file=self._process.stdin, flush=True)
        wall, cpu = json.loads(self._process.stdout.readline())
        return wall, cpu

    def close(self) -> None:
        """Ends the process."""
        self._process.communicate()


def _texts(num_texts: int) -> dict[str, list[str]]:
    rng = random.Random(5)

    def words(size: int) -> str:
        return " ".join(rng.choice(_WORDS) for _ in range(size))

    short = [f"{rng.choice(_COLUMNS)} is {words(rng.choice((1, 2)))} {idx % 100}" for idx in range(num_texts)]
    return {"short": short, "long": [f"{words(55)} {idx}" for idx in range(max(32, num_texts // 10))]}


def _speed(embed: Callable[[list[str]], object], texts: list[str]) -> tuple[float, float]:
    """Wall-clock and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    embed(texts)
    return time.perf_counter() - wall, time.process_time() - cpu


def _print_speed(num_texts: int, num_rounds: int, peer_python: str | None) -> None:
    from tributary.embed import LocalEmbedder, make_embedder
    from tributary.embed.weights import find_weights

    local = LocalEmbedder(256, device="cpu")
    runners = {"local": partial(_speed, local.embed)}
    runners |= {name: partial(_speed, make_embedder(name).embed) for name in ("local-static", "hash")}
    rival = None if peer_python is None else _Rival(peer_python, find_weights())
    if rival is not None:
        runners[_PEER] = rival.speed
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"\n{cores} core{'s' * (cores > 1)}, load {load:.1f}, median of {num_rounds} rounds in turns\n")
    print("| embedder | texts | strings/s | strings per CPU second | local is faster by (wall, CPU) |")
    print("|---|---|---|---|---|")
    for kind, texts in _texts(num_texts).items():
        tokens = sum(map(len, local.token_ids(texts))) / len(texts)
        for run in runners.values():
            run(texts[: len(texts) // 4])
        # in turns, so that a busy moment of the machine does not fall on one of them alone
        rounds = [{name: run(texts) for name, run in runners.items()} for _ in range(num_rounds)]
        speeds = {
            name: [len(texts) / median(times[name][part] for times in rounds) for part in (0, 1)] for name in runners
        }
        for name, (wall, cpu) in speeds.items():
            ratios = f"{speeds['local'][0] / wall:.2f}, {speeds['local'][1] / cpu:.2f}"
            print(f"| {name} | {kind} ({tokens:.1f} tokens) | {wall:,.0f} | {cpu:,.0f} | {ratios} |", flush=True)
    if rival is not None:
        rival.close()


def _print_speeds(options: argparse.Namespace) -> None:
    """A table for one core and one for two, each from a process that knows no others."""
    available = sorted(os.sched_getaffinity(0))
    for number in range(1, min(options.cores, len(available)) + 1):
        cores = set(available[:number])
        command = [sys.executable, __file__, "--bound", *sys.argv[1:]]
        subprocess.run(command, check=True, preexec_fn=partial(os.sched_setaffinity, 0, cores))


def _print_quality() -> None:
    from scipy.stats import spearmanr

    from tributary.embed import make_embedder

    lines = (_HERE / "similarity.tsv").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines if not line.startswith("#")]
    grades = np.array([float(grade) for grade, _, _ in pairs])
    texts = sorted({text for pair in pairs for text in pair[1:]})
    place = {text: idx for idx, text in enumerate(texts)}
    upper = np.triu_indices(len(texts), 1)
    full = make_embedder("local", dimension=384).embed(texts)
    full_cosines = full @ full.T
    print(f"\n{len(pairs)} graded pairs, {len(texts)} texts\n")
    print("| embedder | grades | cosines of the full width | same nearest neighbour |\n|---|---|---|---|")
    for name, dimension in [("local", 384), ("local", 256), ("local", 64), ("local-static", 256), ("hash", 256)]:
        vectors = make_embedder(name, dimension=dimension).embed(texts)
        cosines = vectors @ vectors.T
        graded = [cosines[place[one], place[other]] for _, one, other in pairs]
        same = np.argmax(cosines - 2 * np.eye(len(texts)), 1) == np.argmax(full_cosines - 2 * np.eye(len(texts)), 1)
        by_hand = spearmanr(graded, grades).statistic
        by_model = spearmanr(cosines[upper], full_cosines[upper]).statistic
        print(f"| {name}, {dimension} | {by_hand:.3f} | {by_model:.3f} | {same.mean():.1%} |")


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--texts", type=int, default=2000, help="short texts; a tenth as many long ones")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2, help="one core, two, up to this many")
    parser.add_argument("--peer-python", help="Python of an environment with sentence-transformers")
    parser.add_argument("--bound", action="store_true", help="only the speed, on the cores of this process")
    options = parser.parse_args()
    if options.bound:
        _print_speed(options.texts, options.rounds, options.peer_python)
        return
    _print_quality()
    _print_speeds(options)


if __name__ == "__main__":
    sys.exit(main())
