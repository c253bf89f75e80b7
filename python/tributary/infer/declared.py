"""What a source says of itself, which goes before what is inferred."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeVar

from tributary.infer.links import Link
from tributary.infer.proposal import Candidate, Proposal

T = TypeVar("T")
_REASON = "declared"


@dataclasses.dataclass(frozen=True)
class DeclaredTable:
    """One table; what is None or missing is inferred, unless it is settled."""

    primary_key: str | None = None
    foreign_keys: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Column -> name of the parent table."""
    temporal_column: str | None = None
    description: str = ""
    column_descriptions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    settled: frozenset[str] = frozenset()
    """Fields (`primary_key`, `foreign_keys`, `temporal_column`) that are complete: without a value there is none."""


Declared = Mapping[str, DeclaredTable]
"""By name of the table."""


def with_columns(found: Mapping[str, Proposal[str]], declared: Declared, field: str) -> dict[str, Proposal[str]]:
    """Proposals of one column per table, with what is declared chosen.

    Args:
        found: what was inferred.
        declared: what the source says.
        field: `primary_key` or `temporal_column`.
    """
    merged = dict(found)
    for table in found:
        said = declared.get(table, DeclaredTable())
        value: str | None = getattr(said, field)
        if value is not None or field in said.settled:
            merged[table] = _chosen(value)
    return merged


def with_links(
    found: Mapping[tuple[str, str], Proposal[Link]], declared: Declared, keys: Mapping[str, str]
) -> dict[tuple[str, str], Proposal[Link]]:
    """Proposals of foreign keys, with those chosen that are declared.

    Args:
        found: what was inferred.
        declared: what the source says.
        keys: primary key of each table that has one; a link to another table is left out.
    """
    settled = {table for table, said in declared.items() if "foreign_keys" in said.settled}
    merged = {place: proposal for place, proposal in found.items() if place[0] not in settled}
    for table, said in declared.items():
        for column, parent in said.foreign_keys.items():
            if parent in keys:
                merged[table, column] = _chosen(Link(parent, keys[parent], 1.0))
    return merged


def _chosen(value: T | None) -> Proposal[T]:
    return Proposal(None if value is None else Candidate(value, 1.0, _REASON))
