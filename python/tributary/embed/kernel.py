"""The local model on the processor: the forward pass of the native core.

A text's vector has the same bits in every batch, for any number of threads and on every machine: see
`documentation/decisions/0007-own-kernel.md`.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tributary._headwater import Encoder
from tributary.embed.interface import Part
from tributary.embed.projection import FULL_WIDTH
from tributary.embed.weights import verify_weights

ROUTE = "headwater-1"
"""What the bits of a vector depend on besides the identity; the number is raised when any of them changes."""

_BLOCK_TOKENS = 252  # as many rows as the core works on together
_CHUNKS_PER_THREAD = 16
_MAX_BLOCKS = 8  # of a chunk: a second of work or two, then there is news


class KernelModel:
    """The model on the processor.

    Args:
        folder: Where the model's files are; its weights are verified here.
        projection: float32 [384, D], or the identity of 384.
        threads: Chunks worked on side by side.
        instructions: `avx512`, `avx2` or `portable` instead of the fastest; the vectors are the same.

    Raises:
        SchemaError: The weights are not those of the model.
        ValueError: This processor has not got the instructions.
    """

    def __init__(
        self,
        folder: Path,
        projection: npt.NDArray[np.float32],
        threads: int,
        *,
        instructions: str | None = None,
    ) -> None:
        verify_weights(folder, names=("model.safetensors",))
        reduction = None if projection.shape[1] == FULL_WIDTH else projection
        self._encoder = Encoder(folder / "model.safetensors", reduction, instructions=instructions)
        self._threads = threads

    def parts(self, tokens: Sequence[Sequence[int]]) -> Iterator[Part]:
        """The vectors of texts given as token ids, chunk by chunk in their order."""
        chunks = _chunks(np.fromiter(map(len, tokens), dtype=np.int64, count=len(tokens)), self._threads)
        if len(chunks) == 1:
            yield self._part(tokens, *chunks[0])
            return
        pool = ThreadPoolExecutor(self._threads)
        try:
            yield from pool.map(lambda chunk: self._part(tokens, *chunk), chunks)
        finally:
            pool.shutdown(cancel_futures=True)

    def _part(self, tokens: Sequence[Sequence[int]], start: int, stop: int) -> Part:
        lengths = np.fromiter(map(len, tokens[start:stop]), dtype=np.int64, count=stop - start)
        flat = np.fromiter(chain.from_iterable(tokens[start:stop]), dtype=np.uint32, count=int(lengths.sum()))
        return np.arange(start, stop, dtype=np.int64), self._encoder.encode(flat, lengths)


def _chunks(lengths: npt.NDArray[np.int64], threads: int) -> list[tuple[int, int]]:
    """First and last text (exclusive) of every chunk: whole blocks, small enough to keep all threads busy."""
    starts, filled = [], _BLOCK_TOKENS
    for text, length in enumerate(lengths.tolist()):
        filled += length
        if filled > _BLOCK_TOKENS:
            starts.append(text)
            filled = length
    step = min(max(len(starts) // (_CHUNKS_PER_THREAD * threads), 1), _MAX_BLOCKS)
    starts = starts[::step]
    return list(zip(starts, [*starts[1:], len(lengths)], strict=True))
