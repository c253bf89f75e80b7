"""Texts in, vectors out: the embedders and their one interface (DESIGN section 9)."""

from tributary.embed.cache import CachedEmbedder, Space, VectorCache, cache_folder, num_cached, through_cache
from tributary.embed.choice import EMBEDDERS, default_embedder, make_embedder, matching_embedder
from tributary.embed.endpoint import EndpointEmbedder
from tributary.embed.endpoint_failures import EndpointError, Refusal
from tributary.embed.feature_hash import FeatureHashEmbedder
from tributary.embed.interface import Embedder, Identity, checked_vectors
from tributary.embed.local import LocalEmbedder
from tributary.embed.static import StaticEmbedder

__all__ = [
    "EMBEDDERS",
    "CachedEmbedder",
    "Embedder",
    "EndpointEmbedder",
    "EndpointError",
    "FeatureHashEmbedder",
    "Identity",
    "LocalEmbedder",
    "Refusal",
    "Space",
    "StaticEmbedder",
    "VectorCache",
    "cache_folder",
    "checked_vectors",
    "default_embedder",
    "make_embedder",
    "matching_embedder",
    "num_cached",
    "through_cache",
]
