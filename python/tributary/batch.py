"""Batch: the pytree that the model reads, and the arrays of a database that its ids point into.

Implements `documentation/batch.md`. The native list `tributary._headwater.BATCH_FIELDS` owns names, dtypes and
axes; a test holds this class equal to it. How batches are drawn is the sampler's business, how they reach a device
is `tributary.data`'s.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Literal

import jax
import numpy as np

Array = Any
"""A numpy or JAX array; None for a host field of a batch on a device."""

END_OF_TIME = np.iinfo(np.int64).max
"""Seed time of a seed that sees every row."""

HOST_FIELDS = ("candidate_row", "seed_index", "seed_row", "seed_time")
"""64-bit fields that stay on the host."""


def _is(dtype: str, *axes: str) -> dict[str, Any]:
    return {"dtype": dtype, "axes": axes}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """`B` contexts of at most `S` cells taken from at most `R` rows; indices, not vectors.

    Example:
        >>> Batch.spec()["cell_calendar"]
        ('int16', ('B', 'S', '7'))
    """

    # Cells
    cell_row: Array = field(metadata=_is("int16", "B", "S"))
    """Local row of the cell, an index into the row fields; -1 where padding."""
    cell_column: Array = field(metadata=_is("int32", "B", "S"))
    """Global column id; -1 where padding."""
    cell_stype: Array = field(metadata=_is("int8", "B", "S"))
    """Semantic type code, the position in STYPES; -1 where padding."""
    cell_value: Array = field(metadata=_is("float32", "B", "S"))
    """Z-score of a number, 0 or 1 of a boolean, z-score over all timestamps of a timestamp; else 0."""
    cell_vocab: Array = field(metadata=_is("int32", "B", "S"))
    """Vocabulary id of a categorical or text cell; else -1."""
    cell_calendar: Array = field(metadata=_is("int16", "B", "S", "7"))
    """Second, minute, hour, weekday (Monday 0), day of month, month, day of year of a timestamp, UTC; else 0."""
    cell_is_null: Array = field(metadata=_is("bool", "B", "S"))
    """The cell is missing; its value fields are zero or -1."""
    cell_is_target: Array = field(metadata=_is("bool", "B", "S"))
    """The cell the seed asks about; its value fields are zero or -1."""
    cell_is_masked: Array = field(metadata=_is("bool", "B", "S"))
    """The cell is hidden in pretraining. Its value fields hold the label: a model must cut them off."""
    cell_is_padding: Array = field(metadata=_is("bool", "B", "S"))
    """No cell here."""

    # Rows
    row_table: Array = field(metadata=_is("int32", "B", "R"))
    """Table id; -1 where padding."""
    row_hop: Array = field(metadata=_is("int16", "B", "R"))
    """Foreign-key links walked from the seed's row, which is 0; -1 where padding."""
    row_age: Array = field(metadata=_is("float32", "B", "R"))
    """Days from the row's time to the seed's time, at least 0; 0 where unknown."""
    row_has_time: Array = field(metadata=_is("bool", "B", "R"))
    """The age of the row means something."""
    row_parents: Array = field(metadata=_is("int16", "B", "R", "P"))
    """Local rows this row points to by a foreign key, packed to the front; -1 after the last."""
    row_parent_keys: Array = field(metadata=_is("int16", "B", "R", "P"))
    """The foreign key of each such link; -1 after the last."""

    row_walk: Array = field(metadata=_is("float32", "B", "R", "W"))
    """Probability that a random walk over the links of the context, from row 0, is at this row after 1 to W steps."""

    # Pairs of rows
    link_child: Array = field(metadata=_is("int16", "B", "L"))
    """Local row whose foreign key is asked about; -1 where padding."""
    link_parent: Array = field(metadata=_is("int16", "B", "L"))
    """Local row that the key may name; -1 where padding."""
    link_key: Array = field(metadata=_is("int16", "B", "L"))
    """The foreign key; -1 where padding."""
    link_is_true: Array = field(metadata=_is("bool", "B", "L"))
    """The key names that row; the link is not among `row_parents`."""

    # Answers of link tasks
    row_is_candidate: Array = field(metadata=_is("bool", "B", "A"))
    """The row is one that the seed's link task chooses among."""
    row_is_target: Array = field(metadata=_is("bool", "B", "A"))
    """The label names the row."""
    candidate_row: Array = field(metadata=_is("int64", "B", "A"))
    """Row of the target table that a candidate is; else -1."""

    # Seeds
    seed_task: Array = field(metadata=_is("int32", "B"))
    """Task id; -1 where padding."""
    seed_index: Array = field(metadata=_is("int64", "B"))
    """Position among all seeds of the task; -1 where padding."""
    seed_row: Array = field(metadata=_is("int64", "B"))
    """Row of the entity in the task's anchor table; -1 where padding."""
    seed_time: Array = field(metadata=_is("int64", "B"))
    """Microseconds since 1970-01-01 UTC; the largest int64 is the end of time."""
    target_cell: Array = field(metadata=_is("int32", "B"))
    """Position along S of the target cell; -1 where padding."""
    target_value: Array = field(metadata=_is("float32", "B"))
    """Label: z-score of a number or timestamp, 0 or 1 of a boolean; else 0."""
    target_vocab: Array = field(metadata=_is("int32", "B"))
    """Vocabulary id of a categorical or text label; else -1."""
    target_is_null: Array = field(metadata=_is("bool", "B"))
    """No label is known."""
    seed_is_padding: Array = field(metadata=_is("bool", "B"))
    """This context only fills up the last batch of an evaluation."""

    @classmethod
    def spec(cls) -> dict[str, tuple[str, tuple[str, ...]]]:
        """Dtype and axes of every field, in order."""
        return {f.name: (f.metadata["dtype"], f.metadata["axes"]) for f in dataclasses.fields(cls)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Batch:
        """Takes the sampler's arrays after checking names, dtypes and shapes.

        Args:
            arrays: one numpy array per field, none left out and none besides.

        Raises:
            ValueError: a field is missing, unknown, or has another dtype or shape; the message names them all.
        """
        spec = cls.spec()
        problems = [f"field `{name}` is missing" for name in spec if name not in arrays]
        problems += [f"field `{name}` is unknown" for name in arrays if name not in spec]
        sizes: dict[str, int] = {"7": 7}
        for name, (dtype, axes) in spec.items():
            if name not in arrays:
                continue
            array = arrays[name]
            if str(array.dtype) != dtype:
                problems.append(f"field `{name}`: expected dtype {dtype}, found {array.dtype}")
            if array.ndim != len(axes):
                problems.append(f"field `{name}`: expected axes ({', '.join(axes)}), found shape {array.shape}")
                continue
            for axis, size in zip(axes, array.shape, strict=True):
                if sizes.setdefault(axis, size) != size:
                    problems.append(f"field `{name}`: expected {axis} = {sizes[axis]}, found shape {array.shape}")
        if problems:
            raise ValueError("not a batch: " + "; ".join(problems))
        return cls(**{name: arrays[name] for name in spec})

    def device_fields(self) -> Batch:
        """The same batch without its 64-bit host fields, which become None (no leaf of the pytree)."""
        return dataclasses.replace(self, **dict.fromkeys(HOST_FIELDS))

    @property
    def batch_size(self) -> int:
        """Number of contexts `B`, padding included."""
        return int(self.cell_row.shape[0])

    @property
    def seq_len(self) -> int:
        """Number of cells `S` of a context, padding included."""
        return int(self.cell_row.shape[1])


TargetStype = Literal["numerical", "timestamp", "boolean", "categorical", "text", "link"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class DatabaseArrays:
    """What the ids of a batch point into: frozen arrays of one database, kept on the device.

    `C` columns, `V` vocabulary entries, `F` foreign keys, `T` tasks, `E` embedding width.
    """

    column_vectors: Array
    """float16 [C, E]: embedding of every column's phrase, unit norm."""
    vocab_vectors: Array
    """float16 [V, E]: embedding of every distinct categorical or text value, unit norm."""
    foreign_key_vectors: Array
    """float16 [F, E]: embedding of the column that holds the key; of the task's target column for a task's key."""
    column_offset: Array
    """float32 [C]: where an untrained head starts: log-odds of a boolean column, median z-score of a task's labels."""
    task_classes: Array
    """int32 [T, K]: vocabulary ids a categorical task chooses from, -1 after the last."""
