"""The embed stage: vectors of every text of the vocabulary and of every column."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tributary import _headwater
from tributary.embed import CachedEmbedder, Embedder, EndpointError, checked_vectors, through_cache
from tributary.preprocess.progress import Watcher
from tributary.preprocess.text_places import cut_warning, with_places

_BATCH_TEXTS = 65_536  # an embedder that works in parallel waits at the end of each
_IN_MEMORY_BYTES = 256 << 20


@dataclass(frozen=True)
class EmbedCounts:
    """Where the vectors of a database came from."""

    found: int
    """Texts whose vectors were in the cache."""

    made: int
    """Texts whose vectors were made."""


def embed_database(
    folder: Path,
    embedder: Embedder,
    scratch_dir: Path,
    watcher: Watcher,
    *,
    columns: bool = True,
    vocabulary: bool = True,
) -> EmbedCounts:
    """Embeds the vocabulary and the columns of a staged database and writes both files of vectors.

    Args:
        folder: The staged database, its tasks included.
        embedder: What makes the vectors.
        scratch_dir: Holds vectors that outgrow memory until they are written.
        watcher: Told of texts embedded.
        columns: Make the vectors of the columns; False leaves their file as it is.
        vocabulary: The same for those of the vocabulary.

    Returns:
        How many vectors were found in the cache and how many were made.

    Raises:
        EndpointError: An endpoint failed; texts that it refuses are named by table, column and row.
    """
    identity = json.dumps(embedder.identity, sort_keys=True)
    with through_cache(embedder) as cached:
        # in one go: the columns alone would be few texts for an embedder that works in batches
        phrases = _headwater.column_phrases(folder) if columns else []
        texts = [*phrases, *(_headwater.vocab_texts(folder) if vocabulary else [])]
        cached.announce(texts)
        try:
            vectors = _vectors(cached, texts, "vocabulary", scratch_dir, watcher)
        except EndpointError as error:
            if not error.refusals:
                raise
            raise with_places(error, folder, texts, len(phrases)) from None
        if cached.cut_texts:
            watcher.warn(cut_warning(cached.cut_texts, folder, texts, len(phrases)))
        if columns:
            _headwater.write_embeddings(folder, "column", vectors[: len(phrases)], identity)
        if vocabulary:
            _headwater.write_embeddings(folder, "vocab", vectors[len(phrases) :], identity)
        return EmbedCounts(cached.num_found, cached.num_made)


def _vectors(
    embedder: CachedEmbedder, texts: Sequence[str], item: str, scratch_dir: Path, watcher: Watcher
) -> npt.NDArray[np.float16]:
    shape = (len(texts), embedder.identity["dimension"])
    vectors: npt.NDArray[np.float16]
    if 2 * shape[0] * shape[1] <= _IN_MEMORY_BYTES:
        vectors = np.empty(shape, dtype=np.float16)
    else:
        vectors = np.memmap(scratch_dir / f"{item}.f16", dtype=np.float16, mode="w+", shape=shape)
    for start in range(0, len(texts), _BATCH_TEXTS):
        batch = texts[start : start + _BATCH_TEXTS]
        report = partial(_report, watcher, item, start, len(texts))
        vectors[start : start + len(batch)] = checked_vectors(embedder, batch, embedder.embed(batch, report))
        report(len(batch))
    return vectors


def _report(watcher: Watcher, item: str, before: int, total: int, done: int) -> None:
    watcher.progress(item, before + done, total, "texts")
