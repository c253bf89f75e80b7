"""CSV as it is found: separators, headers, and the type that every value of a column has.

All values are read as text first. A column gets another type only if each of its values has it; where nearly all do,
the first that does not is named.
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import re
from pathlib import Path
from typing import Any

from tributary.importing.duck import exactly, literal, quoted

_SEPARATORS = (",", ";", "\t", "|")
_MISSING = ("NA", "N/A", "NULL", "null", "None", "NaN", "nan", "-")
"""Texts that stand for a missing value among numbers, times and truths; in a column of texts they are texts."""
_VALUE = "$v"
_HEADER_BYTES = 1 << 20
_NEARLY = 0.5
_NUMBER = r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_DAY_FORMATS = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y")
_CLOCKS = ("", " %H:%M", " %H:%M:%S")


@dataclasses.dataclass(frozen=True)
class CsvFile:
    """One file, and how it is cut."""

    path: Path
    separator: str
    encoding: str
    columns: tuple[str, ...]

    @property
    def relation(self) -> str:
        """The file as a FROM clause, every column a text."""
        names = ", ".join(f"{literal(name)}: 'VARCHAR'" for name in self.columns)
        return (
            f"read_csv({exactly(self.path)}, auto_detect = false, header = true, delim = {literal(self.separator)},"
            f" quote = '\"', escape = '\"', encoding = {literal(self.encoding)}, columns = {{{names}}},"
            " null_padding = false, strict_mode = true, max_line_size = 16777216)"
        )


@dataclasses.dataclass(frozen=True)
class Column:
    """The type of one column."""

    name: str
    expression: str
    """SQL that makes the value of the text."""
    warning: str | None = None


def read_header(path: Path) -> CsvFile | None:
    """How a file is cut; None if it is empty.

    Raises:
        ValueError: it has no header, or one that names a column twice.
    """
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    with opened(path, "rb") as file:
        start = file.read(_HEADER_BYTES)
    if not start.strip():
        return None
    encoding = "utf-16" if start[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
    text = start.decode("utf-16" if encoding == "utf-16" else "utf-8-sig", "ignore")
    line = text.lstrip("\r\n")
    is_tabbed = ".tsv" in path.name.lower()
    separator = "\t" if is_tabbed else _separator(line)
    names = [name.strip() for name in next(csv.reader(io.StringIO(line), delimiter=separator))]
    named = [name or f"column_{place}" for place, name in enumerate(names, 1)]
    doubled = sorted({name for name in named if [n.lower() for n in named].count(name.lower()) > 1})
    if doubled:
        raise ValueError(f"{path}: the header names the column `{doubled[0]}` more than once; rename one")
    if all(re.fullmatch(_NUMBER, name) for name in named):
        raise ValueError(f"{path}: the first line is {', '.join(named[:4])}: expected the names of the columns")
    return CsvFile(path, separator, encoding, tuple(named))


def _separator(text: str) -> str:
    """What cuts the first line into most pieces."""
    pieces = {each: len(next(csv.reader(io.StringIO(text), delimiter=each))) for each in _SEPARATORS}
    return max(_SEPARATORS, key=lambda each: pieces[each])


def type_columns(connection: Any, table: str, files: list[CsvFile]) -> list[Column]:
    """The type of every column, over all rows of all files.

    Args:
        connection: of DuckDB, with the relation `table` of texts.
        table: its name.
        files: what it consists of.
    """
    names = list(dict.fromkeys(name for file in files for name in file.columns))
    return [_typed(connection, table, name, files) for name in names]


def _typed(connection: Any, table: str, name: str, files: list[CsvFile]) -> Column:
    has_comma = any(file.separator != "," and name in file.columns for file in files)
    tests = _tests(has_comma)
    value = f"trim({quoted(name)})"
    counts = [f"count(*) FILTER ({test.replace(_VALUE, 'v')})" for test, _ in tests.values()]
    missing = ", ".join(literal(each) for each in _MISSING)
    total, *matched = connection.sql(
        f"SELECT count(v), {', '.join(counts)} FROM (SELECT {value} AS v FROM {quoted(table)})"
        f" WHERE v NOT IN ({missing}) AND v <> ''"
    ).fetchall()[0]
    found = [kind for kind, number in zip(tests, matched, strict=True) if total and number == total]
    if "day first" in found and "month first" in found:
        text = f"{table}.{name}: dates may be day/month or month/day; kept as text, write them as 2024-12-31"
        return Column(name, quoted(name), text)
    if found:
        return _as(connection, table, name, tests[found[0]][1], total)
    likely = max(zip(matched, tests, strict=True), default=(0, ""))
    warning = None
    if total and likely[0] >= _NEARLY * total:
        share = f"{likely[0]:,} of {total:,} values"
        warning = _where(connection, name, tests[likely[1]][0], share, likely[1], files, table)
    return Column(name, quoted(name), warning)


def _tests(has_comma: bool) -> dict[str, tuple[str, str]]:
    """Kind -> (SQL condition, SQL value) of a text `$v`, the narrowest kind first."""

    def matches(pattern: str) -> str:
        return f"regexp_full_match($v, {literal(pattern)})"

    day, clock = r"\d{4}-\d{2}-\d{2}", r"[ T]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?"
    numbers = {
        "whole numbers": (
            f"{matches('[+-]?(0|[1-9][0-9]*)')} AND TRY_CAST($v AS BIGINT) IS NOT NULL",
            "CAST($v AS BIGINT)",
        ),
        "numbers": (matches(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?"), "CAST($v AS DOUBLE)"),
    }
    if has_comma:
        # 1,234 may be a thousand; 1,5 is not
        pattern = matches(r"[+-]?(0|[1-9]\d*)(,(\d{1,2}|\d{4,}))?([eE][+-]?\d+)?")
        numbers["numbers with a decimal comma"] = (pattern, "CAST(replace($v, ',', '.') AS DOUBLE)")
    parsed = {
        "day first": [f"{each}{clock}" for each in _DAY_FORMATS[:2] for clock in _CLOCKS],
        "month first": [f"{_DAY_FORMATS[2]}{clock}" for clock in _CLOCKS],
    }
    times = {
        kind: (f"TRY_STRPTIME($v, {_texts(formats)}) IS NOT NULL", f"TRY_STRPTIME($v, {_texts(formats)})")
        for kind, formats in parsed.items()
    }
    return {
        "truths": ("lower($v) IN ('true', 'false')", "CAST(lower($v) AS BOOLEAN)"),
        **numbers,
        "dates": (f"{matches(day)} AND TRY_CAST($v AS DATE) IS NOT NULL", "CAST($v AS DATE)"),
        "times": (f"{matches(f'{day}({clock})?')} AND TRY_CAST($v AS TIMESTAMP) IS NOT NULL", "CAST($v AS TIMESTAMP)"),
        "times with a zone": (
            f"{matches(day + clock + '(Z|[+-][0-9]{2}(:?[0-9]{2})?)')} AND TRY_CAST($v AS TIMESTAMPTZ) IS NOT NULL",
            "CAST($v AS TIMESTAMPTZ)",
        ),
        **times,
    }


def _texts(values: list[str]) -> str:
    return "[" + ", ".join(literal(value) for value in values) + "]"


def _as(connection: Any, table: str, name: str, value: str, total: int) -> Column:
    """A column of a type; texts that stand for nothing become nulls, and are counted."""
    text = f"trim({quoted(name)})"
    missing = ", ".join(literal(each) for each in _MISSING)
    found = connection.sql(
        f"SELECT {text}, count(*) FROM {quoted(table)} WHERE {text} IN ({missing}) GROUP BY 1 ORDER BY 1"
    ).fetchall()
    warning = None
    if found:
        listed = ", ".join(f"{number:,} x `{each}`" for each, number in found)
        warning = f"{table}.{name}: {listed} among {total:,} values read as missing"
    cleaned = f"CASE WHEN {text} IN ({missing}) OR {text} = '' THEN NULL ELSE {value.replace(_VALUE, text)} END"
    return Column(name, cleaned, warning)


def _where(connection: Any, name: str, test: str, share: str, kind: str, files: list[CsvFile], table: str) -> str:
    """Where the first value is that keeps a column from being what it nearly is."""
    missing = ", ".join(literal(each) for each in _MISSING)
    for file in files:
        if name not in file.columns:
            continue
        rows = connection.sql(
            f"SELECT n, v FROM (SELECT row_number() OVER () AS n, trim({quoted(name)}) AS v FROM {file.relation})"
            f" WHERE v IS NOT NULL AND v <> '' AND v NOT IN ({missing})"
            f" AND NOT coalesce({test.replace(_VALUE, 'v')}, false) ORDER BY n LIMIT 1"
        ).fetchall()
        for row, value in rows:
            return (
                f"{table}.{name}: {share} are {kind}, but {file.path.name}, row {row:,} has `{value[:80]}`;"
                " kept as text, correct the file for another type"
            )
    return f"{table}.{name}: {share} are {kind}; kept as text"


def broken(path: Path, message: str) -> str:
    """DuckDB's message about a file that is no CSV, shorter.

    Args:
        path: a file of the table.
        message: what DuckDB says.
    """
    line = re.search(r"CSV Error on Line: (\d+)", message)
    fields = re.search(r"Expected Number of Columns: (\d+) Found: (\d+)", message)
    file = re.search(r"^\s*file = (.+)$", message, re.MULTILINE)
    where = f"{file[1] if file else path}" + (f", line {int(line[1]):,}" if line else "")
    if fields:
        return f"{where}: expected {fields[1]} values, found {fields[2]}; quote texts that hold the separator"
    if "utf-8" in message:
        return f"{where}: not UTF-8; convert the file first: iconv -f LATIN1 -t UTF-8"
    if "unterminated quote" in message:
        return f"{where}: a quote is opened and not closed"
    return f"{where}: {message.splitlines()[0]}"
