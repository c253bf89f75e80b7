"""Whether the values of one column are keys of another."""

from __future__ import annotations

from tributary.infer.profile import ColumnProfile, Profiler, quoted
from tributary.infer.words import PROSE_WORDS, words

_FEWEST_TEXTS = 3
_LARGE = 100_000
_SAMPLE = 200
_SLACK = 0.3


def may_agree_by_values(column: ColumnProfile, parent: ColumnProfile) -> bool:
    """Texts that are keys of a table need no name: codes seldom agree by chance."""
    return (
        column.kind == "text"
        and parent.kind == "text"
        and column.num_distinct >= _FEWEST_TEXTS
        and column.num_distinct <= parent.num_present
        and column.table != parent.table
        and abs(column.mean_length - parent.mean_length) <= max(3.0, 0.5 * parent.mean_length)
        and (parent.mean_words < 2 or not set(words(parent.name)) & PROSE_WORDS)
    )


def containment(profiler: Profiler, column: ColumnProfile, parent: ColumnProfile, needed: float) -> float:
    """Share of distinct values that are keys; of a sample first, where many must be."""
    values = f"SELECT DISTINCT {quoted(column.name)} AS v FROM {quoted(column.table)} WHERE v IS NOT NULL"
    keys = f"SELECT {quoted(parent.name)} FROM {quoted(parent.table)}"
    is_worth_a_sample = needed > _SLACK and column.num_rows > _LARGE
    if is_worth_a_sample and _share(profiler, f"{values} LIMIT {_SAMPLE}", keys) < needed - _SLACK:
        return 0.0
    return _share(profiler, values, keys)


def _share(profiler: Profiler, values: str, keys: str) -> float:
    known, total = profiler.rows(f"SELECT count(*) FILTER (v IN ({keys})), count(*) FROM ({values})")[0]
    return known / total if total else 0.0
