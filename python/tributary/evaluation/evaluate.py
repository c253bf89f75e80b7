"""How good a trained run is on a split, beside the baselines on the same rows.

Every result says its regime and what the model had learned (see `evaluation.regimes`). Metrics come with 95 % bootstrap
intervals, and the comparison with each baseline is one plain sentence. What is found is written into the run's folder:
`evaluation.json`, and the rows behind it as parquet.
"""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tributary import metrics
from tributary.evaluation import baselines, ensemble, several
from tributary.evaluation.features import Task
from tributary.evaluation.judge import Asked, Fitted, Progress, judge_as
from tributary.evaluation.regimes import Regime, check_frozen, resolve_cutoff, trained_tasks, what_was_learned

if TYPE_CHECKING:
    from tributary.prediction.predict import Run

FILE = "evaluation.json"


def evaluate(
    run: Run,
    task: str,
    split: str = "test",
    regime: Regime = "seed-time",
    *,
    database_cutoff: int | None = None,
    with_baselines: bool = True,
    with_ensemble: bool = False,
    max_seeds: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Predict a split, score it, fit and score the baselines, and keep the result in the run's folder.

    Args:
        run: from `tributary.load_run`; with its `database` the model is judged on a database it never saw.
        task: name of the task.
        split: train, val or test.
        regime: `seed-time` or `frozen`.
        database_cutoff: microseconds, frozen regime only; default: the earliest seed of the split.
        with_baselines: whether to fit them.
        with_ensemble: also judge the model together with LightGBM, see `tributary.evaluation.ensemble`.
        max_seeds: at most so many seeds, drawn at random: the same for every run.
        progress: told how far it is.

    Returns:
        What `judge` returns, with `run`, `step`, `learned` and the name of the rows' file.

    Raises:
        ValueError: unknown task, split or regime, no seeds, none with a label, a model that is not frozen at the
            cut-off, or an ensemble that cannot be made.
    """
    return evaluate_runs(
        [run],
        task,
        split,
        regime,
        database_cutoff=database_cutoff,
        with_baselines=with_baselines,
        with_ensemble=with_ensemble,
        max_seeds=max_seeds,
        progress=progress,
    )[0][0]


def evaluate_runs(
    runs: Sequence[Run],
    task: str,
    split: str = "test",
    regime: Regime = "seed-time",
    *,
    database_cutoff: int | None = None,
    with_baselines: bool = True,
    with_ensemble: bool = False,
    max_seeds: int | None = None,
    progress: Progress | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """`evaluate` for several runs (of one configuration under several random numbers, say), and for all together.

    Args:
        runs: from `tributary.prediction.predict.load_run`, all on one database.
        task: as in `evaluate`, like the rest.
        split: see there.
        regime: see there.
        database_cutoff: see there.
        with_baselines: see there; they are fitted once.
        with_ensemble: see there.
        max_seeds: see there.
        progress: see there.

    Returns:
        A result per run, and of two or more what `tributary.evaluation.several.summarise` says of them.
    """
    first = runs[0]
    loaded = Task.load(first.database, task)
    if len(runs) > 1 and loaded.target_stype == "link":
        raise ValueError(f"task `{task}` is answered with lists, which have no average; evaluate one run at a time")
    cutoff = resolve_cutoff(loaded, split, regime, database_cutoff)
    for run in runs:
        if run.database.build_id != first.database.build_id:
            raise ValueError(
                f"{run.path}: its database is build {run.database.build_id}, that of {first.path} build "
                f"{first.database.build_id}; runs are compared on one, which --database can name"
            )
        check_frozen(what_was_learned(run, loaded), task, cutoff)
    if with_ensemble:
        ensemble.check_possible(loaded, split)
    asked = Asked(task, split, regime, cutoff, Fitted(first.database, task, cutoff), with_baselines, with_ensemble)
    judged = [_evaluate_run(run, loaded, asked, max_seeds, progress) for run in runs]
    results = [result for result, _, _ in judged]
    if len(runs) == 1:
        return results, None
    answered, validations = ([tables[which] for tables in judged] for which in (1, 2))
    together, _ = judge_as(asked, first.database, several.average(answered), several.average(validations), progress)
    return results, several.summarise(runs, results, together)


def _evaluate_run(
    run: Run, loaded: Task, asked: Asked, max_seeds: int | None, progress: Progress | None
) -> tuple[dict[str, Any], pa.Table, pa.Table | None]:
    """The result of one run, kept in its folder; its predictions, and those of validation where they are needed."""
    task, split, regime, cutoff = asked.task, asked.split, asked.regime, asked.database_cutoff
    learned = what_was_learned(run, loaded)
    started = time.perf_counter()
    predictions = _predict(run, task, split, cutoff, max_seeds, progress)
    seconds = time.perf_counter() - started
    validation = _predict(run, task, "val", cutoff, max_seeds, progress) if asked.with_ensemble else None
    result, rows = judge_as(asked, run.database, predictions, validation, progress)
    result |= {"run": str(run.path), "step": run.step, "predict_seconds": round(seconds, 2)}
    result["learned"] = {"kind": learned.kind, "words": learned.words}
    result["remarks"] = _remarks(loaded, split, learned.kind, cutoff, run.manifest.get("stats_until_us"))
    result["model"]["description"] = f"the trained model at step {run.step:,}"
    result["database"]["path"] = str(Path(run.database.path).absolute())
    place = f"{result['database']['name']}." if learned.kind == "zero-shot" else ""
    result["rows_file"] = f"evaluation/{place}{task}.{split}.{regime}.parquet"
    keep(run.path, result, rows)
    return result, predictions, validation


def _predict(
    run: Run, task: str, split: str, cutoff: int | None, max_seeds: int | None, progress: Progress | None
) -> pa.Table:
    """The model's predictions of a split; a part of it is drawn under random number 0, whatever the run's is."""
    from tributary.prediction.predict import predict_split

    if max_seeds is not None:
        section = run.config.run.model_copy(update={"seed": 0})
        run = dataclasses.replace(run, config=run.config.model_copy(update={"run": section}))
    return predict_split(
        run,
        task,
        split,  # type: ignore[arg-type]  # resolve_cutoff has checked it
        max_seeds=max_seeds,
        database_cutoff=cutoff,
        progress=None if progress is None else lambda done, total: progress(f"predict {split}", done, total),
    )


def _remarks(task: Task, split: str, kind: str, cutoff: int | None, stats_until: int | None) -> list[str]:
    """What a reader of the figures should know besides."""
    remarks = []
    if split == "train" and kind == "trained":
        remarks.append("these rows were trained on: the figures say how well they are remembered")
    if split == "val":
        remarks.append("validation chose the model's step and stopped LightGBM: both look a little better here")
    if cutoff is not None:
        if stats_until is None or stats_until > cutoff:
            rows = "all rows" if stats_until is None else f"rows before {np.datetime64(stats_until, 'us')}"
            remarks.append(
                f"means and deviations of columns are over {rows}, not frozen: to freeze them, preprocess with "
                f"--stats-until {np.datetime64(cutoff, 'us').astype('datetime64[D]')}"
            )
        if (
            split == "test"
            and task.label_time[(task.split == baselines.VAL) & ~np.isnan(task.label)].max(initial=0) > cutoff
        ):
            remarks.append("the step was chosen by validation labels, some of which were known only after the cut-off")
    if kind == "zero-shot" and task.target_stype == "numerical":
        remarks.append("the scale of the answer (mean and deviation) is that of the task's training labels")
    return remarks


def keep(run_dir: Path | str, result: dict[str, Any], rows: pa.Table) -> None:
    """Write the rows, and the result into `evaluation.json` in place of an earlier one of the same kind."""
    folder = Path(run_dir)
    path = folder / result["rows_file"]
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pq.write_table(rows, partial)
    os.replace(partial, path)
    kept = {_kind_of(old): old for old in load(folder)}
    kept[_kind_of(result)] = result
    text = json.dumps({"evaluations": list(kept.values())}, indent=1, allow_nan=False)
    partial = folder / f".{FILE}.partial"
    partial.write_text(text + "\n", encoding="utf-8")
    os.replace(partial, folder / FILE)


def _kind_of(result: Mapping[str, Any]) -> tuple[str, ...]:
    """What two evaluations have in common where the later one takes the earlier one's place."""
    database = result.get("database", {}).get("name", "")  # not written before there were several
    return database, result["task"], result["split"], result["regime"]


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
    """The tasks of the run's present database that have metrics: those it was trained on, else all."""
    learned = trained_tasks(run)
    described = [task for task in run.manifest["tasks"] if task["target_stype"] in metrics.NAMES]
    names = [task["name"] for task in described]
    return [name for name in names if name in learned] or names
