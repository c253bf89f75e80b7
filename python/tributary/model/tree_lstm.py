"""`model.kind: tree-lstm`: a child-sum Tree-LSTM over the rows of a context, from the far rows to the seed's.

The tree is the walk from the seed, unrolled: a row passes its state to every row it is linked with that is one hop
nearer to the seed. A row reached from several rows so stands once under each of them, no tie between them has to be
broken, and the order of rows means nothing. Described in `documentation/model.md`.

Source: child-sum Tree-LSTM, arXiv 1503.00075, equations 2 to 8. We differ: a child's state is joined by the role of
its link (a vector from the embedding of the foreign key and its direction), the forget gate reads that too, both sums
over children are divided by the root of their number (a customer has more orders than a phrase has words), and layers
can be stacked.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tributary.batch import Array, Batch, DatabaseArrays
from tributary.config import ModelConfig
from tributary.model.block import BlockSizes
from tributary.model.heads import Heads, Outputs
from tributary.model.norm import RMSNorm
from tributary.model.row_states import CellReadout, Links, RowEncoder, answer, block_sizes, links_of, sum_by, take

FORGET_BIAS = 1.0
"""First value of the forget gates' bias: at first children are remembered."""


def tree_links(batch: Batch, links: Links) -> Links:
    """The links by which a row reads one that is one hop farther from the seed; the others become empty."""
    num_rows = batch.row_hop.shape[1]
    hop = batch.row_hop.astype(jnp.int32)
    farther = take(hop, links.source) == take(hop, jnp.minimum(links.target, num_rows - 1)) + 1
    is_tree = farther & (links.target < num_rows)
    return dataclasses.replace(links, target=jnp.where(is_tree, links.target, num_rows))


