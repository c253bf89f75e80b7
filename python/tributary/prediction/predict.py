"""Predictions of a trained run, in the units and keys of the user's database.

`load_run` opens run, database and parameters; `predict_split` answers for a whole split or for seeds of your own;
`write_predictions` streams the same to parquet and goes on where it was interrupted. Described in
`documentation/prediction.md`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from flax import nnx

from tributary.answers import (
    Extras,
    Target,
    answer_fields,
    answer_type,
    check_extras,
    decode,
    decode_labels,
    decode_links,
    link_fields,
    target_of,
)
from tributary.batch import END_OF_TIME, Batch, DatabaseArrays
from tributary.config import PUBLISHED_KINDS, RunConfig
from tributary.data import Database, Sampler, database_arrays, fitted_size, sampler_options, trim
from tributary.links import Ranker, check_judges_rows, is_link
from tributary.metadata.manifest import find_task
from tributary.model.forward import Forward, describe_model, make_forward
from tributary.prediction.calibration import (
    MAX_SEEDS,
    Calibration,
    make_calibration,
    read_calibration,
    write_calibration,
)
from tributary.prediction.parts import Parts
from tributary.runs.checkpoint import CheckpointError, Checkpoints, Kind, leaf_digests
from tributary.runs.learned import find_learned, rescaled, translate
from tributary.seeds import Seeds, seeds_from_keys
from tributary.training.optim import evaluation_params, init_state

if TYPE_CHECKING:
    from tributary.prediction.explain import Explanation

Split = Literal["train", "val", "test"]


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained run, ready to predict."""

    path: Path
    """Folder of the run."""
    config: RunConfig
    """Resolved configuration, its section `data` that of the opened database alone."""
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
    graphdef: nnx.GraphDef[Any]
    """The model without its parameters."""
    targets: Mapping[str, Target]
    """Units of the answers, by name of the task."""
    rescale: Callable[[Batch], Batch] | None = None
    """What is done to a batch before the model reads it; None: nothing, its z-scores are those the model learned."""

    @functools.cached_property
    def digest(self) -> str:
        """Digest of the parameters."""
        found = json.dumps(leaf_digests(jax.device_get(self.params)), sort_keys=True)
        return hashlib.blake2b(found.encode(), digest_size=16).hexdigest()

    @functools.cached_property
    def row_states(self) -> Callable[[Any, Batch, DatabaseArrays], jax.Array]:
        """(params, device fields, arrays) -> float32 [B, R, D], jitted: what the model knows of every row."""

        def states(params: Any, batch: Batch, arrays: DatabaseArrays) -> jax.Array:
            batch = batch if self.rescale is None else self.rescale(batch)
            model: Any = nnx.merge(self.graphdef, params)
            return jnp.asarray(model.row_states(batch, arrays), jnp.float32)

        return jax.jit(states)

    def predict(
        self,
        task: str,
        *,
        keys: Sequence[Any] | None = None,
        time: Any = None,
        split: Split = "test",
        seeds: Seeds | None = None,
        max_seeds: int | None = None,
        quantiles: Sequence[float] = (),
        top: int = 0,
    ) -> pa.Table:
        """Predictions for keys at a time, for seeds of `tributary.seeds_from_table`, or for a split.

        Args:
            task: name of the task.
            keys: primary keys of its anchor table; no label is needed.
            time: one moment for all keys, or one per key; None: each at its row's own.
            split: where neither keys nor seeds are given.
            seeds: in place of keys and times.
            max_seeds: as in `predict_split`, as are the others.
            quantiles: levels between 0 and 1.
            top: classes to name.

        Example:
            ```
            run = tributary.load_run("runs/demo")
            table = run.predict("flight-late", keys=[17, 42], time="2013-11-01 08:00")
            print(table.to_pandas())
            ```
        """
        seeds = asked_seeds(self, task, keys, time, seeds)
        return predict_split(self, task, split, max_seeds=max_seeds, seeds=seeds, quantiles=quantiles, top=top)

    def explain(
        self,
        task: str,
        *,
        keys: Sequence[Any] | None = None,
        time: Any = None,
        split: Split = "test",
        seeds: Seeds | None = None,
        max_seeds: int | None = None,
    ) -> Explanation:
        """What changes the answers: see `tributary.prediction.explain.explain`; who is asked is said as in `predict`.

        Example:
            ```
            why = run.explain("flight-late", keys=[17, 42], time="2013-11-01 08:00")
            print(why.paths.to_pandas())
            ```
        """
        from tributary.prediction.explain import explain

        seeds = asked_seeds(self, task, keys, time, seeds)
        return explain(self, task, split, seeds=seeds, max_seeds=max_seeds)

    def embed_rows(self, table: str, *, keys: Sequence[Any] | None = None, time: Any = None) -> pa.Table:
        """Rows as vectors: see `tributary.prediction.row_embeddings.embed_rows`.

        Example:
            ```
            vectors = run.embed_rows("planes")
            ```
        """
        from tributary.prediction.row_embeddings import embed_rows

        return embed_rows(self, table, keys=keys, time=time)


