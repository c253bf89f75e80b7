"""From a predictive query to label SQL and a task of `metadata.json`. Described in `documentation/query.md`."""

from __future__ import annotations

import dataclasses
from typing import Any

from tributary.metadata import Description
from tributary.query.names import Names
from tributary.query.statement import MOMENT, Statement, literal, quoted, window_end_us
from tributary.query.syntax import Aggregate, Column, Query, QueryError, parse, values_of

LABEL = "label"
"""Column of the answer."""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What a query means for one database."""

    query: Query
    task: dict[str, Any]
    """As in `metadata.json`, less the moments it is asked at and its split, which `tributary.query.schedule` adds."""
    population: str | None
    """SQL of those who are asked about at the moments of `timestamps`: (moment, entity). None: no moment is asked."""
    clocks: dict[str, str]
    """Tables over whose times the label's windows are laid, with their temporal columns."""
    horizon_us: int | None
    """Microseconds from the moment until the label is known; None: no moment is asked."""
    warnings: tuple[str, ...]
    """What the asker should know."""


def compile_query(text: str, description: Description) -> Compiled:
    """Parses a query and translates it.

    Args:
        text: a predictive query.
        description: the database it is about.

    Raises:
        QueryError: the query is not understood, names what is not there, or asks what cannot be asked.
    """
    query = parse(text)
    names = Names(description, text)
    if any(isinstance(value, Aggregate) for value in values_of(query.target)):
        return _with_moments(query, names)
    return _without_moments(query, names)


def _with_moments(query: Query, names: Names) -> Compiled:
    statement = Statement(query, names, has_moments=True)
    _check_members(query, names, statement)
    ends = [_end_us(query, value) for value in values_of(query.target) if isinstance(value, Aggregate)]
    if any(isinstance(value, Column) for value in values_of(query.target)):
        message = "the target mixes windows with columns that are known at the moment; ask for the column in WHERE"
        raise QueryError(message, query.text, 0)
    label, stype = _label(query, statement)
    clocks = dict(statement.clocks)
    conditions = [statement.condition(part) for part in (query.where, query.assuming) if part is not None]
    conditions.append(f"{label} IS NOT NULL")
    columns = f"{statement.key} AS {quoted(query.entity.name)}, p.{MOMENT} AS {MOMENT}, {label} AS {LABEL}"
    task = _task(query, statement.text(columns, conditions), stype)
    horizon_us = max(ends)
    if isinstance(query.target, Aggregate) and query.target.function == "LIST_DISTINCT":
        task |= _links(query.target, query, names, statement)
    task |= {"observation_time_column": MOMENT, "timedelta": duration_text(horizon_us)}
    return Compiled(query, task, _population(query, names), clocks, horizon_us, _warnings(query))


def _links(target: Aggregate, query: Query, names: Names, statement: Statement) -> dict[str, Any]:
    """What a task whose answer is a list of rows has in place of a stype."""
    column = statement.aggregated(target)
    table = names.named_table(column)
    if table is None:
        message = (
            f"`{column}` names no rows: a list of keys can be predicted, of foreign keys or of a primary key; for other"
            " values ask COUNT(...) > 0 of each"
        )
        raise QueryError(message, query.text, target.place)
    return {"target_stype": "link", "target_table": table} | ({} if query.top is None else {"top_k": query.top})


def _without_moments(query: Query, names: Names) -> Compiled:
    statement = Statement(query, names, has_moments=False)
    _check_members(query, names, statement)
    if query.assuming is not None:
        message = "ASSUMING speaks of what happens in a window after the moment; this target has no window"
        raise QueryError(message, query.text, 0)
    if isinstance(query.target, Column) and query.where is None:
        return Compiled(query, _cell(query, names, query.target), None, {}, None, ())
    label, stype = _label(query, statement)
    conditions = [f"{label} IS NOT NULL"]
    if query.where is not None:
        conditions.append(statement.condition(query.where))
    columns = f"{statement.key} AS {quoted(query.entity.name)}, {label} AS {LABEL}"
    hidden = {(value.table, value.name) for value in values_of(query.target) if isinstance(value, Column)}
    task = _task(query, statement.text(columns, conditions), stype)
    task |= {"horizon": "0 days", "remove_columns": [list(each) for each in sorted(hidden)]}
    return Compiled(query, task, None, {}, None, ())


