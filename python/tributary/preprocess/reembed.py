"""New vectors for a processed database: everything else in it is taken over as it is."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from tributary import _headwater
from tributary.embed import Embedder
from tributary.errors import FormatError
from tributary.metadata import Manifest
from tributary.preprocess.embedding import EmbedCounts, embed_database
from tributary.preprocess.progress import Silence, Watcher
from tributary.preprocess.stages import EMBED_FILES, STAGES_FILE, StageRecord, by_embedder
from tributary.preprocess.staging import Staging


@dataclass(frozen=True)
class Reembedded:
    """What a run did."""

    manifest: Manifest
    counts: EmbedCounts
    seconds: float


def reembed(database: str | os.PathLike[str], embedder: Embedder, *, watcher: Watcher | None = None) -> Reembedded:
    """Replaces the vectors of a processed database; tables, graph and tasks are neither read again nor changed.

    The database is the old one until the new one is complete. Checkpoints of a model know the vectors they were
    trained with and refuse others.

    Args:
        database: Its folder.
        embedder: What makes the vectors.
        watcher: Who is told of progress.

    Returns:
        The new manifest and where the vectors came from.

    Raises:
        FormatError: The database is damaged.
        OSError: It cannot be read or replaced, or another run is at work on it.
    """
    folder = Path(os.path.abspath(database))
    watcher = watcher or Silence()
    start = time.perf_counter()
    if not folder.is_dir():
        raise FileNotFoundError(2, "there is no processed database here", os.fspath(database))
    with Staging(folder) as staging:
        _headwater.verify(folder)  # nobody else writes from here on
        record = StageRecord(staging.database)
        record.restart({})
        published = StageRecord(folder)
        before = published.fingerprints()
        expected = {stage: value for stage, value in before.items() if stage not in EMBED_FILES}
        taken = record.take_over(published, expected)
        if len(taken) != len(expected) or not taken or len(before) != len(expected) + len(EMBED_FILES):
            raise FormatError(f"{folder / STAGES_FILE}: does not say which files each stage made; preprocess again")
        watcher.stage("embed")
        counts = embed_database(staging.database, embedder, staging.scratch, watcher)
        for stage, file in EMBED_FILES.items():
            record.finish(stage, by_embedder(before[stage], embedder.identity), [file])
        watcher.stage("publish")
        _headwater.publish(staging.database)
        staging.publish()
    manifest = Manifest.from_json(_headwater.Database(folder).manifest)
    return Reembedded(manifest, counts, time.perf_counter() - start)
