"""SQL of the conditions and aggregates of a query, collected into one SELECT over those who are asked about.

Every aggregate becomes a relation (moment, entity, value) of its own, joined to the population (moment, entity) of
those who exist at the moment. Where a window holds no rows, counts and sums are 0 and every other value is null.
"""

from __future__ import annotations

from typing import Any

from tributary.moments import UNITS_US
from tributary.query.names import Link, Names
from tributary.query.syntax import (
    Aggregate,
    Column,
    Condition,
    Constant,
    Junction,
    Moment,
    Not,
    Query,
    QueryError,
    Test,
    Value,
    Window,
)

MOMENT = "moment"
"""Column of the moment a question is asked at."""

_ENTITY = "e"
_ROW = "r"
_CALENDAR_UNITS = ("month", "year")
_ZERO_WHERE_EMPTY = ("COUNT", "COUNT_DISTINCT", "SUM")
_FUNCTIONS = {
    "COUNT": "count({0})",
    "COUNT_DISTINCT": "count(DISTINCT {0})",
    "SUM": "sum({0})",
    "AVG": "avg({0})",
    "MIN": "min({0})",
    "MAX": "max({0})",
    "FIRST": "arg_min({0}, ({1}, {0}))",
    "LAST": "arg_max({0}, ({1}, {0}))",
    "LIST_DISTINCT": "list_sort(list(DISTINCT {0}) FILTER ({0} IS NOT NULL))",
}
_NUMERIC_FUNCTIONS = ("SUM", "AVG")


