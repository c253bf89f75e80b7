"""The parent's side of the SQL child: starts it, asks it, and ends it when it takes too long.

Faults of a query become a `SchemaError` that names the task and carries the database's own words.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tributary.errors import SchemaError
from tributary.preprocess.moments import Round

_SCRIPT = Path(__file__).with_name("sql_child.py")
_START_SECONDS = 60.0
_MAX_MESSAGE = 2000


@dataclass(frozen=True)
class SqlLimits:
    """What one query may take."""

    seconds: float = 30.0
    """Wall-clock time of one query."""

    memory_bytes: int = 2 << 30
    """Memory of the engine; beyond it a query spills to disk, then fails."""


@dataclass(frozen=True)
class CheckedQuery:
    """What binding a query told."""

    columns: tuple[tuple[str, str], ...]
    """Name and SQL type of each column of the result."""

    unstable: tuple[str, ...]
    """Functions in it whose value changes from run to run."""

    reads_moments: bool
    """It reads the relation `timestamps`."""


@dataclass(frozen=True)
class Entities:
    """What the labels of a query are about."""

    key: str
    """Column of the result with the entity's key."""

    table: str
    """Table of the entities."""

    column: str
    """Its primary key."""

    until_us: int | None
    """Entities that came later have no labels; None: all may have."""


@dataclass(frozen=True)
class LeftOut:
    """Labels that were left out."""

    null_keys: int
    """Those without an entity."""

    late: int
    """Those of an entity that came too late."""


