"""Optimisers, the learning-rate curve, and the training state as one plain pytree.

The learning rate is a function of progress (0 to 1), which the loop hands in: with a time limit it is the larger of
steps done and time spent, so the curve always ends when training does. Described in `documentation/training.md`.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from tributary.batch import Array, Batch, DatabaseArrays
from tributary.config import ConfigError, OptimizerSection

State = dict[str, Any]
"""params (those that are trained), frozen (the others), opt_state, ema (of the trained ones; empty dict without
averaging), step int32, bad_step int32 (-1 while all went well)."""

LossFunction = Callable[..., tuple[Array, dict[str, Array]]]
"""(params, batch, arrays) -> loss, metrics; for steps in parts also the argument `shares`, of the part."""

PartShares = Callable[[Batch, DatabaseArrays], dict[str, Array]]
"""Batch with a leading axis of parts -> float32 [parts] by name; see `tributary.training.losses.part_shares`."""

HEADS = "heads"
"""The group of parameters that is no backbone."""


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
    """Linear warm-up over `warmup_steps`, times the schedule over progress.

    Source: one-cycle, arXiv 1708.07120; as optax has it, a 25th of the peak at first, cosines between.
    """
    warmup = jnp.minimum(1.0, (step + 1.0) / max(1, config.warmup_steps))
    progress = jnp.clip(progress, 0.0, 1.0)
    if config.schedule == "constant":
        return config.learning_rate * warmup
    if config.schedule == "one-cycle":
        start = 25.0
        fall = math.inf if config.final_fraction == 0 else 1.0 / (start * config.final_fraction)
        # Optax counts whole steps; these are millionths of the run.
        curve = optax.cosine_onecycle_schedule(10**6, config.learning_rate, config.cycle_rise, start, fall)
        return jnp.asarray(curve(progress * 1e6)) * warmup
    cosine = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
    return config.learning_rate * warmup * (config.final_fraction + (1.0 - config.final_fraction) * cosine)


# --- Frozen parameters -------------------------------------------------------------------------------------------


def freeze(params: Any, groups: Sequence[str]) -> tuple[Any, Any]:
    """Parameters that are trained, and those that stay as they are.

    Args:
        params: nested dicts of arrays.
        groups: names of what is frozen (`encoder`, `heads.class_kernel`), or `backbone`: all but the heads.

    Raises:
        ConfigError: there is no such group, or nothing is left to train.
    """
    names = [name for group in groups for name in (_backbone(params) if group == "backbone" else [group])]
    trained, frozen = params, dict[str, Any]()
    for name in names:
        trained, taken = _take(trained, name.split("."), name, params)
        frozen = merge(frozen, taken)
    if not jax.tree.leaves(trained):
        raise ConfigError(f"train.freeze: {', '.join(groups)} leaves nothing to train")
    return trained, frozen


def _backbone(params: Any) -> list[str]:
    if HEADS not in params:
        raise ConfigError(
            f"train.freeze: this kind of model has no group `{HEADS}` apart from a backbone; name groups of "
            f"{', '.join(params)}"
        )
    return [name for name in params if name != HEADS]


def _take(tree: Any, path: Sequence[str], name: str, params: Any) -> tuple[Any, Any]:
    """The tree without what a path leads to, and that alone."""
    if not isinstance(tree, Mapping) or path[0] not in tree:
        known = ", ".join(tree) if isinstance(tree, Mapping) else "no groups inside"
        raise ConfigError(f"train.freeze: no group `{name}`; at `{path[0]}` there are: {known}")
    rest = {key: value for key, value in tree.items() if key != path[0]}
    if len(path) == 1:
        return rest, {path[0]: tree[path[0]]}
    inner, taken = _take(tree[path[0]], path[1:], name, params)
    return {**rest, path[0]: inner}, {path[0]: taken}


def merge(trained: Any, frozen: Any) -> Any:
    """The parameters as one again."""
    if not frozen:
        return trained
    merged = dict(trained)
    for key, value in frozen.items():
        merged[key] = merge(merged[key], value) if key in merged else value
    return merged


# --- State and step ----------------------------------------------------------------------------------------------


def init_state(params: Any, config: OptimizerSection, frozen: Sequence[str] = ()) -> State:
    """State before the first step.

    Args:
        params: nested dicts of arrays.
        config: optimiser settings.
        frozen: groups of parameters that stay as they are, see `freeze`.
    """
    trained, kept = freeze(params, frozen)
    return {
        "params": trained,
        "frozen": kept,
        "opt_state": make_optimizer(config).init(trained),
        "ema": jax.tree.map(jnp.copy, trained) if config.ema_decay is not None else {},
        "step": jnp.zeros((), jnp.int32),
        "bad_step": jnp.full((), -1, jnp.int32),
    }


def make_train_step(
    loss_function: LossFunction,
    config: OptimizerSection,
    *,
    part_shares: PartShares | None = None,
    shardings: Any = None,
) -> Callable[[State, Batch, DatabaseArrays, Array], tuple[State, dict[str, Array]]]:
    """The jitted step: state, batch, arrays, progress -> state, metrics; the state given in is donated.

    The first step whose loss or gradient is not finite leaves the state as it is and writes its number into
    `bad_step`; no step after it changes anything. So the last good state is always at hand.

    Args:
        loss_function: (params, batch, arrays) -> loss, metrics.
        config: optimiser settings.
        part_shares: where batches have a leading axis of parts, which are computed one after the other.
        shardings: of state and metrics, where there are several devices.
    """
    optimizer = make_optimizer(config)

    def gradients_of(state: State, batch: Batch, arrays: DatabaseArrays) -> tuple[Any, Any]:
        def loss(trained: Any, part: Batch, **options: Any) -> tuple[Array, dict[str, Array]]:
            return loss_function(merge(trained, state["frozen"]), part, arrays, **options)

        gradient_of = jax.value_and_grad(loss, has_aux=True)
        if part_shares is None:
            return gradient_of(state["params"], batch)
        return _summed_parts(gradient_of, state["params"], batch, part_shares(batch, arrays))

    def train_step(
        state: State, batch: Batch, arrays: DatabaseArrays, progress: Array
    ) -> tuple[State, dict[str, Array]]:
        step = state["step"]
        (loss, metrics), gradients = gradients_of(state, batch, arrays)
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
        kept["frozen"] = state["frozen"]
        kept["step"] = jnp.where(is_good, step + 1, step)
        kept["bad_step"] = jnp.where(is_first_bad, step, state["bad_step"])
        return kept, {**metrics, "loss": loss, "gradient_norm": norm, "learning_rate": rate}

    options = {} if shardings is None else {"out_shardings": shardings}
    return jax.jit(train_step, donate_argnums=0, **options)


def _summed_parts(gradient_of: Any, params: Any, batch: Batch, shares: dict[str, Array]) -> tuple[Any, Any]:
    """As `gradient_of` for the whole batch, its parts one after the other."""

    def add(total: Any, part: tuple[Batch, dict[str, Array]]) -> tuple[Any, None]:
        fields, share = part
        return jax.tree.map(jnp.add, total, gradient_of(params, fields, shares=share)), None

    first = jax.tree.map(lambda field: field[0], (batch, shares))
    shapes = jax.eval_shape(lambda part: gradient_of(params, part[0], shares=part[1]), first)
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, (batch, shares))
    return total  # type: ignore[no-any-return]


def evaluation_params(state: State) -> Any:
    """Averaged parameters where they are kept, else the parameters; the frozen ones among them."""
    return merge(state["ema"] or state["params"], state["frozen"])
