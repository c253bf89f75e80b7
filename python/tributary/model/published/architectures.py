"""What tells the published models apart: which attentions a block has, and what its attention adds to the plain one."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One published model, whatever its sizes."""

    attentions: tuple[str, ...]
    """Attentions of a block in order, by our names."""
    norm_epsilon: float
    """Added to mean squares."""
    norm_name: str
    """What its files call the scale of a norm."""
    has_query_norm: bool
    """Queries and keys are normalised per head."""
    grows_with_keys: bool
    """Queries are multiplied by a learned number per head and the logarithm of how many keys they may look at, and
    what attention reads passes a gate; logits are divided by head_dim instead of its root."""
    has_boolean: bool
    """Booleans have an encoder, a mask vector and a head of their own; else they are numbers."""


_TORCH_EPSILON = float(np.finfo(np.float32).eps)
"""What torch adds to mean squares when it is not told."""

ARCHITECTURES: dict[str, Architecture] = {
    "rt-v1": Architecture(
        attentions=("column", "feature", "neighbor", "full"),
        norm_epsilon=_TORCH_EPSILON,
        norm_name="weight",
        has_query_norm=False,
        grows_with_keys=False,
        has_boolean=True,
    ),
    "rt-plurel": Architecture(
        attentions=("column", "feature", "neighbor"),
        norm_epsilon=_TORCH_EPSILON,
        norm_name="weight",
        has_query_norm=True,
        grows_with_keys=False,
        has_boolean=True,
    ),
    "rt-j": Architecture(
        attentions=("column", "feature", "neighbor"),
        norm_epsilon=1e-6,
        norm_name="scale",
        has_query_norm=True,
        grows_with_keys=True,
        has_boolean=False,
    ),
}
"""By `model.kind`. Sources: rt-v1, Relational Transformer, arXiv 2510.06377; rt-plurel, PluRel, arXiv 2602.04029; rt-j,
RT-J (star-project.stanford.edu/rt-j). Details after the package `relational-transformer` 1.10.0 of PyPI, which owns
the weights' meaning."""
