"""Declared keys, as far as a description can say them: one column names a row, one column names a parent."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from tributary.importing.source import Findings
from tributary.infer import DeclaredTable


@dataclasses.dataclass(frozen=True)
class ForeignKey:
    """A declared foreign key."""

    columns: tuple[str, ...]
    parent: str
    parent_columns: tuple[str, ...]
    """Empty: the parent's primary key."""

    def __str__(self) -> str:
        of = f" ({', '.join(self.parent_columns)})" if self.parent_columns else ""
        return f"({', '.join(self.columns)}) -> `{self.parent}`{of}"


def declare(
    findings: Findings,
    tables: Sequence[str],
    primary_keys: Mapping[str, Sequence[str]],
    foreign_keys: Mapping[str, Sequence[ForeignKey]],
    descriptions: Mapping[str, str],
    column_descriptions: Mapping[str, Mapping[str, str]],
) -> None:
    """Turns what a catalog says into declarations, and into warnings where a description cannot say it.

    Args:
        findings: takes both.
        tables: those that are imported.
        primary_keys: columns of each.
        foreign_keys: of each table.
        descriptions: comments of tables.
        column_descriptions: comments of columns, by table.
    """
    single = {table: columns[0] for table, columns in primary_keys.items() if len(columns) == 1}
    composite = {table: columns for table, columns in primary_keys.items() if len(columns) > 1}
    for table in tables:
        links = {}
        for each in foreign_keys.get(table, ()):
            problem = _problem(each, tables, single)
            if problem is None:
                links[each.columns[0]] = each.parent
            else:
                findings.warnings.append(f"{table}: the foreign key {each} is left out: {problem}")
        if table in composite:
            listed = ", ".join(composite[table])
            findings.warnings.append(
                f"{table}: its primary key has {len(composite[table])} columns ({listed}); left without one:"
                " its rows point to others, none to them"
            )
        findings.declared[table] = DeclaredTable(
            primary_key=single.get(table),
            foreign_keys=links,
            description=descriptions.get(table, ""),
            column_descriptions=column_descriptions.get(table, {}),
            settled=frozenset({"primary_key"} if table in composite else ()),
        )


def _problem(key: ForeignKey, tables: Sequence[str], single: Mapping[str, str]) -> str | None:
    """Why a foreign key cannot be described; None if it can."""
    if len(key.columns) > 1:
        return f"it has {len(key.columns)} columns, and a link has one"
    if key.parent not in tables:
        return f"`{key.parent}` is not imported"
    if key.parent not in single:
        return f"`{key.parent}` has no primary key of one column"
    if key.parent_columns and key.parent_columns != (single[key.parent],):
        return f"it names another column than the primary key `{single[key.parent]}`"
    return None
