"""Predictions of a trained run, in the units and keys of the user's database.

`load_run` opens run, database and parameters; `predict_split` answers for a whole split; `write_predictions` streams
the same to parquet. Described in `documentation/training.md`.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from flax import nnx

from tributary.answers import Target, answer_fields, answer_type, decode, decode_labels, target_of
from tributary.batch import END_OF_TIME, Batch, DatabaseArrays
from tributary.checkpoint import CheckpointError, Checkpoints, Kind
from tributary.config import PUBLISHED_KINDS, ConfigError, ModelConfig, RunConfig
from tributary.data import Database, Sampler, database_arrays, fitted_size, sampler_options, trim
from tributary.links import is_link
from tributary.losses import class_logits
from tributary.model import build_model
from tributary.optim import evaluation_params, init_state
from tributary.seeds import Seeds

Split = Literal["train", "val", "test"]

Forward = Callable[[Any, Batch, DatabaseArrays], dict[str, jax.Array]]
"""(params, device fields, arrays) -> `number`, `moment`, `truth` float32 [B] and `classes` float32 [B, K] logits; where
a link task is asked also `candidates` float32 [B, A] log-odds."""


def describe_model(config: ModelConfig, embedding_dim: int, rng_seed: int) -> tuple[nnx.GraphDef[Any], Any]:
    """The model split into its static description and its freshly drawn parameters, a plain pytree of arrays."""
    model = build_model(config, embedding_dim, rngs=nnx.Rngs(rng_seed))
    graphdef, state = nnx.split(model, nnx.Param)
    return graphdef, nnx.to_pure_dict(state)


def make_forward(graphdef: nnx.GraphDef[Any]) -> Forward:
    """The jitted prediction of target cells."""

    def forward(params: Any, batch: Batch, arrays: DatabaseArrays) -> dict[str, jax.Array]:
        model = nnx.merge(graphdef, params)
        outputs = model(batch, arrays, jnp.maximum(batch.target_cell, 0)[:, None])
        scalars = {name: getattr(outputs, name)[:, 0] for name in ("number", "moment", "truth")}
        scores = {**scalars, "classes": class_logits(model, outputs.query[:, 0], batch, arrays)}
        if outputs.candidates is not None:
            scores["candidates"] = outputs.candidates
        return scores

    return jax.jit(forward)


def find_task(manifest: dict[str, Any], name: str) -> dict[str, Any]:
    """The task of a name.

    Raises:
        ConfigError: the database has no such task.
    """
    names = [task["name"] for task in manifest["tasks"]]
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"it has {', '.join(names) or 'none'}"
        raise ConfigError(f"database `{manifest['name']}` has no task `{name}`; {hint}")
    found: dict[str, Any] = manifest["tasks"][names.index(name)]
    return found


def check_judges_rows(config: ModelConfig, task: dict[str, Any]) -> None:
    """Refuses a link task where the model cannot judge rows.

    Raises:
        ConfigError: it has no link head.
    """
    if is_link(task) and not config.link_head:
        raise ConfigError(
            f"task `{task['name']}` predicts rows of a table: that takes a model with `model.link_head: true` (kinds "
            "transformer, gnn and tree-lstm), trained on link tasks"
        )


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained run, ready to predict."""

    path: Path
    """Folder of the run."""
    config: RunConfig
    """Resolved configuration."""
    database: Database
    """The opened database."""
    manifest: dict[str, Any]
    """Its manifest."""
    arrays: DatabaseArrays
    """Its embeddings, on the device."""
    params: Any
    """Parameters, on the device."""
    step: int
    """Training step they are of."""
    forward: Forward
    """The jitted prediction."""


