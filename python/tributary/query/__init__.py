"""Predictive queries: a question about the future in one line, instead of label SQL.

    PREDICT COUNT(orders.*, 0, 30, days) = 0 FOR EACH customers.id WHERE COUNT(orders.*, -90, 0, days) > 0

A text is parsed (`syntax`), its names are looked up in the description of a database (`names`), it becomes SQL
(`statement`, `compile`), gets moments and splits (`schedule`), and is tried on the past (`preview`). Described in
`documentation/query.md`.
"""

from tributary.query.compile import Compiled, compile_query
from tributary.query.preview import Preview, SplitPreview, past_labels, preview
from tributary.query.schedule import Schedule, scheduled_task
from tributary.query.storage import save_task
from tributary.query.syntax import QueryError, parse

__all__ = [
    "Compiled",
    "Preview",
    "QueryError",
    "Schedule",
    "SplitPreview",
    "compile_query",
    "parse",
    "past_labels",
    "preview",
    "save_task",
    "scheduled_task",
]