class Statement:
    """One SELECT over the entities of a query.

    Args:
        query: what is asked.
        names: the tables it is asked of.
        has_moments: the question is asked at the moments of the relation `timestamps`; else of each row as it is.
    """

    def __init__(self, query: Query, names: Names, *, has_moments: bool):
        self._query, self._names, self._has_moments = query, names, has_moments
        self._relations: dict[Aggregate, tuple[str, str]] = {}
        self._entity_joins = _Joins(_ENTITY)
        self.clocks: dict[str, str] = {}
        """Tables over whose times windows were laid so far, with their temporal columns."""
        names.check_entity(query.entity)

    def text(self, columns: str, conditions: list[str], order: str = "") -> str:
        """The whole SELECT; every value and condition in it was asked for before.

        Args:
            columns: what is selected.
            conditions: all of which must hold.
            order: an ORDER BY.
        """
        entity = self._query.entity
        where = "\nWHERE " + " AND ".join(f"({each})" for each in conditions) if conditions else ""
        if not self._has_moments:
            return f"SELECT {columns}\nFROM {quoted(entity.table)} {_ENTITY}{self._entity_joins.text}{where}{order}"
        relations = [f"population AS (\n  {self._population()}\n)"]
        joins = f"\nJOIN {quoted(entity.table)} {_ENTITY} ON {_ENTITY}.{quoted(entity.name)} = p.entity"
        joins += self._entity_joins.text
        for name, relation in self._relations.values():
            relations.append(f"{name} AS (\n  {relation}\n)")
            joins += f"\nLEFT JOIN {name} ON {name}.{MOMENT} = p.{MOMENT} AND {name}.entity = p.entity"
        with_ = "WITH " + ",\n".join(relations)
        return f"{with_}\nSELECT {columns}\nFROM population p{joins}{where}{order}"

    @property
    def key(self) -> str:
        """SQL of the entity's primary key."""
        return "p.entity" if self._has_moments else f"{_ENTITY}.{quoted(self._query.entity.name)}"

    def value(self, value: Value) -> str:
        """SQL of a column or an aggregate."""
        if isinstance(value, Column):
            return self._column(value, self._query.entity.table, self._entity_joins)
        if value not in self._relations:
            name = f"a{len(self._relations) + 1}"
            self._relations[value] = (name, self._relation(value))
        name = self._relations[value][0]
        return f"coalesce({name}.value, 0)" if value.function in _ZERO_WHERE_EMPTY else f"{name}.value"

    def condition(self, condition: Condition) -> str:
        """SQL of a condition."""
        return self._condition(condition, self.value)

    def stype(self, value: Value) -> str:
        """The stype of a value."""
        if isinstance(value, Column):
            return self._names.stype(value)
        if value.function in ("MIN", "MAX", "FIRST", "LAST"):
            return self._names.stype(self.aggregated(value))
        return "text" if value.function == "LIST_DISTINCT" else "numerical"

    def _population(self) -> str:
        entity = self._query.entity
        time = self._names.time_column(entity.table)
        born = "" if time is None else f" WHERE x.{quoted(time)} <= t.timestamp"
        columns = f"t.timestamp AS {MOMENT}, x.{quoted(entity.name)} AS entity"
        return f"SELECT {columns} FROM timestamps t CROSS JOIN {quoted(entity.table)} x{born}"

    def _column(self, column: Column, table: str, joins: _Joins) -> str:
        """SQL of a column of a row of `table`, or of a row that it leads to by foreign keys."""
        if self._names.stype(column) == "ignored":
            raise self._error(f"`{column}` is ignored by the description; give it another stype to ask for it", column)
        alias = joins.follow(self._names.path(table, column.table, column.place))
        return f"{alias}.{quoted(column.name)}"

    def _relation(self, aggregate: Aggregate) -> str:
        """SQL of (moment, entity, value) of an aggregate."""
        table, entity = aggregate.table, self._query.entity
        self._names.table(table, aggregate.place)
        if not self._has_moments:
            raise self._error("an aggregate needs a moment to look from", aggregate)
        path = self._names.path(table, entity.table, aggregate.place, aggregate.via)
        if not path:
            raise self._error(f"`{table}` is the table asked about; name its columns without a function", aggregate)
        joins = _Joins(_ROW)
        holder = joins.follow(path[:-1])
        time = self._time(aggregate, path, joins)
        conditions = [] if time is None else window_conditions(aggregate.window, time)
        if aggregate.where is not None:
            conditions.append(f"({self._condition(aggregate.where, lambda value: self._inner(value, table, joins))})")
        entity_sql = f"{holder}.{quoted(path[-1].column)}"
        conditions.append(f"{entity_sql} IS NOT NULL")
        made = f"{self._function(aggregate, time, joins)} AS value"
        source = f"FROM timestamps t CROSS JOIN {quoted(table)} {_ROW}{joins.text}"
        return (
            f"SELECT t.timestamp AS {MOMENT}, {entity_sql} AS entity, {made} {source}"
            f" WHERE {' AND '.join(conditions)} GROUP BY 1, 2"
        )

    def _inner(self, value: Value, table: str, joins: _Joins) -> str:
        if isinstance(value, Aggregate):
            raise self._error("an aggregate cannot stand in the WHERE of another", value)
        return self._column(value, table, joins)

    def _time(self, aggregate: Aggregate, path: list[Link], joins: _Joins) -> str | None:
        """SQL of the time of the rows: their own, or that of the nearest row on the way to the entity."""
        window = aggregate.window
        for idx, table in enumerate([aggregate.table, *(link.parent for link in path[:-1])]):
            time = self._names.time_column(table)
            if time is not None:
                self.clocks[table] = time
                return f"{joins.follow(path[:idx])}.{quoted(time)}"
        if window.start is None and window.end is None and aggregate.function not in ("FIRST", "LAST"):
            return None
        message = (
            f"rows of `{aggregate.table}` have no time; the window can only be -INF, INF (or set a temporal_column)"
        )
        raise self._error(message, aggregate)

    def aggregated(self, aggregate: Aggregate) -> Column:
        """The column that an aggregate collects: of its rows, or of rows that their foreign keys lead to."""
        assert aggregate.column is not None
        return self._names.holder(Column(aggregate.table, aggregate.column, aggregate.place))

    def _function(self, aggregate: Aggregate, time: str | None, joins: _Joins) -> str:
        if aggregate.column is None:
            return "count(*)"
        column_of = self.aggregated(aggregate)
        stype = self._names.stype(column_of)
        if stype == "ignored":
            raise self._error(f"`{column_of}` is ignored by the description; give it another stype", aggregate)
        if aggregate.function in _NUMERIC_FUNCTIONS and stype not in ("numerical", "boolean"):
            message = f"{aggregate.function} needs numbers, `{column_of}` is {stype}"
            raise self._error(message, aggregate)
        column = self._column(column_of, aggregate.table, joins)
        if stype == "boolean" and aggregate.function in _NUMERIC_FUNCTIONS:
            column = f"{column}::INTEGER"
        return _FUNCTIONS[aggregate.function].format(column, time)

    def _condition(self, condition: Condition, value_sql: Any) -> str:
        if isinstance(condition, Junction):
            return f" {condition.word} ".join(f"({self._condition(part, value_sql)})" for part in condition.parts)
        if isinstance(condition, Not):
            return f"NOT ({self._condition(condition.part, value_sql)})"
        if isinstance(condition, Test):
            return self._test(condition, value_sql)
        if self.stype(condition) != "boolean":
            raise self._error("a condition compares its value with something, as `... > 0`", condition)
        return f"{value_sql(condition)}::BOOLEAN"

    def _test(self, test: Test, value_sql: Any) -> str:
        sql, stype = value_sql(test.value), self.stype(test.value)
        self.check_constants(test.constants, stype, test)
        constants = [literal(each, stype) for each in test.constants]
        if test.operator in ("IN", "NOT IN"):
            return f"{sql} {test.operator} ({', '.join(constants)})"
        if test.operator in ("LIKE", "NOT LIKE"):
            return f"{sql}::VARCHAR {test.operator} {constants[0]}"
        if stype == "boolean" and constants:
            sql = f"{sql}::BOOLEAN"
        return " ".join([sql, test.operator, *constants])

    def check_constants(self, constants: tuple[Constant, ...], stype: str, place: Test | Column) -> None:
        """Raises `QueryError` where a constant cannot be a value of a stype."""
        for constant in constants:
            is_number = isinstance(constant, (int, float)) and not isinstance(constant, bool)
            wrong = {
                "numerical": not is_number,
                "boolean": not isinstance(constant, bool) and constant not in (0, 1),
                "timestamp": not isinstance(constant, (Moment, str)),
            }
            if wrong.get(stype, False) and getattr(place, "operator", "") not in ("LIKE", "NOT LIKE"):
                shown = literal(constant, stype) if not isinstance(constant, Moment) else constant.text
                raise self._error(f"a {stype} value cannot be compared with {shown}", place)

    def _error(self, message: str, place: Value | Test) -> QueryError:
        return QueryError(message, self._query.text, place.place)


