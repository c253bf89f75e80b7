"""From a run's folder to the place a model is served from, through gates that a worse model does not pass.

A gate looks at what `tributary evaluate` kept in the run's folder: a metric against a threshold, against a baseline on
the same rows, or against the model promoted before on the same rows. The promoted folder is one that `load_run` opens,
with the checkpoint that was evaluated and a `promotion.json` that says where it came from. Described in
`documentation/evaluation.md`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib.metadata
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tributary import metrics
from tributary.evaluation import evaluate, verdicts
from tributary.exchange import exchange

FILE = "promotion.json"
NOT_SERVED = frozenset(("checkpoints", "evaluation", "plots", "tensorboard", "mlruns", "wandb", "metrics.jsonl", FILE))
"""What of a run's folder does not go with the model, or (checkpoints, evaluations) only in part."""


@dataclasses.dataclass(frozen=True)
class Threshold:
    """A value that a metric has to reach: at least, or at most where lower is better.

    Attributes:
        task: name of the task; None: of every task that has the metric.
        metric: its name.
        value: in the metric's own unit.
    """

    task: str | None
    metric: str
    value: float

    @classmethod
    def parse(cls, text: str) -> Threshold:
        """`METRIC=VALUE` or `TASK:METRIC=VALUE`.

        Example:
            >>> Threshold.parse("churn:auroc=0.75")
            Threshold(task='churn', metric='auroc', value=0.75)
        """
        left, equals, right = text.rpartition("=")
        task, _, metric = left.rpartition(":")
        known = sorted({name for names in metrics.NAMES.values() for name in names} | set(metrics.LINK_NAMES))
        try:
            value = float(right)
        except ValueError:
            value = np.nan
        if not equals or not np.isfinite(value):
            raise ValueError(f"metric threshold `{text}`: expected METRIC=NUMBER or TASK:METRIC=NUMBER")
        if metric not in known:
            raise ValueError(f"metric threshold `{text}`: no metric `{metric}`; there are {', '.join(known)}")
        return cls(task or None, metric, value)


@dataclasses.dataclass(frozen=True)
class Check:
    """What one gate said."""

    is_passed: bool
    words: str


@dataclasses.dataclass(frozen=True)
class Gates:
    """What is asked of a run before it is promoted.

    Attributes:
        thresholds: metrics that have to be reached.
        beats: baselines that have to be beaten, by name.
        not_worse_than: folder of a promoted model (or of a run); refused is what is worse than it beyond the 95 %
            interval of the paired difference. None: nothing.
        tasks: what is looked at; empty: every task that was evaluated.
        split: where.
        regime: and how.
    """

    thresholds: Sequence[Threshold] = ()
    beats: Sequence[str] = ()
    not_worse_than: Path | None = None
    tasks: Sequence[str] = ()
    split: str = "test"
    regime: str = "seed-time"


def check(run_dir: Path | str, gates: Gates) -> list[Check]:
    """What every gate says of a run.

    Raises:
        FileNotFoundError: the folder holds no run.
        ValueError: no gate, nothing evaluated that they could look at, or a baseline, metric or model that is missing
            from what was evaluated; the message names the command that is missing.
    """
    run_dir = Path(run_dir)
    if not (gates.thresholds or gates.beats or gates.not_worse_than):
        raise ValueError(
            "no gate: name a metric threshold, a baseline to beat, or a model that it may not be worse than"
        )
    results = _results(run_dir, gates)
    checks = [check for threshold in gates.thresholds for check in _reach(threshold, results)]
    for result in results:
        checks += [_beat(result, name) for name in gates.beats]
        if gates.not_worse_than is not None:
            checks.append(_compare(run_dir, result, gates.not_worse_than))
    return checks


