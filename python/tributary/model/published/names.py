"""Where each tensor of a published weights' file belongs among our parameters.

`tensors_of` lists what a file must hold: name, shape, and place. `to_params` takes tensors that fit and returns the
parameters; both are strict, and what does not fit is said at once for the whole file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from tributary.config import ModelConfig
from tributary.model.published.architectures import ARCHITECTURES, Architecture
from tributary.model.published.cells import CELL_KINDS, TRUTH

_ATTENTION_NAMES = {"column": "col", "feature": "feat", "neighbor": "nbr", "full": "full"}
"""Our names of attentions to theirs."""

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of a file."""

    name: str
    """What the file calls it."""
    shape: Shape
    """Its shape there."""
    place: tuple[str, ...]
    """Path among our parameters."""
    layer: int | None = None
    """Block it belongs to: our parameters of all blocks are stacked."""
    turn: Callable[[np.ndarray], np.ndarray] = lambda array: array
    """From their layout to ours."""


class MisfitError(ValueError):
    """The tensors of a file are not those of the model."""


def tensors_of(config: ModelConfig, embedding_dim: int) -> list[Tensor]:
    """Every tensor that a file of this model holds, in our order.

    Args:
        config: kind and sizes.
        embedding_dim: width of text vectors.
    """
    architecture = ARCHITECTURES[config.kind]
    ends = _ends(architecture, config.d_model, embedding_dim)
    blocks = (tensor for layer in range(config.num_layers) for tensor in _block(architecture, config, layer))
    return [*ends, *blocks]


def _transposed(name: str, size_in: int, size_out: int, *place: str, layer: int | None = None) -> Tensor:
    """A matrix, which they keep as [out, in]."""
    return Tensor(f"{name}.weight", (size_out, size_in), place, layer, np.transpose)


def _ends(architecture: Architecture, d_model: int, embedding_dim: int) -> Iterator[Tensor]:
    """Encoders and heads."""
    norm = architecture.norm_name
    kinds = CELL_KINDS if architecture.has_boolean else CELL_KINDS[:TRUTH]
    for theirs, ours in [(kind, kind) for kind in kinds] + [("col_name", "column")]:
        size = embedding_dim if theirs in ("text", "col_name") else 1
        yield _transposed(f"enc_dict.{theirs}", size, d_model, "encoder", ours, "kernel")
        yield Tensor(f"enc_dict.{theirs}.bias", (d_model,), ("encoder", ours, "bias"))
        yield Tensor(f"norm_dict.{theirs}.{norm}", (d_model,), ("encoder", ours, "norm", "scale"))
    for kind in kinds:
        size = embedding_dim if kind == "text" else 1
        yield Tensor(f"mask_embs.{kind}", (d_model,), ("encoder", f"{kind}_mask"))
        yield _transposed(f"dec_dict.{kind}", d_model, size, "heads", f"{kind}_kernel")
        yield Tensor(f"dec_dict.{kind}.bias", (size,), ("heads", f"{kind}_bias"))
    yield Tensor(f"norm_out.{norm}", (d_model,), ("heads", "norm", "scale"))


def _block(architecture: Architecture, config: ModelConfig, layer: int) -> Iterator[Tensor]:
    """One block."""
    d_model, head_dim, norm = config.d_model, config.d_model // config.num_heads, architecture.norm_name
    prefix = f"blocks.{layer}"
    matrices = {"wq": "q_kernel", "wk": "k_kernel", "wv": "v_kernel", "wo": "out_kernel"}
    if architecture.grows_with_keys:
        matrices["wg"] = "gate_kernel"
    for kind in architecture.attentions:
        short, place = _ATTENTION_NAMES[kind], ("blocks", f"{kind}_attention")
        name = f"{prefix}.attns.{short}"
        yield Tensor(f"{prefix}.norms.{short}.{norm}", (d_model,), (*place, "norm", "scale"), layer)
        for theirs, ours in matrices.items():
            yield _transposed(f"{name}.{theirs}", d_model, d_model, *place, ours, layer=layer)
        for side in ("q_norm", "k_norm") if architecture.has_query_norm else ():
            yield Tensor(f"{name}.{side}.{norm}", (head_dim,), (*place, side, "scale"), layer)
        if architecture.grows_with_keys:
            yield Tensor(f"{name}.scale", (1, config.num_heads, 1, 1), (*place, "key_scale"), layer, np.ravel)
    yield Tensor(f"{prefix}.norms.ffn.{norm}", (d_model,), ("blocks", "norm", "scale"), layer)
    yield _transposed(f"{prefix}.ffn.w1", d_model, config.d_ff, "blocks", "gate_kernel", layer=layer)
    yield _transposed(f"{prefix}.ffn.w3", d_model, config.d_ff, "blocks", "up_kernel", layer=layer)
    yield _transposed(f"{prefix}.ffn.w2", config.d_ff, d_model, "blocks", "down_kernel", layer=layer)


def is_ignored(config: ModelConfig, name: str) -> bool:
    """Whether a file may hold this tensor although the model has no use for it, as the package itself allows."""
    return not ARCHITECTURES[config.kind].has_boolean and ".boolean" in name


def check_fit(config: ModelConfig, embedding_dim: int, found: Mapping[str, Shape]) -> None:
    """Compares the tensors of a file with those of the model.

    Args:
        config: kind and sizes.
        embedding_dim: width of text vectors.
        found: shape of every tensor of the file.

    Raises:
        MisfitError: a tensor is missing, unexpected, or of another shape; all of them are listed.
    """
    expected = {tensor.name: tensor.shape for tensor in tensors_of(config, embedding_dim)}
    problems = [f"missing {name} {shape}" for name, shape in expected.items() if name not in found]
    problems += [
        f"unexpected {name} {shape}"
        for name, shape in found.items()
        if name not in expected and not is_ignored(config, name)
    ]
    problems += [
        f"{name}: expected {shape}, found {found[name]}"
        for name, shape in expected.items()
        if name in found and found[name] != shape
    ]
    if problems:
        sizes = {name: getattr(config, name) for name in ("num_layers", "d_model", "num_heads", "d_ff")}
        described = ", ".join(f"{name} {size}" for name, size in sizes.items())
        head = f"{len(problems)} tensors do not fit {config.kind} with {described}, text vectors of {embedding_dim}"
        raise MisfitError("\n  ".join([f"{head}:", *problems]))


def to_params(config: ModelConfig, embedding_dim: int, tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Parameters from the tensors of a file that fits.

    Args:
        config: kind and sizes.
        embedding_dim: width of text vectors.
        tensors: array of every tensor, of any floating dtype.

    Returns:
        float32 arrays under the names of `PublishedTransformer`'s parameters.

    Raises:
        MisfitError: the tensors are not those of the model.
    """
    check_fit(config, embedding_dim, {name: tuple(array.shape) for name, array in tensors.items()})
    layers: dict[tuple[str, ...], list[np.ndarray]] = {}
    params: dict[str, Any] = {}
    for tensor in tensors_of(config, embedding_dim):
        array = np.ascontiguousarray(tensor.turn(np.asarray(tensors[tensor.name])).astype(np.float32))
        if tensor.layer is None:
            _put(params, tensor.place, array)
        else:
            layers.setdefault(tensor.place, []).append(array)
    for place, arrays in layers.items():
        _put(params, place, np.stack(arrays))
    return params


def _put(params: dict[str, Any], place: tuple[str, ...], array: np.ndarray) -> None:
    for key in place[:-1]:
        params = params.setdefault(key, {})
    params[place[-1]] = array
