"""What a run remembers of the databases it was trained on, so that it can do without them.

A z-score means nothing without the mean and the deviation it was made with, a class nothing without its text. Both are
written into the run's folder when training begins. On another build of a database, with other statistics, cells are put
back on the scale the model learned to read, and its answers are read in the units it learned to speak. Described in
`documentation/prediction.md`, "Another build of the database".
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from tributary.answers import Target, target_of
from tributary.batch import Array, Batch, DatabaseArrays
from tributary.data import Database, database_arrays
from tributary.model.encoders import NUMERICAL, TIMESTAMP
from tributary.runs.checkpoint import CheckpointError

FILE = "statistics.safetensors"
"""Name of the file in a run's folder."""

_SHOWN = 8
"""Columns named in a warning."""


@dataclasses.dataclass(frozen=True)
class LearnedColumn:
    """One column as it was when the model was trained."""

    id: int
    """Its number among the columns, and in the arrays."""
    stype: str
    mean: float | None
    """What a z-score of 0 stood for; None where the column has no z-scores, or held no number."""
    std: float | None
    """What a z-score of 1 added to it; 0: the column was constant, and its z-scores all 0."""


@dataclasses.dataclass(frozen=True)
class LearnedDatabase:
    """One database as it was when the model was trained."""

    name: str
    build_id: str
    columns: Mapping[str, LearnedColumn]
    """By `table.column`; those of a task by `task <name>: target` and `task <name>: time`."""
    targets: Mapping[str, Target]
    """What was asked, by name of the task."""
    column_vectors: np.ndarray
    """float16 [C, E] as the model read them."""
    column_offset: np.ndarray
    """float32 [C] where the heads began."""
    class_vectors: Mapping[str, np.ndarray]
    """float16 [K, E] of the classes of each task that has some."""


def learned_database(database: Database, arrays: DatabaseArrays) -> LearnedDatabase:
    """What there is to remember of a database.

    Args:
        database: as the model is trained on it.
        arrays: of `database_arrays`, on the host.
    """
    manifest = json.loads(database.manifest)
    targets = {task["name"]: target_of(database, manifest, task) for task in manifest["tasks"]}
    classes = {
        task["name"]: np.asarray(arrays.vocab_vectors[np.array(task["classes"])], np.float16)
        for task in manifest["tasks"]
        if task["classes"]
    }
    return LearnedDatabase(
        name=manifest["name"],
        build_id=database.build_id,
        columns=dict(_columns(manifest)),
        targets=targets,
        column_vectors=np.asarray(arrays.column_vectors),
        column_offset=np.asarray(arrays.column_offset),
        class_vectors=classes,
    )


def _columns(manifest: Mapping[str, Any]) -> Iterator[tuple[str, LearnedColumn]]:
    """Every column that the cells of a context may be of."""
    time = (manifest["time"]["mean_us"], manifest["time"]["std_us"])
    for table in manifest["tables"]:
        for column in table["columns"]:
            found = column["statistics"]
            scale = {"numerical": (found.get("mean"), found.get("std")), "timestamp": time}
            yield (
                f"{table['name']}.{column['name']}",
                LearnedColumn(column["id"], column["stype"], *scale.get(column["stype"], (None, None))),
            )
    for task in manifest["tasks"]:
        if task.get("foreign_key_id") is None:
            continue  # it asks for a column of a table
        stype, found = task["target_stype"], task["statistics"]
        scale = {"numerical": (found["mean"], found["std"]), "timestamp": time}
        target = LearnedColumn(task["target_column_id"], stype, *scale.get(stype, (None, None)))
        yield f"task {task['name']}: target", target
        if task.get("time_column_id") is not None:
            yield f"task {task['name']}: time", LearnedColumn(task["time_column_id"], "timestamp", *time)


# --- File ----------------------------------------------------------------------------------------------------------


