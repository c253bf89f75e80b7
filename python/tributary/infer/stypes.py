"""Semantic types of columns that are neither keys nor times."""

from __future__ import annotations

from tributary.infer.profile import ColumnProfile
from tributary.infer.proposal import Candidate
from tributary.infer.words import CATEGORY_WORDS, CONTACT_WORDS, LABEL_WORDS, TRUTH_WORDS, says_id, words

_MOST_CLASSES = 1000
_FEW = 50
_PROSE_WORDS_MEAN = 4.0
_PROSE_LENGTH = 40.0
_SHORT_WORDS = 2.5
_SHORT_LENGTH = 25.0


def stype_of(column: ColumnProfile, *, is_key: bool) -> Candidate[str]:
    """The stype of a column, and why.

    Args:
        column: a profile.
        is_key: it is a primary or a foreign key.
    """
    if is_key:
        return Candidate("identifier", 1.0, "a key")
    if not column.num_present:
        return Candidate("ignored", 0.9, "null in every row")
    if column.kind == "other":
        return Candidate("ignored", 1.0, f"{column.sql_type} holds no cell value")
    if column.is_time:
        return Candidate("timestamp", 1.0, "times" if column.kind == "time" else "texts that are ISO 8601 times")
    if column.kind == "boolean":
        return Candidate("boolean", 1.0, "booleans")
    if column.kind == "float":
        return Candidate("numerical", 1.0, "fractions")
    if column.kind == "integer":
        return _integer(column)
    return _text(column)


def _integer(column: ColumnProfile) -> Candidate[str]:
    found = set(words(column.name))
    if column.least == 0 and column.most == 1:
        return Candidate("boolean", 0.9, "0 and 1 alone")
    if found & TRUTH_WORDS and column.least >= 0 and column.most <= 1:
        return Candidate("boolean", 0.7, "0 or 1, named like a truth")
    if column.is_unique and says_id(column.name):
        return Candidate("ignored", 0.7, "another key of the row, each value once")
    if found & LABEL_WORDS:
        return Candidate("categorical", 0.7, "digits that are no quantity")
    if says_id(column.name) and words(column.name)[-1] not in ("number", "num", "no", "nr"):
        if column.num_distinct <= _MOST_CLASSES:
            return Candidate("categorical", 0.7, "named like a key of a table that is not there")
        return Candidate("identifier", 0.6, "named like a key of a table that is not there, with many values")
    if found & CATEGORY_WORDS and column.num_distinct <= _FEW:
        return Candidate("categorical", 0.6, f"{column.num_distinct} values, named like kinds")
    return Candidate("numerical", 0.8, "integers")


def _text(column: ColumnProfile) -> Candidate[str]:
    found = set(words(column.name))
    distinct, present = column.num_distinct, column.num_present
    if distinct > 0.5 * present and distinct > _FEW:
        if found & CONTACT_WORDS:
            return Candidate("ignored", 0.7, "says where to find somebody, nearly every value once")
        if says_id(column.name) and column.mean_words < 2:
            return Candidate("ignored", 0.7, "named like a key, nearly every value once")
    is_prose = column.mean_words >= _PROSE_WORDS_MEAN or column.mean_length > _PROSE_LENGTH
    if is_prose and (distinct > _FEW or distinct > 0.5 * present):
        return Candidate("text", 0.9, f"{column.mean_words:.0f} words on average")
    if found & CATEGORY_WORDS and distinct <= _MOST_CLASSES and distinct <= 0.5 * present:
        return Candidate("categorical", 0.9, f"{distinct} values, named like kinds")
    if distinct <= _FEW and distinct <= 0.5 * present:
        return Candidate("categorical", 0.85, f"{distinct} values")
    if distinct <= _MOST_CLASSES and column.mean_words < _SHORT_WORDS and column.mean_length < _SHORT_LENGTH:
        return Candidate("categorical", 0.6, f"{distinct} short values in {present:,} rows")
    return Candidate("text", 0.7, f"{distinct:,} values in {present:,} rows")
