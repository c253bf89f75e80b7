"""Contexts without something: a cell, a row, or all that lies at the end of a path, as if it had never been.

What is taken out leaves no trace: cells move up, links to a row that is gone are cut. Paths are the foreign keys by
which a row was reached from the seed's. Described in `documentation/prediction.md`, "Explanations".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from tributary.batch import Batch

Kind = Literal["path", "column", "row", "cell"]
KINDS: tuple[Kind, ...] = ("path", "column", "row", "cell")

_EMPTY = {
    "cell_row": -1,
    "cell_column": -1,
    "cell_stype": -1,
    "cell_vocab": -1,
    "cell_is_padding": True,
    "row_table": -1,
    "row_hop": -1,
}
"""Cell and row fields where there is nothing, as the sampler fills them; all others are 0 or false."""


@dataclasses.dataclass(frozen=True, eq=False)
class Removal:
    """Something that can be taken out of a context."""

    kind: Kind
    path: str
    """Foreign keys from the seed's row, as `orders.customer -> items.order`; of the seed's own row empty."""
    table: str
    row_key: str | None
    """Primary key, or `#` and the row's number; of rows and cells."""
    column: str | None
    """Of columns and cells."""
    value: str | None
    """As the user's data has it; of cells."""
    cells: np.ndarray
    """int64: positions along S."""
    rows: np.ndarray
    """int64: local rows that go with them."""


def removals(batch: Batch, context: Mapping[str, Any]) -> list[Removal]:
    """Everything that can be taken out of a context: paths, columns at their ends, rows, cells; never the target.

    Args:
        batch: a single context, on the host.
        context: the same as `Sampler.explain` answers it.
    """
    is_free = ~batch.cell_is_padding[0] & ~batch.cell_is_target[0]
    place = np.cumsum(np.ones_like(is_free)) - 1
    of_row = batch.cell_row[0]
    rows = context["rows"]
    paths = _paths(rows)
    found: list[Removal] = []
    by_path: dict[tuple[str, str], list[int]] = {}
    for row in rows:
        local = row["local"]
        where = {"path": paths[local], "table": row["table"]}
        key = f"#{row['row']}" if row["key"] is None else str(row["key"])
        cells = place[~batch.cell_is_padding[0] & (of_row == local)]
        free = [at for at in cells if is_free[at]]
        if not free:
            continue
        has_target = len(free) < len(cells)
        found.append(
            Removal(
                kind="row",
                **where,
                row_key=key,
                column=None,
                value=None,
                cells=np.array(free),
                rows=np.array([] if local == 0 or has_target else [local], np.int64),
            )
        )
        by_path.setdefault((paths[local], row["table"]), []).append(local)
        for at, cell in zip(cells, row["cells"], strict=True):
            if is_free[at]:
                column, value = cell["column"].rsplit(".", 1)[-1], _text(cell)
                one = np.array([at])
                found.append(Removal("cell", **where, row_key=key, column=column, value=value, cells=one, rows=_NONE))
    return [*_at_ends(found, by_path), *found]


_NONE = np.array([], np.int64)


def _at_ends(found: Sequence[Removal], by_path: Mapping[tuple[str, str], Sequence[int]]) -> list[Removal]:
    """Whole paths, and the columns at their ends."""
    ends: list[Removal] = []
    for path, table in by_path:
        of_path = [each for each in found if (each.path, each.table) == (path, table)]
        of_rows = [each for each in of_path if each.kind == "row"]
        cells = np.concatenate([each.cells for each in of_rows])
        rows = np.concatenate([each.rows for each in of_rows])
        if path:  # the seed's own row is no path
            ends.append(Removal("path", path, table, None, None, None, cells, rows))
        columns: dict[str, list[np.ndarray]] = {}
        for each in of_path:
            if each.kind == "cell" and each.column is not None:
                columns.setdefault(each.column, []).append(each.cells)
        ends += [
            Removal("column", path, table, None, column, None, np.concatenate(parts), _NONE)
            for column, parts in columns.items()
        ]
    return ends


