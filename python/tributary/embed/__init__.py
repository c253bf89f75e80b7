"""Texts in, vectors out: the embedders and their one interface (DESIGN section 9)."""

from tributary.embed.cache import CachedEmbedder, Space, VectorCache, cache_folder, through_cache
from tributary.embed.choice import EMBEDDERS, make_embedder
from tributary.embed.feature_hash import FeatureHashEmbedder
from tributary.embed.interface import Embedder, Identity, checked_vectors
from tributary.embed.local import LocalEmbedder

__all__ = [
    "EMBEDDERS",
    "CachedEmbedder",
    "Embedder",
    "FeatureHashEmbedder",
    "Identity",
    "LocalEmbedder",
    "Space",
    "VectorCache",
    "cache_folder",
    "checked_vectors",
    "make_embedder",
    "through_cache",
]
