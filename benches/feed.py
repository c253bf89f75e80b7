"""Does a training step ever wait for its batch? The sampler into the device, and the wait of every step.

    python benches/feed.py --database data/processed/nycflights13 [--config configs/demo.yaml] [--steps 200]
                           [--plot waits.svg] [key=value ...]

Three figures, with the configuration of the demo:

1. batches per second out of the mixture of samplers, in numpy, and on the device by `Loader`, which begins the transfer
   of the next batch before the present one is used; nothing else runs, so this is what a device could at most be fed;
2. the wait of every step of a real training run (`tributary train`), from its `metrics.jsonl`: median, 95 %, the
   longest, and the share of the whole; the first steps, which compile, are left out;
3. how many times faster batches come than steps take them.

The plot shows every step's wait beside what a step takes; `tributary report` draws the same of any run.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from measure import cpu_seconds, verdict

from tributary.config import RunConfig
from tributary.data import Loader
from tributary.training.databases import open_sources
from tributary.training.devices import Devices
from tributary.training.mixture import training_mixture
from tributary.training.train import train

ROOT = Path(__file__).resolve().parent.parent
MOST_SHARE = 0.01
NUM_COMPILING = 20
"""Steps left out, on top of those asked for: two shapes of batches are compiled among them."""


def rate(draw: Callable[[], Any], seconds: float) -> tuple[float, float]:
    """Draws per second and per CPU-second, after a few to warm up."""
    for _ in range(5):
        draw()
    wall, cpu, count = time.perf_counter(), cpu_seconds(), 0
    while time.perf_counter() - wall < seconds:
        draw()
        count += 1
    return count / (time.perf_counter() - wall), count / (cpu_seconds() - cpu)


def feed(config: RunConfig, seconds: float) -> float:
    """Prints how fast batches come; batches per second on the device."""
    sources, devices = open_sources(config.data), Devices()
    tasks = [source.label(task["name"]) for source in sources for task in source.tasks]
    with training_mixture(sources, config) as mixture:
        in_numpy = rate(lambda: next(mixture), seconds)
    device = jax.devices()[0]
    with training_mixture(sources, config) as mixture:
        loader = Loader(mixture, devices)
        on_device = rate(lambda: jax.block_until_ready(next(loader).device), seconds)
    size = config.train.batch_size
    print(f"batches of {size} contexts of {config.data.seq_len} cells, tasks {', '.join(tasks)}")
    for name, (per_s, per_cpu_s) in {"in numpy": in_numpy, f"on {device}": on_device}.items():
        print(f"  {name:12} {per_s:9,.0f} batches/s {per_cpu_s:9,.0f} batches/CPU-s {size * per_s:11,.0f} contexts/s")
    return on_device[0]


def steps(config: RunConfig) -> tuple[np.ndarray, np.ndarray]:
    """Trains; the wait of every step and what a step took, in milliseconds, by step."""
    folder = train(config)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if line["kind"] == "train"]
    waits = np.concatenate([line["input_wait_ms"] for line in lines])
    took = np.concatenate(
        [np.full(len(line["input_wait_ms"]), 1000 * config.train.batch_size / line["examples_per_s"]) for line in lines]
    )
    return waits[NUM_COMPILING:], took[NUM_COMPILING:]


def draw(waits: np.ndarray, took: np.ndarray, file: Path) -> None:
    """A point per step: what it waited, beside what it took."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.subplots()
    number = NUM_COMPILING + np.arange(len(waits))
    axes.plot(number, np.maximum(waits, 1e-3), ".", markersize=3, label="waited for its batch")
    axes.plot(number, took, color="0.5", label="took in all")
    axes.set(xlabel="step", ylabel="milliseconds", yscale="log", title="What each training step waits for its batch")
    axes.legend()
    figure.savefig(file)


def main() -> None:
    """Measures both sides and prints the verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "demo.yaml")
    parser.add_argument("--database", type=Path, help="in place of the config's")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=3.0, help="how long batches are drawn without training")
    parser.add_argument("--plot", type=Path, help="PNG or SVG file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of the config")
    arguments = parser.parse_args()
    num_steps = NUM_COMPILING + arguments.steps
    with tempfile.TemporaryDirectory() as folder:
        overrides = [f"run.dir={folder}", f"train.steps={num_steps}", "train.log_every=1"]
        overrides += [f"train.eval_every={num_steps}", "train.eval_seeds=32", "train.time_limit_minutes=null"]
        overrides += [f"data.database={arguments.database}"] if arguments.database else []
        config = RunConfig.load(arguments.config, [*overrides, *arguments.overrides])
        per_s = feed(config, arguments.seconds)
        waits, took = steps(config)
    share = waits.sum() / took.sum()
    middle, high = np.percentile(waits, [50, 95])
    print(
        f"{len(waits)} training steps of {np.median(took):.1f} ms: waits {middle:.3f} ms (median), {high:.3f} ms "
        f"(95 %), {waits.max():.3f} ms (longest)"
    )
    print(
        f"  {share:.2%} of the time is waiting (at most {MOST_SHARE:.0%}: {verdict(share <= MOST_SHARE)}); batches "
        f"come {per_s * np.median(took) / 1000:.1f} times as fast as steps take them"
    )
    if arguments.plot:
        draw(waits, took, arguments.plot)
        print(f"  {arguments.plot}")


if __name__ == "__main__":
    main()
