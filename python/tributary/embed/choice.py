"""From the name a user types to an embedder."""

import os
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from tributary.embed.endpoint import EndpointEmbedder
from tributary.embed.endpoint_settings import endpoint_settings
from tributary.embed.feature_hash import FeatureHashEmbedder
from tributary.embed.interface import Embedder
from tributary.embed.local import LocalEmbedder
from tributary.embed.static import StaticEmbedder

DEFAULT_DIMENSION = 256
DEFAULT_EMBEDDER = "local"
DEFAULT_VARIABLE = "TRIBUTARY_EMBEDDER"
"""Environment variable: the embedder to take when none is named."""

EMBEDDERS: dict[str, Callable[[int], Embedder]] = {
    "endpoint": lambda dimension: EndpointEmbedder(dimension, endpoint_settings()),
    "hash": FeatureHashEmbedder,
    "local": LocalEmbedder,
    "local-static": StaticEmbedder,
}


def make_embedder(
    name: str, *, dimension: int = DEFAULT_DIMENSION, url: str | None = None, model: str | None = None
) -> Embedder:
    """The embedder of a name.

    Args:
        name: One of `EMBEDDERS`.
        dimension: Length of its vectors.
        url: Of `endpoint` only: its address, instead of that in the environment.
        model: Of `endpoint` only: its model, instead of that in the environment.

    Returns:
        The embedder, ready to use.

    Raises:
        ValueError: No embedder has this name, it cannot make vectors of this length, or its settings are incomplete.
        FileNotFoundError: The files of its model are not there.

    Example:
        >>> make_embedder("hash", dimension=64).identity["dimension"]
        64
    """
    if (url or model) and name != "endpoint":
        raise ValueError(f"embedder `{name}` has no address or model to choose; that is for `--embedder endpoint`")
    if url or model:
        return EndpointEmbedder(dimension, endpoint_settings(url=url, model=model))
    make = EMBEDDERS.get(name)
    if make is None:
        near = get_close_matches(name, EMBEDDERS, n=1)
        hint = f"; did you mean `{near[0]}`?" if near else ""
        raise ValueError(f"unknown embedder `{name}`{hint} (available: {', '.join(sorted(EMBEDDERS))})")
    return make(dimension)


def default_embedder() -> Embedder:
    """The embedder to take when none is named: `local`, or what `TRIBUTARY_EMBEDDER` says.

    Raises:
        FileNotFoundError: The files of its model are not there; no other embedder takes its place.
    """
    return make_embedder(os.environ.get(DEFAULT_VARIABLE) or DEFAULT_EMBEDDER)


def matching_embedder(identity: Mapping[str, Any]) -> Embedder:
    """The embedder that made the vectors of a database, for texts that come later.

    Args:
        identity: What the database's manifest says of its vectors.

    Raises:
        ValueError: This program, with these weights and settings, would make vectors of another space.
    """
    model = identity["model"] if identity["kind"] == "endpoint" else None
    embedder = make_embedder(identity["kind"], dimension=identity["dimension"], model=model)
    if embedder.identity != identity:
        parts = sorted({*identity, *embedder.identity})
        other = [part for part in parts if identity.get(part) != embedder.identity.get(part)]
        raise ValueError(
            f"the database's vectors were made by {dict(identity)}, this program makes {dict(embedder.identity)}: they"
            f" differ in {', '.join(other)} and must not be mixed"
        )
    return embedder