def load_run(run_dir: str | Path, *, step: str | int = "best", database: str | Path | None = None) -> Run:
    """Opens a run.

    Args:
        run_dir: folder that `train` made.
        step: `best` (by validation metric; the newest where none was validated), `last`, or a step number.
        database: another processed database than the one trained on, or its new place.

    Raises:
        CheckpointError: there is no such checkpoint, the run's database was built anew since, or the vectors of the
            database are not of the embedder the model was trained on.
        FileNotFoundError: the folder holds no run.
    """
    run_dir = Path(run_dir)
    config = RunConfig.load(run_dir / "config.yaml")
    opened = Database(str(database if database is not None else config.data.database))
    manifest = json.loads(opened.manifest)
    arrays = database_arrays(opened, are_spread=config.model.kind not in PUBLISHED_KINDS)
    graphdef, params = describe_model(config.model, arrays.column_vectors.shape[1], config.run.seed)
    template = jax.eval_shape(lambda params: init_state(params, config.optimizer), params)
    checkpoints = Checkpoints(run_dir, keep_last=config.train.keep_last)
    try:
        checkpoints.check_vectors(manifest["embedder"], opened.path)
        if isinstance(step, int):
            kind: Kind = "best" if step in checkpoints.steps("best") else "last"
            state, progress = checkpoints.restore(kind, template, step=step)
        else:
            state, progress = _restore_named(checkpoints, template, step)
    finally:
        checkpoints.close()
    if database is None and opened.build_id not in progress.builds.values():
        raise CheckpointError(
            f"{run_dir}: trained on build {', '.join(progress.builds.values())} of {config.data.database}, which is "
            f"build {opened.build_id} now; name a database explicitly to predict on it all the same"
        )
    return Run(
        path=run_dir,
        config=config,
        database=opened,
        manifest=manifest,
        arrays=jax.device_put(arrays),
        params=jax.device_put(evaluation_params(state)),
        step=progress.step,
        forward=make_forward(graphdef),
    )


def _restore_named(checkpoints: Checkpoints, template: Any, step: str) -> tuple[Any, Any]:
    if step not in ("best", "last"):
        raise ValueError(f"step `{step}`: expected best, last or a number")
    if step == "best" and checkpoints.steps("best"):
        try:
            return checkpoints.restore("best", template)
        except CheckpointError as error:
            warnings.warn(f"{error}; taking the newest step instead", RuntimeWarning, stacklevel=3)
    return checkpoints.restore("last", template)


def predict_split(
    run: Run,
    task: str,
    split: Split,
    *,
    batch_size: int | None = None,
    max_seeds: int | None = None,
    seeds: Seeds | None = None,
    database_cutoff: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pa.Table:
    """Predictions for every seed of a split.

    Args:
        run: from `load_run`.
        task: name of the task.
        split: train, val or test.
        batch_size: contexts at a time; None: that of the run's validation.
        max_seeds: at most so many seeds, drawn at random under the run's random number; None: all.
        seeds: entities and times to predict in place of a split's, without labels; see `tributary.seeds`.
        database_cutoff: microseconds since 1970 UTC; no row later than this is visible (frozen regime).
        progress: told (seeds done, seeds in all) after every batch.

    Returns:
        A row per seed in the order of the split: `seed_index` int64, `entity` (the user's key), `seed_time`
        timestamp[us] (null at the end of time), `split` (null for seeds of your own), `prediction` and `label` (user's
        units, class text, or boolean; label null where unknown), `probability` (boolean: of true; categorical: of the
        predicted class).
    """
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "max_seeds": max_seeds,
        "seeds": seeds,
        "database_cutoff": database_cutoff,
    }
    tables = list(_predicted_tables(run, task, split, progress=progress, **options))
    return pa.concat_tables(tables) if tables else task_schema(run, task).empty_table()