class TreeLSTMLayer(nnx.Module):
    """One pass from the leaves to the seed's row; a pre-norm residual update of the rows' states."""

    def __init__(
        self,
        sizes: BlockSizes,
        *,
        dtype: jnp.dtype,
        param_dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.dtype, d_model = dtype, sizes.d_model
        matrix = nnx.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        output = nnx.initializers.variance_scaling(sizes.output_scale**2, "fan_in", "truncated_normal")
        small, zeros = nnx.initializers.normal(0.3), nnx.initializers.zeros_init()

        def param(init: nnx.Initializer, *shape: int) -> nnx.Param[Any]:
            return nnx.Param(init(rngs.params(), shape, param_dtype))

        self.norm = RMSNorm(d_model, dtype=dtype, param_dtype=param_dtype)
        self.input_kernel = param(matrix, d_model, 4 * d_model)  # input, output, update, forget
        self.child_kernel = param(matrix, d_model, 3 * d_model)  # input, output, update
        self.forget_kernel = param(matrix, d_model, d_model)
        self.gate_bias = param(zeros, 3 * d_model)
        self.forget_bias = param(nnx.initializers.constant(FORGET_BIAS), d_model)
        self.role = param(small, 2, sizes.embedding_dim, d_model)
        self.out_kernel = param(output, d_model, d_model)

    def __call__(self, states: Array, hop: Array, links: Links, keys: Array, levels: int) -> Array:
        """Updated states.

        Args:
            states: [B, R, D].
            hop: int32 [B, R].
            links: of the tree, targets nearer to the seed than sources.
            keys: [F, E] embeddings of the foreign keys.
            levels: children of rows at fewer hops than this are read.

        Returns:
            [B, R, D].
        """
        num_rows = states.shape[1]
        kernels = {
            name: getattr(self, f"{name}_kernel")[...].astype(self.dtype) for name in ("input", "child", "forget")
        }
        at = jnp.minimum(links.target, num_rows - 1)
        roles = jnp.einsum("fe,xed->xfd", keys.astype(self.dtype), self.role[...].astype(self.dtype))
        role = roles.reshape(-1, roles.shape[-1])[links.relation]  # [B, L, D]
        count = sum_by(jnp.ones_like(links.target), links.target, num_rows)[..., None]
        scale = jnp.maximum(count, 1.0) ** -0.5

        gates, forget = jnp.split(
            jnp.einsum("brd,dn->brn", self.norm(states), kernels["input"]), [3 * states.shape[-1]], axis=-1
        )
        gates += self.gate_bias[...].astype(self.dtype)
        forget += self.forget_bias[...].astype(self.dtype)
        forget_of_link = take(forget, at) + jnp.einsum("bld,dk->blk", role, kernels["forget"])

        def cell(children: Array, memories: Array) -> tuple[Array, Array]:
            """Equations 4 to 8, given both sums over children."""
            joined = gates + jnp.einsum("brd,dn->brn", children.astype(self.dtype), kernels["child"])
            enter, leave, update = jnp.split(joined.astype(jnp.float32), 3, axis=-1)
            memory = jax.nn.sigmoid(enter) * jnp.tanh(update) + memories
            return jax.nn.sigmoid(leave) * jnp.tanh(memory), memory

        def level(carry: tuple[Array, Array], depth: Array) -> tuple[tuple[Array, Array], None]:
            """Rows at one hop, all farther ones being done."""
            hidden, memory = carry
            child = take(hidden, links.source).astype(self.dtype) + role
            keep = take(jnp.einsum("brd,dk->brk", hidden.astype(self.dtype), kernels["forget"]), links.source)
            keep = jax.nn.sigmoid((keep + forget_of_link).astype(jnp.float32))
            children = sum_by(child, links.target, num_rows) * scale
            memories = sum_by(keep * take(memory, links.source), links.target, num_rows) * scale
            is_due = (hop == depth)[..., None]
            new_hidden, new_memory = cell(children, memories)
            return (jnp.where(is_due, new_hidden, hidden), jnp.where(is_due, new_memory, memory)), None

        empty = jnp.zeros(states.shape, jnp.float32)
        (hidden, _), _ = jax.lax.scan(level, cell(empty, empty), jnp.arange(levels - 1, -1, -1))
        return states + jnp.einsum("brd,dk->brk", hidden.astype(self.dtype), self.out_kernel[...].astype(self.dtype))


class TreeLSTM(nnx.Module):
    """Predicts chosen cells of a batch from the states of their rows.

    Args:
        config: sizes.
        embedding_dim: `E`, width of the database's embeddings.
        rngs: random numbers of the parameters.
    """

    def __init__(self, config: ModelConfig, embedding_dim: int, *, rngs: nnx.Rngs):
        self.levels = config.levels
        dtypes = {"dtype": jnp.dtype(config.dtype), "param_dtype": jnp.dtype(config.param_dtype)}
        options: dict[str, Any] = {**dtypes, "rngs": rngs}
        self.encoder = RowEncoder(
            embedding_dim,
            config.d_model,
            config.num_heads,
            time_features=config.time_features,
            age_cycles=config.age_cycles,
            **options,
        )
        sizes = block_sizes(config, embedding_dim, num_updates=config.num_layers + 1)
        self.readout = CellReadout(sizes, **options)
        self.heads = Heads(embedding_dim, config.d_model, links=config.link_head, **options)

        @nnx.split_rngs(splits=config.num_layers)
        @nnx.vmap(in_axes=0, out_axes=0)
        def stacked_layers(rngs: nnx.Rngs) -> TreeLSTMLayer:
            return TreeLSTMLayer(sizes, **dtypes, rngs=rngs)

        self.blocks = stacked_layers(rngs)

    def __call__(self, batch: Batch, arrays: DatabaseArrays, cells: Array, is_masked: Array | None = None) -> Outputs:
        """Predictions for some cells of each context.

        Args:
            batch: device fields.
            arrays: embeddings of the batch's database.
            cells: int32 [B, Q] positions along S.
            is_masked: bool [B, S] cells whose value is hidden, besides targets and cells that the batch has masked.
        """
        tokens, states = self._states(batch, arrays, is_masked)
        x = self.readout(tokens, states, batch, cells)
        return answer(self.heads, x, states, batch, arrays, cells)

    def row_states(self, batch: Batch, arrays: DatabaseArrays) -> Array:
        """[B, R, D]: the states of rows after the last layer."""
        return self._states(batch, arrays, None)[1]

    def _states(self, batch: Batch, arrays: DatabaseArrays, is_masked: Array | None) -> tuple[Array, Array]:
        """Tokens of cells [B, S, D], and states of rows [B, R, D]."""
        if is_masked is None:
            is_masked = jnp.zeros_like(batch.cell_is_target)
        tokens, states, _ = self.encoder(batch, arrays, is_masked)
        links = tree_links(batch, links_of(batch, arrays.foreign_key_vectors.shape[0]))
        hop = batch.row_hop.astype(jnp.int32)
        graphdef, stacked = nnx.split(self.blocks)

        def step(states: Array, layer: Any) -> tuple[Array, None]:
            return nnx.merge(graphdef, layer)(states, hop, links, arrays.foreign_key_vectors, self.levels), None

        states, _ = jax.lax.scan(step, states, stacked)
        return tokens, states
