"""What a run would do and what it would take, found out without writing anything."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tributary import _headwater
from tributary.embed import Embedder, num_cached
from tributary.metadata import Description
from tributary.preprocess.progress import Watcher
from tributary.preprocess.stages import EMBED_COLUMNS, EMBED_TEXTS, ENCODE

_CELLS_PER_SECOND = 6e6
"""Cells one thread encodes in a second; TPC-H and the databases of the documentation lie within a factor of two."""

_SAMPLE_TEXTS = 64
_HALF = 2  # bytes of a number of a vector


@dataclass(frozen=True)
class TablePlan:
    """What a table is and becomes."""

    name: str
    num_rows: int
    num_columns: int
    input_bytes: int
    """Of its parquet files."""
    output_bytes: int
    """Of its packed file, estimated."""


@dataclass(frozen=True)
class TextPlan:
    """What there is to embed."""

    num_texts: int
    """Distinct texts and categories of the tables, counted."""
    num_columns: int
    """Phrases of columns."""
    num_cached: int
    """Texts whose vectors are in the cache."""
    open_tasks: tuple[str, ...]
    """Tasks whose labels may add texts, which nobody knows before their queries have run."""

    @property
    def num_to_make(self) -> int:
        """Vectors of texts to be made."""
        return self.num_texts - self.num_cached


@dataclass(frozen=True)
class Plan:
    """What a run would do."""

    stages: dict[str, bool]
    """Every stage, in order; whether it would be made anew."""

    tables: tuple[TablePlan, ...]

    texts: TextPlan | None
    """None: the vectors of the texts are there already."""

    output_bytes: dict[str, int]
    """About as many bytes the database takes: `tables`, `links`, and if they are counted `texts` and `vectors`."""

    seconds: dict[str, float | None]
    """About as many seconds the stages `encode` and `embed` take; None where nobody knows, as of an endpoint."""

    warnings: tuple[str, ...]
    """What the user should know of the files."""


def make_plan(
    description: Description,
    input_dir: Path,
    metadata: Path | None,
    threads: int,
    embedder: Embedder,
    stages: dict[str, bool],
    watcher: Watcher,
) -> Plan:
    """Counts rows and texts and estimates sizes and times.

    Args:
        description: The described database.
        input_dir: Folder of the parquet files.
        metadata: Where the description is, if not there.
        threads: As for the encode stage.
        embedder: What would make the vectors.
        stages: Which stages would be made anew.
        watcher: Told of rows read.
    """
    watcher.stage("survey")
    report, texts = _headwater.survey(
        input_dir,
        metadata=metadata,
        threads=threads,
        texts=stages[EMBED_TEXTS],
        progress=lambda table, done, total: watcher.progress(table, done, total, "rows"),
    )
    found = json.loads(report)
    tables = tuple(TablePlan(**table) for table in found["tables"])
    num_columns = sum(table.num_columns for table in tables) + 2 * len(description.tasks)
    seconds: dict[str, float | None] = {}
    if stages[ENCODE]:
        cells = sum(table.num_rows * table.num_columns for table in tables)
        seconds["encode"] = cells / (_CELLS_PER_SECOND * (threads or os.cpu_count() or 1))
    sizes = {"tables": sum(table.output_bytes for table in tables), "links": found["graph_bytes"]}
    planned = None
    if stages[EMBED_TEXTS]:
        open_tasks = tuple(task.name for task in description.tasks if task.may_add_texts)
        planned = TextPlan(len(texts), num_columns, num_cached(embedder, texts), open_tasks)
        sizes["texts"] = found["text_bytes"]
        sizes["vectors"] = _HALF * embedder.identity["dimension"] * (len(texts) + num_columns)
        seconds["embed"] = _embedding_seconds(embedder, texts, planned.num_to_make + num_columns)
    elif stages[EMBED_COLUMNS]:
        seconds["embed"] = _embedding_seconds(embedder, [table.name for table in tables], num_columns)
    return Plan(stages, tables, planned, sizes, seconds, tuple(found["warnings"]))


def _embedding_seconds(embedder: Embedder, texts: Sequence[str], num_to_make: int) -> float | None:
    """About how long vectors take, from making some; those of an endpoint cost money and are not made for this."""
    if embedder.identity["kind"] == "endpoint":
        return None
    sample = texts[:: max(1, len(texts) // (2 * _SAMPLE_TEXTS))][: 2 * _SAMPLE_TEXTS]
    if not sample:
        return 0.0
    embedder.embed(sample[::2])  # the first time loads the model
    start = time.perf_counter()
    embedder.embed(sample[1::2] or sample)
    return (time.perf_counter() - start) / len(sample[1::2] or sample) * num_to_make
