"""From the name a user types to an embedder."""

from collections.abc import Callable
from difflib import get_close_matches

from tributary.embed.feature_hash import FeatureHashEmbedder
from tributary.embed.interface import Embedder
from tributary.embed.local import LocalEmbedder

DEFAULT_DIMENSION = 256

EMBEDDERS: dict[str, Callable[[int], Embedder]] = {
    "hash": FeatureHashEmbedder,
    "local": LocalEmbedder,
}


def make_embedder(name: str, *, dimension: int = DEFAULT_DIMENSION) -> Embedder:
    """The embedder of a name.

    Args:
        name: One of `EMBEDDERS`.
        dimension: Length of its vectors.

    Returns:
        The embedder, ready to use.

    Raises:
        ValueError: No embedder has this name, or it cannot make vectors of this length.
        FileNotFoundError: The files of its model are not there.

    Example:
        >>> make_embedder("hash", dimension=64).identity["dimension"]
        64
    """
    make = EMBEDDERS.get(name)
    if make is None:
        near = get_close_matches(name, EMBEDDERS, n=1)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        raise ValueError(f"unknown embedder `{name}`{hint} (available: {', '.join(sorted(EMBEDDERS))})")
    return make(dimension)
