"""The embedder `local-static`: one vector per token, distilled from the local model, and their weighted mean.

The vector of a token is what all-MiniLM-L6-v2 makes of that token alone, without what all words have in common; rare
tokens weigh more than frequent ones. It knows words and, through their pieces, spellings; it does not know their order
or context. For millions of texts it is the fast choice; `documentation/embedders.md` has its price in quality.

The table is made once from the verified weights and kept beside the cache of vectors.

Source: Arora et al., A Simple but Tough-to-Beat Baseline for Sentence Embeddings (ICLR 2017), section 3, for the
weights a / (a + p). We differ in taking p from the rank of a token in the vocabulary (Zipf's law), and in that the
common component is the mean of all words instead of a direction fitted to the texts at hand.
"""

import hashlib
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

import numpy as np
import numpy.typing as npt

from tributary.embed.cache import cache_folder
from tributary.embed.interface import Identity, unit_rows
from tributary.embed.local import LocalEmbedder
from tributary.embed.projection import FULL_WIDTH, projection, projection_sha
from tributary.embed.weights import MODEL, WEIGHTS

# Raise the version when any vector changes.
_MODEL = f"{MODEL}/static-2"
_SIF_WEIGHT = 1e-3
_FIRST_WORD = 1996  # what comes before in the vocabulary are marks, single characters and unused places
_UNKNOWN = 100
_CHUNK_TEXTS = 4096
_DIGEST_BYTES = 32


class StaticEmbedder:
    """The embedder `local-static`.

    Args:
        dimension: Length of the vectors, as for `local`.
        folder: Where the model's files are, if not where `make setup` puts them.

    Raises:
        FileNotFoundError: The model's files are not there.
        ValueError: There are no vectors of this length.
    """

    def __init__(self, dimension: int, *, folder: str | os.PathLike[str] | None = None) -> None:
        self._projection = projection(dimension)
        self._dimension = dimension
        self._local = LocalEmbedder(FULL_WIDTH, folder=folder, device="cpu")
        self._lock = Lock()
        self._table: npt.NDArray[np.float32] | None = None

    @property
    def identity(self) -> Identity:
        """Kind, version of the table, dimension, and the sha256 of the weights and of the projection."""
        identity = Identity(kind="local-static", model=_MODEL, dimension=self._dimension, weights=WEIGHTS)
        if self._dimension != FULL_WIDTH:
            identity["projection"] = projection_sha()
        return identity

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The vectors of some texts: float32 [len(texts), dimension], every row of length one."""
        table = self._weighted_table()
        vectors = np.empty((len(texts), self._dimension), dtype=np.float32)
        for start in range(0, len(texts), _CHUNK_TEXTS):
            tokens = [ids[1:-1] or [_UNKNOWN] for ids in self._local.token_ids(texts[start : start + _CHUNK_TEXTS])]
            starts = np.cumsum([0, *map(len, tokens[:-1])])
            flat = np.fromiter((token for ids in tokens for token in ids), dtype=np.int64)
            # sums along the first axis add row after row: neighbours cannot change how a text is rounded
            vectors[start : start + len(tokens)] = unit_rows(np.add.reduceat(table[flat], starts, axis=0))
        return vectors

    def _weighted_table(self) -> npt.NDArray[np.float32]:
        """float32 [V, dimension]: the vectors of all tokens, each times its weight."""
        with self._lock:
            if self._table is None:
                vectors = _token_vectors(self._local)
                ranks = np.maximum(np.arange(len(vectors)) - _FIRST_WORD, 0) + 1
                frequency = 1.0 / (ranks * np.log(len(vectors)))
                weights = (_SIF_WEIGHT / (_SIF_WEIGHT + frequency)).astype(np.float32)
                centred = vectors - vectors[_FIRST_WORD:].mean(axis=0, dtype=np.float32)
                rows = np.array([row @ self._projection for row in centred])
                self._table = rows * weights[:, None]
            return self._table


def _token_vectors(local: LocalEmbedder) -> npt.NDArray[np.float16]:
    """float16 [V, 384]: read from the cache, or made and put there."""
    folder = cache_folder()
    path = None if folder is None else folder / f"{_MODEL.replace('/', '-')}-{WEIGHTS[:16]}.table"
    if path is not None:
        table = _read(path, local.vocabulary_size)
        if table is not None:
            return table
    print(f"making the table of local-static from {MODEL}, once; this takes about half a minute", file=sys.stderr)
    table = local.embed_tokens([[101, token, 102] for token in range(local.vocabulary_size)]).astype(np.float16)
    if path is not None:
        _write(path, table)
    return table


def _read(path: Path, num_tokens: int) -> npt.NDArray[np.float16] | None:
    """The table in a file that begins with its sha256; None when it is missing or damaged, to be made again."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    body = content[_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != content[:_DIGEST_BYTES] or len(body) != 2 * num_tokens * FULL_WIDTH:
        return None
    return np.frombuffer(body, dtype="<f2").reshape(num_tokens, FULL_WIDTH)


def _write(path: Path, table: npt.NDArray[np.float16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    body = table.astype("<f2").tobytes()
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as draft:
        draft.write(hashlib.sha256(body).digest() + body)
    os.replace(draft.name, path)