def asked_seeds(run: Run, task: str, keys: Sequence[Any] | None, time: Any, seeds: Seeds | None) -> Seeds | None:
    """Seeds of keys and times, or those given; None where neither is.

    Raises:
        ValueError: both are given, or a time without keys.
    """
    if keys is not None and seeds is not None:
        raise ValueError("keys and seeds are given: say one of them")
    if keys is None:
        if time is not None:
            raise ValueError("a time is the moment keys are asked about; give keys, too")
        return seeds
    return seeds_from_keys(run.database, task, keys, time)


def load_run(run_dir: str | Path, *, step: str | int = "best", database: str | Path | None = None) -> Run:
    """Opens a run.

    Args:
        run_dir: folder that `train` made.
        step: `best` (by validation metric; the newest where none was validated), `last`, or a step number.
        database: name or path of one of several databases it was trained on, of another one, or its new place.

    Raises:
        CheckpointError: there is no such checkpoint, the run's database was built anew since, the vectors of the
            database are not of the embedder the model was trained on, or its columns are of other stypes.
        ConfigError: the run has several databases, and none is named.
        FileNotFoundError: the folder holds no run.
    """
    run_dir = Path(run_dir)
    config = RunConfig.load(run_dir / "config.yaml")
    is_own = database is None or str(database) in config.data.databases
    config = config.model_copy(update={"data": config.data.part(database)})
    opened = Database(str(database if database is not None and not is_own else config.data.database))
    manifest = json.loads(opened.manifest)
    are_spread = config.model.kind not in PUBLISHED_KINDS
    arrays = database_arrays(opened, are_spread=are_spread)
    graphdef, params = describe_model(config.model, arrays.column_vectors.shape[1])
    template = jax.eval_shape(lambda params: init_state(params, config.optimizer, config.train.freeze), params)
    checkpoints = Checkpoints(run_dir)
    try:
        checkpoints.check_vectors(manifest["embedder"], opened.path)
        if isinstance(step, int):
            kind: Kind = "best" if step in checkpoints.steps("best") else "last"
            state, progress = checkpoints.restore(kind, template, step=step)
        else:
            state, progress = _restore_named(checkpoints, template, step)
    finally:
        checkpoints.close()
    if is_own and opened.build_id not in progress.builds.values():
        raise CheckpointError(
            f"{run_dir}: trained on build {', '.join(progress.builds.values())} of {config.data.database}, which is "
            f"build {opened.build_id} now; name a database explicitly to predict on it all the same"
        )
    learned = find_learned(
        run_dir,
        opened,
        progress.builds,
        are_spread=are_spread,
        is_trained=are_spread or progress.step > 0,
    )
    translation = translate(learned, opened, arrays)
    rescale = None
    if translation.scale is not None:
        rescale = functools.partial(rescaled, scale=translation.scale, shift=translation.shift)
    return Run(
        path=run_dir,
        config=config,
        database=opened,
        manifest=manifest,
        arrays=jax.device_put(translation.arrays),
        params=jax.device_put(evaluation_params(state)),
        step=progress.step,
        forward=make_forward(graphdef, rescale),
        graphdef=graphdef,
        targets=translation.targets,
        rescale=rescale,
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
    quantiles: Sequence[float] = (),
    top: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> pa.Table:
    """Predictions for every seed of a split, or for seeds of your own.

    Args:
        run: from `load_run`.
        task: name of the task.
        split: train, val or test.
        batch_size: contexts at a time; None: that of the run's validation.
        max_seeds: at most so many seeds, drawn at random under the run's random number; None: all.
        seeds: entities and times to predict in place of a split's, without labels; see `tributary.seeds`.
        database_cutoff: microseconds since 1970 UTC; no row later than this is visible (frozen regime).
        quantiles: of numbers and times: levels between 0 and 1, calibrated on the validation split.
        top: of categories and texts: so many of the likeliest classes are named; more than there are: all.
        progress: told (seeds done, seeds in all) after every batch.

    Returns:
        A row per seed in the order of the split: `seed_index` int64, `entity` (the user's key), `seed_time`
        timestamp[us] (null at the end of time), `split` (null for seeds of your own), `prediction` and `label` (user's
        units, class text, or boolean; label null where unknown), `probability` (boolean: of true; categorical: of the
        predicted class); before the label a column `quantile_0.05` per level, `top_classes` and `top_probabilities`.

    Raises:
        ValueError: the target has no quantiles or no classes, or too few validation labels for a level.
    """
    extras = _extras(run, task, quantiles, top, database_cutoff)
    job = _Job.plan(run, task, split, batch_size, max_seeds, seeds, database_cutoff, extras)
    tables = list(job.tables(0, progress))
    if not tables:
        return job.schema.empty_table()
    found = pa.concat_tables(tables)
    return found.sort_by("seed_index") if job.is_part else found


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
    quantiles: Sequence[float] = (),
    top: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Streams `predict_split` to a parquet file, which appears under its name only when it is complete.

    Whatever was predicted before an interruption is kept in parts, and the same call goes on behind them: the file is
    the same to the byte.

    Returns:
        Number of rows written.

    Raises:
        PartsError: parts of another prediction lie there, or another process is writing the file.
    """
    extras = _extras(run, task, quantiles, top, database_cutoff)
    job = _Job.plan(run, task, split, batch_size, max_seeds, seeds, database_cutoff, extras)
    with Parts(out_parquet, job.schema, job.identity()) as parts:
        for table in job.tables(parts.num_rows, progress):
            parts.append(table)
        parts.finish(sort_by="seed_index" if job.is_part else None)
        return parts.num_rows


def calibration_of(run: Run, task: str, progress: Callable[[int, int], None] | None = None) -> Calibration:
    """How far off a run is on the validation split: kept in the run's folder, made where it is not there yet.

    Raises:
        ValueError: no validation seed has a label.
    """
    made_with = {"step": run.step, "parameters": run.digest}
    found = read_calibration(run.path, task, made_with)
    if found is not None:
        return found
    described = find_task(run.manifest, task)
    table = None
    if described["splits"]["val"] > 0:
        table = predict_split(run, task, "val", max_seeds=MAX_SEEDS, progress=progress)
        table = table.filter(pc.is_valid(table["label"]))
    if table is None or table.num_rows == 0:
        raise ValueError(
            f"task `{task}`: no validation seed of {run.database.path} has a label, from which quantiles would follow; "
            f"leave them out, or give the database the run was trained on"
        )
    calibration = make_calibration(table["prediction"].to_numpy(), table["label"].to_numpy())
    try:
        write_calibration(run.path, task, calibration, made_with)
    except OSError as error:
        warnings.warn(f"the calibration is not kept: {error}", RuntimeWarning, stacklevel=2)
    return calibration


def _extras(run: Run, task: str, quantiles: Sequence[float], top: int, database_cutoff: int | None) -> Extras:
    described = find_task(run.manifest, task)
    extras = Extras(top=top, levels=tuple(quantiles))
    check_extras(task, run.targets[described["name"]], extras)
    if not extras.levels:
        return extras
    if database_cutoff is not None:
        raise ValueError("quantiles are calibrated where each seed sees all up to its own time: leave out the cut-off")
    calibration = calibration_of(run, task)
    calibration.quantiles(np.zeros(1), extras.levels)  # says which level has too few seeds
    return dataclasses.replace(extras, calibration=calibration)


@dataclasses.dataclass(frozen=True)
class _Job:
    """One prediction: who is asked, and what is answered."""

    run: Run
    task: dict[str, Any]
    split: Split
    seeds: Seeds | None
    total: int
    """Seeds to answer for."""
    size: int
    """Contexts of a batch."""
    is_part: bool
    """They are a random part of the split, which comes shuffled."""
    database_cutoff: int | None
    extras: Extras
    own: Target
    """Units of the database's labels."""
    ranker: Ranker | None
    """Answers of a link task."""

    @staticmethod
    def plan(
        run: Run,
        task: str,
        split: Split,
        batch_size: int | None,
        max_seeds: int | None,
        seeds: Seeds | None,
        database_cutoff: int | None,
        extras: Extras,
    ) -> _Job:
        if max_seeds is not None and max_seeds < 1:
            raise ValueError(f"max_seeds = {max_seeds}: expected at least 1")
        described = find_task(run.manifest, task)
        check_judges_rows(run.config.model, described)
        num_seeds = described["splits"][split] if seeds is None else len(seeds)
        total = min(num_seeds, max_seeds or num_seeds)
        return _Job(
            run=run,
            task=described,
            split=split,
            seeds=seeds,
            total=total,
            size=min(batch_size or run.config.train.eval_batch_size, max(total, 1)),
            is_part=total < num_seeds,
            database_cutoff=database_cutoff,
            extras=extras,
            own=target_of(run.database, run.manifest, described),
            ranker=Ranker(run.database, task, database_cutoff) if is_link(described) else None,
        )

    @property
    def target(self) -> Target:
        """Units of the answers."""
        return self.run.targets[self.task["name"]]

    @property
    def schema(self) -> pa.Schema:
        """Columns of the answer."""
        fields = {
            "seed_index": pa.int64(),
            "entity": key_type(self.run, self.task["anchor_table"]),
            "seed_time": pa.timestamp("us"),
            "split": pa.string(),
        }
        if self.ranker is not None:
            keys = key_type(self.run, self.task["target_table"])
            return pa.schema([*fields.items(), *link_fields(keys)])
        label = pa.field("label", answer_type(self.target.stype))
        return pa.schema([*fields.items(), *answer_fields(self.target, self.extras), label])

    def identity(self) -> dict[str, Any]:
        """What the answers follow from."""
        run = self.run
        return {
            "parameters of the run": run.digest,
            "step": run.step,
            "database build": run.database.build_id,
            "task": self.task["name"],
            "split": self.split if self.seeds is None else None,
            "seeds": None if self.seeds is None else self.seeds.digest,
            "number of seeds": self.total,
            "batch size": self.size,
            "quantiles": list(self.extras.levels),
            "top": self.extras.top,
            "cut-off": self.database_cutoff,
            "sampling": sampler_options(run.config.data) | {"threads": None, "prefetch": None},
            "random number": run.config.run.seed,
        }

    def open_sampler(self) -> Sampler:
        """A sampler of the seeds, at the first of them."""
        # The first batches of a shuffled pass are a fair sample of the split; neighbouring seeds would be alike.
        options = sampler_options(self.run.config.data) | {"shuffle": self.is_part, "seeds": self.seeds}
        options |= {"database_cutoff": self.database_cutoff, "batch_size": self.size}
        name = self.task["name"]
        return Sampler(self.run.database, [name], split=self.split, rng_seed=self.run.config.run.seed, **options)

    def tables(self, num_done: int, progress: Callable[[int, int], None] | None) -> Iterator[pa.Table]:
        """Answers batch by batch, behind as many as there are already."""
        if progress is not None and num_done:
            progress(num_done, self.total)
        if num_done >= self.total:
            return
        with self.open_sampler() as sampler:
            fitted = fitted_size(sampler)
            first = num_done // self.size
            sampler.set_state(at_step(sampler.get_state(), first, self.size))
            batches = itertools.islice(sampler, math.ceil(self.total / self.size) - first)
            for batch, outputs in _answered(self.run, batches, fitted):
                table = self._table(batch, outputs).slice(0, self.total - num_done)
                num_done += table.num_rows
                if progress is not None:
                    progress(num_done, self.total)
                yield table

    def _table(self, batch: Batch, outputs: dict[str, np.ndarray]) -> pa.Table:
        real = ~batch.seed_is_padding
        run, schema = self.run, self.schema
        table = run.manifest["tables"][self.task["anchor_table"]]
        rows, times = batch.seed_row[real], batch.seed_time[real]
        name = self.split if self.seeds is None else None
        columns = {
            "seed_index": pa.array(batch.seed_index[real]),
            "entity": rows if table["primary_key"] is None else run.database.row_keys(table["name"], rows),
            "seed_time": pa.array(times, pa.timestamp("us"), mask=times == END_OF_TIME),
            "split": pa.array([name] * len(rows), pa.string()),
            **self._answers(batch, outputs, real),
        }
        return pa.Table.from_arrays([pa.array(columns[f.name], f.type) for f in schema], schema=schema)

    def _answers(self, batch: Batch, outputs: dict[str, np.ndarray], real: np.ndarray) -> dict[str, pa.Array]:
        """What is answered to the contexts that are no padding, and what is known."""
        if self.ranker is not None:
            keys = key_type(self.run, self.task["target_table"])
            options = {"are_own": self.seeds is not None}
            columns = decode_links(self.ranker, self.run.database, outputs, batch, keys, **options)
            return {name: values.filter(pa.array(real)) for name, values in columns.items()}
        return {
            **decode(self.target, {name: values[real] for name, values in outputs.items()}, self.extras),
            "label": decode_labels(self.own, self.run.database, self.task, batch).filter(pa.array(real)),
        }


def _answered(
    run: Run, batches: Iterable[Batch], fitted: tuple[int, int]
) -> Iterator[tuple[Batch, dict[str, np.ndarray]]]:
    """Batches with the model's outputs; while one is read, the device has the next."""
    pending: tuple[Batch, dict[str, jax.Array]] | None = None
    for batch in batches:
        on_device = jax.device_put(trim(batch, fitted).device_fields())
        begun = (batch, run.forward(run.params, on_device, run.arrays))
        if pending is not None:
            yield pending[0], jax.device_get(pending[1])
        pending = begun
    if pending is not None:
        yield pending[0], jax.device_get(pending[1])


def at_step(state: str, step: int, batch_size: int) -> str:
    """The state of a sampler, moved to a step of a single process."""
    return json.dumps({**json.loads(state), "step": step, "position": step * batch_size})


def key_type(run: Run, table_id: int) -> pa.DataType:
    """Type of the primary keys of a table; row numbers where it has none."""
    table = run.manifest["tables"][table_id]
    if table["primary_key"] is None or table["num_rows"] == 0:
        return pa.int64()
    key = run.database.row_keys(table["name"], np.zeros(1, np.int64))[0]
    if isinstance(key, str):
        return pa.string()
    return pa.uint64() if table.get("key_kind") == "uint" else pa.int64()
