"""How good a trained run is on a split, beside the baselines on the same rows.

Two regimes, and every result says which: in `seed-time` each seed sees everything up to its own moment; in `frozen`
nothing after one cut-off is visible to any seed, as if the database had been copied away at the start of the split.
Metrics come with 95 % bootstrap intervals, and the comparison with each baseline is one plain sentence. What is found
is written into the run's folder: `evaluation.json`, and the rows behind it as parquet.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tributary import baselines, metrics
from tributary.asof import END_OF_TIME, Ints
from tributary.features import DatabaseLike, FeatureBuilder, Task

if TYPE_CHECKING:
    from tributary.predict import Run

Regime = Literal["seed-time", "frozen"]
REGIMES: tuple[Regime, ...] = ("seed-time", "frozen")
FILE = "evaluation.json"

_FITS: dict[str, Callable[..., baselines.Baseline]] = {
    "constant": baselines.constant,
    "entity": baselines.entity_mean,
    "lightgbm": baselines.lightgbm,
}
_CALLED = {"constant": "the constant", "entity": "the per-entity {kind}", "lightgbm": "LightGBM on the history"}


def evaluate(
    run: Run,
    task: str,
    split: str = "test",
    regime: Regime = "seed-time",
    *,
    database_cutoff: int | None = None,
    with_baselines: bool = True,
    max_seeds: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> dict[str, Any]:
    """Predict a split, score it, fit and score the baselines, and keep the result in the run's folder.

    Args:
        run: from `tributary.predict.load_run`.
        task: name of the task.
        split: train, val or test.
        regime: `seed-time` or `frozen`.
        database_cutoff: microseconds, frozen regime only; default: the earliest seed of the split.
        with_baselines: whether to fit them.
        max_seeds: at most so many seeds, drawn at random.
        progress: told (what is done at the moment, steps done, steps in all).

    Returns:
        What `judge` returns, with `run`, `step` and the name of the rows' file.

    Raises:
        ValueError: unknown task, split or regime, no seeds, or none with a label.
    """
    from tributary.predict import predict_split

    loaded = Task.load(run.database, task)
    cutoff = resolve_cutoff(loaded, split, regime, database_cutoff)
    started = time.perf_counter()
    predictions = predict_split(
        run,
        task,
        split,  # type: ignore[arg-type]  # resolve_cutoff has checked it
        max_seeds=max_seeds,
        database_cutoff=cutoff,
        progress=None if progress is None else lambda done, total: progress("predict", done, total),
    )
    seconds = time.perf_counter() - started
    result, rows = judge(
        run.database,
        task,
        predictions,
        split=split,
        regime=regime,
        database_cutoff=cutoff,
        with_baselines=with_baselines,
        progress=progress,
    )
    result |= {"run": str(run.path), "step": run.step, "predict_seconds": round(seconds, 2)}
    result["model"]["description"] = f"the trained model at step {run.step:,}"
    result["rows_file"] = f"evaluation/{task}.{split}.{regime}.parquet"
    keep(run.path, result, rows)
    return result


def resolve_cutoff(task: Task, split: str, regime: str, database_cutoff: int | None) -> int | None:
    """The frozen regime's cut-off; None in the seed-time regime.

    Raises:
        ValueError: unknown split or regime, no seeds, a cut-off without the frozen regime, or seeds without a time.
    """
    if split not in baselines.SPLITS:
        raise ValueError(f"split `{split}`: expected one of {', '.join(baselines.SPLITS)}")
    if regime not in REGIMES:
        raise ValueError(f"regime `{regime}`: expected one of {', '.join(REGIMES)}")
    times = task.time[task.split == baselines.SPLITS[split]]
    if len(times) == 0:
        raise ValueError(f"task `{task.name}`: the split `{split}` has no seeds")
    if regime == "seed-time":
        if database_cutoff is not None:
            raise ValueError("a database cut-off belongs to the frozen regime: give --regime frozen with it")
        return None
    if (times == END_OF_TIME).all():
        raise ValueError(f"task `{task.name}`: its seeds have no time, so there is no frozen regime")
    return int(times.min()) if database_cutoff is None else database_cutoff


def judge(
    database: DatabaseLike,
    task: str,
    predictions: pa.Table,
    *,
    split: str,
    regime: Regime = "seed-time",
    database_cutoff: int | None = None,
    with_baselines: bool = True,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[dict[str, Any], pa.Table]:
    """Score predictions against their labels and against the baselines on the same rows.

    Args:
        database: the processed database.
        task: name of the task.
        predictions: as `tributary.predict.predict_split` returns them; rows without a label are left out.
        split: the split they are of.
        regime: how they were made; the baselines follow it.
        database_cutoff: microseconds; what the frozen regime cut off at.
        with_baselines: whether to fit them.
        progress: told (what is done at the moment, steps done, steps in all).

    Returns:
        The result, ready for JSON, and the scored rows: those of `predictions` with the length of each entity's
        history and a column per baseline.

    Raises:
        ValueError: no row has a label, or the target's stype has no metrics.
    """
    loaded = Task.load(database, task)
    rows = predictions.filter(predictions["label"].is_valid())
    if rows.num_rows == 0:
        raise ValueError(f"task `{task}`: none of the {predictions.num_rows} rows of split `{split}` has a label")
    seeds = rows["seed_index"].to_numpy().astype(np.int64)
    std = baselines.train_label_std(database, task)
    metric = metric_of(database, loaded)
    model = _score_table(loaded, rows, std)
    result: dict[str, Any] = {
        "task": task,
        "split": split,
        "regime": regime,
        "database_cutoff": None if database_cutoff is None else str(np.datetime64(database_cutoff, "us")),
        "target_stype": loaded.target_stype,
        "metric": metric,
        "num_evaluated": rows.num_rows,
        "num_seeds": int((loaded.split == baselines.SPLITS[split]).sum()),
        "labels": _describe_labels(loaded, seeds),
        "undefined": model.undefined,
        "model": {"name": "model", "description": "the given predictions", **_as_json(model)},
        "baselines": [],
        "verdicts": [],
    }
    history = FeatureBuilder(database, loaded).history_length(seeds, database_cutoff=database_cutoff)
    rows = rows.append_column("history", pa.array(history))
    for number, name in enumerate(_FITS if with_baselines else {}):
        if progress is not None:
            progress(f"baseline {name}", number, len(_FITS))
        entry, rows = _run_baseline(database, loaded, name, seeds, rows, std, database_cutoff, model, metric)
        result["baselines"].append(entry)
        result["verdicts"].append(entry["verdict"])
    if with_baselines and loaded.target_stype == "numerical":
        result["verdicts"].append(_weaker_entity(database, loaded, result["baselines"], seeds, database_cutoff, model))
    if progress is not None and with_baselines:
        progress("baselines", len(_FITS), len(_FITS))
    return result, rows


def keep(run_dir: Path | str, result: dict[str, Any], rows: pa.Table) -> None:
    """Write the rows, and the result into `evaluation.json` in place of an earlier one of the same kind."""
    folder = Path(run_dir)
    path = folder / result["rows_file"]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(rows, partial)
    os.replace(partial, path)
    same = ("task", "split", "regime")
    kept = {tuple(old[field] for field in same): old for old in load(folder)}
    kept[tuple(result[field] for field in same)] = result
    text = json.dumps({"evaluations": list(kept.values())}, indent=1, allow_nan=False)
    partial = folder / f".{FILE}.partial"
    partial.write_text(text + "\n", encoding="utf-8")
    os.replace(partial, folder / FILE)


def load(run_dir: Path | str) -> list[dict[str, Any]]:
    """The evaluations kept in a run's folder, in the order they were first made; none where it was never evaluated."""
    path = Path(run_dir) / FILE
    if not path.is_file():
        return []
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["evaluations"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not an evaluation file ({error}); delete it and evaluate again") from error
    return found


def tasks_of(run: Run) -> list[str]:
    """The tasks of a run that have metrics: those it was trained on, else all of the database."""
    wanted = set(run.config.data.tasks)
    described = [task for task in run.manifest["tasks"] if not wanted or task["name"] in wanted]
    return [task["name"] for task in described if task["target_stype"] in metrics.NAMES]


def metric_of(database: DatabaseLike, task: Task) -> str:
    """The metric the task is judged by: its own if it is one of ours, else the default of its kind."""
    described = next(t for t in json.loads(database.manifest)["tasks"] if t["name"] == task.name)
    default = metrics.default_metric(task.target_stype)
    wanted: str = (described.get("metric") or default).lower().replace("roc_auc", "auroc")
    return wanted if wanted in metrics.NAMES[task.target_stype] else default


def _score_table(task: Task, rows: pa.Table, std: float | None) -> metrics.Scores:
    """Metrics of the model's predictions."""
    label = np.array(rows["label"].to_pylist())
    if task.target_stype == "boolean":
        return metrics.score("boolean", label, None, rows["probability"].to_numpy())
    prediction = np.array(rows["prediction"].to_pylist())
    return metrics.score(task.target_stype, label, prediction, train_label_std=std)


def _run_baseline(
    database: DatabaseLike,
    task: Task,
    name: str,
    seeds: Ints,
    rows: pa.Table,
    std: float | None,
    database_cutoff: int | None,
    model: metrics.Scores,
    metric: str,
) -> tuple[dict[str, Any], pa.Table]:
    """Fit and score one baseline; its predictions become a column of the rows."""
    started = time.perf_counter()
    fitted = _FITS[name](database, task.name, database_cutoff=database_cutoff)
    found = fitted.predict(seeds)
    scored = metrics.score(task.target_stype, task.label[seeds], found.prediction, found.probability, std)
    entry = {"name": name, "description": fitted.description, **_as_json(scored)}
    entry |= {"details": fitted.details, "seconds": round(time.perf_counter() - started, 2)}
    if name == "entity" and len(np.unique(found.prediction if found.probability is None else found.probability)) == 1:
        entry["remark"] = "no entity of these rows has a past label, so it equals the constant"
    called = _CALLED[name].format(kind=fitted.details.get("kind", "mean"))
    entry["verdict"] = _verdict(called, metric, model, scored)
    shown = found.probability if task.target_stype == "boolean" else found.prediction
    return entry, rows.append_column(f"baseline_{name}", pa.array(shown))


def _weaker_entity(
    database: DatabaseLike,
    task: Task,
    entries: list[dict[str, Any]],
    seeds: Ints,
    database_cutoff: int | None,
    model: metrics.Scores,
) -> str:
    """The verdict beside the mean or median of the entity's past that validation did not choose."""
    (chosen,) = (entry["details"]["kind"] for entry in entries if entry["name"] == "entity")
    kind = "mean" if chosen == "median" else "median"
    fitted = baselines.entity_mean(database, task.name, database_cutoff=database_cutoff, kind=kind)
    std = baselines.train_label_std(database, task.name)
    scored = metrics.score("numerical", task.label[seeds], fitted.predict(seeds).prediction, None, std)
    return _verdict(_CALLED["entity"].format(kind=kind), metric_of(database, task), model, scored)


def _verdict(called: str, metric: str, ours: metrics.Scores, theirs: metrics.Scores) -> str:
    """One sentence: does the model beat this baseline?"""
    compared = metrics.difference(metric, ours, theirs)
    if compared is None:
        reason = ours.undefined.get(metric) or theirs.undefined.get(metric)
        return f"cannot be compared with {called}: {metric} is undefined ({reason})"
    gain, low, high = compared
    figures = f"{metric} {ours.values[metric]:.4g} against {theirs.values[metric]:.4g}"
    if gain > 0 and low > 0:
        return f"beats {called}: {figures}, better by {gain:.3g} (95 % interval {low:.3g} to {high:.3g})"
    if gain > 0:
        return f"is ahead of {called}, but not beyond chance: {figures} (95 % interval {low:.3g} to {high:.3g})"
    beyond = "" if high < 0 else ", though not beyond chance"
    return f"does not beat {called}: {figures}, worse by {-gain:.3g}{beyond} (95 % interval {-high:.3g} to {-low:.3g})"


def _as_json(scores: metrics.Scores) -> dict[str, Any]:
    return {
        "metrics": scores.values,
        "intervals": {n: None if i is None else list(i) for n, i in scores.intervals.items()},
    }


def _describe_labels(task: Task, seeds: Ints) -> dict[str, Any]:
    """What the evaluated labels look like."""
    label = task.label[seeds]
    known = seeds[task.time[seeds] < END_OF_TIME]
    described: dict[str, Any] = {"num_entities": len(np.unique(task.row[seeds]))}
    if len(known):
        times = task.time[known].astype("datetime64[us]")
        described |= {"from": str(times.min()), "to": str(times.max())}
    if task.target_stype == "boolean":
        described["rate_of_true"] = float(label.mean())
    elif task.target_stype == "numerical":
        described |= {"mean": float(label.mean()), "std": float(label.std()), "median": float(np.median(label))}
    else:
        described["num_classes"] = len(np.unique(label))
    return described
