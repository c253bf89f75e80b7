"""The child process that runs the SQL of tasks: one read-only SELECT at a time, fenced in.

The parent (`sql_engine`) speaks JSON lines with it: one `Setup` line, then one line per request, each answered by
one line. What fences a query in: views over exactly the parquet files of the database are its only data; files,
network, extensions and settings are closed before any user text is parsed; DuckDB has a memory limit and, because
scalar functions can escape it, so has the process; the parent ends the process when a query takes too long. Queries
run on one thread, so that equal data give equal labels.

A query may read the moments it is asked at from the relation `timestamps(timestamp)` (RelBench's name; in its older
queries `timestamp_df`). Then it runs once per round, as RelBench runs it once per split: with the moments of the
round, and over the rows up to a time, so that no label of an earlier split can see the later one.

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
from contextlib import contextmanager
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
    r"""(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<text>'(?:[^']|'')*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)"""
    r"""|(?P<word>[A-Za-z_][A-Za-z_0-9]*|"(?:[^"]|"")*")(?P<call>\s*\()?|(?P<end>;)|(?P<other>\S)""",
    re.DOTALL,
)
_CLOSED: dict[str, Any] = {
    "threads": 1,
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}
_NODE = re.compile(r'"type":"([A-Z_]+_NODE)"')
_READING_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"}
_NESTED_QUERY = '"function_name":"query"'
# where the views of the whole tables are
_BASE = "memory.main"
_MOMENTS = ("timestamps", "timestamp_df")
# bytes that reading one label takes later, outside of this process
_LABEL_BYTES = 64


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


def bare(query: str) -> str:
    """A statement without what may follow it, semicolons and comments, so that it can stand inside of another."""
    end = 0
    for token in _TOKEN.finditer(query):
        if not token["comment"] and not token["end"]:
            end = token.end()
    return query[:end] + "\n"


