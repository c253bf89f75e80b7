"""The predictive query language: from a text to its tree, with messages that point into the text.

The grammar is `grammar.lark`; what names mean is not known here (see `tributary.query.names`).
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
from importlib.resources import files
from typing import Any, Literal, get_args

import lark

Function = Literal["COUNT", "COUNT_DISTINCT", "SUM", "AVG", "MIN", "MAX", "FIRST", "LAST", "LIST_DISTINCT"]
Unit = Literal["second", "minute", "hour", "day", "week", "month", "year"]


class QueryError(ValueError):
    """A predictive query is wrong; the message shows where, and what would be right."""

    def __init__(self, message: str, text: str, place: int | None = None):
        super().__init__(message if place is None else f"{message}\n{_pointer(text, place)}")


@dataclasses.dataclass(frozen=True)
class Column:
    """`table.column`."""

    table: str
    name: str
    place: int = dataclasses.field(compare=False)

    def __str__(self) -> str:
        return f"{self.table}.{self.name}"


@dataclasses.dataclass(frozen=True)
class Window:
    """Times t with `start < t - moment <= end`, in units; None: without that bound."""

    start: int | None
    end: int | None
    unit: Unit


@dataclasses.dataclass(frozen=True)
class Aggregate:
    """What a function makes of the rows of a window."""

    function: Function
    table: str
    column: str | None
    """None: of whole rows (`table.*`)."""
    window: Window
    where: Condition | None
    """Which of the rows."""
    via: Column | None
    """The foreign key that leads towards the entity, where there are several."""
    place: int = dataclasses.field(compare=False)


Value = Column | Aggregate


@dataclasses.dataclass(frozen=True)
class Moment:
    """A time written in the query."""

    text: str


Constant = int | float | str | bool | Moment


@dataclasses.dataclass(frozen=True)
class Test:
    """A value compared with constants."""

    value: Value
    operator: Literal["=", "<>", "<", "<=", ">", ">=", "IN", "NOT IN", "LIKE", "NOT LIKE", "IS NULL", "IS NOT NULL"]
    constants: tuple[Constant, ...]
    place: int = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True)
class Junction:
    """Conditions joined by AND or OR."""

    word: Literal["AND", "OR"]
    parts: tuple[Condition, ...]


@dataclasses.dataclass(frozen=True)
class Not:
    """The contrary of a condition."""

    part: Condition


Condition = Test | Junction | Not | Value
"""A bare value is one only where it is boolean."""


@dataclasses.dataclass(frozen=True)
class Query:
    """A whole query."""

    text: str
    target: Condition
    top: int | None
    """Of a ranked list: how many."""
    entity: Column
    members: tuple[Constant, ...] | None
    """Entities that are asked about; None: all."""
    where: Condition | None
    assuming: Condition | None


def parse(text: str) -> Query:
    """The tree of a query.

    Raises:
        QueryError: the text is no query; the message points to the place.

    Example:
        >>> query = parse("PREDICT COUNT(orders.*, 0, 30, days) = 0 FOR EACH customers.id")
        >>> str(query.entity), query.target.operator
        ('customers.id', '=')
    """
    try:
        tree = _parser().parse(text)
    except lark.exceptions.UnexpectedInput as error:
        raise _readable(error, text) from None
    try:
        query: Query = _Builder(text).transform(tree)
    except lark.exceptions.VisitError as error:
        raise error.orig_exc from None
    return query


def values_of(condition: Condition) -> list[Value]:
    """Every value that a condition speaks of, in the order of the text; those inside of an aggregate are its own."""
    if isinstance(condition, Test):
        return [condition.value]
    if isinstance(condition, Junction):
        return [value for part in condition.parts for value in values_of(part)]
    if isinstance(condition, Not):
        return values_of(condition.part)
    return [condition]


@functools.cache
def _parser() -> lark.Lark:
    grammar = files("tributary.query").joinpath("grammar.lark").read_text(encoding="utf-8")
    return lark.Lark(grammar, parser="lalr", propagate_positions=True, maybe_placeholders=True)


_FUNCTIONS = get_args(Function)

_WORDS = {
    "PREDICT", "FOR", "EACH", "WHERE", "ASSUMING", "AND", "OR", "NOT", "IN", "LIKE", "IS", "NULL", "RANK", "TOP", "VIA",
    "INF", "TRUE", "FALSE", "seconds", "minutes", "hours", "days", "weeks", "months", "years",
}  # fmt: skip

_NAMES_OF_TERMINALS = {
    "COMPARISON": "a comparison (=, <>, <, <=, >, >=)",
    "FUNCTION": "an aggregate such as COUNT(table.*, 0, 30, days)",
    "UNIT": "a unit (seconds, minutes, hours, days, weeks, months, years)",
    "NAME": "a name",
    "QUOTED": "a name",
    "STRING": "a text in single quotes",
    "DATED": "TIMESTAMP '...'",
    "SIGNED_INT": "a whole number",
    "INT": "a whole number",
    "SIGNED_NUMBER": "a number",
    "INFINITY": "INF",
    "LPAR": "(",
    "RPAR": ")",
    "COMMA": ",",
    "DOT": ".",
    "STAR": "*",
    "MINUS": "-INF",
    "PLUS": "+INF",
    "SEMICOLON": "the end",
    "$END": "the end",
}
_MEMBERSHIP = ("a number", "a text in single quotes", "TRUE", "FALSE", "TIMESTAMP '...'")


def _readable(error: lark.exceptions.UnexpectedInput, text: str) -> QueryError:
    """What was expected and what was found, in words."""
    place = error.pos_in_stream if error.pos_in_stream is not None and error.pos_in_stream >= 0 else len(text)
    if isinstance(error, lark.exceptions.UnexpectedToken) and error.token.type == "$END":
        place = len(text.rstrip())
    found = text[place:].split(maxsplit=1)
    word = found[0].rstrip(",;)(") if found else ""
    terminals: set[str] = getattr(error, "accepts", None) or getattr(error, "expected", None) or set()
    terminals = terminals or getattr(error, "allowed", None) or set()
    expected = sorted({_NAMES_OF_TERMINALS.get(name, name) for name in terminals})
    if set(_MEMBERSHIP) <= set(expected):
        expected = [name for name in expected if name not in _MEMBERSHIP] + [
            "a number, a text in quotes, TRUE or FALSE"
        ]
    if expected == ["."]:
        return _not_a_column(text, place)
    near = difflib.get_close_matches(word.upper(), [known.upper() for known in _WORDS], n=1, cutoff=0.75)
    hint = f"; did you mean {near[0]}?" if near and near[0] != word.upper() else ""
    shown = f"`{word or found[0]}`" if found else "the end"
    return QueryError(f"the query is not understood: expected {_listed(expected)}, found {shown}{hint}", text, place)


def _not_a_column(text: str, place: int) -> QueryError:
    """A single word stands where `table.column` or a function is expected."""
    word = text[:place].split()[-1].split("(")[-1]
    if text[place : place + 1] == "(":
        near = difflib.get_close_matches(word.upper(), _FUNCTIONS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_FUNCTIONS)}"
        return QueryError(f"there is no function `{word}`; {hint}", text, place - len(word))
    start = max(0, text.rfind(word, 0, place))
    return QueryError(f"`{word}` is no column; write it as table.column", text, start)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _pointer(text: str, place: int) -> str:
    """The line of the text, and a mark below the place."""
    place = min(place, len(text))
    start = text.rfind("\n", 0, place) + 1
    end = text.find("\n", place)
    line = text[start : end if end >= 0 else len(text)]
    return f"  {line}\n  {' ' * (place - start)}^"


def _single(token: str) -> str:
    """A name or a text without its quotes."""
    if token[:1] in "\"'":
        quote = token[0]
        return token[1:-1].replace(quote * 2, quote)
    return token


@lark.v_args(inline=True)
class _Builder(lark.Transformer[Any, Any]):
    """From lark's tree to ours."""

    def __init__(self, text: str):
        super().__init__()
        self._text = text

    def name(self, token: lark.Token) -> tuple[str, int]:
        return _single(str(token)), token.start_pos or 0

    def column(self, table: tuple[str, int], name: tuple[str, int]) -> Column:
        return Column(table[0], name[0], table[1])

    def every_row(self, table: tuple[str, int]) -> tuple[str, int]:
        return table

    def source(self, column: Column) -> Column:
        return column

    def number_bound(self, token: lark.Token) -> int:
        return int(token)

    def no_start(self, *_: Any) -> str:
        return "-INF"

    def no_end(self, *_: Any) -> str:
        return "INF"

    def where(self, condition: Condition) -> Condition:
        return condition

    assuming = where

    def via(self, column: Column) -> Column:
        return column

    def aggregate(
        self,
        function: lark.Token,
        source: Column | tuple[str, int],
        via: Column | None,
        where: Condition | None,
        start: int | str,
        end: int | str,
        unit: lark.Token | None,
    ) -> Aggregate:
        place = function.start_pos or 0
        window = self._window([start, end], None if unit is None else str(unit).lower().removesuffix("s"), place)
        table, column = (source.table, source.name) if isinstance(source, Column) else (source[0], None)
        name: Any = str(function).upper()
        if column is None and name != "COUNT":
            raise QueryError(f"{name} needs a column, as {name}({table}.column, ...)", self._text, place)
        return Aggregate(name, table, column, window, where, via, place)

    def _window(self, bounds: list[int | str], unit: str | None, place: int) -> Window:
        start, end = bounds
        if start == "INF" or end == "-INF":
            raise QueryError("a window goes from an earlier to a later time, as -INF, 0", self._text, place)
        numbers = [bound for bound in bounds if isinstance(bound, int) and bound]
        if unit is None and numbers:
            raise QueryError("the window has no unit; write it as 0, 30, days", self._text, place)
        first = None if isinstance(start, str) else start
        last = None if isinstance(end, str) else end
        if first is not None and last is not None and first >= last:
            raise QueryError(f"the window from {first} to {last} is empty", self._text, place)
        return Window(first, last, unit or "day")  # type: ignore[arg-type] # the grammar knows the units alone

    def number(self, token: lark.Token) -> int | float:
        text = str(token)
        return int(text) if text.lstrip("+-").isdigit() else float(text)

    def text(self, token: lark.Token) -> str:
        return _single(str(token))

    def true(self) -> bool:
        return True

    def false(self) -> bool:
        return False

    def moment(self, word: lark.Token, token: lark.Token) -> Moment:
        from tributary.moments import moment_us

        try:
            moment_us(_single(str(token)))
        except ValueError as error:
            raise QueryError(str(error), self._text, word.start_pos) from None
        return Moment(_single(str(token)))

    def _test(self, value: Any, operator: Any, *constants: Any) -> Test:
        if not isinstance(value, (Column, Aggregate)):
            raise QueryError("only a column or an aggregate can be compared", self._text, 0)
        return Test(value, operator, constants, value.place)

    def compared(self, value: Value, operator: lark.Token, constant: Constant) -> Test:
        word = {"!=": "<>", "==": "="}.get(str(operator), str(operator))
        return self._test(value, word, constant)

    def is_in(self, value: Value, *constants: Constant) -> Test:
        return self._test(value, "IN", *constants)

    def is_not_in(self, value: Value, *constants: Constant) -> Test:
        return self._test(value, "NOT IN", *constants)

    def is_like(self, value: Value, pattern: lark.Token) -> Test:
        return self._test(value, "LIKE", _single(str(pattern)))

    def is_not_like(self, value: Value, pattern: lark.Token) -> Test:
        return self._test(value, "NOT LIKE", _single(str(pattern)))

    def is_null(self, value: Value) -> Test:
        return self._test(value, "IS NULL")

    def is_not_null(self, value: Value) -> Test:
        return self._test(value, "IS NOT NULL")

    def negated(self, part: Condition) -> Not:
        return Not(part)

    def any_of(self, *parts: Condition) -> Condition:
        return parts[0] if len(parts) == 1 else Junction("OR", parts)

    def all_of(self, *parts: Condition) -> Condition:
        return parts[0] if len(parts) == 1 else Junction("AND", parts)

    def ranked(self, aggregate: Aggregate, top: lark.Token) -> tuple[Aggregate, int]:
        if aggregate.function != "LIST_DISTINCT":
            raise QueryError("only LIST_DISTINCT is ranked", self._text, aggregate.place)
        if int(top) < 1:
            raise QueryError("RANK TOP needs a number of at least 1", self._text, top.start_pos)
        return aggregate, int(top)

    def members(self, *constants: Constant) -> tuple[Constant, ...]:
        return constants

    def start(
        self,
        target: Condition | tuple[Aggregate, int],
        entity: Column,
        members: tuple[Constant, ...] | None,
        where: Condition | None,
        assuming: Condition | None,
    ) -> Query:
        predicted, top = target if isinstance(target, tuple) else (target, None)
        return Query(self._text, predicted, top, entity, members, where, assuming)
