"""Attention alone, forward and backward: every implementation beside `dense`, per kind.

Usage: python benches/attention.py [--seq-len 1024] [--batch-size 4] [--heads 8] [--head-dim 32] [--rounds 3]
           [--batch FILE.npz] [--implementations dense chunked structured] [--kinds column feature ...]

Contexts are made up in the shape of what the sampler gives (a star of tables, rows in the order of a walk, about seven
cells a row), or read from an npz file with the fields of a `Batch`. Prints, per kind and for the four default kinds
together, CPU seconds and wall seconds of one call (the best of the rounds), bytes of temporaries as XLA plans them,
the seconds that compilation took, and the ratio to `dense`.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from contexts import made_up_batch

from tributary.batch import Batch
from tributary.model.attention import KINDS, Relations, attention_function, prepared

DEFAULT_KINDS = ("column", "feature", "neighbor", "full")
Figures = dict[str, float]


def read_batch(path: Path) -> Batch:
    """A batch from an npz file; fields that it lacks are None."""
    arrays = np.load(path)
    names = [field.name for field in dataclasses.fields(Batch)]
    return Batch(**{name: arrays.get(name) for name in names})


def best_of(call: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Least CPU seconds and least wall seconds of a call."""
    cpu, wall = [], []
    for _ in range(rounds):
        cpu_start, wall_start = time.process_time(), time.perf_counter()
        jax.block_until_ready(call())
        cpu.append(time.process_time() - cpu_start)
        wall.append(time.perf_counter() - wall_start)
    return min(cpu), min(wall)


def measure(name: str, kinds: tuple[str, ...], relations: Relations, inputs: tuple[Any, ...], rounds: int) -> Figures:
    """Figures of one implementation over some kinds, forward and backward."""
    attend = attention_function(name)

    def total(q: Any, k: Any, v: Any, bias: Any, relations: Relations) -> Any:
        return sum(jnp.sum(jnp.sin(attend(kind, q, k, v, relations, bias))) for kind in kinds)

    ready = jax.jit(lambda relations: prepared(name, relations, kinds))
    prepare = ready.lower(relations).compile()
    relations = jax.block_until_ready(prepare(relations))
    start = time.perf_counter()
    compiled = jax.jit(jax.grad(total, argnums=range(4))).lower(*inputs, relations).compile()
    compile_s = time.perf_counter() - start
    jax.block_until_ready(compiled(*inputs, relations))
    cpu, wall = best_of(lambda: compiled(*inputs, relations), rounds)
    memory = compiled.memory_analysis().temp_size_in_bytes / 2**20
    return {"cpu_s": cpu, "wall_s": wall, "temp_mb": memory, "compile_s": compile_s}


def measure_preparation(relations: Relations, kinds: tuple[str, ...], rounds: int) -> Figures:
    """Figures of what `structured` computes once per batch."""
    compiled = jax.jit(lambda relations: prepared("structured", relations, kinds)).lower(relations).compile()
    cpu, wall = best_of(lambda: compiled(relations), rounds + 1)
    return {"cpu_s": cpu, "wall_s": wall, "temp_mb": compiled.memory_analysis().temp_size_in_bytes / 2**20}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seq-len", type=int, default=1024)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=Path)
    parser.add_argument("--implementations", nargs="+", default=["dense", "chunked", "structured", "native"])
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    arguments = parser.parse_args()
    size = {"batch_size": arguments.batch_size, "seq_len": arguments.seq_len}
    batch = made_up_batch(**size) if arguments.batch is None else read_batch(arguments.batch)
    batch = jax.tree.map(lambda x: jnp.asarray(x)[: arguments.batch_size], batch.device_fields())
    relations = Relations.from_batch(batch)
    shape = (*batch.cell_row.shape, arguments.heads, arguments.head_dim)
    rng = np.random.default_rng(0)
    shapes = (shape, shape, shape, shape[:3])
    inputs = tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    print(f"B {shape[0]}, S {shape[1]}, H {shape[2]}, K {shape[3]}, forward and backward, float32")
    print(f"{'kind':10s} {'':12s} {'CPU s':>8s} {'wall s':>8s} {'temp MiB':>9s} {'compile s':>9s} {'of dense':>18s}")
    choices = [(kind, (kind,)) for kind in arguments.kinds]
    if set(DEFAULT_KINDS) <= set(arguments.kinds):
        choices.append(("all four", DEFAULT_KINDS))
    for label, kinds in choices:
        found = {name: measure(name, kinds, relations, inputs, arguments.rounds) for name in arguments.implementations}
        for name, figures in found.items():
            line = f"{label:10s} {name:12s} {figures['cpu_s']:8.3f} {figures['wall_s']:8.3f} {figures['temp_mb']:9.1f}"
            reference = found.get("dense", figures)
            faster, smaller = (reference[field] / figures[field] for field in ("cpu_s", "temp_mb"))
            ratios = f"{faster:5.1f} x faster, {smaller:.1f} x less memory"
            print(f"{line} {figures['compile_s']:9.1f}    {ratios}", flush=True)
    lists = measure_preparation(relations, DEFAULT_KINDS, arguments.rounds)
    print(f"lists of a batch, once per step: {lists['cpu_s']:.3f} CPU s, {lists['temp_mb']:.1f} MiB")


if __name__ == "__main__":
    main()
