"""Reading the answer of an endpoint, believing nothing.

Clients take short, reordered, repeated, wrong-width, empty and NaN answers without a word. Here an answer is taken
apart by its indices; every vector that is certainly that of its text is used, the rest is asked for again.
"""

import binascii
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Answer:
    """What can be used of an answer.

    Attributes:
        members: int64 [n], places of texts in the request, ascending.
        vectors: float32 [n, W].
        problem: Why other texts have no vector; None when all have one.
    """

    members: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]
    problem: str | None


def read_answer(body: bytes, num_texts: int, width: int | None) -> Answer:
    """Takes an answer apart.

    Args:
        body: What the server sent.
        num_texts: Texts in the request.
        width: Numbers in a vector, if known; else what most vectors of the answer have.

    Returns:
        The vectors that are certain. An answer with too few or too many entries has none: its server may have
        dropped a text and counted anew.
    """
    nothing = np.empty(0, dtype=np.int64), np.empty((0, width or 0), dtype=np.float32)
    try:
        content = json.loads(body)
        entries = content["data"]
        places = [entry["index"] for entry in entries]
        raw = [entry["embedding"] for entry in entries]
    except (ValueError, LookupError, TypeError):
        return Answer(*nothing, "the answer is cut off or is not that of an embedding endpoint")
    if len(places) != num_texts:
        return Answer(*nothing, f"the answer has {len(places)} vectors instead of {num_texts}")
    read = [_numbers(value) for value in raw]
    widths = Counter(len(vector) for vector, _ in read if vector is not None)
    expected = width or max(widths, key=lambda found: widths[found], default=0)
    vectors: dict[int, npt.NDArray[np.float32]] = {}
    refused: set[int] = set()
    problem = None
    for place, (vector, fault) in zip(places, read, strict=True):
        if type(place) is not int or not 0 <= place < num_texts:
            problem = f"the answer has the index {place!r}, of {num_texts} texts"
            continue
        if vector is not None and len(vector) != expected:
            fault = f"a vector has {len(vector)} numbers instead of {expected}"
        if place in vectors or place in refused:
            fault = "the answer has the same index twice"
        if vector is None or fault is not None:
            problem = fault
            vectors.pop(place, None)
            refused.add(place)
            continue
        vectors[place] = vector
    if not vectors:
        return Answer(*nothing, problem or "the answer is empty")
    members = np.array(sorted(vectors), dtype=np.int64)
    stacked = np.stack([vectors[place] for place in members.tolist()])
    is_finite, is_zero = np.isfinite(stacked).all(axis=1), ~stacked.any(axis=1)
    if not is_finite.all():
        problem = "a vector holds numbers that are not finite"
    elif is_zero.any():
        problem = "a vector is zero"
    is_good = is_finite & ~is_zero
    return Answer(members[is_good], stacked[is_good], problem)


def _numbers(value: Any) -> tuple[npt.NDArray[np.float32] | None, str | None]:
    """The numbers of base64 or of a list, or what is wrong with them."""
    try:
        if isinstance(value, str):
            vector = np.frombuffer(binascii.a2b_base64(value, strict_mode=True), dtype="<f4")
        else:
            vector = np.array(value, dtype=np.float32)
    except (ValueError, TypeError, binascii.Error, OverflowError):
        return None, "a vector is neither base64 nor a list of numbers"
    if vector.ndim != 1 or vector.size == 0:
        return None, "a vector is empty"
    return vector, None
