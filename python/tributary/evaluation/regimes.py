"""What an evaluation may call itself: seed-time or frozen, trained or zero-shot.

*Seed-time*: each seed sees everything up to its own moment. *Frozen*: the database as it was at one cut-off. No seed
sees a later row, and nothing was learned from a label that was not known by then, neither by the model nor by a
baseline; a model that was trained on later ones is refused, since its figures would pass for something they are not.

*Zero-shot*: no gradient ever came from this database (or from this task), in the run or in a run it started from.
What the model sees of it is the context: rows and past labels of the entity.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml

from tributary.config import PUBLISHED_KINDS
from tributary.evaluation import baselines
from tributary.evaluation.asof import ALWAYS, END_OF_TIME
from tributary.evaluation.features import DatabaseLike, Task
from tributary.moments import moment_us

if TYPE_CHECKING:
    from tributary.prediction.predict import Run

Regime = Literal["seed-time", "frozen"]
REGIMES: tuple[Regime, ...] = ("seed-time", "frozen")


@dataclasses.dataclass(frozen=True)
class Learned:
    """What a run had learned of a task and its database.

    Attributes:
        kind: `trained`: on this task; `zero-shot task`: on the database but not on this task; `zero-shot`: never on
            this database.
        words: the same as a clause.
        until_us: latest moment of which training may have known something, of this database; None: of none.
        because: what `until_us` comes from.
    """

    kind: Literal["trained", "zero-shot task", "zero-shot"]
    words: str
    until_us: int | None = None
    because: str = ""


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


def check_frozen(learned: Learned, task: str, database_cutoff: int | None) -> None:
    """Refuses to call an evaluation frozen whose model learned from what came after the cut-off.

    Raises:
        ValueError: it did; the message says from what, and until when.
    """
    if database_cutoff is None or learned.until_us is None or learned.until_us <= database_cutoff:
        return
    raise ValueError(
        f"task `{task}`: the model was trained on {learned.because} up to {_moment(learned.until_us)}, after the "
        f"cut-off {_moment(database_cutoff)}, so it is not frozen; give a later --database-cutoff, evaluate with "
        "--regime seed-time, or train on what was known by then"
    )


def what_was_learned(run: Run, task: Task) -> Learned:
    """What a run, and the runs it started from, had learned of a task and its database.

    A database counts as trained on when build, folder or name are those of one of training: one that was only
    preprocessed again is not zero-shot.

    Raises:
        FileNotFoundError: a run it started from is gone, so that nothing can be said.
    """
    parts = _parts_of(run)
    names = sorted(trained_tasks(run))
    until = [(_labels_until(run.database, name), f"labels of `{name}`") for name in names]
    until += [
        (_rows_until(run, part, table), f"rows of `{table}`") for part in parts for table in part.get("tables") or ()
    ]
    until_us, because = max(until, default=(None, ""), key=lambda pair: pair[0])
    name = run.manifest["name"]
    if task.name in names:
        return Learned("trained", "trained on this task", until_us, because)
    if parts:
        return Learned("zero-shot task", f"zero-shot: trained on {name}, never on this task", until_us, because)
    words = f"zero-shot: never trained on {name}; past labels are in the context, as far as known"
    if run.config.model.kind in PUBLISHED_KINDS:
        words += "; what its published weights were trained on is for their authors to say"
    return Learned("zero-shot", words)


def trained_tasks(run: Run) -> set[str]:
    """Tasks of the run's present database that it, or a run it started from, was trained on."""
    names: set[str] = set()
    everything = [described["name"] for described in run.manifest["tasks"]]
    for part in _parts_of(run):
        if part.get("tasks", ()) is not None:  # else only rows were seeds
            names |= set(part.get("tasks") or everything) & set(everything)
    return names


def _labels_until(database: DatabaseLike, name: str) -> int:
    """When the last training label of a task became known; seeds without a time are always there."""
    loaded = Task.load(database, name)
    known = loaded.label_time[(loaded.split == baselines.TRAIN) & ~np.isnan(loaded.label)]
    known = known[known < END_OF_TIME]
    return int(known.max()) if len(known) else ALWAYS


def _rows_until(run: Run, part: dict[str, Any], table: str) -> int:
    """The latest row of a table (`*`: of any) that was a training seed."""
    tables = [described["name"] for described in run.manifest["tables"]] if table == "*" else [table]
    times = np.concatenate([run.database.row_times(name) for name in tables])
    times = times[times < _limit_of_rows(run, part.get("rows_until") or "end")]
    return int(times.max()) if len(times) else ALWAYS


def _limit_of_rows(run: Run, rows_until: str) -> int:
    """`data.rows_until` in microseconds; rows at or after it were no seeds."""
    if rows_until == "end":
        return END_OF_TIME
    if rows_until not in baselines.SPLITS:
        return moment_us(rows_until) + 1
    first = [END_OF_TIME]
    for described in run.manifest["tasks"]:
        seeds = run.database.task_seeds(described["name"])
        is_later = seeds["split"] >= baselines.SPLITS[rows_until]
        earlier, later = seeds["time"][~is_later], seeds["time"][is_later]
        if len(later) and (len(earlier) == 0 or earlier.max() <= later.min()):  # else it is not split by time
            first.append(int(later.min()))
    return min(first)


def _configs(run: Run) -> Iterator[dict[str, Any]]:
    """Configurations of the run and of those it started from, as written in their folders; of untrained ones none."""
    folder: Path | None = run.path
    seen: set[Path] = set()
    while folder is not None and folder.resolve() not in seen:
        seen.add(folder.resolve())
        path = folder / "config.yaml"
        if not path.is_file():
            raise FileNotFoundError(
                2, f"{run.path} started from this run, which is gone: what it learned is unknown", str(path)
            )
        config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        history = folder / "training_history.json"
        if not history.is_file() or json.loads(history.read_text(encoding="utf-8"))["num_steps"] > 0:
            yield config  # else weights were imported, and nothing was learned here
        start = config.get("train", {}).get("init_from")
        folder = None if start is None else Path(start)


def _parts_of(run: Run) -> list[dict[str, Any]]:
    """Every time the run's present database was trained on: its section `data`, with tasks and tables."""
    found = []
    for config in _configs(run):
        several = (config["data"].get("databases") or {}).values()
        shared = {"rows_until": config["data"].get("rows_until")}
        own = [{**part, "database": part["path"]} for part in several] or [config["data"]]
        merged = [{**part, "rows_until": part.get("rows_until") or shared["rows_until"]} for part in own]
        found += [part for part in merged if _is_same_database(run, part["database"])]
    return found


def _is_same_database(run: Run, path: str) -> bool:
    """Whether a database that was trained on is the run's present one, or another build of it."""
    present = Path(run.database.path)
    if Path(path).absolute() == present.absolute():
        return True
    try:
        manifest = json.loads((Path(path) / "metadata.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return Path(path).name == present.name  # it has moved; its folder's name is all that is left
    return bool(manifest["name"] == run.manifest["name"] or manifest["build_id"] == run.manifest["build_id"])


def _moment(time_us: int) -> str:
    return str(np.datetime64(time_us, "us")).removesuffix(".000000")
