"""A model as one function of parameters and a batch: what training, validation and prediction share.

Described in `documentation/model.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from tributary.batch import Array, Batch, DatabaseArrays
from tributary.config import ModelConfig
from tributary.model.kinds import Model, build_model

Forward = Callable[[Any, Batch, DatabaseArrays], dict[str, jax.Array]]
"""(params, device fields, arrays) -> `number`, `moment`, `truth` float32 [B] and `classes` float32 [B, K] logits; where
a link task is asked also `candidates` float32 [B, A] log-odds."""


def describe_model(config: ModelConfig, embedding_dim: int) -> tuple[nnx.GraphDef[Any], Any]:
    """The model without its parameters, and the shapes of these, nested dicts of `jax.ShapeDtypeStruct`.

    Nothing is drawn: a program for every shape would have to be compiled, for parameters that come from a checkpoint.
    """
    graphdef, state = nnx.split(nnx.eval_shape(lambda: _drawn(config, embedding_dim, 0)), nnx.Param)
    return graphdef, nnx.to_pure_dict(state)


def draw_params(config: ModelConfig, embedding_dim: int, rng_seed: int) -> Any:
    """Freshly drawn parameters of a model, nested dicts of arrays."""
    return nnx.to_pure_dict(nnx.state(_drawn(config, embedding_dim, rng_seed), nnx.Param))


def _drawn(config: ModelConfig, embedding_dim: int, rng_seed: int) -> Model:
    return build_model(config, embedding_dim, rngs=nnx.Rngs(rng_seed))


def make_forward(graphdef: nnx.GraphDef[Any], rescale: Callable[[Batch], Batch] | None = None) -> Forward:
    """The jitted prediction of target cells.

    Args:
        graphdef: of the model.
        rescale: what is done to a batch before the model reads it.
    """

    def forward(params: Any, batch: Batch, arrays: DatabaseArrays) -> dict[str, jax.Array]:
        model = nnx.merge(graphdef, params)
        batch = batch if rescale is None else rescale(batch)
        outputs = model(batch, arrays, jnp.maximum(batch.target_cell, 0)[:, None])
        scalars = {name: getattr(outputs, name)[:, 0] for name in ("number", "moment", "truth")}
        scores = {**scalars, "classes": class_logits(model, outputs.query[:, 0], batch, arrays)}
        if outputs.candidates is not None:
            scores["candidates"] = outputs.candidates
        return scores

    return jax.jit(forward)


def task_of(batch: Batch, arrays: DatabaseArrays) -> Array:
    """int32 [B]: the seed's task; any one for padding and for rows of tables, which have no label."""
    return jnp.clip(batch.seed_task, 0, arrays.task_classes.shape[0] - 1)


def class_logits(model: Model, query: Array, batch: Batch, arrays: DatabaseArrays) -> Array:
    """Float32 [B, K]: logits of the classes of each seed's task; -1e30 where the task has fewer classes.

    Args:
        model: for its class keys.
        query: [B, D] of the target cells.
        batch: device fields.
        arrays: `task_classes`.
    """
    task = task_of(batch, arrays)
    classes = jnp.take(arrays.task_classes, task, axis=0)
    table = model.heads.class_keys(jnp.take(arrays.vocab_vectors, jnp.maximum(arrays.task_classes, 0), axis=0))
    keys = jnp.take(table, task, axis=0)
    return jnp.where(classes >= 0, jnp.einsum("bd,bkd->bk", query, keys), -1e30)