def write_learned(run_dir: str | Path, databases: Sequence[LearnedDatabase]) -> None:
    """Writes the file of a run; it appears under its name only when it is complete."""
    path = Path(run_dir) / FILE
    tensors: dict[str, np.ndarray] = {}
    described = []
    for number, database in enumerate(databases):
        tensors[f"{number} vectors"] = np.ascontiguousarray(database.column_vectors)
        tensors[f"{number} offsets"] = np.ascontiguousarray(database.column_offset)
        for task, vectors in database.class_vectors.items():
            tensors[f"{number} classes {task}"] = np.ascontiguousarray(vectors)
        record = {name: getattr(database, name) for name in ("name", "build_id", "columns", "targets")}
        record["columns"] = {name: dataclasses.asdict(column) for name, column in database.columns.items()}
        record["targets"] = {name: dataclasses.asdict(target) for name, target in database.targets.items()}
        described.append(record)
    text = json.dumps(described)
    metadata = {"databases": text, "digest": _digest(text, tensors)}
    partial = path.with_name(f".{FILE}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial.write_bytes(safetensors.numpy.save(tensors, metadata))
    partial.replace(path)


def read_learned(run_dir: str | Path) -> list[LearnedDatabase]:
    """What a run remembers; empty where it was made before runs remembered anything, or without training.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = Path(run_dir) / FILE
    if not path.is_file():
        return []
    try:
        with safetensors.safe_open(path, framework="numpy") as opened:
            metadata = opened.metadata()
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        text = metadata["databases"]
        is_sound = metadata["digest"] == _digest(text, tensors)
    except (safetensors.SafetensorError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); copy it again from where the run was trained") from None
    if not is_sound:
        raise CheckpointError(f"{path}: its digest does not match; copy it again from where the run was trained")
    return [_parse(number, record, tensors) for number, record in enumerate(json.loads(text))]


def _parse(number: int, record: dict[str, Any], tensors: Mapping[str, np.ndarray]) -> LearnedDatabase:
    head = f"{number} classes "
    targets = {name: Target(**{**each, "classes": tuple(each["classes"])}) for name, each in record["targets"].items()}
    return LearnedDatabase(
        name=record["name"],
        build_id=record["build_id"],
        columns={name: LearnedColumn(**each) for name, each in record["columns"].items()},
        targets=targets,
        column_vectors=tensors[f"{number} vectors"],
        column_offset=tensors[f"{number} offsets"],
        class_vectors={name.removeprefix(head): each for name, each in tensors.items() if name.startswith(head)},
    )


def _digest(text: str, tensors: Mapping[str, np.ndarray]) -> str:
    found = hashlib.blake2b(text.encode(), digest_size=16)
    for name in sorted(tensors):
        array = tensors[name]
        found.update(f"{name} {array.dtype} {array.shape} ".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


# --- Another build -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Translation:
    """How a database is read by a model that was trained on another build of it."""

    arrays: DatabaseArrays
    """What its ids point into, for the model."""
    scale: np.ndarray | None
    """float32 [C]: factor of the z-scores of every column; None: they are on the model's scale already."""
    shift: np.ndarray | None
    """float32 [C]: what is added to them."""
    targets: Mapping[str, Target]
    """Units of the model's answers, by name of the task."""


def translate(learned: LearnedDatabase | None, database: Database, arrays: DatabaseArrays) -> Translation:
    """Puts a database before a model.

    Args:
        learned: the database the model was trained on that this is a build of; None: there is none.
        database: the database to predict on.
        arrays: of `database_arrays`, on the host.

    Raises:
        CheckpointError: a column or a target has another stype than the model learned.
    """
    manifest = json.loads(database.manifest)
    own = {task["name"]: target_of(database, manifest, task) for task in manifest["tasks"]}
    if learned is None or learned.build_id == database.build_id:
        return Translation(arrays, None, None, own)
    columns = dict(_columns(manifest))
    _check(learned, columns, database.path)
    scale, shift = _rescaling(learned, columns, len(arrays.column_vectors))
    vectors, offset = np.array(arrays.column_vectors), np.array(arrays.column_offset)
    for name, column in columns.items():
        if name in learned.columns:
            vectors[column.id] = learned.column_vectors[learned.columns[name].id]
            offset[column.id] = learned.column_offset[learned.columns[name].id]
    arrays = dataclasses.replace(
        arrays,
        column_vectors=vectors,
        column_offset=offset,
        foreign_key_vectors=_key_vectors(manifest, arrays, vectors),
    )
    is_same = bool((scale == 1.0).all() and (shift == 0.0).all())
    return Translation(
        _with_classes(learned, manifest, own, arrays),
        None if is_same else scale,
        None if is_same else shift,
        own | {name: target for name, target in learned.targets.items() if name in own},
    )


def _check(learned: LearnedDatabase, columns: Mapping[str, LearnedColumn], path: str) -> None:
    """Raises where a stype has changed, and warns of columns that came or went."""
    for name, column in columns.items():
        before = learned.columns.get(name)
        if before is not None and before.stype != column.stype:
            raise CheckpointError(
                f"{path}: column `{name}` is {column.stype}, the model was trained on it as {before.stype}; preprocess "
                f"the database with the old stype, or train again"
            )
    tables = [{name for name in found if not name.startswith("task ")} for found in (learned.columns, columns)]
    for names, what in (
        (tables[1] - tables[0], "columns that the model was not trained on"),
        (tables[0] - tables[1], "columns that the model was trained on are gone"),
    ):
        if names:
            dots = ", ..." if len(names) > _SHOWN else ""
            shown = ", ".join(sorted(names)[:_SHOWN]) + dots
            warnings.warn(f"{path}: {what}: {shown}", RuntimeWarning, stacklevel=4)


def _rescaling(
    learned: LearnedDatabase, columns: Mapping[str, LearnedColumn], num_columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """Factor and summand that turn z-scores of this build into those the model learned to read, per column."""
    scale, shift = np.ones(num_columns, np.float32), np.zeros(num_columns, np.float32)
    line = next((column for column in learned.columns.values() if column.stype == "timestamp"), None)
    for name, column in columns.items():
        # all timestamps of a database are on one scale, those of new columns too
        before = learned.columns.get(name, line if column.stype == "timestamp" else None)
        if before is None or before.mean is None or before.std is None or column.mean is None or column.std is None:
            continue
        if before.std == 0.0:
            scale[column.id] = 0.0
        elif (before.mean, before.std) != (column.mean, column.std):
            scale[column.id] = column.std / before.std
            shift[column.id] = (column.mean - before.mean) / before.std
    return scale, shift


def _key_vectors(manifest: Mapping[str, Any], arrays: DatabaseArrays, vectors: np.ndarray) -> np.ndarray:
    """Vectors of the foreign keys' columns, anew."""
    keys = np.array(arrays.foreign_key_vectors)
    for table in manifest["tables"]:
        ids = {column["name"]: column["id"] for column in table["columns"]}
        for key in table["foreign_keys"]:
            keys[key["id"]] = vectors[ids[key["column"]]]
    for task in manifest["tasks"]:
        if task.get("foreign_key_id") is not None:
            keys[task["foreign_key_id"]] = vectors[task["target_column_id"]]
    return keys


def _with_classes(
    learned: LearnedDatabase, manifest: Mapping[str, Any], own: Mapping[str, Target], arrays: DatabaseArrays
) -> DatabaseArrays:
    """The arrays with the classes the model chooses from; those the vocabulary lacks are added behind it."""
    tasks = [task for task in manifest["tasks"] if task["name"] in learned.targets]
    changed = [task for task in tasks if own[task["name"]].classes != learned.targets[task["name"]].classes]
    if not changed:
        return arrays
    width = max(arrays.task_classes.shape[1], *(len(learned.targets[task["name"]].classes) for task in changed))
    classes = np.full((len(arrays.task_classes), width), -1, np.int32)
    classes[:, : arrays.task_classes.shape[1]] = arrays.task_classes
    vocab, num_vocab = [arrays.vocab_vectors], len(arrays.vocab_vectors)
    for task in changed:
        name = task["name"]
        texts = learned.targets[name].classes
        classes[task["id"]] = -1
        classes[task["id"], : len(texts)] = np.arange(num_vocab, num_vocab + len(texts))
        vocab.append(learned.class_vectors[name])
        num_vocab += len(texts)
    return dataclasses.replace(arrays, task_classes=classes, vocab_vectors=np.concatenate(vocab))


def find_learned(
    run_dir: Path, database: Database, builds: Mapping[str, str], *, are_spread: bool, is_trained: bool
) -> LearnedDatabase | None:
    """The database a run was trained on that another is a build of.

    Args:
        run_dir: folder of the run.
        database: the database to predict on.
        builds: build ids of the databases the run was trained on, by path.
        are_spread: as in `database_arrays`.
        is_trained: the run's weights were fitted to z-scores of these databases; published weights were not.

    Returns:
        None where the database is one of those builds, or one of which the run knows nothing; the latter is warned of.

    Raises:
        CheckpointError: the run is older than this file, and the build that it was trained on is gone.
    """
    if database.build_id in builds.values() or not is_trained:
        return None
    known = read_learned(run_dir) or _from_builds(run_dir, database, builds, are_spread)
    name = json.loads(database.manifest)["name"]
    for learned in known:
        if learned.name == name:
            return learned
    names = ", ".join(f"`{learned.name}`" for learned in known)
    warnings.warn(
        f"{database.path}: database `{name}` is none that the run was trained on ({names}); its own means and "
        f"deviations are taken for its z-scores",
        RuntimeWarning,
        stacklevel=3,
    )
    return None


def _from_builds(
    run_dir: Path, database: Database, builds: Mapping[str, str], are_spread: bool
) -> list[LearnedDatabase]:
    """What a run without the file would have remembered, from the databases themselves."""
    found = []
    for path, build in builds.items():
        if Path(path).is_dir():
            opened = Database(path)
            if opened.build_id == build:
                found.append(learned_database(opened, database_arrays(opened, are_spread=are_spread)))
    if not found:
        places = ", ".join(f"build {build} of {path}" for path, build in builds.items())
        raise CheckpointError(
            f"{run_dir}: holds no {FILE}, since it was trained by an earlier version, and {places} is gone: the means "
            f"and deviations that its model learned are not known, and those of {database.path} may differ; put the "
            f"build back in its place, or train again"
        )
    return found


def remember(run_dir: str | Path, databases: Sequence[Database], *, are_spread: bool) -> None:
    """Writes what there is to remember of the databases of a run, unless it was written before."""
    if not (Path(run_dir) / FILE).is_file():
        found = [learned_database(each, database_arrays(each, are_spread=are_spread)) for each in databases]
        write_learned(run_dir, found)


def rescaled(batch: Batch, scale: Array, shift: Array) -> Batch:
    """The batch with its numbers and times on the scale that the model learned to read.

    Args:
        batch: device fields.
        scale: float32 [C].
        shift: float32 [C].
    """
    column = jnp.maximum(batch.cell_column, 0)
    value = batch.cell_value * jnp.take(scale, column) + jnp.take(shift, column)
    is_scaled = (batch.cell_stype == NUMERICAL) | (batch.cell_stype == TIMESTAMP)
    is_shown = is_scaled & ~batch.cell_is_null & ~batch.cell_is_target & ~batch.cell_is_padding
    return dataclasses.replace(batch, cell_value=jnp.where(is_shown, value, batch.cell_value))
