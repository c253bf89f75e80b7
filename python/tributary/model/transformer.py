"""The whole model: tokens, blocks, heads.

The only room of `model/` that reads `ModelConfig`. The blocks' parameters are stacked and scanned, so compilation
does not grow with depth. Described in `documentation/model.md`.

Source: Relational Transformer, arXiv 2510.06377. We differ in the cell encoder (`encoders`), the row bias
(`block`), the readout block, and the heads (`heads`).
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tributary.batch import Array, Batch, DatabaseArrays
from tributary.config import ModelConfig
from tributary.model import encoders
from tributary.model.attention import Relations, attention_function
from tributary.model.block import RelationalBlock
from tributary.model.heads import Heads, Outputs


class RelationalTransformer(nnx.Module):
    """Predicts chosen cells of a batch.

    Args:
        config: sizes.
        embedding_dim: `E`, width of the database's embeddings.
        rngs: random numbers of the parameters.
    """

    def __init__(self, config: ModelConfig, embedding_dim: int, *, rngs: nnx.Rngs):
        self.readout = config.readout
        self.lookback_days = math.inf if config.lookback_days is None else config.lookback_days
        self.num_layers = config.num_layers
        dtypes = {"dtype": jnp.dtype(config.dtype), "param_dtype": jnp.dtype(config.param_dtype)}
        self.encoder = encoders.CellEncoder(
            embedding_dim, config.d_model, time_features=config.time_features, **dtypes, rngs=rngs
        )
        self.heads = Heads(embedding_dim, config.d_model, **dtypes, rngs=rngs)
        num_updates = config.num_layers * (len(config.attentions) + 1)
        attend = attention_function(config.attention)

        @nnx.split_rngs(splits=config.num_layers)
        @nnx.vmap(in_axes=0, out_axes=0)
        def stacked_blocks(rngs: nnx.Rngs) -> RelationalBlock:
            return RelationalBlock(
                config.d_model,
                config.num_heads,
                config.d_ff,
                attentions=config.attentions,
                num_row_features=encoders.NUM_ROW_FEATURES,
                age_feature=encoders.AGE_FEATURE,
                output_scale=num_updates**-0.5,
                attend=attend,
                **dtypes,
                rngs=rngs,
            )

        self.blocks = stacked_blocks(rngs)

    def __call__(self, batch: Batch, arrays: DatabaseArrays, cells: Array, is_masked: Array | None = None) -> Outputs:
        """Predictions for some cells of each context.

        Args:
            batch: device fields.
            arrays: embeddings of the batch's database.
            cells: int32 [B, Q] positions along S.
            is_masked: bool [B, S] cells whose value is hidden, besides the targets.
        """
        if is_masked is None:
            is_masked = jnp.zeros_like(batch.cell_is_target)
        features = encoders.row_features(batch)
        x = self.encoder(batch, arrays, is_masked, features)
        relations = Relations.from_batch(batch, lookback_days=self.lookback_days)
        graphdef, stacked = nnx.split(self.blocks)

        def step(x: Array, layer: Any) -> tuple[Array, None]:
            return nnx.merge(graphdef, layer)(x, relations, features), None

        scanned = jax.tree.map(lambda leaf: leaf[: self.num_layers - self.readout], stacked)
        if self.num_layers > self.readout:
            x, _ = jax.lax.scan(step, x, scanned)
        picked = jnp.take_along_axis(x, cells[:, :, None], axis=1)
        if self.readout:
            last = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[-1], stacked))
            picked = last(picked, relations, features, keys=x, queries=cells)
        column = jnp.maximum(jnp.take_along_axis(batch.cell_column, cells, axis=1), 0)
        vectors = jnp.take(arrays.column_vectors, column, axis=0)
        return self.heads(picked, vectors, jnp.take(arrays.column_offset, column, axis=0))
