"""The published models themselves, run by `published_parity.py` under the rivals' interpreter; not to be called alone.

The package runs its attention through FlexAttention, which torch compiles and which has no backward pass on a CPU. Here
masks stay matrices and `scaled_dot_product_attention` takes its place: the same function, eager, with gradients.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from measure import measured
from safetensors.torch import load_file, save_file
from torch.nn.functional import scaled_dot_product_attention


def attention(q: Any, k: Any, v: Any, block_mask: Any = None, scale: float | None = None) -> Any:
    """What FlexAttention computes for a mask given as bool [B, S, S]."""
    return scaled_dot_product_attention(q, k, v, attn_mask=block_mask[:, None], scale=scale)


def keep_mask(mask: Any, **_: Any) -> Any:
    """In place of a block mask, the mask."""
    return mask


def make_model(kind: str, sizes: dict[str, int]) -> Any:
    """A model of the package with its attention replaced."""
    if kind == "rt-j":
        from rt.model import net

        net.flex_attention, net._make_block_mask = attention, keep_mask
        return net.RelationalTransformer(**sizes, compile=False, materialize_attn_masks=True)
    from rt.model.legacy import plurel, v1

    module = v1 if kind == "rt-v1" else plurel
    module.flex_attention, module.make_block_mask = attention, keep_mask
    return (v1.V1Transformer if kind == "rt-v1" else plurel.PluRelTransformer)(**sizes)


def randomise(model: Any) -> None:
    """Draws every parameter, so that none is zero as the package leaves many."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        is_scale = "norm" in name or name.endswith(".scale")
        spread = 0.3 if is_scale or name.endswith("bias") else 1.0
        fan_in = parameter.shape[1] if parameter.ndim == 2 else 1
        parameter.data = float(is_scale) + spread * noise / math.sqrt(fan_in)


def answers(kind: str, model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """What every head says of every cell, cells in the order of the batch."""
    with torch.no_grad():
        found = model(batch, return_embeddings=False)[1] if kind == "rt-j" else model(batch)[1]
    if kind != "rt-j":
        return found
    # rt-j sorts the cells by column, padding last, and answers in that order.
    columns = batch["col_name_idxs"]
    order = columns.masked_fill(batch["is_padding"], torch.iinfo(columns.dtype).max).argsort(dim=-1, stable=True)
    back = order.argsort(dim=-1)[..., None]
    return {name: values.gather(1, back.expand_as(values)) for name, values in found.items()}


def compare(kind: str, sizes: dict[str, int], folder: Path) -> None:
    """Writes random weights, and what the model with these weights answers."""
    model = make_model(kind, sizes)
    randomise(model)
    save_file(model.state_dict(), folder / "weights.safetensors")
    found = answers(kind, model, load_file(folder / "theirs.safetensors"))
    save_file({name: values.contiguous() for name, values in found.items()}, folder / "answers.safetensors")


def spend(kind: str, sizes: dict[str, int], folder: Path, work: str, rounds: int) -> None:
    """Measures forward passes, or forward and backward passes, after one to warm up."""
    model = make_model(kind, sizes)
    randomise(model)
    batch = load_file(folder / "theirs.safetensors")

    def once() -> None:
        if work == "forward":
            with torch.no_grad():
                forward(batch)
            return
        model.zero_grad()
        forward(batch)[0].backward()

    def forward(batch: dict[str, Any]) -> Any:
        return model(batch, return_embeddings=False) if kind == "rt-j" else model(batch)

    once()
    with measured() as figures:
        for _ in range(rounds):
            once()
        figures["rounds"] = float(rounds)


def main() -> None:
    """Does one thing with one model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=["compare", "forward", "step"])
    parser.add_argument("kind")
    parser.add_argument("sizes", type=json.loads)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.work == "compare":
        compare(arguments.kind, arguments.sizes, arguments.folder)
    else:
        spend(arguments.kind, arguments.sizes, arguments.folder, arguments.work, arguments.rounds)


if __name__ == "__main__":
    main()
