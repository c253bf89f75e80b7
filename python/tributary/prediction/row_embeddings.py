"""Rows as vectors: what a run's model knows of a row at a time, without asking it anything.

`embed_rows` answers in a table, `write_row_embeddings` streams to parquet and goes on where it was interrupted. Which
vector it is, is described in `documentation/prediction.md`, "Rows as vectors".
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pyarrow as pa

from tributary.batch import END_OF_TIME, Batch
from tributary.data import Sampler, fitted_size, sampler_options, trim
from tributary.moments import moment_us
from tributary.prediction.occlusion import taken_out
from tributary.prediction.parts import Parts
from tributary.prediction.predict import at_step, key_type
from tributary.seeds import Lookup, Seeds

if TYPE_CHECKING:
    from tributary.prediction.predict import Run

_NO_TIME, _NEVER = np.iinfo(np.int64).min, np.iinfo(np.int64).max
"""What `Database.row_times` says of rows that are always visible, and of those that never are."""
_SHOWN = 20
"""Keys named in a message."""


def embed_rows(
    run: Run,
    table: str,
    *,
    keys: Sequence[Any] | None = None,
    time: Any = None,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pa.Table:
    """Vectors of rows.

    Args:
        run: from `tributary.load_run`.
        table: name of the table.
        keys: primary keys; None: every row of the table that has a time or needs none.
        time: the moment the rows are seen at, ISO text, datetime or microseconds UTC: nothing later is seen, and
            without keys later rows are left out; None: each at its own time, or the end of time.
        batch_size: contexts at a time; None: that of the run's validation.
        progress: told (rows done, rows in all).

    Returns:
        A row per key in the order of the keys, else of the table: `row` int64, `key`, `time` timestamp[us] (null at
        the end of time), `embedding` float32 [d_model].

    Raises:
        ValueError: there is no such table or key, a row is later than the time, or the table's rows cannot be seen at a
            time since no task asks about them.
    """
    job = _Job.plan(run, table, keys, time, batch_size)
    return pa.concat_tables([job.schema.empty_table(), *job.tables(0, progress)])


def write_row_embeddings(
    run: Run,
    table: str,
    out_parquet: str | Path,
    *,
    keys: Sequence[Any] | None = None,
    time: Any = None,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Streams `embed_rows` to a parquet file, which appears under its name only when it is complete.

    Whatever was made before an interruption is kept in parts, and the same call goes on behind them.

    Returns:
        Number of rows written.

    Raises:
        PartsError: parts of something else lie there, or another process is writing the file.
    """
    job = _Job.plan(run, table, keys, time, batch_size)
    with Parts(out_parquet, job.schema, job.identity()) as parts:
        for found in job.tables(parts.num_rows, progress):
            parts.append(found)
        parts.finish()
        return parts.num_rows


