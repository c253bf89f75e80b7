"""What the names of a predictive query mean in a described database: columns, stypes, and ways along foreign keys."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable

from tributary.metadata import Description
from tributary.query.syntax import Column, QueryError


@dataclasses.dataclass(frozen=True)
class Link:
    """A foreign key: rows of `child` name a row of `parent`."""

    child: str
    column: str
    parent: str
    primary_key: str

    def __str__(self) -> str:
        return f"{self.child}.{self.column}"


class Names:
    """The tables of a database, as a query sees them.

    Args:
        description: the described database.
        text: the query, for messages that point into it.
    """

    def __init__(self, description: Description, text: str):
        self._tables = description.tables
        self._text = text
        self._links: dict[str, list[Link]] = {name: [] for name in description.tables}
        for name, table in description.tables.items():
            for column, described in table["columns"].items():
                if described.get("foreign_key"):
                    parent, _, key = described["foreign_key"].partition(".")
                    self._links[name].append(Link(name, column, parent, key))

    def table(self, name: str, place: int) -> None:
        """Raises `QueryError` unless there is such a table."""
        if name not in self._tables:
            hint = _nearest(name, self._tables)
            raise QueryError(f"there is no table `{name}`; {hint}", self._text, place)

    def stype(self, column: Column) -> str:
        """The stype of a column.

        Raises:
            QueryError: there is no such column, or it is ignored.
        """
        self.table(column.table, column.place)
        columns = self._tables[column.table]["columns"]
        if column.name not in columns:
            hint = _nearest(column.name, columns)
            raise QueryError(f"table `{column.table}` has no column `{column.name}`; {hint}", self._text, column.place)
        stype: str = columns[column.name]["stype"]
        return stype

    def holder(self, column: Column) -> Column:
        """The column itself, or that of its name on the nearest row that the table's foreign keys lead to.

        Raises:
            QueryError: there is no such column, or several are equally near.
        """
        self.table(column.table, column.place)
        tables, seen = [column.table], set[str]()
        while tables:
            found = sorted({table for table in tables if column.name in self._tables[table]["columns"]})
            if len(found) > 1:
                ways = ", ".join(f"{table}.{column.name}" for table in found)
                raise QueryError(f"`{column}` may be {ways}; rename one of them", self._text, column.place)
            if found:
                return Column(found[0], column.name, column.place)
            seen.update(tables)
            tables = [link.parent for table in tables for link in self._links[table] if link.parent not in seen]
        hint = _nearest(column.name, self._tables[column.table]["columns"])
        message = f"neither `{column.table}` nor the rows it leads to have a column `{column.name}`; {hint}"
        raise QueryError(message, self._text, column.place)

    def named_table(self, column: Column) -> str | None:
        """The table whose rows the values of a column name: by a foreign key, or as its primary key."""
        described = self._tables[column.table]["columns"][column.name]
        if described.get("foreign_key"):
            return next(link.parent for link in self._links[column.table] if link.column == column.name)
        return column.table if self.primary_key(column.table) == column.name else None

    def time_column(self, table: str) -> str | None:
        """The temporal column of a table, if it has one."""
        found: str | None = self._tables[table]["temporal_column"]
        return found

    def primary_key(self, table: str) -> str | None:
        """The primary key of a table, if it has one."""
        found: str | None = self._tables[table]["primary_key"]
        return found

    def check_entity(self, entity: Column) -> None:
        """Raises `QueryError` unless the column is the primary key of its table."""
        self.stype(entity)
        key = self.primary_key(entity.table)
        if key is None:
            message = f"table `{entity.table}` has no primary key; FOR EACH asks about the rows of a table with one"
            raise QueryError(message, self._text, entity.place)
        if key != entity.name:
            message = f"`{entity}` is not the primary key of its table; write FOR EACH {entity.table}.{key}"
            raise QueryError(message, self._text, entity.place)

    def path(self, start: str, end: str, place: int, via: Column | None = None) -> list[Link]:
        """The foreign keys that lead from a row of `start` to its one row of `end`, nearest first.

        Args:
            start: a table.
            end: a table; the same gives an empty path.
            place: of what asks, in the text.
            via: a foreign key that the path must use.

        Raises:
            QueryError: there is no path, or more than one of the shortest length.
        """
        if start == end and via is None:
            return []
        self._check_via(via)
        complete: list[list[Link]] = []
        paths: list[list[Link]] = [[]]
        while paths and not complete:
            longer = [[*path, link] for path in paths for link in self._links[path[-1].parent if path else start]]
            paths = [path for path in longer if len({link.child for link in path}) == len(path)]
            complete = [path for path in paths if path[-1].parent == end and self._uses(path, via)]
        if not complete:
            through = "" if via is None else f" by `{via}`"
            message = f"no foreign keys lead from a row of `{start}` to one row of `{end}`{through}"
            raise QueryError(message, self._text, place)
        if len(complete) > 1:
            ways = ", ".join(f"VIA {path[_differing(complete)]}" for path in complete)
            message = f"several foreign keys lead from `{start}` to `{end}`; say which after `{start}.*`: {ways}"
            raise QueryError(message, self._text, place)
        return complete[0]

    def _check_via(self, via: Column | None) -> None:
        if via is None:
            return
        self.stype(via)
        if not any(link.column == via.name for link in self._links[via.table]):
            known = ", ".join(str(link) for link in self._links[via.table]) or "none"
            message = f"`{via}` is no foreign key; those of `{via.table}`: {known}"
            raise QueryError(message, self._text, via.place)

    @staticmethod
    def _uses(path: list[Link], via: Column | None) -> bool:
        return via is None or any(link.child == via.table and link.column == via.name for link in path)


def _differing(paths: list[list[Link]]) -> int:
    """The first place at which paths of one length differ."""
    return next(idx for idx in range(len(paths[0])) if len({str(path[idx]) for path in paths}) > 1)


def _nearest(name: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1) or [each for each in names if each.lower() == name.lower()]
    if near:
        return f"did you mean `{near[0]}`?"
    return f"there are {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"
