"""Texts into requests: what they weigh, how they are cut, which go together."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

Members = npt.NDArray[np.int64]
"""Places of texts in a list."""

_BYTES_PER_TOKEN = 3
_MARKS = 2


def estimated_tokens(text: str) -> int:
    """Tokens of a text, guessed high: a third of its bytes, and two marks."""
    size = len(text) if text.isascii() else len(text.encode())
    return size // _BYTES_PER_TOKEN + _MARKS


def beginning(text: str, max_tokens: int) -> str:
    """The beginning of a text, of about so many tokens; at least one character."""
    kept = text.encode()[: _BYTES_PER_TOKEN * (max_tokens - _MARKS)]
    return kept.decode(errors="ignore").rstrip() or text[:1]


def batches(texts: Sequence[str], *, max_texts: int, max_tokens: int) -> Iterator[Members]:
    """Texts of like length together, long ones first, bounded in number and tokens.

    Args:
        texts: Any texts.
        max_texts: Of a batch.
        max_tokens: Of a batch, as estimated; a longer text is a batch of its own.

    Yields:
        Places of the texts of a batch; every text is in one batch.
    """
    sizes = np.fromiter(map(estimated_tokens, texts), dtype=np.int64, count=len(texts))
    batch: list[int] = []
    tokens = 0
    for member in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[member])
        if batch and (len(batch) == max_texts or tokens + size > max_tokens):
            yield np.array(batch)
            batch, tokens = [], 0
        batch.append(member)
        tokens += size
    if batch:
        yield np.array(batch)
