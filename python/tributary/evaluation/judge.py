"""Predictions against their labels and against the baselines on the same rows."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from tributary import metrics
from tributary.evaluation import baselines, ensemble, verdicts
from tributary.evaluation.asof import END_OF_TIME, Ints
from tributary.evaluation.features import DatabaseLike, FeatureBuilder, Task
from tributary.evaluation.judge_links import judge_links
from tributary.evaluation.regimes import Regime

Progress = Callable[[str, int, int], None]
"""Told what is done at the moment, steps done, steps in all."""

_FITS: dict[str, Callable[..., baselines.Baseline]] = {
    "constant": baselines.constant,
    "entity": baselines.entity_mean,
    "lightgbm": baselines.lightgbm,
}
_CALLED = {"constant": "the constant", "entity": "the per-entity {kind}", "lightgbm": "LightGBM on the history"}


class Fitted:
    """The baselines of a task in a regime, each fitted when it is first asked for.

    Several runs that are judged on the same task share one, as fitting takes longer than judging.
    """

    def __init__(self, database: DatabaseLike, task: str, database_cutoff: int | None) -> None:
        self.database, self.task, self.database_cutoff = database, task, database_cutoff
        self._fitted: dict[str, tuple[baselines.Baseline, float]] = {}

    def get(self, name: str, **options: Any) -> tuple[baselines.Baseline, float]:
        """A baseline with options of its function, and the seconds its fit took."""
        key = f"{name} {sorted(options.items())}"
        if key not in self._fitted:
            started = time.perf_counter()
            fitted = _FITS[name](self.database, self.task, database_cutoff=self.database_cutoff, **options)
            self._fitted[key] = fitted, time.perf_counter() - started
        return self._fitted[key]


def judge(
    database: DatabaseLike,
    task: str,
    predictions: pa.Table,
    *,
    split: str,
    regime: Regime = "seed-time",
    database_cutoff: int | None = None,
    with_baselines: bool = True,
    weighing: ensemble.Weighing | None = None,
    fitted: Fitted | None = None,
    progress: Progress | None = None,
) -> tuple[dict[str, Any], pa.Table]:
    """Score predictions against their labels and against the baselines on the same rows.

    Args:
        database: the processed database.
        task: name of the task.
        predictions: as `tributary.prediction.predict.predict_split` returns them; rows without a label are left out.
        split: the split they are of.
        regime: how they were made; the baselines follow it.
        database_cutoff: microseconds; what the frozen regime cut off at.
        with_baselines: whether to fit them.
        weighing: also score the ensemble that it describes.
        fitted: baselines to use, of this database, task and cut-off.
        progress: told how far it is.

    Returns:
        The result, ready for JSON, and the scored rows: those of `predictions` with the length of each entity's
        history and a column per baseline.

    Raises:
        ValueError: no row has a label, or the target's stype has no metrics.
    """
    loaded, fitted = Task.load(database, task), fitted or Fitted(database, task, database_cutoff)
    if loaded.target_stype == "link":
        options: dict[str, Any] = {"split": split, "regime": regime, "database_cutoff": database_cutoff}
        native: Any = database  # keys of rows are looked up, which no other task needs
        return judge_links(native, task, predictions, **options, with_baselines=with_baselines, progress=progress)
    rows = predictions.filter(predictions["label"].is_valid())
    if rows.num_rows == 0:
        raise ValueError(f"task `{task}`: none of the {predictions.num_rows} rows of split `{split}` has a label")
    seeds = rows["seed_index"].to_numpy().astype(np.int64)
    std = baselines.train_label_std(database, task)
    metric = metric_of(database, loaded)
    manifest = json.loads(database.manifest)
    judging = _Judging(loaded, seeds, metric, std, _score_table(loaded, rows, std))
    model = judging.model
    result: dict[str, Any] = {
        "task": task,
        "database": {"name": manifest["name"], "build_id": manifest["build_id"]},
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
        entry, rows = judging.score_baseline(fitted, name, rows)
        result["baselines"].append(entry)
        result["verdicts"].append(entry["verdict"])
    if with_baselines and loaded.target_stype == "numerical":
        result["verdicts"].append(judging.compare_other_average(fitted, result["baselines"]))
    if weighing is not None:
        result["ensemble"], rows = judging.score_ensemble(fitted, weighing, rows)
    if progress is not None and with_baselines:
        progress("baselines", len(_FITS), len(_FITS))
    return result, rows


@dataclasses.dataclass(frozen=True)
class Asked:
    """What an evaluation is to do: see the arguments of `evaluate`."""

    task: str
    split: str
    regime: Regime
    database_cutoff: int | None
    fitted: Fitted
    with_baselines: bool
    with_ensemble: bool


def judge_as(
    asked: Asked,
    database: DatabaseLike,
    predictions: pa.Table,
    validation: pa.Table | None,
    progress: Progress | None,
) -> tuple[dict[str, Any], pa.Table]:
    """`judge`, with the ensemble fitted on `validation` where it is asked for."""
    weighing = None
    if asked.with_ensemble and validation is not None:
        loaded = Task.load(database, asked.task)
        trees = asked.fitted.get("lightgbm", stops_on="train")[0]
        weighing = ensemble.weigh(loaded, metric_of(database, loaded), validation, trees)
    return judge(
        database,
        asked.task,
        predictions,
        split=asked.split,
        regime=asked.regime,
        database_cutoff=asked.database_cutoff,
        with_baselines=asked.with_baselines,
        weighing=weighing,
        fitted=asked.fitted,
        progress=progress,
    )


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


@dataclasses.dataclass(frozen=True)
class _Judging:
    """Rows on which models are judged, and how the model did."""

    task: Task
    seeds: Ints
    metric: str
    train_label_std: float | None
    model: metrics.Scores

    def _score(self, found: baselines.Predictions) -> metrics.Scores:
        label = self.task.label[self.seeds]
        return metrics.score(self.task.target_stype, label, found.prediction, found.probability, self.train_label_std)

    def score_baseline(self, fitted: Fitted, name: str, rows: pa.Table) -> tuple[dict[str, Any], pa.Table]:
        """Score one baseline; its predictions become a column of the rows."""
        baseline, seconds = fitted.get(name)
        found = baseline.predict(self.seeds)
        scored = self._score(found)
        entry = {"name": name, "description": baseline.description, **_as_json(scored)}
        entry |= {"details": baseline.details, "seconds": round(seconds, 2)}
        shown = found.probability if self.task.target_stype == "boolean" else found.prediction
        if name == "entity" and len(np.unique(np.asarray(shown))) == 1:
            entry["remark"] = "no entity of these rows has a past label, so it equals the constant"
        called = _CALLED[name].format(kind=baseline.details.get("kind", "mean"))
        entry["verdict"] = verdicts.compare(called, self.metric, self.model, scored)
        return entry, rows.append_column(f"baseline_{name}", pa.array(shown))

    def compare_other_average(self, fitted: Fitted, entries: list[dict[str, Any]]) -> str:
        """The verdict beside the mean or median of the entity's past that validation did not choose."""
        (chosen,) = (entry["details"]["kind"] for entry in entries if entry["name"] == "entity")
        kind = "mean" if chosen == "median" else "median"
        scored = self._score(fitted.get("entity", kind=kind)[0].predict(self.seeds))
        return verdicts.compare(_CALLED["entity"].format(kind=kind), self.metric, self.model, scored)

    def score_ensemble(
        self, fitted: Fitted, weighing: ensemble.Weighing, rows: pa.Table
    ) -> tuple[dict[str, Any], pa.Table]:
        """Score the model together with LightGBM, beside either alone."""
        trees = fitted.get("lightgbm")[0].predict(self.seeds)
        theirs = trees.probability if self.task.target_stype == "boolean" else trees.prediction
        ours = ensemble.answers(self.task, rows)
        mixed = weighing.blend(ours, np.asarray(theirs, np.float64))
        scored = self._score(baselines.Predictions(mixed, mixed))
        entry = {"name": "ensemble", "description": weighing.words, **_as_json(scored)}
        entry["details"] = dataclasses.asdict(weighing)
        entry["verdicts"] = [
            verdicts.compare(_CALLED["lightgbm"], self.metric, scored, self._score(trees)),
            verdicts.compare("the model alone", self.metric, scored, self.model),
        ]
        return entry, rows.append_column("ensemble", pa.array(mixed))


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
