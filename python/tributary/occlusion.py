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
    num_cells, num_rows = batch.cell_row.shape[1], batch.row_table.shape[1]
    is_kept = np.repeat(~batch.cell_is_padding, num_contexts, axis=0)
    is_gone = np.zeros((num_contexts, num_rows), bool)
    for context, removal in enumerate(taken):
        if removal is not None:
            is_kept[context, removal.cells] = False
            is_gone[context, removal.rows] = True
    order = np.argsort(~is_kept, axis=1, kind="stable")
    is_filled = np.arange(num_cells) < is_kept.sum(axis=1)[:, None]
    fields: dict[str, np.ndarray] = {}
    for name, (_, axes) in Batch.spec().items():
        value = getattr(batch, name)[0]
        if len(axes) > 1 and axes[1] == "S":
            fields[name] = _filled(value[order], is_filled, _EMPTY.get(name, 0))
        elif len(axes) > 1 and axes[1] == "R" and name not in ("row_parents", "row_parent_keys"):
            fields[name] = _filled(np.repeat(value[None], num_contexts, axis=0), ~is_gone, _EMPTY.get(name, 0))
        else:
            fields[name] = np.repeat(value[None], num_contexts, axis=0)
    fields["target_cell"] = _new_places(order, batch.target_cell[0]).astype(batch.target_cell.dtype)
    fields |= _cut_links(fields["row_parents"], fields["row_parent_keys"], is_gone)
    return Batch(**fields)


def _filled(values: np.ndarray, is_filled: np.ndarray, empty: Any) -> np.ndarray:
    where = is_filled.reshape(is_filled.shape + (1,) * (values.ndim - is_filled.ndim))
    return np.where(where, values, np.array(empty, values.dtype))


def _new_places(order: np.ndarray, cell: int) -> np.ndarray:
    """Where a cell that is never taken out went; -1 where there is none."""
    return np.full(len(order), -1) if cell < 0 else (order == cell).argmax(axis=1)


def _cut_links(parents: np.ndarray, keys: np.ndarray, is_gone: np.ndarray) -> dict[str, np.ndarray]:
    """Links from and to rows that are gone are cut; those that stay are packed to the front."""
    context = np.arange(len(parents))[:, None, None]
    is_cut = (parents < 0) | is_gone[:, :, None] | is_gone[context, np.maximum(parents, 0)]
    order = np.argsort(is_cut, axis=2, kind="stable")
    stays = ~np.take_along_axis(is_cut, order, axis=2)

    def packed(values: np.ndarray) -> np.ndarray:
        return np.where(stays, np.take_along_axis(values, order, axis=2), np.array(-1, values.dtype))

    return {"row_parents": packed(parents), "row_parent_keys": packed(keys)}
