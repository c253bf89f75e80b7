"""Memory and examples per second of a training step for every preset.

Usage: python benches/presets.py [--presets NAME ...] [--batch-size 8] [--seq-len 256] [--no-run] [--set KEY=VALUE]...

Every preset runs in a process of its own: made-up full contexts (`contexts`), the objective of the defaults, the whole
step with its optimiser, on the devices that JAX finds. State is what parameters, average and optimiser take; temporary
is what XLA plans besides; peak is the device's, or on a processor the highest resident set. `--no-run` compiles alone,
which says the memory of a step that is too large for this machine. `--set` changes the configuration, as
`model.dtype=bfloat16` or `model.remat=true`.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from contexts import made_up_arrays, made_up_batch
from measure import Figures, measured, run

PRESETS = ("demo", "rt-22m", "rt-86m", "rt-v1", "rt-plurel", "rt-j")
EMBEDDING_DIM = 384


def step(arguments: argparse.Namespace) -> None:
    """Measures one preset; one process."""
    import jax
    import numpy as np
    from flax import nnx

    from tributary.config import RunConfig
    from tributary.model.forward import describe_model, draw_params
    from tributary.training.cost import device_peak_bytes, peak_memory_bytes
    from tributary.training.losses import Objective, objective_loss
    from tributary.training.operations import StepOperations, peak_operations
    from tributary.training.optim import init_state, make_train_step

    values = {"data": {"database": "made up", "seq_len": arguments.seq_len}, "model": {"preset": arguments.presets[0]}}
    config = RunConfig.from_mapping(values, arguments.set)
    graphdef, _ = describe_model(config.model, EMBEDDING_DIM)
    params = draw_params(config.model, EMBEDDING_DIM, 0)
    objective = Objective(**config.objective.model_dump())

    def loss(params: Any, batch: Any, arrays: Any, shares: Any = None) -> Any:
        return objective_loss(nnx.merge(graphdef, params), batch, arrays, objective, shares)

    train_step = make_train_step(loss, config.optimizer)
    state, arrays = init_state(params, config.optimizer), made_up_arrays(EMBEDDING_DIM)
    batch = made_up_batch(batch_size=arguments.batch_size, seq_len=arguments.seq_len).device_fields()
    start = time.perf_counter()
    compiled = train_step.lower(state, batch, arrays, np.float32(0.5)).compile()
    compile_s = time.perf_counter() - start
    with measured() as figures:
        figures["parameters"] = sum(leaf.size for leaf in jax.tree.leaves(params))
        figures["state_mb"] = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 2**20
        figures["temp_mb"] = compiled.memory_analysis().temp_size_in_bytes / 2**20
        figures["compile_s"] = compile_s
        if not arguments.no_run:
            state, _ = jax.block_until_ready(compiled(state, batch, arrays, np.float32(0.5)))
            spent = []
            for _ in range(3):
                start = time.perf_counter()
                state, _ = jax.block_until_ready(compiled(state, batch, arrays, np.float32(0.5)))
                spent.append(time.perf_counter() - start)
            figures["step_s"] = min(spent)
            operations = StepOperations(train_step, state, arrays)(batch)
            figures["utilisation"] = operations / min(spent) / peak_operations(config.model.dtype, 1)[0]
        figures["top_mb"] = (device_peak_bytes() or peak_memory_bytes()) / 2**20


def report(preset: str, figures: Figures, batch_size: int) -> None:
    """Prints the line of one preset."""
    line = f"{preset:10s} {figures['parameters'] / 1e6:8.1f} {figures['state_mb']:10.0f} {figures['temp_mb']:9.0f}"
    line += f" {figures['top_mb']:9.0f} {figures['compile_s']:10.1f}"
    if "step_s" in figures:
        line += f" {1000 * figures['step_s']:9.0f} {batch_size / figures['step_s']:11.1f} {figures['utilisation']:6.1%}"
    print(line, flush=True)


def main() -> None:
    """Measures every preset, or is one of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--seq-len", type=int, default=256)
    parser.add_argument("--no-run", action="store_true", help="compile alone")
    parser.add_argument("--contestant", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    arguments = parser.parse_args()
    if arguments.contestant:
        step(arguments)
        return
    print("preset      million  state MiB  temp MiB  peak MiB  compile s   step ms  examples/s  of peak")
    for preset in arguments.presets:
        words = ["--contestant", "--batch-size", str(arguments.batch_size), "--seq-len", str(arguments.seq_len)]
        words += ["--no-run"] if arguments.no_run else []
        words += [word for change in arguments.set for word in ("--set", change)]
        report(preset, run(sys.executable, __file__, *words, "--presets", preset), arguments.batch_size)


if __name__ == "__main__":
    main()
