"""Why a run answers as it does: how its answer changes when a cell, a row or a path is taken out of the context.

Occlusion, not attention or gradients: what counts is the answer without it. `explain` answers in tables,
`write_explanations` streams to parquet, and draws some contexts as a page. Described in `documentation/prediction.md`,
"Explanations".

Source: occlusion, arXiv 1311.2901, section 4.2. We differ: what is taken out is gone, not replaced by a grey value,
since a missing cell is something that the model knows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tributary.answers import Target, measured, unit_of
from tributary.batch import Batch
from tributary.data import Sampler, fitted_size, sampler_options, trim
from tributary.metadata import find_task
from tributary.prediction.occlusion import KINDS, Removal, removals, without
from tributary.prediction.predict import Split, key_type

if TYPE_CHECKING:
    from tributary.prediction.predict import Run
    from tributary.seeds import Seeds

CONTEXTS = 64
"""Contexts of a batch: the whole one and what is taken out of it."""
CELLS = 64
"""Cells of a seed that are taken out alone."""
PAGE_SEEDS = 8
"""Seeds that a page shows."""


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What changes the answers."""

    rows: pa.Table
    """A row per seed and thing taken out: `seed_index`, `entity`, `kind` (path, column, row or cell), `path`, `table`,
    `row_key`, `column`, `value`, `answer` (with everything), `change` (what the thing adds to the answer: the answer
    less that without it), `rank` (by the size of the change, from 1, within seed and kind)."""
    paths: pa.Table
    """A row per path and per column at the end of one, the weightiest first: `kind`, `path`, `table`, `column`,
    `num_seeds` (that have it), `mean_change`, `mean_size` (of the change, over all seeds explained)."""
    unit: str
    """Of `answer` and `change`."""


@dataclasses.dataclass(frozen=True)
class Explained:
    """One seed."""

    seed_index: int
    entity: Any
    time: str | None
    answer: float
    """With everything, in `Explanation.unit`."""
    answer_text: str
    """As the user reads it."""
    removals: Sequence[Removal]
    changes: np.ndarray
    """float64: of each removal."""


def explain(
    run: Run,
    task: str,
    split: Split = "test",
    *,
    seeds: Seeds | None = None,
    max_seeds: int | None = None,
    cells: int | None = CELLS,
    progress: Callable[[int, int], None] | None = None,
) -> Explanation:
    """What changes the answers of a run.

    Args:
        run: from `tributary.load_run`.
        task: name of the task.
        split: train, val or test.
        seeds: entities and times in place of a split's.
        max_seeds: at most so many seeds, drawn at random; None: all.
        cells: so many cells of a seed are taken out alone, those whose row and column change the answer most; None:
            all.
        progress: told (seeds done, seeds in all).
    """
    schema = _schema(run, task)
    totals = _Totals()
    tables = []
    for explained in explanations(run, task, split, seeds=seeds, max_seeds=max_seeds, cells=cells, progress=progress):
        totals.add(explained)
        tables.append(_table(explained, schema))
    rows = pa.concat_tables(tables) if tables else schema.empty_table()
    return Explanation(rows, totals.table(), unit_of(run.targets[task]))


