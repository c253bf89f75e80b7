"""Texts in, vectors out: the embedders and their one interface (DESIGN section 9)."""

from tributary.embed.choice import EMBEDDERS, make_embedder
from tributary.embed.feature_hash import FeatureHashEmbedder
from tributary.embed.interface import Embedder, Identity, checked_vectors

__all__ = [
    "EMBEDDERS",
    "Embedder",
    "FeatureHashEmbedder",
    "Identity",
    "checked_vectors",
    "make_embedder",
]
