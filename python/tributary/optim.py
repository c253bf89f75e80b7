"""Optimisers, the learning-rate curve, and the training state as one plain pytree.

The learning rate is a function of progress (0 to 1), which the loop hands in: with a time limit it is the larger of
steps done and time spent, so the curve always ends when training does. Described in `documentation/training.md`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from tributary.batch import Array, Batch, DatabaseArrays
from tributary.config import OptimizerSection

State = dict[str, Any]
"""params, opt_state, ema (empty dict without averaging), step int32, bad_step int32 (-1 while all went well)."""

LossFunction = Callable[[Any, Batch, DatabaseArrays], tuple[Array, dict[str, Array]]]


def is_muon_matrix(path: tuple[Any, ...], leaf: Array) -> bool:
    """A stacked matrix of the blocks, but not the row bias, whose entries have meanings of their own."""
    names = [str(getattr(key, "key", key)) for key in path]
    return names[0] == "blocks" and leaf.ndim == 3 and names[-1].endswith("_kernel")


def make_optimizer(config: OptimizerSection) -> optax.GradientTransformation:
    """Clipping, direction and decay; the learning rate is applied by `train_step`.

    Source: Muon, Jordan 2024 (kellerjordan.github.io/posts/muon); scaled by 0.2 sqrt(max(in, out)) as in
    arXiv 2502.16982, equation 4, so that one learning rate serves both.
    """
    adam = optax.scale_by_adam(b1=config.b1, b2=config.b2)
    decay = optax.add_decayed_weights(config.weight_decay, mask=functools.partial(jax.tree.map, lambda x: x.ndim >= 2))
    if config.name == "adamw":
        return optax.chain(optax.clip_by_global_norm(config.clip_norm), adam, decay)
    last_two = lambda params: jax.tree.map(lambda _: MuonDimensionNumbers(-2, -1), params)  # noqa: E731
    rescale = optax.stateless(lambda updates, _: jax.tree.map(lambda x: x * (0.2 * max(x.shape[-2:]) ** 0.5), updates))
    muon = optax.chain(scale_by_muon(weight_dimension_numbers=last_two), rescale)
    labels = functools.partial(
        jax.tree_util.tree_map_with_path, lambda path, leaf: "muon" if is_muon_matrix(path, leaf) else "adam"
    )
    direction = optax.partition({"muon": muon, "adam": adam}, labels)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), direction, decay)


def learning_rate(config: OptimizerSection, step: Array, progress: Array) -> Array:
    """Linear warm-up over `warmup_steps`, times half a cosine over progress down to `final_fraction`."""
    warmup = jnp.minimum(1.0, (step + 1.0) / max(1, config.warmup_steps))
    cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * jnp.clip(progress, 0.0, 1.0)))
    return config.learning_rate * warmup * (config.final_fraction + (1.0 - config.final_fraction) * cosine)


def init_state(params: Any, config: OptimizerSection) -> State:
    """State before the first step."""
    return {
        "params": params,
        "opt_state": make_optimizer(config).init(params),
        "ema": jax.tree.map(jnp.copy, params) if config.ema_decay is not None else {},
        "step": jnp.zeros((), jnp.int32),
        "bad_step": jnp.full((), -1, jnp.int32),
    }


def make_train_step(
    loss_function: LossFunction, config: OptimizerSection
) -> Callable[[State, Batch, DatabaseArrays, Array], tuple[State, dict[str, Array]]]:
    """The jitted step: state, batch, arrays, progress -> state, metrics; the state given in is donated.

    The first step whose loss or gradient is not finite leaves the state as it is and writes its number into
    `bad_step`; no step after it changes anything. So the last good state is always at hand.

    Args:
        loss_function: (params, batch, arrays) -> loss, metrics.
        config: optimiser settings.
    """
    optimizer = make_optimizer(config)

    def train_step(
        state: State, batch: Batch, arrays: DatabaseArrays, progress: Array
    ) -> tuple[State, dict[str, Array]]:
        step = state["step"]
        gradient_of = jax.value_and_grad(loss_function, has_aux=True)
        (loss, metrics), gradients = gradient_of(state["params"], batch, arrays)
        norm = optax.global_norm(gradients)
        is_good = jnp.isfinite(loss) & jnp.isfinite(norm) & (state["bad_step"] < 0)
        rate = learning_rate(config, step.astype(jnp.float32), progress)
        updates, opt_state = optimizer.update(gradients, state["opt_state"], state["params"])
        params = jax.tree.map(lambda x, update: x - rate * update, state["params"], updates)
        new = {"params": params, "opt_state": opt_state, "ema": state["ema"]}
        if config.ema_decay is not None:
            decay = jnp.minimum(config.ema_decay, (1.0 + step) / (10.0 + step))
            new["ema"] = jax.tree.map(lambda old, x: old + (1.0 - decay) * (x - old), state["ema"], params)
        kept = jax.tree.map(lambda new, old: jnp.where(is_good, new, old), new, {name: state[name] for name in new})
        is_first_bad = ~is_good & (state["bad_step"] < 0)
        kept["step"] = jnp.where(is_good, step + 1, step)
        kept["bad_step"] = jnp.where(is_first_bad, step, state["bad_step"])
        return kept, {**metrics, "loss": loss, "gradient_norm": norm, "learning_rate": rate}

    return jax.jit(train_step, donate_argnums=0)


def evaluation_params(state: State) -> Any:
    """Averaged parameters where they are kept, else the parameters."""
    return state["ema"] or state["params"]
