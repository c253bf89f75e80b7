"""What a run cost: the figures that training and evaluation wrote down, and no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def describe_cost(
    history: Mapping[str, Any], environment: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    """(name, value) lines.

    Args:
        history: content of `training_history.json`; empty where there is none.
        environment: content of `environment.json`; likewise.
        evaluations: results of `tributary.evaluation.evaluate.evaluate`.
    """
    return [*_training(history), *_evaluating(evaluations), *_machine(environment)]


def duration(seconds: float) -> str:
    """Seconds in the unit a person would use.

    Example:
        >>> duration(75), duration(3600)
        ('1.2 minutes', '1 hour')
    """
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            amount = f"{seconds / size:.1f}".removesuffix(".0")
            return f"{amount} {unit}" + ("" if amount == "1" else "s")
    return f"{seconds:.1f} seconds"


def _training(history: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not history:
        return []
    steps, batch, cost = history["num_steps"], history["batch_size"], history.get("cost", {})
    lines = [("training", f"{duration(history['elapsed_s'])}, {steps:,} steps of {batch:,} contexts")]
    if "cpu_s" in cost:
        wall_s = max(cost.get("wall_s", history["elapsed_s"]), 1e-9)
        lines.append(("processor", f"{duration(cost['cpu_s'])} of CPU time, {cost['cpu_s'] / wall_s:.1f} cores busy"))
    for name, what in (("peak_memory_bytes", "peak memory"), ("device_peak_bytes", "peak memory of the devices")):
        if cost.get(name):
            lines.append((what, _bytes(cost[name])))
    if cost.get("operations"):
        lines.append(("operations", f"{cost['operations']:.3g} floating-point operations of the steps"))
    if cost.get("sessions", 1) > 1:
        lines.append(("sessions", f"{cost['sessions']:,}: it was resumed"))
    lines.append(("parameters", f"{history['num_parameters']:,}"))
    rates = [line["examples_per_s"] for line in history["train"] if "examples_per_s" in line]
    if rates:
        lines.append(("contexts per second", f"{np.median(rates):,.0f} (median of the log)"))
    waits = [line["input_wait"] for line in history["train"] if "input_wait" in line]
    if waits:
        lines.append(("waiting for input", f"{100 * np.mean(waits):.1f} % of the time"))
    return lines


def _evaluating(evaluations: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    lines = []
    for result in evaluations:
        if "predict_seconds" in result:
            rate = result["num_evaluated"] / max(result["predict_seconds"], 1e-9)
            text = f"{duration(result['predict_seconds'])}, {result['num_evaluated']:,} rows, {rate:,.0f} per second"
            lines.append((f"predicting {result['task']}", text))
        for entry in result["baselines"]:
            if entry["name"] == "lightgbm":
                lines.append((f"LightGBM on {result['task']}", f"{duration(entry['seconds'])} to fit, one core"))
    return lines


def _machine(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not environment:
        return []
    packages = environment.get("packages", {})
    return [
        ("devices", ", ".join(environment.get("devices", []))),
        ("machine", f"{environment.get('num_cpus')} CPU cores, {environment.get('platform')}"),
        ("software", ", ".join(f"{name} {version}" for name, version in packages.items())),
    ]


def _bytes(number: float) -> str:
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number:,.0f} bytes"
