"""Databases and tasks: are there labels, and do they differ?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tributary.config import RunConfig
from tributary.data import NUM_PROBES, Sampler, sampler_options
from tributary.links import LITTLE_RECALL, LinkTask, is_link, recall_of_context
from tributary.preflight.check import Check, judged, size_text
from tributary.training.databases import TEST, TRAIN, VAL, Source
from tributary.training.preparation import Material

_VERIFIED_BYTES = 2 * 2**30
"""A database up to this size is read and hashed; a larger one only opened, which checks its headers."""
_FEW = 50
"""Labels of the rarer class below which a score is mostly chance."""
_RARE = 0.02
"""Share of the rarer class below which the loss hardly sees it."""


def check_databases(material: Material) -> Iterator[Check]:
    """Build, embedder, and whether every byte is what was published."""
    from pathlib import Path

    from tributary.preprocess import verify

    for source in material.sources:
        place = str(source.data.database)
        size = sum(path.stat().st_size for path in Path(place).rglob("*") if path.is_file())
        embedder: Mapping[str, Any] = source.manifest["embedder"]
        told = " ".join(str(embedder[key]) for key in ("kind", "model", "dimension") if embedder.get(key))
        found = f"build {source.database.build_id[:12]}, {size_text(size)}, vectors of {told}"
        if size <= _VERIFIED_BYTES:
            verify(place)
            found += ", verified"
        warn = ""
        if embedder.get("kind") == "hash":
            warn = "the hash embedder knows no meaning, it is for tests: embed the database with tributary embed"
        yield judged(f"database {source.label('')}{source.manifest['name']}", found, warn=warn)


def check_tasks(config: RunConfig, material: Material) -> Iterator[Check]:
    """Splits and labels of every task."""
    for source in material.sources:
        for task in source.tasks:
            yield _check_task(config, source, task)


def _check_task(config: RunConfig, source: Source, task: Mapping[str, Any]) -> Check:
    seeds = source.database.task_seeds(task["name"])
    counts = {
        name: int((seeds["split"] == code).sum()) for name, code in (("train", TRAIN), ("val", VAL), ("test", TEST))
    }
    found = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    name = f"task {source.label(task['name'])}"
    if not counts["train"]:
        return Check(name, "fail", found, "no training seeds: change the task's split or query in metadata.json")
    has_label = {code: (seeds["split"] == code) & ~seeds["is_null"] for code in (TRAIN, VAL)}
    told, fail, warn = _lists(source, task) if is_link(task) else _labels(config, task, seeds, has_label)
    found = f"{found} ({task['target_stype']}); {told}"
    if not fail and not counts["val"]:
        warn = warn or "no validation seeds: the last step is taken for the best; give the task a val split"
    num_unlabelled = counts["train"] - int(has_label[TRAIN].sum())
    if not fail and not warn and num_unlabelled > counts["train"] / 2:
        warn = f"{num_unlabelled:,} training seeds have no label and only cost time: leave them out in the task's query"
    if not fail and not warn and counts["train"] < config.train.batch_size:
        warn = f"fewer training seeds than train.batch_size = {config.train.batch_size}: every batch repeats them"
    return judged(name, found, fail=fail, warn=warn)


def _lists(source: Source, task: Mapping[str, Any]) -> tuple[str, str, str]:
    """What the labels of a link task name, and how much of it the contexts hold, as `_labels`."""
    loaded = LinkTask.load(source.database, task["name"])
    options = sampler_options(source.data) | {"threads": 0, "prefetch": 0}
    with Sampler(source.database, [task["name"]], split="train", batch_size=32, **options) as sampler:
        recall = recall_of_context((sampler.batch(step) for step in range(NUM_PROBES)), loaded)
    named = f"{loaded.lengths.mean():.3g} rows of {loaded.table} on average"
    told = f"{named}, of which the contexts hold {recall:.0%}"
    if recall == 0.0:
        return told, "no context holds a row that is named: raise data.max_hops, data.num_neighbors or data.seq_len", ""
    warn = "the model ranks no other rows: raise data.num_neighbors, data.seq_len, or data.max_hops if it is set"
    return told, "", warn if recall < LITTLE_RECALL else ""


def _labels(
    config: RunConfig, task: Mapping[str, Any], seeds: Mapping[str, Any], has_label: Mapping[int, Any]
) -> tuple[str, str, str]:
    """What the labels are like; advice where they teach nothing; advice where they teach little."""
    if not has_label[TRAIN].any():
        return "no labels", "no training seed has a label: check the target column or query in metadata.json", ""
    if task["target_stype"] in ("numerical", "timestamp"):
        values = seeds["value"][has_label[TRAIN]].astype(np.float64)
        spread = float(values.std())
        told = f"z-scores of mean {values.mean():.2f}, deviation {spread:.2f}, largest {np.abs(values).max():.1f}"
        fail = "the target is constant: there is nothing to learn" if spread == 0.0 else ""
        warn = "a few labels are far out: consider a logarithm in the task's query" if np.abs(values).max() > 30 else ""
        return told, fail, warn
    field = "value" if task["target_stype"] == "boolean" else "vocab"
    classes, counts = np.unique(seeds[field][has_label[TRAIN]], return_counts=True)
    share = counts.min() / counts.sum()
    told = f"{len(classes)} classes, the rarest {counts.min():,} times ({share:.2%})"
    if len(classes) == 1:
        return told, "all training labels are the same: there is nothing to learn", ""
    if task["target_stype"] == "boolean":
        if has_label[VAL].any() and len(np.unique(seeds[field][has_label[VAL]])) == 1:
            return told, "", "all validation labels are the same: no step is best; move the split"
        weighted = config.objective.positive_weight != 1.0 or config.objective.focal_gamma > 0
        if counts.min() < _FEW:
            return told, "", f"fewer than {_FEW} labels of one class: scores are mostly chance"
        if share < _RARE and not weighted:
            return told, "", "one class is rare: try objective.positive_weight=auto or objective.focal_gamma=2"
    return told, "", ""