def _paths(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys by which each row was reached; the seed's own link to its entity is none."""
    paths: list[str] = []
    for row in rows:
        if row["from"] is None:
            paths.append("example" if row["kind"] == "example" else "")
            continue
        before = rows[row["from"]]
        # the row of a question is not in the database: its entity is where paths begin
        is_entity = row["kind"] == "parent" and before["from"] is None and before["key"] is None
        steps = [paths[row["from"]], "" if is_entity else str(row["link"])]
        paths.append(" -> ".join(step for step in steps if step))
    return paths


def _text(cell: Mapping[str, Any]) -> str | None:
    value = cell["value"]
    if cell["stype"] == "identifier" and value is True:
        return "(present)"
    return None if value is None else str(value)


def without(batch: Batch, taken: Sequence[Removal | None], num_contexts: int) -> Batch:
    """A context once per removal, each without what is taken out; None, and contexts beyond, are the whole of it.

    Args:
        batch: a single context, on the host.
        taken: at most `num_contexts`.
        num_contexts: size of the batch returned.
    """
    several = Batch(**{name: np.repeat(getattr(batch, name), num_contexts, axis=0) for name in Batch.spec()})
    is_out = np.zeros(several.cell_row.shape, bool)
    is_gone = np.zeros(several.row_table.shape, bool)
    for context, removal in enumerate(taken):
        if removal is not None:
            is_out[context, removal.cells] = True
            is_gone[context, removal.rows] = True
    return taken_out(several, is_out, is_gone)


def taken_out(batch: Batch, is_out: np.ndarray, is_gone: np.ndarray) -> Batch:
    """Contexts without some cells and rows.

    Args:
        batch: on the host.
        is_out: bool [B, S]: cells to take out, those of rows that go among them.
        is_gone: bool [B, R]: rows to take out.
    """
    order = np.argsort(is_out | batch.cell_is_padding, axis=1, kind="stable")
    count = (~is_out & ~batch.cell_is_padding).sum(axis=1)
    is_filled = np.arange(is_out.shape[1]) < count[:, None]
    fields: dict[str, np.ndarray] = {}
    for name, (_, axes) in Batch.spec().items():
        value, empty = getattr(batch, name), _EMPTY.get(name, 0)
        if len(axes) > 1 and axes[1] == "S":
            places = order.reshape(order.shape + (1,) * (value.ndim - 2))
            fields[name] = _filled(np.take_along_axis(value, places, axis=1), is_filled, empty)
        elif len(axes) > 1 and axes[1] == "R":
            fields[name] = _filled(value, ~is_gone, empty)
        else:
            fields[name] = value
    fields["target_cell"] = _new_places(order, is_filled, batch.target_cell)
    return Batch(**{**fields, **_cut_links(batch.row_parents, batch.row_parent_keys, is_gone)})


def _filled(values: np.ndarray, is_filled: np.ndarray, empty: Any) -> np.ndarray:
    where = is_filled.reshape(is_filled.shape + (1,) * (values.ndim - is_filled.ndim))
    return np.where(where, values, np.array(empty, values.dtype))


def _new_places(order: np.ndarray, is_filled: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """int32 [B]: where a cell of each context went; -1 where it is none, or was taken out."""
    is_here = (order == cells[:, None]) & is_filled & (cells >= 0)[:, None]
    return np.where(is_here.any(axis=1), is_here.argmax(axis=1), -1).astype(cells.dtype)


def _cut_links(parents: np.ndarray, keys: np.ndarray, is_gone: np.ndarray) -> dict[str, np.ndarray]:
    """Links from and to rows that are gone are cut; those that stay are packed to the front."""
    context = np.arange(len(parents))[:, None, None]
    is_cut = (parents < 0) | is_gone[:, :, None] | is_gone[context, np.maximum(parents, 0)]
    order = np.argsort(is_cut, axis=2, kind="stable")
    stays = ~np.take_along_axis(is_cut, order, axis=2)

    def packed(values: np.ndarray) -> np.ndarray:
        return np.where(stays, np.take_along_axis(values, order, axis=2), np.array(-1, values.dtype))

    return {"row_parents": packed(parents), "row_parent_keys": packed(keys)}