def write_explanations(
    run: Run,
    task: str,
    split: Split,
    out_parquet: str | Path,
    *,
    html: str | Path | None = None,
    seeds: Seeds | None = None,
    max_seeds: int | None = None,
    cells: int | None = CELLS,
    progress: Callable[[int, int], None] | None = None,
) -> Explanation:
    """Streams `explain` to a parquet file, and the weight of paths to another beside it (`NAME.paths.parquet`).

    Args:
        run: as in `explain`, like the others.
        task: name of the task.
        split: train, val or test.
        out_parquet: the file; it appears under its name only when it is complete.
        html: a page that draws the first seeds.
        seeds: as in `explain`.
        max_seeds: as in `explain`.
        cells: as in `explain`.
        progress: as in `explain`.

    Returns:
        The same without its rows, which are in the file.
    """
    out_parquet = Path(out_parquet)
    partial = out_parquet.with_name(f".{out_parquet.name}.partial")
    schema, totals = _schema(run, task), _Totals()
    shown: list[Explained] = []
    out_parquet.parent.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"seeds": seeds, "max_seeds": max_seeds, "cells": cells, "progress": progress}
    try:
        with pq.ParquetWriter(partial, schema) as writer:
            for explained in explanations(run, task, split, **options):
                totals.add(explained)
                shown += [explained] if len(shown) < PAGE_SEEDS else []
                writer.write_table(_table(explained, schema))
        paths = totals.table()
        pq.write_table(paths, out_parquet.with_suffix(".paths.parquet"))
        partial.replace(out_parquet)
    finally:
        partial.unlink(missing_ok=True)
    explanation = Explanation(schema.empty_table(), paths, unit_of(run.targets[task]))
    if html is not None:
        from tributary.prediction.explain_page import write_page

        write_page(html, task, shown, explanation, totals.num_seeds)
    return explanation


def explanations(
    run: Run,
    task: str,
    split: Split = "test",
    *,
    seeds: Seeds | None = None,
    max_seeds: int | None = None,
    cells: int | None = CELLS,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Explained]:
    """`explain`, one seed after the other, in the order of the seeds.

    Raises:
        ValueError: `max_seeds` or `cells` is below what can be asked for.
    """
    if max_seeds is not None and max_seeds < 1:
        raise ValueError(f"max_seeds = {max_seeds}: expected at least 1")
    if cells is not None and cells < 0:
        raise ValueError(f"cells = {cells}: expected at least 0")
    described = find_task(run.manifest, task)
    unit_of(run.targets[task])  # refuses what cannot be explained
    num_seeds = described["splits"][split] if seeds is None else len(seeds)
    total = min(num_seeds, max_seeds or num_seeds)
    options = sampler_options(run.config.data) | {"shuffle": total < num_seeds, "seeds": seeds, "batch_size": 1}
    if not total:
        return
    with Sampler(run.database, [task], split=split, rng_seed=run.config.run.seed, **options) as sampler:
        fitted = fitted_size(sampler)
        order = range(total)
        if total < num_seeds:  # drawn in any order, explained in that of the split
            order = sorted(order, key=lambda position: int(sampler.batch(position).seed_index[0]))  # type: ignore[assignment]
        for done, position in enumerate(order, 1):
            batch, context = sampler.batch(position), sampler.explain(position)
            yield _explained(run, run.targets[task], trim(batch, fitted), context, cells)
            if progress is not None:
                progress(done, total)


def _explained(run: Run, target: Target, batch: Batch, context: Mapping[str, Any], cells: int | None) -> Explained:
    """One seed: first paths, columns and rows, then the cells that these speak for."""
    found = removals(batch, context)
    first = [removal for removal in found if removal.kind != "cell"]
    answers, outputs = _answers(run, target, batch, [None, *first], None)
    whole, changes = answers[0], answers[0] - answers[1:]
    alone = _worth_trying([removal for removal in found if removal.kind == "cell"], first, changes, cells)
    if alone:
        single, _ = _answers(run, target, batch, alone, outputs)
        changes = np.concatenate([changes, whole - single])
    _, text = measured(target, {name: values[:1] for name, values in outputs.items()}, outputs)
    time = context["seed_time"]
    return Explained(int(batch.seed_index[0]), context["entity"], time, float(whole), text, [*first, *alone], changes)


def _worth_trying(
    single: list[Removal], groups: Sequence[Removal], changes: np.ndarray, limit: int | None
) -> list[Removal]:
    """The cells whose row and column changed the answer most."""
    if limit is None or len(single) <= limit:
        return single
    weight: dict[int, float] = {}
    for group, change in zip(groups, changes, strict=True):
        if group.kind in ("row", "column"):
            for cell in group.cells:
                weight[int(cell)] = weight.get(int(cell), 0.0) + abs(float(change))
    chosen = sorted(single, key=lambda removal: -weight.get(int(removal.cells[0]), 0.0))[:limit]
    return sorted(chosen, key=lambda removal: int(removal.cells[0]))


