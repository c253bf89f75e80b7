"""The road from parquet files to a processed database: encode, tasks, embed, publish.

Why in this order: `documentation/decisions/0002-tasks-before-embeddings.md`.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tributary import _headwater
from tributary.embed import Embedder, default_embedder
from tributary.errors import FormatError, SchemaError, TributaryError
from tributary.metadata import Description, Manifest, TaskDescription
from tributary.preprocess.embedding import EmbedCounts, embed_database
from tributary.preprocess.labels import LabelQueries
from tributary.preprocess.planning import Plan, make_plan
from tributary.preprocess.progress import Silence, Watcher
from tributary.preprocess.sql_engine import SqlLimits
from tributary.preprocess.stages import (
    EMBED_COLUMNS,
    EMBED_FILES,
    EMBED_TEXTS,
    ENCODE,
    STAGES_FILE,
    StageRecord,
    embed_fingerprints,
    file_fingerprint,
    fingerprint,
    task_stage,
)
from tributary.preprocess.staging import Staging


@dataclass(frozen=True)
class PreprocessOptions:
    """How to preprocess; the defaults are those of the command line."""

    metadata: Path | None = None
    """Another description than `metadata.json` in the input folder."""

    threads: int = 0
    """Threads of the encode stage; 0 takes every core. The result does not depend on it."""

    memory: int | None = None
    """Bytes of keys, links, times and texts the encode stage keeps in memory; what is more goes to scratch files. None:
    a quarter of what is free. The result does not depend on it."""

    strict: bool = False
    """A foreign key without its row is an error instead of a counted null."""

    stats_until: str | None = None
    """Statistics are taken from rows before this time only (ISO 8601)."""

    force: bool = False
    """Replace an output that was made from something else."""

    sql: SqlLimits = field(default_factory=SqlLimits)
    """What the query of one task may take."""


@dataclass(frozen=True)
class Outcome:
    """What a run did."""

    output: Path
    manifest: Manifest
    is_up_to_date: bool
    """The output was there already, made from the same input, and was not touched."""

    reused: tuple[str, ...]
    """Stages taken over from an earlier run."""

    made: tuple[str, ...]
    """Stages made by this run."""

    seconds: dict[str, float]
    """Wall-clock time of each stage that ran."""

    vectors: EmbedCounts | None = None
    """Where the vectors came from, if the embed stage ran."""


def preprocess(
    input_dir: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    embedder: Embedder | None = None,
    options: PreprocessOptions | None = None,
    watcher: Watcher | None = None,
) -> Outcome:
    """Makes a processed database from parquet files and their description.

    Args:
        input_dir: Folder of the parquet files; nothing is written into it.
        output: The folder to make. It is absent or complete at every moment.
        embedder: What makes the vectors; `local` by default, or what `TRIBUTARY_EMBEDDER` says.
        options: How to do it.
        watcher: Who is told of progress and warnings.

    Returns:
        What was done, with the manifest of the output.

    Raises:
        SchemaError: The description, the data or a task is not what it should be.
        FileExistsError: The output exists and was made from something else.
        OSError: A file cannot be read or written, or another run is making the same output.
    """
    return _Run(Path(input_dir), Path(output), embedder or default_embedder(), options, watcher).go()


def plan(
    input_dir: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    embedder: Embedder | None = None,
    options: PreprocessOptions | None = None,
    watcher: Watcher | None = None,
) -> Plan:
    """Says what `preprocess` would do and take, after checking the description and the queries; writes nothing.

    Args:
        input_dir: As for `preprocess`, like the rest.
        output: The folder that would be made.
        embedder: What would make the vectors.
        options: How it would be done.
        watcher: Who is told of warnings.

    Returns:
        The stages, each with whether it would be made anew, the tables, and what there is to embed.

    Raises:
        SchemaError: The description or a query is not what it should be.
        FileExistsError: The output exists and was made from something else.
    """
    return _Run(Path(input_dir), Path(output), embedder or default_embedder(), options, watcher).plan()


def verify(path: str | os.PathLike[str]) -> str:
    """Reads and hashes every byte of a processed database.

    Args:
        path: Its folder.

    Returns:
        A digest of everything it holds, in hex.

    Raises:
        FormatError: Something is damaged.
    """
    return _headwater.verify(path)


def open_manifest(path: str | os.PathLike[str]) -> Manifest:
    """The manifest of a processed database, which is opened and checked.

    Args:
        path: Its folder.

    Raises:
        FormatError: It is damaged.
    """
    return Manifest.from_json(_headwater.Database(path).manifest)


class _Run:
    """One run of the pipeline."""

    def __init__(
        self,
        input_dir: Path,
        output: Path,
        embedder: Embedder,
        options: PreprocessOptions | None,
        watcher: Watcher | None,
    ) -> None:
        self._input_dir = input_dir
        self._output = Path(os.path.abspath(output))
        self._named_output = output
        self._embedder = embedder
        self._options = options or PreprocessOptions()
        self._watcher = watcher or Silence()
        self._seconds: dict[str, float] = {}
        self._vectors: EmbedCounts | None = None
        self._description = Description.load(self._options.metadata or input_dir)
        _keep_apart(input_dir, output)
        self._input_state = self._stat_input()
        self._expected = self._fingerprints()

    def go(self) -> Outcome:
        leftover = Staging(self._output).folder
        if not leftover.exists() and self._is_up_to_date():
            return self._outcome(reused=(), is_up_to_date=True)
        with Staging(self._output) as staging:
            if self._is_up_to_date():
                return self._outcome(reused=(), is_up_to_date=True)
            reused = self._make(staging)
        return self._outcome(reused=tuple(reused), is_up_to_date=False)

    def plan(self) -> Plan:
        if self._is_up_to_date():
            kept = set(self._expected)
        else:
            kept = set()
            for folder in (Staging(self._output).database, self._output):
                record = StageRecord(folder)
                kept |= {stage for stage, value in self._expected.items() if record.has(stage, value)}
        tasks = [task for task in self._description.tasks if task_stage(task.name) not in kept]
        with TemporaryDirectory() as scratch:
            queries = LabelQueries(self._description, tasks, self._input_dir, Path(scratch), self._options.sql)
            with closing(queries):
                queries.check(self._watcher)
        return make_plan(
            self._description,
            self._input_dir,
            self._options.metadata,
            self._options.threads,
            self._embedder,
            {stage: stage not in kept for stage in self._expected},
            self._watcher,
        )

    def _make(self, staging: Staging) -> list[str]:
        record = StageRecord(staging.database)
        reused = record.restart(self._expected)
        if self._options.force and _is_sound(self._output):
            reused += record.take_over(StageRecord(self._output), self._expected)
        open_tasks = [task for task in self._description.tasks if task_stage(task.name) not in reused]
        queries = LabelQueries(self._description, open_tasks, self._input_dir, staging.scratch, self._options.sql)
        with closing(queries):
            queries.check(self._watcher)
            if ENCODE not in reused:
                self._encode(staging, record)
            if open_tasks:
                self._write_tasks(staging, record, open_tasks, queries)
        _headwater.order_tasks(staging.database, metadata=self._description.text)
        self._embed(staging, record, [stage for stage in EMBED_FILES if stage not in reused])
        with self._stage("publish"):
            if self._stat_input() != self._input_state:
                raise SchemaError(f"the files of {self._input_dir} changed while they were read; run again")
            _headwater.publish(staging.database)
            staging.publish()
        return reused

    def _encode(self, staging: Staging, record: StageRecord) -> None:
        limits: dict[str, Any] = {} if self._options.memory is None else {"memory": self._options.memory}
        with self._stage(ENCODE):
            report = _headwater.encode(
                self._input_dir,
                staging.database,
                metadata=self._options.metadata,
                threads=self._options.threads,
                strict=self._options.strict,
                stats_until=self._options.stats_until,
                **limits,
                progress=lambda table, done, total: self._watcher.progress(table, done, total, "rows"),
            )
            record.finish(ENCODE, self._expected[ENCODE])
        self._pass_on_warnings(report)

    def _write_tasks(
        self, staging: Staging, record: StageRecord, tasks: list[TaskDescription], queries: LabelQueries
    ) -> None:
        with self._stage("tasks"):
            for task in tasks:
                self._watcher.progress(task.name, 0, 1, "tasks")
                labels = self._labels(task, queries)
                report = _headwater.write_task(staging.database, task.name, labels, metadata=self._description.text)
                stage = task_stage(task.name)
                record.finish(stage, self._expected[stage])
                self._watcher.progress(task.name, 1, 1, "tasks")
                self._pass_on_warnings(report)

    def _embed(self, staging: Staging, record: StageRecord, stages: list[str]) -> None:
        if not stages:
            return
        with self._stage("embed"):
            self._vectors = embed_database(
                staging.database,
                self._embedder,
                staging.scratch,
                self._watcher,
                columns=EMBED_COLUMNS in stages,
                vocabulary=EMBED_TEXTS in stages,
            )
            for stage in stages:
                record.finish(stage, self._expected[stage], [EMBED_FILES[stage]])

    def _labels(self, task: TaskDescription, queries: LabelQueries) -> Path | None:
        if task.query is not None:
            return queries.run(task.name, self._watcher)
        return self._label_file(task)

    def _label_file(self, task: TaskDescription) -> Path | None:
        """The ready labels of a task, if it has such."""
        if task.table is None:
            return None
        path = self._input_dir / task.table
        if not path.is_file():
            raise SchemaError(f"task `{task.name}`: there is no file {path}; `table` names a parquet file of labels")
        return path

    def _pass_on_warnings(self, report: str) -> None:
        for warning in json.loads(report)["warnings"]:
            self._watcher.warn(warning)

    def _fingerprints(self) -> dict[str, str]:
        """What each stage has to be made from, in the order of the stages.

        A task depends on the encoded tables and on itself alone; its number and the ids of its own texts, which
        depend on the tasks before it, are given when the database is published.
        """
        options = self._options
        encode = _headwater.encode_fingerprint(
            self._input_dir, metadata=options.metadata, strict=options.strict, stats_until=options.stats_until
        )
        expected = {ENCODE: encode}
        for task in self._description.tasks:
            file = self._label_file(task)
            labels = None if file is None else file_fingerprint(file)
            expected[task_stage(task.name)] = fingerprint(encode, task.name, task.raw, labels)
        return expected | embed_fingerprints(self._description, expected, self._embedder.identity)

    def _stat_input(self) -> dict[str, tuple[int, int, int]]:
        """Size, time of change and identity of every file the database is made from."""
        state = {}
        labels = [self._input_dir / task.table for task in self._description.tasks if task.table is not None]
        for path in [*chain.from_iterable(self._description.table_files(self._input_dir).values()), *labels]:
            if path.exists():
                found = path.stat()
                state[os.fspath(path)] = (found.st_size, found.st_mtime_ns, found.st_ino)
        return state

    def _is_up_to_date(self) -> bool:
        """Whether the output is there and made from the same input.

        Raises:
            FileExistsError: It is there, made from something else, and may not be replaced.
        """
        if not os.path.lexists(self._output):
            return False
        if not self._output.is_dir() or self._output.is_symlink():
            raise FileExistsError(17, "exists and is not a folder", str(self._output))
        if not any(self._output.iterdir()):
            return False
        if not (self._output / STAGES_FILE).exists() and not (self._output / "graph.bin").exists():
            raise FileExistsError(
                17, "is not empty and not a processed database; choose another output", str(self._output)
            )
        same = StageRecord(self._output).fingerprints() == self._expected
        if self._options.force:
            return same and _is_sound(self._output)
        try:
            _headwater.Database(self._output)
        except (FormatError, OSError) as error:
            raise FileExistsError(
                17, f"exists and is damaged ({error}); --force replaces it", str(self._output)
            ) from error
        if not same:
            raise FileExistsError(
                17, "exists and was made from other data, tasks or options; --force replaces it", str(self._output)
            )
        return True

    def _outcome(self, *, reused: tuple[str, ...], is_up_to_date: bool) -> Outcome:
        manifest = open_manifest(self._output)
        made = () if is_up_to_date else tuple(stage for stage in self._expected if stage not in reused)
        return Outcome(self._named_output, manifest, is_up_to_date, reused, made, self._seconds, self._vectors)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        self._watcher.stage(name)
        start = time.perf_counter()
        yield
        self._seconds[name] = time.perf_counter() - start


def _keep_apart(input_dir: Path, output: Path) -> None:
    """Refuses an output that would write into the input, or that would hold it."""
    source, target = input_dir.resolve(), output.resolve()
    if source == target or source in target.parents:
        raise ValueError(f"the output {output} lies in the input folder {input_dir}, which is never written to")
    if target in source.parents:
        raise ValueError(f"the output {output} holds the input folder {input_dir}; choose another output")


def _is_sound(database: Path) -> bool:
    """Whether every byte of a processed database is what was published."""
    try:
        _headwater.verify(database)
    except (TributaryError, OSError):
        return False
    return True