def promote(run_dir: Path | str, to: Path | str, checks: Sequence[Check], gates: Gates) -> Path:
    """Put the evaluated checkpoint of a run into its place, all at once; the model before it stays as `<to>.previous`.

    Args:
        run_dir: folder of the run.
        to: folder to serve from.
        checks: from `check`.
        gates: that were asked.

    Returns:
        `to`.

    Raises:
        ValueError: a gate was not passed, `to` holds something else than a promoted model, or the step that was
            evaluated is no longer there.
    """
    run_dir, to = Path(run_dir), Path(to)
    if not all(check.is_passed for check in checks):
        raise ValueError(f"{run_dir} did not pass every gate and is not promoted")
    if to.exists() and not (to / FILE).is_file():
        raise ValueError(f"{to} exists and holds no promoted model (no {FILE}); name another place")
    results = _results(run_dir, gates)
    partial = to.with_name(f".{to.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    _copy(run_dir, partial, results)
    record = {
        "from": str(run_dir.resolve()),
        "step": results[0]["step"],
        "promoted_at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "tributary": importlib.metadata.version("tributary"),
        "gates": [check.words for check in checks],
        "replaces": _origin(to),
    }
    (partial / FILE).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    _prove(partial, results[0])
    _replace(partial, to)
    return to


def _replace(partial: Path, to: Path) -> None:
    """At any moment `to` is the old model or the new one; where folders cannot be exchanged, for a moment neither."""
    if not to.exists():
        os.rename(partial, to)
        return
    previous = to.with_name(f"{to.name}.previous")
    shutil.rmtree(previous, ignore_errors=True)
    if exchange(partial, to):
        os.rename(partial, previous)
    else:
        os.rename(to, previous)
        os.rename(partial, to)


def _results(run_dir: Path, gates: Gates) -> list[dict[str, Any]]:
    """The evaluations that the gates look at, all of one step."""
    if not (run_dir / "config.yaml").is_file():
        raise FileNotFoundError(2, "no such run (it holds no config.yaml)", str(run_dir))
    kept = [r for r in evaluate.load(run_dir) if (r["split"], r["regime"]) == (gates.split, gates.regime)]
    found = [result for result in kept if not gates.tasks or result["task"] in gates.tasks]
    if any(result["learned"]["kind"] == "trained" for result in found if "learned" in result):
        found = [result for result in found if result.get("learned", {}).get("kind") == "trained"]
    missing = sorted(set(gates.tasks) - {result["task"] for result in found})
    command = f"tributary evaluate {run_dir} --split {gates.split} --regime {gates.regime}"
    if missing or not found:
        what = ", ".join(missing) or "any task"
        raise ValueError(
            f"{run_dir}: no evaluation of {what} on {gates.split} in the {gates.regime} regime; run `{command}`"
        )
    if any("path" not in result.get("database", {}) for result in found):
        raise ValueError(f"{run_dir}: was evaluated by an earlier version; run `{command}`")
    steps = sorted({result["step"] for result in found})
    if len(steps) > 1:
        shown = ", ".join(map(str, steps))
        raise ValueError(f"{run_dir}: its tasks were evaluated at different steps ({shown}); run `{command}`")
    return found


def _reach(threshold: Threshold, results: Sequence[Mapping[str, Any]]) -> list[Check]:
    """The threshold, for every task that it is about."""
    checks = []
    for result in results:
        if threshold.task not in (None, result["task"]) or threshold.metric not in result["model"]["metrics"]:
            continue
        value, name = result["model"]["metrics"][threshold.metric], f"{result['task']}: {threshold.metric}"
        bound = "at most" if threshold.metric in metrics.LOWER_IS_BETTER else "at least"
        if value is None:
            checks.append(Check(False, f"{name} is undefined ({result['undefined'][threshold.metric]})"))
            continue
        is_passed = value == threshold.value or metrics.is_better(threshold.metric, value, threshold.value)
        checks.append(Check(is_passed, f"{name} is {value:.4g}, asked for {bound} {threshold.value:g}"))
    if not checks:
        evaluated = ", ".join(f"{result['task']} ({', '.join(result['model']['metrics'])})" for result in results)
        raise ValueError(
            f"no evaluated task has the metric of the threshold {threshold.task or '*'}:{threshold.metric}; evaluated: "
            f"{evaluated}"
        )
    return checks


def _beat(result: Mapping[str, Any], name: str) -> Check:
    """Whether the model is better than a baseline on the same rows."""
    entries = {entry["name"]: entry for entry in result["baselines"]}
    if name not in entries:
        known = ", ".join(entries) or "none, it was evaluated with --no-baselines"
        raise ValueError(f"task `{result['task']}`: no baseline `{name}` to beat; evaluated: {known}")
    metric = result["metric"]
    ours, theirs = result["model"]["metrics"][metric], entries[name]["metrics"][metric]
    is_passed = ours is not None and theirs is not None and metrics.is_better(metric, ours, theirs)
    return Check(is_passed, f"{result['task']}: the model {entries[name]['verdict']}")


def _compare(run_dir: Path, result: Mapping[str, Any], other: Path) -> Check:
    """Whether the model is not worse than another beyond the interval, on the same rows."""
    task, regime, split = result["task"], result["regime"], result["split"]
    command = f"tributary evaluate {other} --task {task} --split {split} --regime {regime}"
    command += f" --database {result['database']['path']}"
    theirs = [
        kept
        for kept in evaluate.load(other)
        if (kept["task"], kept["split"], kept["regime"]) == (task, split, regime)
        and kept.get("database", {}).get("build_id") == result["database"]["build_id"]
    ]
    if not theirs:
        build = result["database"]["build_id"]
        raise ValueError(f"{other}: `{task}` is not evaluated on build {build} of the database; run `{command}`")
    tables = [
        pq.read_table(folder / kept["rows_file"]).sort_by("seed_index")
        for folder, kept in ((run_dir, result), (other, theirs[0]))
    ]
    if not tables[0]["seed_index"].equals(tables[1]["seed_index"]):
        raise ValueError(f"{other} and {run_dir} were evaluated on different rows of `{task}`; run `{command}`")
    metric = "mae" if result["metric"] == "nmae" else result["metric"]
    scored = [_score(result, table) for table in tables]
    compared = metrics.difference(metric, *scored)
    is_passed = compared is not None and compared[2] >= 0
    return Check(is_passed, f"{task}: the model {verdicts.compare(str(other), metric, *scored)}")


def _score(result: Mapping[str, Any], rows: pa.Table) -> metrics.Scores:
    target_stype = result["target_stype"]
    if target_stype == "link":
        return _score_links(rows, result["top_k"])
    label = np.array(rows["label"].to_pylist())
    if target_stype == "boolean":
        return metrics.score(target_stype, label, None, rows["probability"].to_numpy())
    return metrics.score(target_stype, label, np.array(rows["prediction"].to_pylist()))


def _score_links(rows: pa.Table, top_k: int) -> metrics.Scores:
    """Of lists of keys, the likeliest first."""
    named, ranked = rows["label"].to_pylist(), rows["prediction"].to_pylist()
    hits = np.zeros((len(named), top_k), bool)
    for idx, (true, keys) in enumerate(zip(named, ranked, strict=True)):
        hits[idx, : len(keys)] = [key in set(true) for key in keys]
    return metrics.score_links(hits, [len(set(true)) for true in named])


def _copy(run_dir: Path, to: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Configuration, history, statistics and whatever else there is; the evaluations, and the step they are of."""
    step = results[0]["step"]
    kinds = [kind for kind in ("best", "last") if (run_dir / "checkpoints" / kind / str(step)).is_dir()]
    if not kinds:
        raise ValueError(
            f"{run_dir}: step {step}, which was evaluated, is no longer kept; run `tributary evaluate {run_dir}` again"
        )
    place = Path("checkpoints") / kinds[0] / str(step)
    shutil.copytree(run_dir / place, to / place)
    for path in run_dir.iterdir():
        if path.name in NOT_SERVED or path.name.startswith(".") or path.name in (evaluate.FILE, "report.html"):
            continue
        if path.is_dir():
            shutil.copytree(path, to / path.name)
        else:
            shutil.copy2(path, to / path.name)
    for result in results:
        evaluate.keep(to, dict(result), pq.read_table(run_dir / result["rows_file"]))


def _prove(folder: Path, result: Mapping[str, Any]) -> None:
    """Opens the copy as a server would: damage shows here, and the old model stays."""
    from tributary.prediction.predict import load_run

    load_run(folder, step=result["step"], database=result["database"]["path"])


def _origin(to: Path) -> dict[str, Any] | None:
    """Where the model promoted before came from."""
    if not (to / FILE).is_file():
        return None
    record = json.loads((to / FILE).read_text(encoding="utf-8"))
    return {name: record[name] for name in ("from", "step", "promoted_at")}
