"""The whole model: tokens, blocks, heads.

The only room of `model/` that reads `ModelConfig`. The blocks' parameters are stacked and scanned, so compilation
does not grow with depth. Described in `documentation/model.md`.

Source: Relational Transformer, arXiv 2510.06377. We differ in the cell encoder (`encoders`), the row bias
(`block`), the readout block, and the heads (`heads`).
"""

from __future__ import annotations

import math
import operator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tributary.batch import Array, Batch, DatabaseArrays
from tributary.config import ModelConfig
from tributary.model import encoders
from tributary.model.attention import Relations, attention_function, prepared
from tributary.model.block import BlockSizes, RelationalBlock, Surroundings
from tributary.model.heads import Heads, Outputs, judge_rows
from tributary.model.positional import row_positions
from tributary.model.rows import cells_of_rows, rows_of_cells


class RelationalTransformer(nnx.Module):
    """Predicts chosen cells of a batch.

    Args:
        config: sizes.
        embedding_dim: `E`, width of the database's embeddings.
        rngs: random numbers of the parameters.
    """

    def __init__(self, config: ModelConfig, embedding_dim: int, *, rngs: nnx.Rngs):
        self.readout, self.scan, self.remat = config.readout, config.scan, config.remat
        self.attention, self.attentions = config.attention, config.attentions
        self.lookback_days = math.inf if config.lookback_days is None else config.lookback_days
        self.num_layers, self.age_cycles = config.num_layers, config.age_cycles
        dtypes = {"dtype": jnp.dtype(config.dtype), "param_dtype": jnp.dtype(config.param_dtype)}
        options: dict[str, Any] = {**dtypes, "rngs": rngs}
        self.encoder = encoders.CellEncoder(
            embedding_dim,
            config.d_model,
            time_features=config.time_features,
            age_cycles=config.age_cycles,
            **options,
        )
        self.heads = Heads(embedding_dim, config.d_model, links=config.link_head, **options)
        self.blocks = _stacked_blocks(config, embedding_dim, rngs)
        self.selection = (
            encoders.VariableSelection(embedding_dim, config.d_model, **options) if config.variable_selection else None
        )
        self.positions = row_positions(
            config.positional,
            config.d_model,
            num_steps=config.positional_steps,
            num_layers=config.positional_layers,
            num_samples=config.positional_samples,
            width=config.positional_width,
            **options,
        )

    def __call__(self, batch: Batch, arrays: DatabaseArrays, cells: Array, is_masked: Array | None = None) -> Outputs:
        """Predictions for some cells of each context.

        Args:
            batch: device fields.
            arrays: embeddings of the batch's database.
            cells: int32 [B, Q] positions along S.
            is_masked: bool [B, S] cells whose value is hidden, besides targets and cells that the batch has masked.
        """
        x, picked = self.states(batch, arrays, cells, is_masked)
        column = jnp.maximum(jnp.take_along_axis(batch.cell_column, cells, axis=1), 0)
        vectors = jnp.take(arrays.column_vectors, column, axis=0)
        outputs = self.heads(picked, vectors, jnp.take(arrays.column_offset, column, axis=0))
        if self.heads.link_head is None:
            return outputs
        return judge_rows(self.heads.link_head, outputs, picked, rows_of_cells(x, batch), batch, arrays)

    def states(
        self, batch: Batch, arrays: DatabaseArrays, cells: Array, is_masked: Array | None = None
    ) -> tuple[Array, Array]:
        """What the heads read; arguments as above.

        Returns:
            [B, S, D] tokens after the last block that updates all of them, and [B, Q, D] tokens of `cells` at the end.
        """
        if is_masked is None:
            is_masked = jnp.zeros_like(batch.cell_is_target)
        relations = Relations.from_batch(batch, lookback_days=self.lookback_days)
        surroundings = Surroundings(
            relations=prepared(self.attention, relations, self.attentions),
            row_features=encoders.row_features(batch, self.age_cycles),
            foreign_key_vectors=arrays.foreign_key_vectors,
            cell_bias=None if self.selection is None else self.selection(batch, arrays),
        )
        x = self.encoder(batch, arrays, is_masked, surroundings.row_features)
        if self.positions is not None:
            x += cells_of_rows(self.positions(batch), batch)
        return self._run_blocks(x, cells, surroundings)

    def row_states(self, batch: Batch, arrays: DatabaseArrays) -> Array:
        """[B, R, D]: the mean of every row's tokens after the last block that updates all of them."""
        x, _ = self.states(batch, arrays, jnp.zeros_like(batch.cell_column[:, :1]))
        return rows_of_cells(x, batch)

    def _run_blocks(self, x: Array, cells: Array, surroundings: Surroundings) -> tuple[Array, Array]:
        """As `states`, from the tokens that the encoder made."""
        graphdef, stacked = nnx.split(self.blocks)

        def step(x: Array, layer: Any) -> tuple[Array, None]:
            return nnx.merge(graphdef, layer)(x, surroundings), None

        if self.remat:
            step = jax.checkpoint(step)
        num_whole = self.num_layers - self.readout
        if self.scan and num_whole > 0:
            x, _ = jax.lax.scan(step, x, jax.tree.map(lambda leaf: leaf[:num_whole], stacked))
        elif not self.scan:
            for layer in range(num_whole):
                x, _ = step(x, jax.tree.map(operator.itemgetter(layer), stacked))
        picked = jnp.take_along_axis(x, cells[:, :, None], axis=1)
        if self.readout:
            last = nnx.merge(graphdef, jax.tree.map(operator.itemgetter(-1), stacked))
            picked = last(picked, surroundings, keys=x, queries=cells)
        return x, picked


def _stacked_blocks(config: ModelConfig, embedding_dim: int, rngs: nnx.Rngs) -> RelationalBlock:
    """All blocks as one whose parameters have a leading axis of layers."""
    num_updates = config.num_layers * (len(config.attentions) + 1)
    sizes = BlockSizes(
        d_model=config.d_model,
        num_heads=config.num_heads,
        d_ff=config.d_ff,
        embedding_dim=embedding_dim,
        num_row_features=encoders.num_row_features(config.age_cycles),
        age_feature=encoders.AGE_FEATURE,
        output_scale=num_updates**-0.5,
        qk_norm=config.qk_norm,
        output_gates=config.output_gates,
        link_bias=config.link_bias,
    )
    attend = attention_function(config.attention)
    dtypes = {"dtype": jnp.dtype(config.dtype), "param_dtype": jnp.dtype(config.param_dtype)}

    @nnx.split_rngs(splits=config.num_layers)
    @nnx.vmap(in_axes=0, out_axes=0)
    def build(rngs: nnx.Rngs) -> RelationalBlock:
        return RelationalBlock(sizes, attentions=config.attentions, attend=attend, **dtypes, rngs=rngs)

    return build(rngs)
