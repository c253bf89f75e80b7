"""A folder of parquet, CSV, TSV and JSON-lines files, or one such file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import duckdb
import pyarrow as pa

from tributary.importing import csv_text
from tributary.importing.duck import connect, exactly, plain_columns, quoted, stream
from tributary.importing.source import Findings, SourceTable, chosen
from tributary.infer.files import group_files

_TEXTS = (".csv", ".tsv")
_LINES = (".jsonl", ".ndjson")
_PLAIN = (".parquet", ".pq", *_TEXTS, *_LINES)
ENDINGS = (*_PLAIN, *(f"{each}.gz" for each in (*_TEXTS, *_LINES)))
"""What names of files end with that can be read."""


class FileSource:
    """Files, read by DuckDB.

    Args:
        path: a folder, or one file.
        wanted: tables to import; none: all.
        memory_gib: what DuckDB may keep in memory.
        threads: 0: every core.

    Raises:
        ValueError: there is no file that can be read, or one is not what its name says.
    """

    def __init__(self, path: Path, wanted: tuple[str, ...] = (), *, memory_gib: float = 2.0, threads: int = 0):
        self.name = path.resolve().name if path.is_dir() else _stem(path)
        self.findings = Findings()
        groups = group_files(path, ENDINGS) if path.is_dir() else {_stem(path): [path]}
        self._connection = connect(memory_gib, threads)
        self._selects: dict[str, str] = {}
        self._files = {table: groups[table] for table in chosen(list(groups), wanted, str(path))}
        try:
            for table, files in list(self._files.items()):
                self._add(table, files)
        except BaseException:
            self._connection.close()
            raise
        if not self._selects:
            raise ValueError(f"{path}: every file is empty")

    def __enter__(self) -> FileSource:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def tables(self) -> list[SourceTable]:
        """The tables, with their numbers of rows."""
        found = []
        for table in self._selects:
            number = self._read(table, f"SELECT count(*) FROM {quoted(table)}")
            found.append(SourceTable(table, number))
        return found

    def batches(self, table: str) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The rows of a table in the order of its files."""
        schema, batches = stream(self._connection, self._selects[table])
        return schema, self._told(table, batches)

    def _told(self, table: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except (duckdb.Error, pa.ArrowException) as error:
            raise ValueError(csv_text.broken(self._files[table][0], str(error))) from None

    def _read(self, table: str, sql: str) -> int:
        try:
            return int(self._connection.sql(sql).fetchall()[0][0])
        except duckdb.Error as error:
            raise ValueError(csv_text.broken(self._files[table][0], str(error))) from None

    def _add(self, table: str, files: list[Path]) -> None:
        """Makes a view of a table, and the SELECT that types its columns."""
        formats = {_format(file) for file in files}
        if len(formats) > 1:
            raise ValueError(f"table `{table}` is in {files[0].name} and {files[-1].name}: keep one of them")
        files = [file for file in files if not self._is_empty(table, file)]
        if not files:
            return
        try:
            if formats == {"csv"}:
                self._add_csv(table, files)
            else:
                self._add_typed(table, files, formats.pop())
        except duckdb.Error as error:
            raise ValueError(csv_text.broken(files[0], str(error))) from None

    def _is_empty(self, table: str, file: Path) -> bool:
        if file.stat().st_size:
            return False
        self.findings.warnings.append(f"{table}: {file.name} is empty and left out")
        return True

    def _add_csv(self, table: str, files: list[Path]) -> None:
        headed = [each for file in files if (each := csv_text.read_header(file)) is not None]
        if not headed:
            self.findings.warnings.append(f"{table}: {files[0].name} is empty and left out")
            return
        union = " UNION ALL BY NAME ".join(f"SELECT * FROM {each.relation}" for each in headed)
        self._connection.execute(f"CREATE VIEW {quoted(table)} AS {union}")
        columns = csv_text.type_columns(self._connection, table, headed)
        self.findings.warnings += [each.warning for each in columns if each.warning]
        listed = ", ".join(f"{each.expression} AS {quoted(each.name)}" for each in columns)
        self._selects[table] = f"SELECT {listed} FROM {quoted(table)}"

    def _add_typed(self, table: str, files: list[Path], kind: str) -> None:
        listed = ", ".join(exactly(file) for file in files)
        reader = (
            f"read_parquet([{listed}], union_by_name = true)"
            if kind == "parquet"
            else f"read_json([{listed}], format = 'newline_delimited', union_by_name = true, sample_size = -1,"
            " convert_strings_to_integers = false, map_inference_threshold = -1, field_appearance_threshold = 0)"
        )
        self._connection.execute(f"CREATE VIEW {quoted(table)} AS SELECT * FROM {reader}")
        self._selects[table] = f"SELECT {plain_columns(self._connection, quoted(table))} FROM {quoted(table)}"
        for name, sql_type, *_ in self._connection.sql(f"DESCRIBE {quoted(table)}").fetchall():
            if sql_type == "JSON" and kind == "jsonl":
                self._say_mixed(table, name)

    def _say_mixed(self, table: str, column: str) -> None:
        kinds = self._connection.sql(
            f"SELECT json_type({quoted(column)}) AS json_kind, count(*) FROM {quoted(table)}"
            " WHERE json_kind <> 'NULL' GROUP BY 1 ORDER BY 2 DESC, 1"
        ).fetchall()
        if kinds:
            listed = ", ".join(f"{number:,} {kind}" for kind, number in kinds)
            self.findings.warnings.append(f"{table}.{column}: values of several types ({listed}); kept as text")


def _format(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    if name.endswith(_TEXTS):
        return "csv"
    return "jsonl" if name.endswith(_LINES) else "parquet"


def _stem(path: Path) -> str:
    for ending in ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    raise ValueError(f"{path}: expected a folder, a database, or a file that ends with {', '.join(_PLAIN)} (.gz)")