@dataclasses.dataclass(frozen=True)
class _Job:
    """Which rows are seen, and when."""

    run: Run
    table: Mapping[str, Any]
    """Of the manifest."""
    rows: np.ndarray
    """int64 [N]."""
    time_us: int | None
    """Of all of them; None: each at its own."""
    task: Mapping[str, Any] | None
    """The task whose questions bring rows at a time; None: rows come without a question."""
    size: int
    """Contexts of a batch."""
    is_whole: bool
    """All rows, in the order in which the sampler has them."""

    @staticmethod
    def plan(run: Run, table: str, keys: Sequence[Any] | None, time: Any, batch_size: int | None) -> _Job:
        described = _find_table(run, table)
        time_us = None if time is None else moment_us(time)
        own = run.database.row_times(table)
        is_there = own != _NEVER if time_us is None else (own == _NO_TIME) | (own <= time_us)
        is_there &= own != _NEVER
        if keys is None:
            rows = np.flatnonzero(is_there)
        else:
            lookup = Lookup(run.database, described)
            lookup.add(list(keys))
            rows = lookup.finish()
            _check_times(run, table, rows[~is_there[rows]], own, time)
        return _Job(
            run=run,
            table=described,
            rows=rows,
            time_us=time_us,
            task=None if time_us is None else _asking_task(run, described),
            size=min(batch_size or run.config.train.eval_batch_size, max(len(rows), 1)),
            is_whole=keys is None,
        )

    @property
    def schema(self) -> pa.Schema:
        width = self.run.config.model.d_model
        return pa.schema(
            [
                ("row", pa.int64()),
                ("key", key_type(self.run, self.table["id"])),
                ("time", pa.timestamp("us")),
                ("embedding", pa.list_(pa.float32(), width)),
            ]
        )

    def identity(self) -> dict[str, Any]:
        """What the vectors follow from."""
        run = self.run
        return {
            "parameters of the run": run.digest,
            "step": run.step,
            "database build": run.database.build_id,
            "table": self.table["name"],
            "rows": hashlib.blake2b(np.ascontiguousarray(self.rows).tobytes(), digest_size=16).hexdigest(),
            "time": self.time_us,
            "task": None if self.task is None else self.task["name"],
            "batch size": self.size,
            "sampling": sampler_options(run.config.data) | {"threads": None, "prefetch": None},
            "random number": run.config.run.seed,
        }

    def tables(self, num_done: int, progress: Callable[[int, int], None] | None) -> Iterator[pa.Table]:
        """Vectors batch by batch, behind as many as there are already."""
        total = len(self.rows)
        if progress is not None and num_done:
            progress(num_done, total)
        if num_done >= total:
            return
        with self._open_sampler() as sampler:
            fitted = fitted_size(sampler)
            for batch in self._batches(sampler, num_done // self.size):
                found = self._table(batch, self._vectors(trim(batch, fitted)))
                num_done += found.num_rows
                if progress is not None:
                    progress(num_done, total)
                yield found

    def _open_sampler(self) -> Sampler:
        # Labels of the past are of a task; what a row is, is not.
        options = sampler_options(self.run.config.data) | {"shuffle": False, "examples": 0, "history": False}
        options |= {"rng_seed": self.run.config.run.seed, "split": "all"}
        if self.task is None:
            size = self.size if self.is_whole else 1
            return Sampler(self.run.database, tables=[self.table["name"]], batch_size=size, **options)
        seeds = Seeds(self.rows, np.full(len(self.rows), self.time_us, np.int64))
        return Sampler(self.run.database, [self.task["name"]], seeds=seeds, batch_size=self.size, **options)

    def _batches(self, sampler: Sampler, first: int) -> Iterator[Batch]:
        """Contexts whose row 0, or row 1 behind a question, is the row to be seen."""
        num_batches = math.ceil(len(self.rows) / self.size)
        if self.task is None and not self.is_whole:
            # rows without a place in time are no seeds: a row's place among the seeds is its rank among the others
            place = np.cumsum(self.run.database.row_times(self.table["name"]) != _NEVER) - 1
            for number in range(first, num_batches):
                rows = self.rows[number * self.size : (number + 1) * self.size]
                yield _joined([sampler.batch(int(place[row])) for row in rows], self.size)
            return
        sampler.set_state(at_step(sampler.get_state(), first, self.size))
        for batch in itertools.islice(sampler, num_batches - first):
            yield batch if self.task is None else self._without_question(batch)

    def _without_question(self, batch: Batch) -> Batch:
        """Contexts as if the row itself had been the seed."""
        is_gone = np.zeros(batch.row_table.shape, bool)
        is_gone[:, 0] = True
        rest = taken_out(batch, batch.cell_row == 0, is_gone)
        seed_task = np.full_like(batch.seed_task, len(self.run.manifest["tasks"]) + self.table["id"])
        return dataclasses.replace(rest, row_hop=np.where(rest.row_hop > 0, rest.row_hop - 1, -1), seed_task=seed_task)

    def _vectors(self, batch: Batch) -> np.ndarray:
        on_device = jax.device_put(batch.device_fields())
        found = self.run.row_states(self.run.params, on_device, self.run.arrays)
        return np.asarray(jax.device_get(found[:, 0 if self.task is None else 1]))

    def _table(self, batch: Batch, vectors: np.ndarray) -> pa.Table:
        real = ~batch.seed_is_padding
        rows, times = batch.seed_row[real], batch.seed_time[real]
        has_keys = self.table["primary_key"] is not None
        keys = self.run.database.row_keys(self.table["name"], rows) if has_keys else rows
        values = pa.array(np.ascontiguousarray(vectors[real]).ravel())
        columns = [
            pa.array(rows),
            pa.array(keys, self.schema.field("key").type),
            pa.array(times, pa.timestamp("us"), mask=times == END_OF_TIME),
            pa.FixedSizeListArray.from_arrays(values, vectors.shape[1]),
        ]
        return pa.Table.from_arrays(columns, schema=self.schema)


def _joined(batches: Sequence[Batch], size: int) -> Batch:
    """Single contexts as one batch of a size, filled up with padding."""
    padding = dataclasses.replace(batches[-1], seed_is_padding=np.ones(1, bool))
    all_of_them = [*batches, *[padding] * (size - len(batches))]
    return Batch(**{name: np.concatenate([getattr(each, name) for each in all_of_them]) for name in Batch.spec()})


def _find_table(run: Run, name: str) -> Mapping[str, Any]:
    tables = {table["name"]: table for table in run.manifest["tables"]}
    if name not in tables:
        close = difflib.get_close_matches(name, tables, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"it has {', '.join(tables)}"
        raise ValueError(f"database `{run.manifest['name']}` has no table `{name}`; {hint}")
    found: Mapping[str, Any] = tables[name]
    return found


def _asking_task(run: Run, table: Mapping[str, Any]) -> Mapping[str, Any]:
    """A task whose questions are about rows of the table at a time; of several the one that hides fewest columns."""
    tasks = [
        task
        for task in run.manifest["tasks"]
        if task["kind"] == "table" and task["anchor_table"] == table["id"] and task["observation_time_column"]
    ]
    if not tasks:
        raise ValueError(
            f"table `{table['name']}`: no task of {run.database.path} asks about its rows at a time, which is how they "
            f"are seen at one; leave the time out (each row is then seen at its own), or add a task about them"
        )
    return min(tasks, key=lambda task: len(task["remove_columns"]))


def _check_times(run: Run, table: str, rows: np.ndarray, own: np.ndarray, time: Any) -> None:
    """Raises where rows that were asked for cannot be seen."""
    if not len(rows):
        return
    keys = run.database.row_keys(table, rows[:_SHOWN])
    named = ", ".join(
        f"{key!r} ({'no time' if own[row] == _NEVER else np.datetime64(int(own[row]), 'us')})"
        for key, row in zip(keys, rows, strict=False)
    )
    dots = ", ..." if len(rows) > _SHOWN else ""
    when = "" if time is None else f" at {time}"
    raise ValueError(f"table `{table}`: {len(rows):,} rows cannot be seen{when}: {named}{dots}; leave them out")
