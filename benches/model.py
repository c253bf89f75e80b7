"""A training step of the model on a CPU: operations, time, compilation and memory; the rival's beside it.

Usage: python benches/model.py [--quick] [--rival-python PYTHON] [--rounds 2] [--batch-size 1]
           [--implementations dense chunked structured native]

Every contestant runs in a process of its own: loss and gradients of all parameters for made-up full contexts
(`contexts`), float32, four attentions, no readout block. `--quick` measures the smallest size only. The rival is the
package `relational-transformer` 1.10.0, model rt-v1 (22 million parameters), patched as `published_reference.py` says,
on the same contexts.

Useful operations of a step are three times those of its forward pass (a backward pass costs two), which for `L` blocks
of width `D` are `2 B S L (16 D^2 + 3 D d_ff) + 4 D L pairs`, where `pairs` counts what the four masks permit. Executed
operations count what the implementation multiplies: dense 12 D per pair of cells, whether permitted or not; chunked
14 D (it computes logits twice); structured 4 D forward, 6 D and 8 D backward per place of its lists, filled or not;
native 14 D per permitted pair.
MFU is useful operations per CPU second over what a product of 2048 x 2048 matrices reaches in the same process, busy
the same of executed ones. Memory is what XLA plans for temporaries, and the highest resident set; compilation is CPU
seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rival
from contexts import made_up_arrays, made_up_batch
from measure import Figures, in_turn, measured, run

SIZES = {"64x3": (64, 3, 2, 128), "128x4": (128, 4, 4, 512), "256x12": (256, 12, 8, 1024)}
"""d_model, num_layers, num_heads, d_ff."""
IMPLEMENTATIONS = ("dense", "chunked", "structured", "native")
KINDS = ("column", "feature", "neighbor", "full")
RIVAL_SIZES = {"num_blocks": 12, "d_model": 256, "d_text": 384, "num_heads": 8, "d_ff": 1024}


def pairs_of(name: str, batch: Any) -> tuple[float, float]:
    """Permitted pairs of cells of all masks; and executed operations per width D and block, forward and backward."""
    from tributary.model.attention import Relations, permitted, prepared
    from tributary.model.attention.lists import CHUNK, TILE

    relations = Relations.from_batch(batch)
    useful = float(sum(np.asarray(permitted(kind, relations, relations)).sum() for kind in KINDS))
    if name == "native":
        return useful, 14 * useful
    whole = float(relations.row.shape[0] * relations.row.shape[1] ** 2)
    if name != "structured":
        return useful, len(KINDS) * whole * (12 if name == "dense" else 14)
    executed = 14 * whole
    for plan in prepared(name, relations, KINDS).plans.values():
        by_queries, by_keys = (
            float(np.sum(-(-np.asarray(lists.num_others) // CHUNK))) * CHUNK * TILE
            for lists in (plan.keys, plan.queries)
        )
        executed += 10 * by_queries + 8 * by_keys
    return useful, executed


def operations_per_second() -> float:
    """What a plain product reaches, per CPU second; the best of three."""
    import jax
    import jax.numpy as jnp

    size = 2048
    x = jnp.asarray(np.random.default_rng(0).normal(size=(size, size)), jnp.float32)
    product = jax.jit(jnp.matmul).lower(x, x).compile()
    jax.block_until_ready(product(x, x))
    spent = []
    for _ in range(3):
        start = time.process_time()
        jax.block_until_ready(product(x, x))
        spent.append(time.process_time() - start)
    return 2 * size**3 / min(spent)


def step(name: str, size: str, seq_len: int, batch_size: int) -> None:
    """Measures one training step of ours; one process."""
    import jax
    from flax import nnx

    from tributary.config import ModelConfig
    from tributary.model import build_model
    from tributary.training.losses import Objective, objective_loss

    d_model, num_layers, num_heads, d_ff = SIZES[size]
    sizes = {"d_model": d_model, "num_layers": num_layers, "num_heads": num_heads, "d_ff": d_ff}
    config = ModelConfig(readout=False, attention=name, **sizes)
    batch = made_up_batch(batch_size=batch_size, seq_len=seq_len).device_fields()
    arrays = made_up_arrays(256)
    graphdef, params = nnx.split(build_model(config, 256, rngs=nnx.Rngs(0)))

    def loss(params: Any, batch: Any) -> Any:
        objective = Objective(mask_rate=0.0)
        return objective_loss(nnx.merge(graphdef, params), batch, arrays, objective)[0]

    start = time.process_time()
    compiled = jax.jit(jax.value_and_grad(loss)).lower(params, batch).compile()
    compile_s = time.process_time() - start
    jax.block_until_ready(compiled(params, batch))
    possible = operations_per_second()
    pairs, executed = pairs_of(name, batch)
    dense_part = 6.0 * batch_size * seq_len * num_layers * (16 * d_model**2 + 3 * d_model * d_ff)
    with measured() as figures:
        jax.block_until_ready(compiled(params, batch))
        figures["compile_s"] = compile_s
        figures["temp_mb"] = compiled.memory_analysis().temp_size_in_bytes / 2**20
        figures["possible"] = possible
        figures["useful"] = dense_part + 12.0 * d_model * num_layers * pairs
        figures["executed"] = dense_part + d_model * num_layers * executed


def rival_step(python: Path, seq_len: int, batch_size: int) -> Figures:
    """The rival's step on the same contexts, without the first."""
    from published_parity import translate
    from safetensors.numpy import save_file

    batch = made_up_batch(batch_size=batch_size, seq_len=seq_len)
    theirs = translate("rt-v1", batch, made_up_arrays(384), np.zeros_like(batch.cell_is_target))
    with tempfile.TemporaryDirectory() as name:
        save_file(theirs, Path(name) / "theirs.safetensors")
        script = rival.ROOT / "benches/published_reference.py"
        return run(python, script, "step", "rt-v1", json.dumps(RIVAL_SIZES), name)


