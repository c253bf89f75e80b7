"""The same contexts written down otherwise: rows renumbered, cells shuffled, more padding. No model may mind."""

from __future__ import annotations

import dataclasses

import numpy as np

from tributary.batch import Batch


def permute_rows(batch: Batch, rng: np.random.Generator) -> Batch:
    """The same contexts with rows renumbered but for the seed's, cells shuffled and padding in between."""
    fields = {f.name: getattr(batch, f.name).copy() for f in dataclasses.fields(batch)}
    for b in range(batch.batch_size):
        order = np.append(0, 1 + rng.permutation(batch.row_table.shape[1] - 1))  # new position -> old row
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        per_row = [name for name, (_, axes) in batch.spec().items() if axes[1:2] in (("R",), ("A",))]
        for name in [name for name in per_row if fields[name].shape[1]]:  # A is 0 wide where no link task is asked
            fields[name][b] = fields[name][b][order]
        cells = rng.permutation(batch.seq_len)
        for name in [name for name in fields if name.startswith("cell_")]:
            fields[name][b] = fields[name][b][cells]
        for name in ("row_parents", "cell_row", "link_child", "link_parent"):
            rows = fields[name][b]
            fields[name][b] = np.where(rows >= 0, place[np.maximum(rows, 0)], -1)
        if batch.target_cell[b] >= 0:
            fields["target_cell"][b] = np.flatnonzero(cells == batch.target_cell[b])[0]
    return dataclasses.replace(batch, **fields)


def pad(batch: Batch, **more: int) -> Batch:
    """The same contexts with `more` places of padding along the named axes, as S=7."""
    padded = {}
    for name, (dtype, axes) in batch.spec().items():
        widths = [(0, more.get(axis, 0)) for axis in axes]
        empty = True if name == "cell_is_padding" else 0 if dtype in ("bool", "float32") else -1
        padded[name] = np.pad(getattr(batch, name), widths, constant_values=empty)
    return dataclasses.replace(batch, **padded)
