"""Foreign keys: columns whose values are a table's keys, and whose names say so.

A name alone or values alone prove little (small integers lie in every table's keys), so both are weighed: the surer
the name, the more values may dangle. Values are compared exactly, after ranges and a sample have ruled pairs out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tributary.infer.containment import containment, may_agree_by_values
from tributary.infer.profile import ColumnProfile, Profiler, TableProfile
from tributary.infer.proposal import Candidate, Proposal, choose
from tributary.infer.words import (
    PEOPLE,
    PERSON_ROLES,
    QUANTITY_WORDS,
    SELF_REFERENCES,
    says_id,
    singular,
    table_words,
    without_id,
    words,
)

_LEAST = 0.5
_GENERIC_KEYS = frozenset({"id", "pk", "key", "uuid", "name", "code", "row_id", "rowid", "key_id", "guid", "index"})


@dataclasses.dataclass(frozen=True)
class Link:
    """A foreign key."""

    parent: str
    primary_key: str
    containment: float
    """Share of the column's distinct values that are keys of the parent."""

    def __str__(self) -> str:
        return f"{self.parent}.{self.primary_key}"


def foreign_keys(
    profiler: Profiler, tables: Mapping[str, TableProfile], keys: Mapping[str, str]
) -> dict[tuple[str, str], Proposal[Link]]:
    """A proposal per (table, column) that may be a foreign key.

    Args:
        profiler: the tables.
        tables: their profiles.
        keys: primary key of each table that has one.
    """
    parents = [tables[name].columns[key] for name, key in keys.items()]
    found = {}
    for table in tables.values():
        for column in table.columns.values():
            if not column.can_be_key or keys.get(table.name) == column.name:
                continue
            candidates = [
                candidate
                for parent in parents
                if (candidate := _candidate(profiler, column, parent, tables)) is not None
            ]
            what = f"foreign key `{column}`" if says_id(column.name) else ""
            proposal = choose(candidates, least=_LEAST, margin=0.02, what=what)
            if candidates or (what and column.kind == "integer"):
                found[table.name, column.name] = proposal
    return found


def _candidate(
    profiler: Profiler, column: ColumnProfile, parent: ColumnProfile, tables: Mapping[str, TableProfile]
) -> Candidate[Link] | None:
    """How well a column names rows of a parent; None where it does not."""
    if column.kind != parent.kind or not parent.num_present:
        return None
    name, reason = name_score(column, parent)
    if name < 0.6 and not may_agree_by_values(column, parent):
        return None
    needed = _needed_containment(name, column, parent)
    if not column.num_present:
        return (
            Candidate(Link(parent.table, parent.name, 0.0), 0.55, f"{reason}; null in every row")
            if not needed
            else None
        )
    is_apart = column.kind == "integer" and (column.least > parent.most or column.most < parent.least)
    share = 0.0 if is_apart else containment(profiler, column, parent, needed)
    if share < needed:
        return None
    tightness = min(1.0, column.num_distinct / parent.num_present)
    score = 0.55 * max(name, 0.4) + 0.35 * share + 0.1 * tightness
    dangling = "" if share == 1 else f", {1 - share:.1%} of the values dangle"
    link = Link(parent.table, parent.name, share)
    return Candidate(link, score, f"{reason}; {share:.1%} of {column.num_distinct:,} values are keys{dangling}")


def name_score(column: ColumnProfile, parent: ColumnProfile) -> tuple[float, str]:
    """How much the name of a column says that it leads to a table, 0 to 1, and why."""
    stem, own = without_id(column.name), table_words(parent.table)
    key = words(parent.name)
    is_self = column.table == parent.table
    if set(words(column.name)) & QUANTITY_WORDS and not says_id(column.name):
        return 0.0, "a quantity"
    if is_self and stem and own[-len(stem) :] == stem:
        return 0.0, "another key of the row itself"
    is_generic = "_".join(key) in _GENERIC_KEYS
    if column.name.lower() == parent.name.lower() and not is_generic and not is_self:
        return 1.0, "the same name"
    key_stem = without_id(parent.name)
    if not is_generic and len(key) > 1 and len(key[0]) <= 2 and words(column.name)[1:] == key[1:]:
        return 0.95, "the same name after a prefix"
    if not says_id(column.name):
        return _score_without_id(column, parent, stem, own)
    return _score_with_id(column, parent, stem, own, () if is_generic else key_stem)


def _score_without_id(
    column: ColumnProfile, parent: ColumnProfile, stem: tuple[str, ...], own: tuple[str, ...]
) -> tuple[float, str]:
    """Of a name that does not say it identifies something; most numbers of such a name are quantities."""
    if column.table == parent.table:
        is_named = bool(set(map(singular, words(column.name))) & SELF_REFERENCES)
        return (0.75, "named after another row of its table") if is_named else (0.0, "no name in common")
    if stem == own and column.kind == "text":
        return 0.95, "named as the table"
    return 0.3, "no name in common"


def _score_with_id(
    column: ColumnProfile,
    parent: ColumnProfile,
    stem: tuple[str, ...],
    own: tuple[str, ...],
    key_stem: tuple[str, ...],
) -> tuple[float, str]:
    if stem == own:
        return 1.0, "named after the table"
    is_self = column.table == parent.table
    if is_self and not set(stem) & (SELF_REFERENCES | PERSON_ROLES) and stem[-1:] != own[-1:]:
        return 0.0, "no name in common"
    if stem and (stem[-len(own) :] == own or (key_stem and stem[-len(key_stem) :] == key_stem)):
        return 0.95, "ends in the table's name"
    if stem and own[-len(stem) :] == stem:
        return 0.88 - 0.02 * (len(own) - len(stem)), "the last words of the table's name"
    if len(stem) > 1 and stem[-1] == own[-1]:
        return 0.82 - 0.02 * len(own), "ends as the table's name ends"
    if stem and set(stem) & PERSON_ROLES and set(own) & PEOPLE:
        return 0.75, "a role of a person"
    if is_self and set(stem) & SELF_REFERENCES:
        return 0.75, "named after another row of its table"
    if stem and any(stem[idx : idx + len(own)] == own for idx in range(len(stem))):
        return 0.7, "holds the table's name"
    if stem and len(stem[-1]) >= 3 and own[-1].startswith(stem[-1]):
        return 0.7, "short for the table's name"
    return 0.0, "no name in common"


def _needed_containment(name: float, column: ColumnProfile, parent: ColumnProfile) -> float:
    """Share of the values that must be keys: the surer the name, the fewer."""
    full = "_".join(words(parent.name))
    if name >= 0.95 and full not in _GENERIC_KEYS and "_".join(words(column.name)).endswith(full):
        return 0.0  # a name as `type_concept_id` beside `concept_id` is no accident, though all of it may dangle
    if name >= 0.95:
        return 0.05
    if name >= 0.76:
        return 0.8
    return 0.95