def report(size: str, seq_len: int, found: dict[str, Figures], batch_size: int) -> None:
    """Prints the lines of one size."""
    for name, figures in found.items():
        line = f"{size:7s} {seq_len:5d} {name:10s} {figures['cpu_s'] / batch_size:8.2f} {figures['wall_s']:8.2f}"
        if name == "rival":
            print(f"{line} {'':9s} {'':9s} {figures['peak_mb']:9.0f}")
            continue
        mfu = figures["useful"] / figures["cpu_s"] / figures["possible"]
        busy = figures["executed"] / figures["cpu_s"] / figures["possible"]
        line += f" {figures['compile_s']:9.1f} {figures['temp_mb']:9.0f} {figures['peak_mb']:9.0f}"
        line += f" {figures['useful'] / 1e9:8.1f} {figures['executed'] / 1e9:8.1f} {mfu:6.1%} {busy:6.1%}"
        others = [other for other in ("dense", "rival") if other in found]
        ratio = ", ".join(f"{found[other]['cpu_s'] / figures['cpu_s']:.1f} x {other}" for other in others)
        print(f"{line}   {ratio}", flush=True)


def main() -> None:
    """Measures all sizes, or is one contestant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rival.add_arguments(parser)
    parser.add_argument("--quick", action="store_true", help="the smallest size, once")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--implementations", nargs="+", default=IMPLEMENTATIONS, choices=IMPLEMENTATIONS)
    parser.add_argument("--contestant", help=argparse.SUPPRESS)
    parser.add_argument("--size", help=argparse.SUPPRESS)
    parser.add_argument("--seq-len", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        step(arguments.contestant, arguments.size, arguments.seq_len, arguments.batch_size)
        return
    has_rival = bool(arguments.rival_python or arguments.make_venv)
    python = rival.rival_python(arguments) if has_rival else None
    rounds = 1 if arguments.quick else arguments.rounds
    print("model       S           CPU s/ctx   wall s compile s  temp MiB  peak MiB   GFLOP executed    MFU   busy")
    for size in ["64x3"] if arguments.quick else SIZES:
        for seq_len in (256, 1024):

            def start(name: str, size: str = size, seq_len: int = seq_len) -> Figures:
                if name == "rival":
                    return rival_step(Path(str(python)), seq_len, arguments.batch_size)
                words = ["--contestant", name, "--size", size, "--seq-len", str(seq_len)]
                return run(sys.executable, __file__, *words, "--batch-size", str(arguments.batch_size))

            contestants = [*arguments.implementations, *(["rival"] if has_rival and size == "256x12" else [])]
            report(size, seq_len, in_turn(contestants, rounds, start), arguments.batch_size)


if __name__ == "__main__":
    main()
