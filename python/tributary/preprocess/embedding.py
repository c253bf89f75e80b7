"""The embed stage: vectors of every text of the vocabulary and of every column."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tributary import _headwater
from tributary.embed import Embedder, checked_vectors
from tributary.preprocess.progress import Watcher

_BATCH_TEXTS = 16_384
_IN_MEMORY_BYTES = 256 << 20


def embed_database(folder: Path, embedder: Embedder, scratch_dir: Path, watcher: Watcher) -> None:
    """Embeds the vocabulary and the columns of a staged database and writes both files of vectors.

    Args:
        folder: The staged database, its tasks included.
        embedder: What makes the vectors.
        scratch_dir: Holds vectors that outgrow memory until they are written.
        watcher: Told of texts embedded.
    """
    identity = json.dumps(embedder.identity, sort_keys=True)
    phrases = _headwater.column_phrases(folder)
    vectors = _vectors(embedder, phrases, "columns", scratch_dir, watcher)
    _headwater.write_embeddings(folder, "column", vectors, identity)
    texts = _headwater.vocab_texts(folder)
    vectors = _vectors(embedder, texts, "vocabulary", scratch_dir, watcher)
    _headwater.write_embeddings(folder, "vocab", vectors, identity)


def _vectors(
    embedder: Embedder, texts: Sequence[str], item: str, scratch_dir: Path, watcher: Watcher
) -> npt.NDArray[np.float16]:
    shape = (len(texts), embedder.identity["dimension"])
    vectors: npt.NDArray[np.float16]
    if 2 * shape[0] * shape[1] <= _IN_MEMORY_BYTES:
        vectors = np.empty(shape, dtype=np.float16)
    else:
        vectors = np.memmap(scratch_dir / f"{item}.f16", dtype=np.float16, mode="w+", shape=shape)
    for start in range(0, len(texts), _BATCH_TEXTS):
        batch = texts[start : start + _BATCH_TEXTS]
        vectors[start : start + len(batch)] = checked_vectors(embedder, batch, embedder.embed(batch))
        watcher.progress(item, start + len(batch), len(texts), "texts")
    return vectors
