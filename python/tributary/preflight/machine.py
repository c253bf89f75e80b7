"""Packages, devices, memory and disk."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
from packaging.requirements import Requirement

from tributary.config import RunConfig
from tributary.preflight.check import Check, judged, size_text


def check_packages(config: RunConfig) -> Iterator[Check]:
    """Every package this one needs, at a version it works with, and those of the trackers."""
    wrong = []
    for text in importlib.metadata.requires("tributary") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} {version}, expected {requirement.specifier}")
    missing = [name for name in config.train.trackers if importlib.util.find_spec(name) is None]
    wrong += [f"{name} of train.trackers is missing" for name in missing]
    found = "; ".join(wrong) or f"jax {jax.__version__} and all others that are needed"
    yield judged("packages", found, fail="install what is named with pip" if wrong else "")


def check_devices(config: RunConfig) -> Iterator[Check]:
    """Which devices there are, and whether they suit the sizes of the model."""
    devices = jax.devices()
    kinds = sorted({device.device_kind for device in devices})
    found = f"{len(devices)} x {', '.join(kinds)}"
    is_cpu = devices[0].platform == "cpu"
    warn = ""
    if is_cpu and shutil.which("nvidia-smi"):
        warn = 'the machine has an NVIDIA GPU that JAX does not use: pip install "jax[cuda13]"'
    elif is_cpu and config.model.dtype == "bfloat16":
        warn = "bfloat16 is slow on a processor: set model.dtype=float32"
    yield judged("devices", found, warn=warn)


def check_settings(config: RunConfig) -> Iterator[Check]:
    """Keys that are allowed, and do not go together."""
    train, warnings = config.train, []
    if config.optimizer.warmup_steps >= train.steps:
        warnings.append(f"optimizer.warmup_steps = {config.optimizer.warmup_steps} is not below train.steps")
    if train.eval_every > train.steps:
        warnings.append(f"train.eval_every = {train.eval_every}: the only validation is at the end, nothing is best")
    if train.checkpoint_every > train.steps and train.time_limit_minutes is None:
        warnings.append(f"train.checkpoint_every = {train.checkpoint_every}: a run that is killed starts anew")
    if train.log_every > train.steps:
        warnings.append(f"train.log_every = {train.log_every}: metrics.jsonl stays without a line")
    found = "; ".join(warnings) or f"{train.steps:,} steps of {train.batch_size:,} contexts"
    yield judged("settings", found, warn="lower the keys that are named, or raise train.steps" if warnings else "")


def available_memory() -> tuple[int, str] | None:
    """Bytes that a step may take on one device, and where; None where the system does not say."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return int(statistics["bytes_limit"]), "of the device"
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    available = 1024 * int(fields["MemAvailable"].split()[0])
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    if limit.exists() and limit.read_text().strip().isdecimal():
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        available = min(available, int(limit.read_text()) - used)
    return available, "available"


def check_disk(config: RunConfig, state_bytes: int) -> Iterator[Check]:
    """Room for the checkpoints that stay, and one in flight."""
    train = config.train
    count = train.keep_last + train.keep_best + 1
    if train.keep_every is not None:
        count += train.steps // train.keep_every
    needed = count * state_bytes
    folder = config.run.path.resolve()
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    free = shutil.disk_usage(existing).free
    found = f"{count} checkpoints of {size_text(state_bytes)}, {size_text(free)} free in {existing}"
    if train.keep_hours is not None:
        found += ", and those of train.keep_hours"
    advice = "make room, set another run.dir, or keep fewer (train.keep_last, keep_best, keep_every)"
    yield judged("disk", found, fail=advice if free < needed else "", warn=advice if free < 2 * needed else "")