class _Joins:
    """Rows that a row leads to by foreign keys, each joined once.

    Args:
        start: alias of the row.
    """

    def __init__(self, start: str):
        self._start = start
        self._aliases: dict[tuple[str, str], str] = {}
        self.text = ""

    def follow(self, path: list[Link]) -> str:
        """The alias of the row at the end of a path."""
        alias = self._start
        for link in path:
            step = (alias, str(link))
            if step not in self._aliases:
                self._aliases[step] = f"{self._start}{len(self._aliases) + 1}"
                joined = self._aliases[step]
                condition = f"{joined}.{quoted(link.primary_key)} = {alias}.{quoted(link.column)}"
                self.text += f" LEFT JOIN {quoted(link.parent)} {joined} ON {condition}"
            alias = self._aliases[step]
        return alias


def window_conditions(window: Window, time: str) -> list[str]:
    """SQL conditions that a time lies in the window of the moment `t.timestamp`."""
    found = []
    if window.start is not None:
        found.append(f"{time} > t.timestamp{_shift(window.start, window)}")
    if window.end is not None:
        found.append(f"{time} <= t.timestamp{_shift(window.end, window)}")
    return found


def _shift(number: int, window: Window) -> str:
    if number == 0:
        return ""
    sign = "+" if number > 0 else "-"
    return f" {sign} INTERVAL {abs(number)} {window.unit.upper()}"


def window_end_us(window: Window) -> int | None:
    """Microseconds from the moment to the end of a window; None where it has none, or none of a fixed length."""
    if window.end is None or (window.end and window.unit in _CALENDAR_UNITS):
        return None
    return window.end * UNITS_US.get(window.unit, 0)


def quoted(name: str) -> str:
    """A name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(constant: Constant, stype: str = "") -> str:
    """A constant as SQL; texts beside timestamps are moments."""
    if isinstance(constant, bool):
        return "TRUE" if constant else "FALSE"
    if isinstance(constant, Moment) or (isinstance(constant, str) and stype == "timestamp"):
        text = constant.text if isinstance(constant, Moment) else constant
        return f"TIMESTAMP '{text.replace(chr(39), chr(39) * 2)}'"
    if isinstance(constant, str):
        return f"'{constant.replace(chr(39), chr(39) * 2)}'"
    if stype == "boolean":
        return "TRUE" if constant else "FALSE"
    return repr(constant)
