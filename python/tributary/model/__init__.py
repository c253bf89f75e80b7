"""Models in Flax NNX: the Relational Transformer, and other kinds behind the same door."""

from tributary.model.attention import (
    RelationalAttention,
    RMSNorm,
    attention_function,
    attention_masks,
    chunked_attention,
    dense_attention,
)
from tributary.model.block import GatedMLP, RelationalBlock
from tributary.model.encoders import CellEncoder
from tributary.model.heads import Heads, Outputs
from tributary.model.kinds import MODEL_KINDS, Model, build_model
from tributary.model.transformer import RelationalTransformer

__all__ = [
    "MODEL_KINDS",
    "CellEncoder",
    "GatedMLP",
    "Heads",
    "Model",
    "Outputs",
    "RMSNorm",
    "RelationalAttention",
    "RelationalBlock",
    "RelationalTransformer",
    "attention_function",
    "attention_masks",
    "build_model",
    "chunked_attention",
    "dense_attention",
]