def _cell(query: Query, names: Names, target: Column) -> dict[str, Any]:
    """The task that fills in a column of the rows themselves."""
    stype = names.stype(target)
    if target.table != query.entity.table:
        message = f"a column is predicted for the rows of its own table: FOR EACH {target.table}.<primary key>"
        raise QueryError(message, query.text, target.place)
    if stype in ("identifier", "ignored"):
        raise QueryError(f"`{target}` is {stype}, which cannot be predicted", query.text, target.place)
    described = {"description": " ".join(query.text.split())}
    return described | {"anchor_table": target.table, "target_column": target.name, "target_stype": stype}


def _label(query: Query, statement: Statement) -> tuple[str, str]:
    """SQL and stype of the target."""
    if isinstance(query.target, Column | Aggregate):
        stype = statement.stype(query.target)
        if stype == "identifier":
            if isinstance(query.target, Column):
                message = f"`{query.target}` is an identifier, which cannot be predicted"
                raise QueryError(message, query.text, query.target.place)
            stype = "categorical"
        return statement.value(query.target), stype
    return f"({statement.condition(query.target)})", "boolean"


def _task(query: Query, sql: str, stype: str) -> dict[str, Any]:
    return {
        "description": " ".join(query.text.split()),
        "query": sql,
        "anchor_table": query.entity.table,
        "anchor_key": query.entity.name,
        "target_column": LABEL,
        "target_stype": stype,
    }


def _population(query: Query, names: Names) -> str:
    """SQL of those whom WHERE and IN select; what ASSUMING says is assumed of them."""
    statement = Statement(query, names, has_moments=True)
    conditions = [] if query.where is None else [statement.condition(query.where)]
    if query.members is not None:
        conditions.append(f"p.entity IN ({', '.join(literal(each) for each in query.members)})")
    columns = f"p.{MOMENT} AS {MOMENT}, p.entity AS {quoted(query.entity.name)}"
    return statement.text(columns, conditions, "\nORDER BY 1, 2")


def _check_members(query: Query, names: Names, statement: Statement) -> None:
    if query.members is not None:
        statement.check_constants(query.members, names.stype(query.entity), query.entity)


def _end_us(query: Query, aggregate: Aggregate) -> int:
    """Microseconds until the window of a target is over."""
    window = aggregate.window
    if window.start is None or window.start < 0:
        message = "the window of a target starts at the moment or after it, as 0, 30, days; the past is known"
        raise QueryError(message, query.text, aggregate.place)
    end = window_end_us(window)
    if end is None:
        message = "the window of a target ends after a fixed time: a number of seconds, minutes, hours, days or weeks"
        raise QueryError(message, query.text, aggregate.place)
    return end


def _warnings(query: Query) -> tuple[str, ...]:
    """WHERE chooses whom to ask about; what happens after the moment cannot be known when one asks."""
    if query.where is None:
        return ()
    windows = [value.window for value in values_of(query.where) if isinstance(value, Aggregate)]
    if all(window.end is not None and window.end <= 0 for window in windows):
        return ()
    return (
        "WHERE looks at what happens after the moment, which nobody knows when the question is asked; write it after"
        " ASSUMING if it is assumed",
    )


def duration_text(duration_us: int) -> str:
    """A duration as `metadata.json` has it."""
    seconds = duration_us // 1_000_000
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds % length == 0:
            return f"{seconds // length} {unit}"
    return f"{seconds} seconds"
