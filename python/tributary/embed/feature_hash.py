"""Feature hashing: deterministic vectors from words and character trigrams, without a model.

Every text yields three kinds of features: its words, the trigrams of its characters (with a mark at both ends), and
the text as a whole. A feature's 64-bit hash picks a few coordinates and a sign for each; the vector is the sum,
scaled to length one. Texts that share words or spellings are near each other, others are nearly orthogonal. It knows
nothing of meaning.

The sums are sums of small integers, which floating point adds exactly, so a vector does not depend on the batch,
the machine or the order of additions.

Source: Weinberger et al., Feature Hashing for Large Scale Multitask Learning, arXiv:0902.2206, section 2. We differ
in that a feature takes several coordinates, by its kind.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

from tributary.embed.interface import Identity
from tributary.embed.phrases import normalised

# Raise the version when any vector changes.
_MODEL = "tributary-feature-hash-2"
_MAX_CHARACTERS = 8192  # of a text; what follows only enters the hash of the whole text
_CHUNK_CHARACTERS = 1 << 18
_CHUNK_TEXTS = 4096
_START, _END = "\x02", "\x03"

# coordinates per feature
_WORD_COORDINATES = 4
_TRIGRAM_COORDINATES = 1
_WHOLE_COORDINATES = 2

_U64 = npt.NDArray[np.uint64]


class FeatureHashEmbedder:
    """The embedder `hash`.

    Args:
        dimension: Length of the vectors, at least 8.

    Example:
        >>> vectors = FeatureHashEmbedder(64).embed(["color is red", "color is blue"])
        >>> vectors.shape
        (2, 64)
    """

    def __init__(self, dimension: int) -> None:
        if not 8 <= dimension <= 8192:
            raise ValueError(f"embedder `hash`: dimension must be between 8 and 8192, found {dimension}")
        self._dimension = dimension

    @property
    def identity(self) -> Identity:
        """Kind, version of the hash and dimension."""
        return Identity(kind="hash", model=_MODEL, dimension=self._dimension)

    def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The vectors of some texts: float32 [len(texts), dimension], every row of length one."""
        texts = [normalised(text) for text in texts]
        vectors = np.empty((len(texts), self._dimension), dtype=np.float32)
        for start, stop in _chunks(texts):
            vectors[start:stop] = self._embed_chunk(texts[start:stop])
        return vectors

    def _embed_chunk(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        whole = np.fromiter((_whole_hash(text) for text in texts), dtype=np.uint64, count=len(texts))
        marked = [_START + text[:_MAX_CHARACTERS].lower() + _END for text in texts]
        lengths = np.fromiter(map(len, marked), dtype=np.int64, count=len(marked))
        codes = np.frombuffer("".join(marked).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
        owners = np.repeat(np.arange(len(texts)), lengths)
        sums = np.zeros(len(texts) * self._dimension)
        for features, feature_owners, coordinates in (
            (*_words(codes, owners), _WORD_COORDINATES),
            (*_trigrams(codes, owners), _TRIGRAM_COORDINATES),
            (_mix(whole ^ np.uint64(0x2545F4914F6CDD1D)), np.arange(len(texts)), _WHOLE_COORDINATES),
        ):
            self._add(sums, features, feature_owners, coordinates)
        vectors = sums.reshape(len(texts), self._dimension)
        norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
        empty = np.flatnonzero(norms == 0)  # every coordinate cancelled out
        vectors[empty, (whole[empty] % np.uint64(self._dimension)).astype(np.int64)] = 1.0
        norms[empty] = 1.0
        unit: npt.NDArray[np.float32] = (vectors / norms[:, None]).astype(np.float32)
        return unit

    def _add(
        self, sums: npt.NDArray[np.float64], features: _U64, owners: npt.NDArray[np.int64], coordinates: int
    ) -> None:
        """Adds each feature at `coordinates` signed coordinates of the vector of its owner."""
        base = owners * self._dimension
        for _ in range(coordinates):
            features = _mix(features)
            signs = 1.0 - 2.0 * (features >> np.uint64(63)).astype(np.float64)
            index = ((features >> np.uint64(8)) % np.uint64(self._dimension)).astype(np.int64)
            sums += np.bincount(base + index, weights=signs, minlength=sums.size)


def _chunks(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Start and end of runs of texts that are worked on together, bounded in texts and characters."""
    start, characters = 0, 0
    for idx, text in enumerate(texts):
        if idx - start == _CHUNK_TEXTS or characters >= _CHUNK_CHARACTERS:
            yield start, idx
            start, characters = idx, 0
        characters += min(len(text), _MAX_CHARACTERS)
    if start < len(texts):
        yield start, len(texts)


def _mix(values: _U64) -> _U64:
    """The finaliser of splitmix64: a bijection of 64-bit words that spreads every bit."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _whole_hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _is_word(codes: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Digits, lower-case ASCII letters and everything beyond ASCII but its first block of signs."""
    digit = (codes >= ord("0")) & (codes <= ord("9"))
    letter = (codes >= ord("a")) & (codes <= ord("z"))
    return digit | letter | (codes >= 0xC0)


def _words(codes: npt.NDArray[np.uint32], owners: npt.NDArray[np.int64]) -> tuple[_U64, npt.NDArray[np.int64]]:
    """Hash and owner of every word; a word's hash is the sum of its (position, character) hashes, mixed."""
    inside = _is_word(codes)
    edges = np.diff(inside.astype(np.int8), prepend=0)
    starts = np.flatnonzero(edges == 1)
    if starts.size == 0:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    positions = np.flatnonzero(inside)
    word_of = np.cumsum(edges[positions] == 1) - 1
    offsets = (positions - starts[word_of]).astype(np.uint64)
    characters = _mix(codes[positions].astype(np.uint64) | (offsets << np.uint64(32)))
    first = np.flatnonzero(offsets == 0)
    return _mix(np.add.reduceat(characters, first)), owners[starts]


def _trigrams(codes: npt.NDArray[np.uint32], owners: npt.NDArray[np.int64]) -> tuple[_U64, npt.NDArray[np.int64]]:
    """Hash and owner of every three neighbouring characters of one text, its two marks included."""
    if codes.size < 3:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    wide = codes.astype(np.uint64)
    # a code point has 21 bits, so three of them fill 63 without loss
    grams = wide[:-2] | (wide[1:-1] << np.uint64(21)) | (wide[2:] << np.uint64(42))
    inside = owners[:-2] == owners[2:]
    return _mix(grams[inside] ^ np.uint64(0x6A09E667F3BCC909)), owners[:-2][inside]