def _answers(
    run: Run, target: Target, batch: Batch, taken: Sequence[Removal | None], whole: Mapping[str, np.ndarray] | None
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Answers float64 [N] without each of the removals, and the outputs for the first of them.

    Args:
        run: the run.
        target: of the task.
        batch: a single context.
        taken: N of them.
        whole: outputs for the whole context; None: those of the first removal.
    """
    parts = []
    for begin in range(0, len(taken), CONTEXTS):
        several = without(batch, taken[begin : begin + CONTEXTS], CONTEXTS)
        parts.append(run.forward(run.params, jax.device_put(several.device_fields()), run.arrays))
    fetched = jax.device_get(parts)
    outputs = {name: np.concatenate([part[name] for part in fetched])[: len(taken)] for name in fetched[0]}
    first = {name: values[:1] for name, values in outputs.items()}
    answers, _ = measured(target, outputs, first if whole is None else whole)
    return answers, first if whole is None else dict(whole)


# --- Tables --------------------------------------------------------------------------------------------------------


def _schema(run: Run, task: str) -> pa.Schema:
    described = find_task(run.manifest, task)
    texts = ("kind", "path", "table", "row_key", "column", "value")
    return pa.schema(
        [
            ("seed_index", pa.int64()),
            ("entity", key_type(run, described["anchor_table"])),
            *((name, pa.string()) for name in texts),
            ("answer", pa.float64()),
            ("change", pa.float64()),
            ("rank", pa.int32()),
        ]
    )


def ranked(explained: Explained) -> Iterator[tuple[Removal, float, int]]:
    """Removals with change and rank, kind by kind, the largest changes first."""
    for kind in KINDS:
        of_kind = [place for place, removal in enumerate(explained.removals) if removal.kind == kind]
        of_kind.sort(key=lambda place: -abs(float(explained.changes[place])))
        for rank, place in enumerate(of_kind, 1):
            yield explained.removals[place], float(explained.changes[place]), rank


def _table(explained: Explained, schema: pa.Schema) -> pa.Table:
    rows = [
        {
            "seed_index": explained.seed_index,
            "entity": explained.entity,
            **{name: getattr(removal, name) for name in ("kind", "path", "table", "row_key", "column", "value")},
            "answer": explained.answer,
            "change": change,
            "rank": rank,
        }
        for removal, change, rank in ranked(explained)
    ]
    return pa.Table.from_pylist(rows, schema)


class _Totals:
    """Sums over all seeds, by path and by column at the end of one."""

    def __init__(self) -> None:
        self.num_seeds = 0
        self._sums: dict[tuple[str, str, str, str | None], list[float]] = {}

    def add(self, explained: Explained) -> None:
        self.num_seeds += 1
        for removal, change in zip(explained.removals, explained.changes, strict=True):
            if removal.kind in ("path", "column"):
                sums = self._sums.setdefault((removal.kind, removal.path, removal.table, removal.column), [0, 0.0, 0.0])
                sums[0] += 1
                sums[1] += float(change)
                sums[2] += abs(float(change))

    def table(self) -> pa.Table:
        names = ("kind", "path", "table", "column")
        found = sorted(self._sums.items(), key=lambda item: -item[1][2])
        columns = {name: pa.array([key[place] for key, _ in found], pa.string()) for place, name in enumerate(names)}
        columns["num_seeds"] = pa.array([int(sums[0]) for _, sums in found], pa.int64())
        for name, place in (("mean_change", 1), ("mean_size", 2)):
            means = [sums[place] / max(self.num_seeds, 1) for _, sums in found]
            columns[name] = pa.array(means, pa.float64())
        return pa.table(columns)
