"""What every embedder promises, and the one check of what it delivers.

An embedder turns texts into vectors of length one. Its identity says everything a vector depends on besides the
text: equal identities mean equal vectors, so the identity is what caches and stage fingerprints are keyed by.
"""

from collections.abc import Sequence
from typing import Protocol, TypedDict

import numpy as np
import numpy.typing as npt

_NORM_TOLERANCE = 1e-3


class Identity(TypedDict):
    """Everything a vector depends on besides its text."""

    kind: str
    model: str
    dimension: int


class Embedder(Protocol):
    """Texts to vectors of unit length."""

    @property
    def identity(self) -> Identity:
        """What makes the vectors; written into the manifest of a processed database."""
        ...

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The vectors of some texts.

        Args:
            texts: Any texts, the empty one included. No text influences the vector of another.

        Returns:
            float32 [len(texts), dimension], every row of length one.
        """
        ...


def checked_vectors(
    embedder: Embedder, texts: Sequence[str], vectors: npt.NDArray[np.float32]
) -> npt.NDArray[np.float16]:
    """The vectors as they are stored, after checking number, dimension, finiteness and length.

    Args:
        embedder: What made them.
        texts: What they were made of.
        vectors: float32 [len(texts), dimension].

    Returns:
        float16 [len(texts), dimension].

    Raises:
        ValueError: The embedder broke its promise.
    """
    identity = embedder.identity
    name = f"embedder `{identity['kind']}` ({identity['model']})"
    expected = (len(texts), identity["dimension"])
    if vectors.shape != expected:
        raise ValueError(f"{name}: expected vectors of shape {expected}, found {vectors.shape}")
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    bad = np.flatnonzero(~(np.abs(norms - 1.0) <= _NORM_TOLERANCE))
    if bad.size:
        first = int(bad[0])
        raise ValueError(
            f"{name}: the vector of {texts[first][:60]!r} has length {norms[first]:g} instead of 1"
            f" ({bad.size} of {len(texts)} texts)"
        )
    return vectors.astype(np.float16)
