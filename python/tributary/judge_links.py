"""Answers of a link task against its labels, and against the baselines on the same rows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from tributary import metrics, verdicts
from tributary.answers import key_lists
from tributary.batch import END_OF_TIME
from tributary.data import Database
from tributary.link_baselines import RANKINGS
from tributary.links import Ints, LinkTask

_SPLITS = {"train": 0, "val": 1, "test": 2}
_CALLED = {"popular": "what everybody names", "entity": "what the entity named before"}


def judge_links(
    database: Database,
    task: str,
    predictions: pa.Table,
    *,
    split: str,
    regime: str,
    database_cutoff: int | None,
    with_baselines: bool,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[dict[str, Any], pa.Table]:
    """`tributary.judge.judge` for link tasks; arguments and result are the same.

    Besides, the result has `recall_of_context`: the share of what the labels name that was in the contexts, which is
    the most that a model can find by itself.
    """
    loaded = LinkTask.load(database, task)
    rows = predictions.filter(predictions["label"].is_valid())
    if rows.num_rows == 0:
        raise ValueError(f"task `{task}`: none of the {predictions.num_rows} rows of split `{split}` has a label")
    seeds = rows["seed_index"].to_numpy().astype(np.int64)
    manifest = json.loads(database.manifest)
    metric = metric_of(next(described for described in manifest["tasks"] if described["name"] == task))
    model = score_lists(loaded, seeds, _rows_of(database, loaded, rows["prediction"]))
    lengths, keys = loaded.lengths[seeds], rows.schema.field("prediction").type.value_type
    result: dict[str, Any] = {
        "task": task,
        "database": {"name": manifest["name"], "build_id": manifest["build_id"]},
        "split": split,
        "regime": regime,
        "database_cutoff": None if database_cutoff is None else str(np.datetime64(database_cutoff, "us")),
        "target_stype": "link",
        "top_k": loaded.top_k,
        "metric": metric,
        "num_evaluated": rows.num_rows,
        "num_seeds": int((loaded.split == _SPLITS[split]).sum()),
        "labels": _describe_labels(loaded, seeds),
        "recall_of_context": float(np.sum(rows["num_found"].to_numpy()) / lengths.sum()),
        "undefined": model.undefined,
        "model": {"name": "model", "description": "the given predictions", **_as_json(model)},
        "baselines": [],
        "verdicts": [],
    }
    for number, (name, fit) in enumerate(RANKINGS.items() if with_baselines else ()):
        if progress is not None:
            progress(f"baseline {name}", number, len(RANKINGS))
        started = time.perf_counter()
        ranking = fit(database, task, database_cutoff=database_cutoff)
        ranked = ranking.predict(seeds)
        scored = score_lists(loaded, seeds, ranked)
        entry = {"name": name, "description": ranking.description, **_as_json(scored), "details": ranking.details}
        entry["seconds"] = round(time.perf_counter() - started, 2)
        entry["verdict"] = verdicts.compare(_CALLED[name], metric, model, scored)
        result["baselines"].append(entry)
        result["verdicts"].append(entry["verdict"])
        rows = rows.append_column(f"baseline_{name}", key_lists(database, loaded.table, ranked, keys))
    if progress is not None and with_baselines:
        progress("baselines", len(RANKINGS), len(RANKINGS))
    return result, rows


def metric_of(task: dict[str, Any]) -> str:
    """The metric a link task is judged by: its own if it is one of ours (or RelBench's name for one), else MAP."""
    wanted = (task.get("metric") or "map").lower().removeprefix("link_prediction_").partition("@")[0]
    return wanted if wanted in metrics.LINK_NAMES else "map"


def _rows_of(database: Database, task: LinkTask, lists: pa.ChunkedArray) -> Ints:
    """Rows of lists of keys, int64 [N, k], -1 behind the last."""
    found: Sequence[Sequence[Any]] = lists.to_pylist()
    rows = database.find_rows(task.table, [key for keys in found for key in keys])
    ranked = np.full((len(found), task.top_k), -1, np.int64)
    place = 0
    for idx, keys in enumerate(found):
        ranked[idx, : len(keys)] = rows[place : place + len(keys)]
        place += len(keys)
    return ranked


def score_lists(task: LinkTask, seeds: Ints, ranked: Ints) -> metrics.Scores:
    """Metrics of ranked rows (int64 [n, k], -1 behind the last) against what the labels of seeds name."""
    hits = metrics.is_hit(ranked, [task.list_of(int(seed)) for seed in seeds])
    return metrics.score_links(hits, task.lengths[seeds])


def _as_json(scores: metrics.Scores) -> dict[str, Any]:
    return {
        "metrics": scores.values,
        "intervals": {n: None if i is None else list(i) for n, i in scores.intervals.items()},
    }


def _describe_labels(task: LinkTask, seeds: Ints) -> dict[str, Any]:
    named = np.concatenate([task.list_of(int(seed)) for seed in seeds])
    described: dict[str, Any] = {"num_entities": len(np.unique(task.row[seeds]))}
    known = task.time[seeds][task.time[seeds] < END_OF_TIME]
    if len(known):
        times = known.astype("datetime64[us]")
        described |= {"from": str(times.min()), "to": str(times.max())}
    return described | {"mean_length": len(named) / len(seeds), "num_named": len(np.unique(named))}
