"""From 384 dimensions to fewer: one frozen linear map that every database shares.

`minilm_projection.npy` (float16 [384, 256]) holds the leading directions of an uncentred principal component analysis
of generic phrases, strongest first, so that its first D columns are the map to D dimensions.
`scripts/make_projection.py` made it. A map fitted to each database would keep as much, but dimensions would mean
different things in different databases, and one model could not read them all.
"""

import hashlib
from functools import cache
from importlib import resources
from io import BytesIO

import numpy as np
import numpy.typing as npt

from tributary.embed.interface import unit_rows

FILE = "minilm_projection.npy"
FULL_WIDTH = 384
MAX_DIMENSION = 256


@cache
def _bytes() -> bytes:
    return (resources.files("tributary.embed") / FILE).read_bytes()


@cache
def projection_sha() -> str:
    """The sha256 of the frozen map, in hex; databases record it."""
    return hashlib.sha256(_bytes()).hexdigest()


def projection(dimension: int) -> npt.NDArray[np.float32]:
    """The map to some dimension: float32 [384, dimension].

    Args:
        dimension: From 8 to 256; or 384, for no reduction.

    Raises:
        ValueError: Another dimension.
    """
    if dimension == FULL_WIDTH:
        return np.eye(FULL_WIDTH, dtype=np.float32)
    if not 8 <= dimension <= MAX_DIMENSION:
        raise ValueError(
            f"all-MiniLM-L6-v2: dimension must be between 8 and {MAX_DIMENSION}, or {FULL_WIDTH}, found {dimension}"
        )
    columns: npt.NDArray[np.float16] = np.load(BytesIO(_bytes()), allow_pickle=False)
    return columns[:, :dimension].astype(np.float32)


def reduced(vectors: npt.NDArray[np.float32], dimension: int) -> npt.NDArray[np.float32]:
    """Vectors of full width in fewer dimensions.

    Args:
        vectors: float32 [N, 384].
        dimension: As for `projection`.

    Returns:
        float32 [N, dimension], every row of length one.
    """
    columns = projection(dimension)
    # row by row: a product of matrices may round a row differently beside other rows
    rows = [vector @ columns for vector in vectors]
    return unit_rows(np.array(rows, dtype=np.float32).reshape(len(vectors), dimension))