def write_predictions(
    run: Run,
    task: str,
    split: Split,
    out_parquet: str | Path,
    *,
    batch_size: int | None = None,
    max_seeds: int | None = None,
    seeds: Seeds | None = None,
    database_cutoff: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Streams `predict_split` to a parquet file, which appears under its name only when it is complete.

    Returns:
        Number of rows written.
    """
    out_parquet = Path(out_parquet)
    partial = out_parquet.with_name(f".{out_parquet.name}.partial")
    options: dict[str, Any] = {
        "batch_size": batch_size,
        "max_seeds": max_seeds,
        "seeds": seeds,
        "database_cutoff": database_cutoff,
    }
    num_rows = 0
    out_parquet.parent.mkdir(parents=True, exist_ok=True)
    try:
        with pq.ParquetWriter(partial, task_schema(run, task)) as writer:
            for table in _predicted_tables(run, task, split, progress=progress, **options):
                writer.write_table(table)
                num_rows += table.num_rows
        partial.replace(out_parquet)
    finally:
        partial.unlink(missing_ok=True)
    return num_rows


def _predicted_tables(
    run: Run,
    task: str,
    split: Split,
    *,
    batch_size: int | None,
    max_seeds: int | None,
    seeds: Seeds | None,
    database_cutoff: int | None,
    progress: Callable[[int, int], None] | None,
) -> Iterator[pa.Table]:
    if max_seeds is not None and max_seeds < 1:
        raise ValueError(f"max_seeds = {max_seeds}: expected at least 1")
    described = find_task(run.manifest, task)
    target = target_of(run.database, run.manifest, described)
    num_seeds = described["splits"][split] if seeds is None else len(seeds)
    is_part = max_seeds is not None and max_seeds < num_seeds
    total = min(num_seeds, max_seeds or num_seeds)
    size = min(batch_size or run.config.train.eval_batch_size, max(total, 1))
    # The first batches of a shuffled pass are a fair sample of the split; neighbouring seeds would be alike.
    options = {**sampler_options(run.config.data), "database_cutoff": database_cutoff, "shuffle": is_part}
    options |= {"seeds": seeds, "batch_size": size, "rng_seed": run.config.run.seed}
    sampler = Sampler(run.database, [task], split=split, **options)
    name = split if seeds is None else None
    done = 0
    drawn: list[pa.Table] = []
    with sampler:
        fitted = fitted_size(sampler)
        for batch in itertools.islice(sampler, math.ceil(total / size)):
            on_device = jax.device_put(trim(batch, fitted).device_fields())
            outputs = jax.device_get(run.forward(run.params, on_device, run.arrays))
            table = _to_table(run, described, target, name, batch, outputs).slice(0, total - done)
            done += table.num_rows
            if progress is not None:
                progress(done, total)
            if is_part:
                drawn.append(table)
            else:
                yield table
    if is_part:
        yield pa.concat_tables(drawn).sort_by("seed_index")


def _key_type(run: Run, task: dict[str, Any]) -> pa.DataType:
    table = run.manifest["tables"][task["anchor_table"]]
    if table["primary_key"] is None or table["num_rows"] == 0:
        return pa.int64()
    key = run.database.row_keys(table["name"], np.zeros(1, np.int64))[0]
    if isinstance(key, str):
        return pa.string()
    return pa.uint64() if table.get("key_kind") == "uint" else pa.int64()


def task_schema(run: Run, task: str) -> pa.Schema:
    """Columns of the predictions of a task."""
    described = find_task(run.manifest, task)
    return _schema(run, described, target_of(run.database, run.manifest, described))


def _schema(run: Run, task: dict[str, Any], target: Target) -> pa.Schema:
    fields = {
        "seed_index": pa.int64(),
        "entity": _key_type(run, task),
        "seed_time": pa.timestamp("us"),
        "split": pa.string(),
    }
    label = pa.field("label", answer_type(target.stype))
    return pa.schema([*fields.items(), *answer_fields(target), label])


def _to_table(
    run: Run, task: dict[str, Any], target: Target, split: Split | None, batch: Batch, outputs: dict[str, np.ndarray]
) -> pa.Table:
    real = ~batch.seed_is_padding
    schema = _schema(run, task, target)
    table = run.manifest["tables"][task["anchor_table"]]
    rows = batch.seed_row[real]
    times = batch.seed_time[real]
    columns = {
        "seed_index": pa.array(batch.seed_index[real]),
        "entity": rows if table["primary_key"] is None else run.database.row_keys(table["name"], rows),
        "seed_time": pa.array(times, pa.timestamp("us"), mask=times == END_OF_TIME),
        "split": pa.array([split] * len(rows), pa.string()),
        **decode(target, {name: values[real] for name, values in outputs.items()}),
        "label": decode_labels(target, run.database, task, batch).filter(pa.array(real)),
    }
    return pa.Table.from_arrays([pa.array(columns[f.name], f.type) for f in schema], schema=schema)
