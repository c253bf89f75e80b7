"""Speed and quality of the embedders: `python benches/embedder.py [--texts N] [--also PYTHON]`.

Speed: strings per second of short texts ("carrier is Delta", about 7 tokens) and long ones (about 58 tokens), the
tokenising included, after one small call that loads and compiles; with CPU seconds beside the wall clock, because the
machine may be shared. Quality: rank correlation with the hand-graded pairs of `similarity.tsv`; rank correlation of
all cosines with those of the full-width model; how often the nearest neighbour is the same.

`--also` names the Python of an environment with sentence-transformers, which runs the same texts in the same run.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

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
_RIVAL = """
import json, sys, time
from sentence_transformers import SentenceTransformer
model = SentenceTransformer(sys.argv[1], device="cpu")
for kind, texts in json.load(sys.stdin).items():
    model.encode(texts[:64])
    wall, cpu = time.perf_counter(), time.process_time()
    model.encode(texts, batch_size=64, normalize_embeddings=True)
    print(json.dumps([kind, time.perf_counter() - wall, time.process_time() - cpu]))
"""


def _texts(num_texts: int) -> dict[str, list[str]]:
    rng = random.Random(5)

    def words(size: int) -> str:
        return " ".join(rng.choice(_WORDS) for _ in range(size))

    short = [f"{rng.choice(_COLUMNS)} is {words(2)} {idx % 100}" for idx in range(num_texts)]
    return {"short": short, "long": [f"{words(55)} {idx}" for idx in range(max(32, num_texts // 10))]}


def _speed(embed: Callable[[list[str]], object], texts: list[str]) -> tuple[float, float]:
    """Wall-clock and CPU seconds."""
    embed(texts[:64])
    wall, cpu = time.perf_counter(), time.process_time()
    embed(texts)
    return time.perf_counter() - wall, time.process_time() - cpu


def _row(name: str, kind: str, num_texts: int, wall: float, cpu: float) -> str:
    return f"| {name} | {kind} | {num_texts / wall:,.0f} | {num_texts / cpu:,.0f} |"


def _print_speed(num_texts: int, also: str | None) -> None:
    from tributary.embed import make_embedder
    from tributary.embed.weights import find_weights

    texts = _texts(num_texts)
    print(f"{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| embedder | texts | strings/s | strings per CPU second |\n|---|---|---|---|")
    for name in ("local", "local-static", "hash"):
        embedder = make_embedder(name)
        for kind, strings in texts.items():
            many = strings if name == "local" else strings * 10
            print(_row(name, kind, len(many), *_speed(embedder.embed, many)), flush=True)
    if also is not None:
        command = [also, "-c", _RIVAL, os.fspath(find_weights())]
        done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=True)
        for line in done.stdout.splitlines():
            kind, wall, cpu = json.loads(line)
            print(_row("sentence-transformers", kind, len(texts[kind]), wall, cpu))


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
    parser.add_argument("--also", help="Python of an environment with sentence-transformers")
    options = parser.parse_args()
    _print_quality()
    _print_speed(options.texts, options.also)


if __name__ == "__main__":
    sys.exit(main())