def limit_process(memory_bytes: int, cpu_seconds: int) -> None:
    """Bounds address space, CPU time and files, leaves no core file, and dies with the parent."""
    limits = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_AS: memory_bytes + _OVERHEAD_BYTES,
        resource.RLIMIT_CPU: cpu_seconds,
        resource.RLIMIT_FSIZE: memory_bytes * _SPILL_FACTOR,
    }
    for what, limit in limits.items():
        _, hard = resource.getrlimit(what)
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        resource.setrlimit(what, (limit, limit))
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
        # knows no table, so it reads names and nothing more
        self._reader = duckdb.connect(":memory:", config=_CLOSED)
        self._tables = {table.lower() for table in setup["tables"]}
        self._times: dict[str, str] = setup["times"]
        self._max_labels = setup["memory_bytes"] // _LABEL_BYTES
        labels = "labels"
        while labels in self._tables:
            labels += "_"
        self._labels = quoted(labels)
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

    def check(self, query: str, has_moments: bool) -> dict[str, Any]:
        """Parses and binds a query without running it.

        Args:
            query: Its text.
            has_moments: The task says what the relation `timestamps` holds.
        """
        reads_moments = self._reads_moments(query)
        if reads_moments and not has_moments:
            raise RefusedQueryError(
                "the query reads `timestamps`, but the task does not say which moments these are; give it"
                " `timedelta` and `split`, or `timestamps`"
            )
        if reads_moments:
            self._set_moments([])
        relation = self._bind(query)
        return {
            "columns": list(zip(relation.columns, map(str, relation.types), strict=True)),
            "unstable": sorted(self._unstable_words(query)),
            "reads_moments": reads_moments,
        }

    def run(self, query: str, columns: list[str], output: str) -> dict[str, Any]:
        """Runs a query and writes the named columns of its result to a parquet file."""
        self._seed()
        self._bind(query).project(", ".join(map(quoted, columns))).write_parquet(output, compression="zstd")
        rows = self._connection.execute(f"SELECT count(*) FROM read_parquet({literal(output)})").fetchall()[0][0]
        self._refuse_floods(rows)
        return {}

    def run_rounds(
        self, query: str, columns: list[str], output: str, rounds: list[dict[str, Any]], entity: dict[str, Any]
    ) -> dict[str, Any]:
        """Runs a query once per round and writes the named columns of all results to one parquet file.

        Args:
            query: Its text.
            columns: What to keep.
            output: The file to write.
            rounds: `moments` (see `_set_moments`), `until_us` (later rows are hidden; None hides none) and `split`
                (written beside the labels; None writes none) of each.
            entity: `key`, a column of the result; `table` and `column`, the primary key it names; `until_us`: entities
                that came later have no labels.

        Returns:
            Labels left out: `null_keys` without an entity, as an outer join leaves them where nothing happened, and
            `late` of entities that came too late.
        """
        self._connection.execute(f"DROP TABLE IF EXISTS {self._labels}")
        for number, part in enumerate(rounds):
            self._seed()
            self._set_moments(part["moments"])
            with self._rows_until(part["until_us"]):
                kept = [quoted(column) for column in columns]
                if part["split"] is not None and "split" not in columns:
                    kept.append(f"{literal(part['split'])} AS split")
                relation = self._bind(query).project(", ".join(kept))
                if number == 0:
                    relation.create(self._labels)
                else:
                    relation.insert_into(self._labels)
            rows = self._connection.execute(f"SELECT count(*) FROM {self._labels}").fetchall()[0][0]
            self._refuse_floods(rows)
        null = f"{quoted(entity['key'])} IS NULL"
        late = self._late_entities(entity)
        counts = self._connection.execute(
            f"SELECT count(*) FILTER ({null}), count(*) FILTER (NOT ({null}) AND ({late})) FROM {self._labels}"
        ).fetchall()[0]
        labels = self._connection.table(self._labels).filter(f"NOT ({null}) AND NOT ({late})")
        labels.write_parquet(output, compression="zstd")
        self._connection.execute(f"DROP TABLE {self._labels}")
        return {"null_keys": counts[0], "late": counts[1]}

    def extent(self) -> dict[str, Any]:
        """The first and the last time of the database, microseconds; None where no row has one."""
        found = []
        for table, column in self._times.items():
            if table in self.broken_tables:
                continue
            time = f"TRY_CAST({quoted(column)} AS TIMESTAMP)"
            query = f"SELECT epoch_us(min({time})), epoch_us(max({time})) FROM {_BASE}.{quoted(table)}"
            found += [value for value in self._connection.execute(query).fetchall()[0] if value is not None]
        return {"first_us": min(found, default=None), "last_us": max(found, default=None)}

    def _refuse_floods(self, rows: int) -> None:
        if rows > self._max_labels:
            raise RefusedQueryError(
                f"Out of Memory Error: the result has {rows:,} rows, more than the {self._max_labels:,} labels that"
                " the memory of a query is enough for"
            )

    def _seed(self) -> None:
        self._connection.execute("SELECT setseed(0.5)").fetchall()  # chance draws the same every time

    def _reads_moments(self, query: str) -> bool:
        """Whether the query reads a relation of moments that is no table of the database."""
        self._statement(query)
        names = {name.lower() for name in self._reader.get_table_names(query)}
        return bool(names & set(_MOMENTS) - self._tables)

    def _set_moments(self, moments: list[int] | dict[str, int]) -> None:
        """Fills the relations of moments: microseconds one by one, or `start`, `step` and `count` of a series."""
        if isinstance(moments, dict):
            time = f"{moments['start']}::BIGINT + range * {moments['step']}::BIGINT"
            rows = f"SELECT make_timestamp({time}) AS timestamp FROM range({moments['count']})"
        else:
            rows = f"SELECT make_timestamp(us) AS timestamp FROM (SELECT unnest({moments}::BIGINT[]) AS us)"
        for name in _MOMENTS:
            if name not in self._tables:
                self._connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {rows}")

    @contextmanager
    def _rows_until(self, until_us: int | None) -> Iterator[None]:
        """Hides rows of later times, and of none, behind views that come before those of the whole tables."""
        hidden = {} if until_us is None else self._times
        hidden = {table: column for table, column in hidden.items() if table not in self.broken_tables}
        for table, column in hidden.items():
            self._connection.execute(
                f"CREATE TEMP VIEW {quoted(table)} AS SELECT * FROM {_BASE}.{quoted(table)}"
                f" WHERE TRY_CAST({quoted(column)} AS TIMESTAMP) <= make_timestamp({until_us}::BIGINT)"
            )
        try:
            yield
        finally:
            for table in hidden:
                self._connection.execute(f"DROP VIEW temp.{quoted(table)}")

    def _late_entities(self, entity: dict[str, Any]) -> str:
        """Whether a label's entity is there, but came too late, as SQL."""
        time = self._times.get(entity["table"])
        if entity["until_us"] is None or time is None or entity["table"] in self.broken_tables:
            return "false"
        is_early = f"TRY_CAST({quoted(time)} AS TIMESTAMP) <= make_timestamp({entity['until_us']}::BIGINT)"
        return (
            f"{quoted(entity['key'])}::VARCHAR IN (SELECT {quoted(entity['column'])}::VARCHAR"
            f" FROM {_BASE}.{quoted(entity['table'])} WHERE ({is_early}) IS NOT TRUE)"
        )

    def _bind(self, query: str) -> Any:
        self._statement(query)
        return self._connection.sql(bare(query))

    def _statement(self, query: str) -> None:
        """Refuses what is not one SELECT."""
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
        self._refuse_writers(query)

    def _refuse_writers(self, query: str) -> None:
        """Refuses a SELECT with a part that writes, as a COPY behind WITH, which may reach the files of the tables.

        What the tree of the query says is matched as text: quotes within its strings are escaped, so that no string
        can look like a node.
        """
        (tree,) = self._reader.execute("SELECT json_serialize_sql(?)", [query]).fetchall()[0]
        if '"error":true' in tree[:40]:
            raise RefusedQueryError(f"the query must be one read-only SELECT statement: {tree[:200]}")
        writers = sorted(set(_NODE.findall(tree)) - _READING_NODES)
        if writers:
            what = writers[0].removesuffix("_NODE").removesuffix("_QUERY")
            raise RefusedQueryError(f"the query must be one read-only SELECT statement, found {what} in it")
        if _NESTED_QUERY in tree:
            raise RefusedQueryError(
                "the query may not run the text of another one; write it out instead of `query(...)`"
            )

    def _unstable_words(self, query: str) -> set[str]:
        """Names of functions in the text whose value is not a function of the data."""
        found, before = set(), ""
        for token in _TOKEN.finditer(query):
            word = (token["word"] or "").strip('"').lower()
            if word in _VARYING_WORDS or (token["call"] and word in self._unstable):
                found.add(word)
            if (before, word) == ("using", "sample"):
                found.add("using sample")
            before = word
        return found


def answer(engine: Engine, request: dict[str, Any]) -> dict[str, Any]:
    """The reply to one request: `{"ok": true, ...}` or `{"ok": false, "message": ...}`."""
    try:
        arguments = {name: value for name, value in request.items() if name != "do"}
        return {"ok": True, **getattr(engine, request["do"])(**arguments)}
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
