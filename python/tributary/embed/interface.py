"""What every embedder promises, and the one check of what it delivers.

An embedder turns texts into vectors of length one. Its identity says everything a vector depends on besides the
text: equal identities mean equal vectors, so the identity is what caches and stage fingerprints are keyed by.
"""

from collections.abc import Iterator, Sequence
from typing import NotRequired, Protocol, TypedDict, runtime_checkable

import numpy as np
import numpy.typing as npt

_NORM_TOLERANCE = 1e-3


class Identity(TypedDict):
    """Everything a vector depends on besides its text."""

    kind: str
    model: str
    dimension: int
    weights: NotRequired[str]
    """sha256 of the model's weights."""
    projection: NotRequired[str]
    """sha256 of the map that reduced the model's vectors to `dimension`."""
    reduction: NotRequired[str]
    """How the vectors of an endpoint came to `dimension`, when it was not the endpoint that did it."""
    route: NotRequired[str]
    """In the cache only: the program and device that round the last bits, see `Routed`."""


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


Part = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]
"""Places of some texts in a list, int64 [n], and their vectors, float32 [n, dimension]."""


@runtime_checkable
class PartwiseEmbedder(Embedder, Protocol):
    """An embedder that hands out vectors while others are still being made."""

    def embed_parts(self, texts: Sequence[str]) -> Iterator[Part]:
        """The vectors of some texts, in any order; every text comes exactly once."""
        ...


@runtime_checkable
class Routed(Embedder, Protocol):
    """An embedder with several programs whose vectors differ in the last bits: one space, but not one cache."""

    @property
    def route(self) -> str:
        """The program and device that round the vectors."""
        ...


@runtime_checkable
class Announcing(Embedder, Protocol):
    """An embedder whose use has a price that users want to know before."""

    def announce(self, texts: Sequence[str], num_found: int) -> None:
        """Says what embedding these texts will take, beside those that were found in the cache."""
        ...


@runtime_checkable
class Cutting(Embedder, Protocol):
    """An embedder that takes no more than the beginning of long texts, and remembers which those were."""

    cut_texts: list[str]


def assembled(num_texts: int, dimension: int, parts: Iterator[Part]) -> npt.NDArray[np.float32]:
    """The vectors of parts in the order of the texts: float32 [num_texts, dimension]."""
    vectors = np.empty((num_texts, dimension), dtype=np.float32)
    for members, part in parts:
        vectors[members] = part
    return vectors


def unit_rows(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Vectors scaled to length one: float32 of the same shape."""
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))
    scaled: npt.NDArray[np.float32] = (vectors / norms[:, None]).astype(np.float32)
    return scaled


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
