"""The Relational Transformer in Flax NNX."""

# The model
# Its parts
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
from tributary.model.transformer import RelationalTransformer

__all__ = [
    "CellEncoder",
    "GatedMLP",
    "Heads",
    "Outputs",
    "RMSNorm",
    "RelationalAttention",
    "RelationalBlock",
    "RelationalTransformer",
    "attention_function",
    "attention_masks",
    "chunked_attention",
    "dense_attention",
]
