"""Real batches and real steps: what they hold, take and cost. The state they change is thrown away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from tributary.config import RunConfig
from tributary.data import Loaded, Loader
from tributary.preflight.check import Check, judged, size_text
from tributary.preflight.machine import available_memory
from tributary.training.devices import Devices
from tributary.training.mixture import sampler_offsets, training_mixture
from tributary.training.operations import StepOperations, peak_operations
from tributary.training.preparation import Learner, Material, Start

_NUM_BATCHES = 8
"""Batches that are drawn, from which every shape is taken once."""
_NUM_NAMED = 5
"""Parameters that are named at most."""
_NUM_TIMED = 3
"""Steps of a shape that are timed, the first after compilation left out."""


def check_steps(config: RunConfig, devices: Devices, material: Material, learner: Learner) -> Iterator[Check]:
    """Batches, memory, loss and gradients, pace."""
    with training_mixture(material.sources, config, devices) as mixture:
        loader = Loader(mixture, devices, sampler_offsets(material.sources))
        start = time.perf_counter()
        batches = [next(loader) for _ in range(_NUM_BATCHES)]
        draw_s = (time.perf_counter() - start) / _NUM_BATCHES
    yield _describe_batches(config, batches, draw_s)
    shapes = {_shape_of(batch): batch for batch in reversed(batches)}
    state = Start.first(config, material, learner, devices).state
    largest = max(shapes.values(), key=lambda batch: batch.device.cell_is_padding.size)
    progress = np.float32(0.0)
    start = time.perf_counter()
    compiled = learner.train_step.lower(state, largest.device, material.arrays, progress).compile()  # type: ignore[attr-defined]
    compile_s = time.perf_counter() - start
    memory = _check_memory(compiled)
    yield memory
    if memory.status == "fail":
        return
    steps_s, losses = [], []
    for batch in (*batches, *[largest] * _NUM_TIMED):
        start = time.perf_counter()
        run = compiled if _shape_of(batch) == _shape_of(largest) else learner.train_step
        state, metrics = run(state, batch.device, material.arrays, progress)
        losses.append(float(metrics["loss"]))
        steps_s.append(time.perf_counter() - start)
    yield _check_losses(losses)
    yield _check_gradients(state)
    step_s = float(np.median(steps_s[-_NUM_TIMED:]))
    operations = StepOperations(learner.train_step, state, material.arrays)(largest.device)
    peak, how = peak_operations(config.model.dtype, devices.size)
    yield _check_pace(config, step_s, draw_s, compile_s * len(shapes), operations / step_s / peak, how)


def _shape_of(batch: Loaded) -> tuple[int, ...]:
    return tuple(batch.device.cell_is_padding.shape) + tuple(batch.device.row_table.shape)


def _describe_batches(config: RunConfig, batches: list[Loaded], draw_s: float) -> Check:
    """How full contexts are."""
    hosts = [part for batch in batches for part in batch.host]
    used = np.concatenate([(~part.cell_is_padding).sum(axis=1) for part in hosts])
    share_full = float((used >= config.data.seq_len).mean())
    found = (
        f"{used.mean():.0f} of {config.data.seq_len} cells per context on average, {share_full:.0%} of them full, "
        f"{1000 * draw_s:.0f} ms to draw a batch"
    )
    warn = ""
    if share_full > 0.9:
        warn = (
            "nearly every context is cut off: a larger data.seq_len or fewer num_neighbors would show more of the rows"
        )
    elif used.mean() < 0.1 * config.data.seq_len:
        warn = "contexts are nearly empty: raise data.num_neighbors or data.max_hops, or lower data.seq_len"
    return judged("batches", found, warn=warn)


def _check_memory(compiled: Any) -> Check:
    """What the compiled step takes, beside what there is."""
    analysis = compiled.memory_analysis()
    available = available_memory()
    if analysis is None or available is None:
        return Check("memory", "warn", "this system does not say how much a step takes", "watch the first steps")
    parts = (analysis.temp_size_in_bytes, analysis.argument_size_in_bytes)
    needed = sum(parts)
    free, where = available
    found = f"a step takes {size_text(needed)} ({size_text(parts[0])} of it temporary), {size_text(free)} {where}"
    advice = "lower train.batch_size, raise train.accumulate, or set model.remat=true or model.dtype=bfloat16"
    return judged("memory", found, fail=advice if needed > free else "", warn=advice if needed > 0.8 * free else "")


def _check_losses(losses: list[float]) -> Check:
    found = f"{losses[0]:.4f} at the first step, {losses[-1]:.4f} after {len(losses)}"
    is_finite = bool(np.isfinite(losses).all())
    advice = "" if is_finite else "lower optimizer.learning_rate; if the first loss is not finite, report it"
    return judged("loss", found, fail=advice)


def _check_gradients(state: Any) -> Check:
    """Whether gradients reached every parameter: then its moments are not zero any more."""
    params = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state["params"])}
    moments = jax.tree_util.tree_leaves_with_path(state["opt_state"])
    reached = set()
    for path, leaf in moments:
        name = jax.tree_util.keystr(path)
        owner = next((key for key in params if name.endswith(key)), None)
        if owner is not None and leaf.shape == params[owner].shape and bool((leaf != 0).any()):
            reached.add(owner)
    idle = sorted(params.keys() - reached)
    num_frozen = len(jax.tree.leaves(state.get("frozen", {})))
    found = f"reached {len(reached)} of {len(params)} parameters" + (f", {num_frozen} are frozen" if num_frozen else "")
    if not reached:
        return Check("gradients", "fail", found, "nothing learns: check train.freeze and the objective")
    if idle:
        found += f"; not {', '.join(idle[:_NUM_NAMED])}" + (", ..." if len(idle) > _NUM_NAMED else "")
    # Encoders and heads of stypes that the batches do not hold, or nobody asks for, stay as they are.
    warn = "part of the model does not learn: check the objective and model.attentions"
    has_idle_core = any(not name.startswith(("['encoder']", "['heads']")) for name in idle)
    return judged("gradients", found, warn=warn if has_idle_core else "")


def _check_pace(
    config: RunConfig, step_s: float, draw_s: float, compile_s: float, utilisation: float, how: str
) -> Check:
    """How long the run will take."""
    train = config.train
    total_s = train.steps * max(step_s, draw_s) + compile_s
    limit_s = None if train.time_limit_minutes is None else 60.0 * train.time_limit_minutes
    found = (
        f"{1000 * step_s:.0f} ms a step of the largest shape ({train.batch_size / step_s:,.0f} examples/s, "
        f"{utilisation:.0%} of the {how} peak), {compile_s:.0f} s to compile, "
        f"at most {_duration(total_s)} for {train.steps:,} steps"
    )
    warn = ""
    if draw_s > step_s:
        warn = (
            f"drawing a batch takes {1000 * draw_s:.0f} ms, longer than a step: raise data.threads, lower data.seq_len"
        )
    if limit_s is not None and total_s > limit_s:
        num_steps = int(max(0.0, limit_s - compile_s) / max(step_s, draw_s))
        found += f"; the limit of {_duration(limit_s)} allows about {num_steps:,}"
        if num_steps < config.optimizer.warmup_steps:
            warn = "the time limit ends within the warm-up: raise it, or lower optimizer.warmup_steps"
    return judged("pace", found, warn=warn)


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
