"""The kinds of model behind one door: `build_model` is how every other room gets its model.

A kind is a class that is built from (`ModelConfig`, embedding width, rngs) and answers as `Model` says. Batches,
objective, training, checkpoints, prediction and evaluation are the same for all; `model.kind` of the configuration
chooses. Described in `documentation/model.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from flax import nnx

from tributary.batch import Array, Batch, DatabaseArrays
from tributary.config import PUBLISHED_KINDS, ModelConfig, ModelKind
from tributary.model.gnn import RelationalGNN
from tributary.model.heads import Outputs
from tributary.model.published import PublishedTransformer
from tributary.model.transformer import RelationalTransformer
from tributary.model.tree_lstm import TreeLSTM


class ClassSpace(Protocol):
    """Heads that can put classes beside answers."""

    def class_keys(self, vectors: Array) -> Array:
        """Float32 [..., D]: what `Outputs.query` is compared with, for vocabulary vectors [..., E]."""


class Model(Protocol):
    """What training and prediction ask of a model."""

    @property
    def heads(self) -> ClassSpace:
        """Turns states of cells into answers."""

    def __call__(self, batch: Batch, arrays: DatabaseArrays, cells: Array, is_masked: Array | None = None) -> Outputs:
        """Predictions for the cells int32 [B, Q]; `is_masked` bool [B, S] are hidden besides the targets."""

    def row_states(self, batch: Batch, arrays: DatabaseArrays) -> Array:
        """[B, R, D]: what the model knows of every row of the contexts."""


MODEL_KINDS: dict[ModelKind, Callable[..., Model]] = {
    "transformer": RelationalTransformer,
    "gnn": RelationalGNN,
    "tree-lstm": TreeLSTM,
    **dict.fromkeys(PUBLISHED_KINDS, PublishedTransformer),
}
"""Class of every `model.kind`, called as (config, embedding_dim, rngs=rngs)."""


def build_model(config: ModelConfig, embedding_dim: int, *, rngs: nnx.Rngs) -> Model:
    """A model of the kind that the configuration names, its parameters freshly drawn.

    Args:
        config: kind and sizes.
        embedding_dim: `E`, width of the database's embeddings.
        rngs: random numbers of the parameters.
    """
    return MODEL_KINDS[config.kind](config, embedding_dim, rngs=rngs)
