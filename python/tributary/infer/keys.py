"""Primary keys: columns that are unique, and named or used like a key."""

from __future__ import annotations

from collections.abc import Mapping

from tributary.infer.containment import containment, may_agree_by_values
from tributary.infer.profile import ColumnProfile, Profiler, TableProfile
from tributary.infer.proposal import Candidate, Proposal, choose
from tributary.infer.words import PROSE_WORDS, says_id, singular, table_words, without_id, words

_LEAST = 0.45
_WORTH_A_LOOK = 0.0
_REFERENCED = 0.4
_NEARLY = 0.99
_LONG_TEXT = 40


def primary_keys(profiler: Profiler, tables: Mapping[str, TableProfile]) -> dict[str, Proposal[str]]:
    """A proposal per table; its values are names of columns.

    A unique column is scored by its name, its place and its values, and by columns of the same name in other tables,
    where it is not unique. Codes that nothing else makes a key are looked for in the texts of other tables.

    Args:
        profiler: the tables.
        tables: their profiles.
    """
    used = _names_used_elsewhere(tables)
    found = {}
    for name, table in tables.items():
        unique = [column for column in table.columns.values() if column.is_unique and column.can_be_key]
        candidates = [_candidate(column, table, tables, used) for column in unique]
        if all(candidate.score < _LEAST for candidate in candidates):
            candidates = [_if_referenced(profiler, candidate, table, tables) for candidate in candidates]
        proposal = choose(candidates, least=_LEAST, margin=0.05, what=f"primary key of `{name}`")
        found[name] = proposal if proposal.chosen is not None else _nearly_unique(proposal, table)
    return found


def _if_referenced(
    profiler: Profiler, candidate: Candidate[str], table: TableProfile, tables: Mapping[str, TableProfile]
) -> Candidate[str]:
    """The candidate, surer if a text column of another table holds its values and no others."""
    column = table.columns[candidate.value]
    if candidate.score < _WORTH_A_LOOK or column.kind != "text":
        return candidate
    twins = [twin for other in tables.values() if other.name != table.name for twin in other.columns.values()]
    for twin in twins:
        if may_agree_by_values(twin, column) and containment(profiler, twin, column, 0.95) >= 0.95:
            reason = f"{candidate.reason}, its values are those of `{twin}`"
            return Candidate(candidate.value, candidate.score + _REFERENCED, reason)
    return candidate


def _nearly_unique(proposal: Proposal[str], table: TableProfile) -> Proposal[str]:
    """Asks about a column that is named like the key of its table but holds a few values twice."""
    for column in table.columns.values():
        doubled = column.num_present - column.num_distinct
        near = column.can_be_key and 0 < doubled <= (1 - _NEARLY) * column.num_present
        if near and says_id(column.name) and _name_score(column, table)[0] >= 0.7:
            question = f"primary key of `{table.name}`: `{column.name}` would be it, but {doubled:,} values are doubled"
            return Proposal(None, proposal.rejected, question)
    return proposal


def _candidate(
    column: ColumnProfile,
    table: TableProfile,
    tables: Mapping[str, TableProfile],
    used: Mapping[str, set[str]],
) -> Candidate[str]:
    score, reasons = _name_score(column, table)
    if column.place == 0:
        score, reasons = score + 0.15, [*reasons, "first column"]
    if column.kind == "integer" and column.most - column.least < 2 * table.num_rows:
        score, reasons = score + 0.1, [*reasons, "runs through the integers"]
    elif column.kind == "text" and column.mean_words < 1.5 and column.mean_length <= 12:
        score, reasons = score + 0.1, [*reasons, "short codes"]
    elif column.kind == "text" and (column.mean_words > 2 or column.mean_length > _LONG_TEXT):
        score, reasons = score - 0.5, [*reasons, "long texts"]
    others = used.get(column.name.lower(), set()) - {table.name}
    if others and not _is_of_another_table(column, table, tables):
        score, reasons = score + 0.35, [*reasons, f"named in {', '.join(sorted(others)[:3])}"]
    if _is_of_another_table(column, table, tables):
        score, reasons = score - 0.6, [*reasons, "named after another table"]
    return Candidate(column.name, score, "unique; " + ", ".join(reasons))


def _name_score(column: ColumnProfile, table: TableProfile) -> tuple[float, list[str]]:
    found, own, stem = words(column.name), table_words(table.name), without_id(column.name)
    if found in (("id",), ("pk",), ("key",), ("uuid",), ("row", "id"), ("key", "id"), ("rowid",)):
        return 0.8, ["named like a key"]
    if says_id(column.name) and stem and (stem == own or stem == own[-len(stem) :] or own == stem[-len(own) :]):
        return 0.9, ["named after its table"]
    if found and tuple(singular(word) for word in found) == own:
        return 0.6, ["named as its table"]
    if says_id(column.name):
        shares = set(stem) & set(own)
        return (0.7, ["named like a key of its table"]) if shares else (0.45, ["named like a key"])
    if set(found) & PROSE_WORDS:
        return -0.1, ["named like a description"]
    return 0.15, ["unique"]


def _names_used_elsewhere(tables: Mapping[str, TableProfile]) -> dict[str, set[str]]:
    """Tables in which a column of a name can be a key but is not unique, by the name in small letters."""
    found: dict[str, set[str]] = {}
    for table in tables.values():
        for column in table.columns.values():
            if column.can_be_key and not column.is_unique and not set(words(column.name)) & PROSE_WORDS:
                found.setdefault(column.name.lower(), set()).add(table.name)
    return found


def _is_of_another_table(column: ColumnProfile, table: TableProfile, tables: Mapping[str, TableProfile]) -> bool:
    """Whether the name says that the column is the key of another table, which has a unique column to name."""
    stem, own = without_id(column.name), table_words(table.name)
    if not stem or not says_id(column.name) or own == stem[-len(own) :]:
        return False
    is_own_tail = stem == own[-len(stem) :]
    for other in tables.values():
        theirs = table_words(other.name)
        if other.name != table.name and (theirs == stem or (theirs[-len(stem) :] == stem and not is_own_tail)):
            names = {each.name.lower() for each in other.columns.values() if each.is_unique}
            if names & {"id", "pk", "key", column.name.lower()}:
                return True
    return False
