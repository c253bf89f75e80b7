"""The child process that runs the SQL of tasks: one read-only SELECT at a time, fenced in.

The parent (`sql_engine`) speaks JSON lines with it: one `Setup` line, then one line per request, each answered by
one line. What fences a query in: views over exactly the parquet files of the database are its only data; files,
network, extensions and settings are closed before any user text is parsed; DuckDB has a memory limit and, because
scalar functions can escape it, so has the process; the parent ends the process when a query takes too long. Queries
run on one thread, so that equal data give equal labels.

It is started as a script of its own and imports nothing of `tributary`.
"""

import ctypes
import json
import os
import re
import resource
import signal
import sys
from collections.abc import Iterator
from typing import Any, TextIO

# The binary, its libraries and the interpreter take address space that is not the query's.
_OVERHEAD_BYTES = 1 << 30
_SPILL_FACTOR = 8
_PR_SET_PDEATHSIG = 1

# Written without parentheses, and another value tomorrow or in the next run.
_VARYING_WORDS = {"current_date", "current_time", "current_timestamp", "localtime", "localtimestamp", "tablesample"}
# Vary by query or session but say nothing of the data, so no label can depend on them by accident.
_HARMLESS = {"error", "current_setting", "getvariable", "in_search_path", "vector_type", "stats"}

_TOKEN = re.compile(
    r"""(?P<skip>--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|"(?:[^"]|"")*")|(?P<word>[A-Za-z_][A-Za-z_0-9]*)(?P<call>\s*\()?""",
    re.DOTALL,
)


class RefusedQueryError(Exception):
    """The query is not what a task may ask."""


def quoted(name: str) -> str:
    """A name as an SQL identifier, whatever it holds."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def without_wildcards(path: str) -> str:
    """A path that means exactly itself where DuckDB expands wildcards."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)


def limit_process(memory_bytes: int, cpu_seconds: int) -> None:
    """Bounds address space, CPU time and files, leaves no core file, and dies with the parent."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    ceiling = memory_bytes + _OVERHEAD_BYTES
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
        ceiling = min(ceiling, hard)
    resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds))
    file_bytes = memory_bytes * _SPILL_FACTOR
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Engine:
    """One in-memory DuckDB with the views of the database, closed to everything else."""

    def __init__(self, setup: dict[str, Any]) -> None:
        import duckdb

        self._duckdb = duckdb
        memory = f"{setup['memory_bytes'] // 2**20}MiB"
        self._connection = duckdb.connect(
            ":memory:",
            config={
                "threads": 1,
                "memory_limit": memory,
                "temp_directory": setup["spill_dir"],
                "max_temp_directory_size": f"{setup['memory_bytes'] * _SPILL_FACTOR // 2**20}MiB",
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            },
        )
        self._connection.execute("SET python_enable_replacements = false")
        self._connection.execute("SET TimeZone = 'UTC'")
        self.broken_tables = dict(self._create_views(setup["tables"]))
        self._close_doors(setup)
        self._unstable = self._unstable_functions()

    def _create_views(self, tables: dict[str, list[str]]) -> Iterator[tuple[str, str]]:
        """Creates a view per table; yields the tables whose files DuckDB cannot read, with its message."""
        for table, files in tables.items():
            paths = ", ".join(literal(without_wildcards(file)) for file in files)
            try:
                self._connection.execute(
                    f"CREATE VIEW {quoted(table)} AS SELECT * FROM "
                    f"read_parquet([{paths}], hive_partitioning = false, union_by_name = true)"
                )
            except self._duckdb.Error as error:
                yield table, str(error)

    def _close_doors(self, setup: dict[str, Any]) -> None:
        files = [file for files in setup["tables"].values() for file in files]
        # a path with wildcard signs is looked up once as the pattern that means it and once as itself
        paths = dict.fromkeys([*files, *map(without_wildcards, files), *setup["outputs"]])
        allowed = ", ".join(map(literal, paths))
        self._connection.execute(f"SET allowed_paths = [{allowed}]")
        self._connection.execute("SET allow_persistent_secrets = false")
        self._connection.execute("SET enable_external_access = false")
        self._connection.execute("SET lock_configuration = true")

    def _unstable_functions(self) -> set[str]:
        rows = self._connection.execute(
            "SELECT DISTINCT lower(function_name) FROM duckdb_functions() WHERE stability <> 'CONSISTENT'"
        ).fetchall()
        return {name for (name,) in rows} - _HARMLESS

    def check(self, query: str) -> dict[str, Any]:
        """Parses and binds a query without running it."""
        relation = self._bind(query)
        return {
            "columns": list(zip(relation.columns, map(str, relation.types), strict=True)),
            "unstable": sorted(self._unstable_words(query)),
        }

    def run(self, query: str, columns: list[str], output: str) -> dict[str, Any]:
        """Runs a query and writes the named columns of its result to a parquet file."""
        self._connection.execute("SELECT setseed(0.5)").fetchall()  # chance draws the same every time
        relation = self._bind(query).project(", ".join(map(quoted, columns)))
        relation.write_parquet(output, compression="zstd")
        return {}

    def _bind(self, query: str) -> Any:
        statements = self._connection.extract_statements(query)
        if not statements:
            raise RefusedQueryError("the query is empty; expected one SELECT statement")
        if len(statements) > 1:
            raise RefusedQueryError(f"the query must be one SELECT statement, found {len(statements)} statements")
        kind = statements[0].type.name
        if kind != "SELECT":
            raise RefusedQueryError(f"the query must be one read-only SELECT statement, found {kind}")
        if statements[0].named_parameters:
            names = ", ".join(f"${name}" for name in sorted(statements[0].named_parameters))
            raise RefusedQueryError(f"the query has parameters without a value: {names}")
        return self._connection.sql(query)

    def _unstable_words(self, query: str) -> set[str]:
        """Names of functions in the text whose value is not a function of the data."""
        found = set()
        for token in _TOKEN.finditer(query):
            word = (token["word"] or "").lower()
            if word in _VARYING_WORDS or (token["call"] and word in self._unstable):
                found.add(word)
        return found


def answer(engine: Engine, request: dict[str, Any]) -> dict[str, Any]:
    """The reply to one request: `{"ok": true, ...}` or `{"ok": false, "message": ...}`."""
    try:
        if request["do"] == "check":
            return {"ok": True, **engine.check(request["query"])}
        return {"ok": True, **engine.run(request["query"], request["columns"], request["output"])}
    except RefusedQueryError as error:
        return {"ok": False, "message": str(error)}
    except MemoryError:
        return {"ok": False, "message": "Out of Memory Error: the memory limit was reached"}
    except Exception as error:  # whatever the engine says about the user's text is the user's to read
        return {"ok": False, "message": str(error) or type(error).__name__}


def serve(requests: TextIO, replies: TextIO) -> None:
    """Answers requests until the parent closes the pipe."""

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    setup = json.loads(requests.readline())
    limit_process(setup["memory_bytes"], setup["cpu_seconds"])
    engine = Engine(setup)
    reply({"ok": True, "broken_tables": engine.broken_tables})
    for line in requests:
        reply(answer(engine, json.loads(line)))


def main() -> None:
    """Keeps the pipe to the parent for replies alone; whatever else prints goes nowhere."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    serve(sys.stdin, replies)


if __name__ == "__main__":
    main()
