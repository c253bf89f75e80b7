"""Models in Flax NNX: the Relational Transformer, and other kinds behind the same door."""

from tributary.model.attention import Relations, attention_function
from tributary.model.block import GatedMLP, RelationalAttention, RelationalBlock
from tributary.model.encoders import CellEncoder
from tributary.model.gnn import RelationalGNN
from tributary.model.heads import Heads, Outputs
from tributary.model.kinds import MODEL_KINDS, Model, build_model
from tributary.model.norm import RMSNorm
from tributary.model.transformer import RelationalTransformer
from tributary.model.tree_lstm import TreeLSTM

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
    "RelationalGNN",
    "RelationalTransformer",
    "Relations",
    "TreeLSTM",
    "attention_function",
    "build_model",
]
