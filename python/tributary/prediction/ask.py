"""A predictive query answered in one go: question, labels of the past, contexts, predictions.

The query becomes a task of a database of its own, which shares every file with the run's database but for what the task
adds; the run's own database is not touched. Described in `documentation/query.md`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from tributary.config import RunConfig
from tributary.embed import matching_embedder
from tributary.metadata import Description
from tributary.moments import EPOCH, moment_us
from tributary.prediction.predict import load_run, write_predictions
from tributary.preprocess import PreprocessOptions, SqlLimits, open_manifest, preprocess
from tributary.preprocess.progress import Silence, Watcher
from tributary.query import Compiled, Schedule, compile_query, past_labels
from tributary.query.preview import extent
from tributary.query.statement import MOMENT
from tributary.seeds import Seeds, seeds_from_keys, seeds_from_query


@dataclasses.dataclass(frozen=True)
class Asked:
    """A query that was answered."""

    task: str
    """Name of its task in the database made for it."""
    moment_us: int | None
    """When it was asked, microseconds since 1970 UTC; None: the question has no moment."""
    num_rows: int
    """Predictions written."""
    warnings: tuple[str, ...]


def ask(
    run_dir: str | Path,
    text: str,
    *,
    input_dir: str | Path,
    out: str | Path,
    metadata: str | Path | None = None,
    time: str | None = None,
    schedule: Schedule | None = None,
    database: str | Path | None = None,
    step: str | int = "best",
    limits: SqlLimits | None = None,
    watcher: Watcher | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Asked:
    """Predicts what a query asks, for everyone whom its WHERE and IN select at a moment.

    Args:
        run_dir: a trained run; it need not have been trained on this question, only on vectors of the same embedder.
        text: the query.
        input_dir: the parquet files that the run's database was made from.
        out: parquet file to write, as `write_predictions` writes it.
        metadata: their description; None: `metadata.json` among them.
        time: when it is asked, ISO 8601, UTC; None: at the last time of the target's tables.
        schedule: the moments of the past whose labels are shown to the model as history.
        database: folder of a processed database to take in place of the run's own.
        step: checkpoint.
        limits: what its SQL may take.
        watcher: told of preprocessing.
        progress: told (seeds done, seeds in all).

    Raises:
        QueryError: the query is not understood.
        ValueError: it selects nobody.
    """
    input_dir, metadata = Path(input_dir), Path(metadata or Path(input_dir) / "metadata.json")
    limits = limits or SqlLimits()
    description = Description.load(metadata)
    compiled = compile_query(text, description)
    task, labels = past_labels(compiled, description, input_dir, schedule, limits)
    if not labels.num_rows:
        raise ValueError("the query has no label in the past; nothing could be learned of it")
    name = f"asked-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"
    moment = _moment(compiled, description, input_dir, limits, time)
    own = Path(str(RunConfig.load(Path(run_dir) / "config.yaml").data.part(database).database))
    with _database_with(own, metadata, input_dir, name, task, limits, watcher or Silence()) as path:
        loaded = load_run(run_dir, step=step, database=path)
        seeds = _seeds(loaded.database, compiled, name, input_dir, metadata, moment, limits)
        num_rows = write_predictions(loaded, name, "test", out, seeds=seeds, progress=progress)
    return Asked(name, moment, num_rows, compiled.warnings)


@contextmanager
def _database_with(
    own: Path, metadata: Path, input_dir: Path, name: str, task: dict[str, Any], limits: SqlLimits, watcher: Watcher
) -> Iterator[Path]:
    """A processed database with one task more; it is gone after the block."""
    embedder = matching_embedder(json.loads(_manifest_text(own))["embedder"])
    with tempfile.TemporaryDirectory(prefix=".asked-", dir=own.resolve().parent) as folder:
        described = json.loads(metadata.read_text(encoding="utf-8"))
        described.setdefault("tasks", {})[name] = task
        more = Path(folder) / "metadata.json"
        more.write_text(json.dumps(described), encoding="utf-8")
        copy = Path(folder) / own.resolve().name
        shutil.copytree(own, copy, copy_function=_link_or_copy)
        options = PreprocessOptions(metadata=more, force=True, sql=limits)
        preprocess(input_dir, copy, embedder=embedder, options=options, watcher=watcher)
        yield copy


def _manifest_text(own: Path) -> str:
    open_manifest(own)  # says what is wrong with it
    return (own / "metadata.json").read_text(encoding="utf-8")


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _moment(
    compiled: Compiled, description: Description, input_dir: Path, limits: SqlLimits, time: str | None
) -> int | None:
    if compiled.population is None:
        if time is not None:
            raise ValueError("the query has no window, so it has no moment; leave the time out")
        return None
    if time is not None:
        return moment_us(time)
    return extent(compiled, description, input_dir, limits)[1]


def _seeds(
    database: Any,
    compiled: Compiled,
    name: str,
    input_dir: Path,
    metadata: Path,
    moment: int | None,
    limits: SqlLimits,
) -> Seeds:
    """Whom WHERE and IN select at the moment."""
    if compiled.population is None or moment is None:
        if compiled.query.members is not None:
            return seeds_from_keys(database, name, list(compiled.query.members))
        raise ValueError("the query asks about columns: say which entities to predict, as IN (1, 2, 3)")
    at = (EPOCH + timedelta(microseconds=moment)).replace(tzinfo=None)
    asked = f"WITH timestamps AS (SELECT TIMESTAMP '{at}' AS timestamp),\n{compiled.population.removeprefix('WITH ')}"
    options: dict[str, Any] = {"raw": input_dir, "metadata": metadata, "seconds": limits.seconds}
    return seeds_from_query(database, name, asked, key=compiled.query.entity.name, time=MOMENT, **options)