class SqlEngine:
    """A child process with a view per table, closed when the `with` block ends.

    Args:
        tables: Parquet files of each table, absolute paths.
        scratch_dir: Folder for what queries spill and for the results; it exists.
        limits: What one query may take.
        times: The column that says when a row came into being, of the tables that have one.

    Raises:
        OSError: The child process cannot be started.
    """

    def __init__(
        self,
        tables: Mapping[str, Sequence[Path]],
        scratch_dir: Path,
        limits: SqlLimits,
        times: Mapping[str, str] | None = None,
    ) -> None:
        self._limits = limits
        self._scratch_dir = scratch_dir
        self._tables = {name: [os.fspath(file) for file in files] for name, files in tables.items()}
        self._times = dict(times or {})
        self._errors = (scratch_dir / "sql.log").open("w+b")
        self._unread = b""
        self._child: subprocess.Popen[bytes] | None = None
        self._num_outputs = 0
        self._broken_tables: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the child; closing twice is harmless."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()
        self._errors.close()

    def check(self, task: str, query: str, *, has_moments: bool = False) -> CheckedQuery:
        """Parses and binds the query of a task.

        Args:
            task: Its name, for messages.
            query: Its text.
            has_moments: The task says what the relation `timestamps` holds.

        Raises:
            SchemaError: It is not one read-only SELECT over the tables.
        """
        reply = self._ask(task, {"do": "check", "query": query, "has_moments": has_moments})
        columns = tuple((name, kind) for name, kind in reply["columns"])
        return CheckedQuery(columns, tuple(reply["unstable"]), reply["reads_moments"])

    def extent(self, task: str) -> tuple[int | None, int | None]:
        """The first and the last time of the database, microseconds since 1970; None where no row has one.

        Args:
            task: Who asks, for messages.
        """
        reply = self._ask(task, {"do": "extent"})
        return reply["first_us"], reply["last_us"]

    def broken_tables(self, task: str) -> dict[str, str]:
        """Tables whose files the engine cannot read, with its message.

        Args:
            task: Who asks, for messages if the engine cannot be started.
        """
        if self._child is None:
            self._start(f"query of task `{task}`")
        return dict(self._broken_tables)

    def run(self, task: str, query: str, columns: Sequence[str], output: Path) -> None:
        """Runs the query of a task and writes columns of its result to a parquet file in the scratch folder.

        Args:
            task: Its name, for messages.
            query: Its text, checked before.
            columns: Columns of the result to keep.
            output: One of `outputs()`; it does not exist.

        Raises:
            SchemaError: The query fails, or reaches the limit of time or memory.
        """
        self._ask(task, {"do": "run", "query": query, "columns": list(columns), "output": os.fspath(output)})

    def run_rounds(
        self, task: str, query: str, columns: Sequence[str], output: Path, rounds: Sequence[Round], entities: Entities
    ) -> LeftOut:
        """Runs the query of a task once per round; the results stand in one file, each label beside its split.

        Args:
            task: Its name, for messages.
            query: Its text, checked before; it reads the relation `timestamps`.
            columns: Columns of the result to keep.
            output: One of `outputs()`; it does not exist.
            rounds: When the question is asked.
            entities: What the labels are about.

        Returns:
            How many labels were left out.

        Raises:
            SchemaError: As from `run`.
        """
        request = {
            "do": "run_rounds",
            "query": query,
            "columns": list(columns),
            "output": os.fspath(output),
            "rounds": [
                {"moments": _sendable(part.moments), "split": part.split, "until_us": part.until_us} for part in rounds
            ],
            "entity": asdict(entities),
        }
        reply = self._ask(task, request)
        return LeftOut(reply["null_keys"], reply["late"])

    def outputs(self, count: int) -> list[Path]:
        """Names for `count` results; only to be asked before the first query, for no other file can be written."""
        assert self._child is None, "the child is closed to files it was not told of at its start"
        self._num_outputs = count
        return [self._scratch_dir / f"labels_{idx}.parquet" for idx in range(count)]

    def _ask(self, task: str, request: dict[str, Any]) -> dict[str, Any]:
        place = f"query of task `{task}`"
        if self._child is None:
            self._start(place)
        reply = self._exchange(place, request, self._limits.seconds)
        if not reply["ok"]:
            raise SchemaError(f"{place}: {self._readable(reply['message'])}")
        return reply

    def _start(self, place: str) -> None:
        spill_dir = self._scratch_dir / "spill"
        spill_dir.mkdir(exist_ok=True)
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _BOOTSTRAP, os.fspath(_SCRIPT), json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            cwd=self._scratch_dir,
            env={"PATH": os.defpath, "HOME": os.fspath(self._scratch_dir), "TZ": "UTC", "LC_ALL": "C.UTF-8"},
        )
        setup = {
            "tables": self._tables,
            "times": self._times,
            "outputs": [os.fspath(path) for path in self._output_paths()],
            "spill_dir": os.fspath(spill_dir),
            "memory_bytes": self._limits.memory_bytes,
            # a whole run has no limit of its own; this ends a child whose parent was stopped by force
            "cpu_seconds": int(_START_SECONDS + (self._limits.seconds + 1) * (2 * self._num_outputs + 2)),
        }
        self._broken_tables = self._exchange(place, setup, _START_SECONDS)["broken_tables"]

    def _output_paths(self) -> list[Path]:
        return [self._scratch_dir / f"labels_{idx}.parquet" for idx in range(self._num_outputs)]

    def _exchange(self, place: str, message: dict[str, Any], seconds: float) -> dict[str, Any]:
        child = self._child
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            child.stdin.write(json.dumps(message).encode() + b"\n")
            child.stdin.flush()
        except BrokenPipeError:
            self._raise_death(place)
        deadline = time.monotonic() + seconds
        while b"\n" not in self._unread:
            wait = deadline - time.monotonic()
            if wait <= 0 or not select.select([child.stdout], [], [], wait)[0]:
                child.kill()
                raise SchemaError(
                    f"{place}: took longer than {seconds:g} seconds and was stopped (time limit);"
                    " simplify it or raise --sql-time-limit"
                )
            piece = os.read(child.stdout.fileno(), 1 << 16)
            if not piece:
                self._raise_death(place)
            self._unread += piece
        line, self._unread = self._unread.split(b"\n", 1)
        reply: dict[str, Any] = json.loads(line)
        return reply

    def _raise_death(self, place: str) -> None:
        """The child ended by itself: says why, as far as it can be known."""
        assert self._child is not None
        code = self._child.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip().splitlines()
        last = said[-1] if said else ""
        if code == -signal.SIGKILL or "MemoryError" in last or "bad_alloc" in last or "allocat" in last:
            raise SchemaError(f"{place}: used more memory than allowed (memory limit); {self._memory_advice()}")
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        raise SchemaError(f"{place}: the SQL engine ended with {how}{f' ({last})' if last else ''}")

    def _memory_advice(self) -> str:
        return f"the limit is {self._limits.memory_bytes / 2**30:g} GiB; raise --sql-memory or simplify the query"

    def _readable(self, message: str) -> str:
        """The engine's message without its advice on settings that are closed, and at most a screen of it."""
        if "Out of Memory" in message:
            return f"{message.splitlines()[0]} (memory limit); {self._memory_advice()}"
        if '"errno":"27"' in message or "max_temp_directory_size" in message:
            return f"more than the disk space a query may take (8 times its memory); {self._memory_advice()}"
        if "file system operations are disabled" in message:
            return f"{message}; a query sees the tables of the database and nothing else"
        for table, why in self._broken_tables.items():
            if table in message:
                message = f"{message}\ntable `{table}` cannot be read: {why}"
        return message if len(message) <= _MAX_MESSAGE else message[:_MAX_MESSAGE] + " ..."


def _sendable(moments: Sequence[int]) -> list[int] | dict[str, int]:
    """Moments as the child reads them; a series stays a series."""
    if isinstance(moments, range):
        return {"start": moments.start, "step": moments.step, "count": len(moments)}
    return list(moments)


# -I and -S keep the user's environment, site hooks and current folder out of the child; what it may import comes
# from the parent's own search path.
_BOOTSTRAP = (
    "import json, runpy, sys; "
    "sys.path[:] = [p for p in json.loads(sys.argv.pop(2)) if p]; "
    "script = sys.argv[1]; "
    "runpy.run_path(script, run_name='__main__')"
)
