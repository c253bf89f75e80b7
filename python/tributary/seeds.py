"""Seeds of the caller's own: any entity at any time, from keys, a table, or a SQL query; no label is needed.

Described in `documentation/sampling.md`, "Seeds of your own".
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tributary._headwater import Database
from tributary.moments import moment_us

__all__ = ["Seeds", "seeds_from_keys", "seeds_from_query", "seeds_from_table"]

_SHOWN = 20
"""Faulty keys named in a message."""
_CHUNK = 262_144
"""Seeds that are looked up at a time."""


@dataclasses.dataclass(frozen=True, eq=False)
class Seeds:
    """Who is asked about, and when."""

    rows: np.ndarray
    """int64 [N]: rows of the task's anchor table."""
    times: np.ndarray | None
    """int64 [N]: microseconds since 1970 UTC; None: each at its row's own time, or the end of time."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def digest(self) -> str:
        """Digest of who is asked about, and when."""
        found = hashlib.blake2b(np.ascontiguousarray(self.rows, np.int64).tobytes(), digest_size=16)
        if self.times is not None:
            found.update(np.ascontiguousarray(self.times, np.int64).tobytes())
        return found.hexdigest()


def seeds_from_keys(database: Database, task: str, keys: Sequence[Any] | np.ndarray, times: Any = None) -> Seeds:
    """Seeds of entities given by their primary keys.

    Args:
        database: an opened database.
        task: name of the task that is asked.
        keys: primary keys of the task's anchor table.
        times: one moment for all, or one per key: ISO texts, datetimes, datetime64 or microseconds (UTC).

    Raises:
        ValueError: a key does not exist, or a time is missing; the message names some of them.

    Example:
        ```
        seeds = seeds_from_keys(database, "churn", [17, 42], times="2024-06-01")
        ```
    """
    described, table = _asked(database, task)
    values = [keys] if len(keys) else []
    return _seeds(database, described, table, ((each, times) for each in values))


def seeds_from_table(
    database: Database, task: str, source: Any, *, key: str | None = None, time: str | None = None
) -> Seeds:
    """Seeds of the rows of a table.

    Args:
        database: an opened database.
        task: name of the task that is asked.
        source: path of a parquet, CSV or Arrow file, a pyarrow Table, a mapping of columns, a structured numpy array,
            or whatever exports Arrow (pandas and polars frames, DuckDB relations). Files are read piece by piece.
        key: its column of primary keys; None: named like the task's anchor key, or like the primary key.
        time: its column of times; None: named like the task's observation times, and none where it has no such.

    Raises:
        ValueError: a column is missing, a key does not exist, a time is null. All unknown keys are counted, and the
            first named with their places, from 0.
    """
    described, table = _asked(database, task)
    names, read = _opened(source)
    known = {name: name for name in names}
    where = f"seeds of task `{task}`"
    if key is None:
        own = [described["anchor_key"], table["primary_key"]]
        key = next((name for name in own if name in known), own[0] or own[1])
    if time is None and described["observation_time_column"] in known:
        time = described["observation_time_column"]
    wanted = [_find(key or "id", known, "column", where)]
    wanted += [] if time is None else [_find(time, known, "column", where)]
    pieces = ((piece[wanted[0]], piece[wanted[1]] if len(wanted) > 1 else None) for piece in read(wanted))
    return _seeds(database, described, table, pieces)


def seeds_from_query(
    database: Database,
    task: str,
    query: str,
    *,
    raw: str | Path,
    metadata: str | Path | None = None,
    key: str | None = None,
    time: str | None = None,
    seconds: float = 30.0,
) -> Seeds:
    """Seeds that a SQL query over the raw parquet files answers.

    Args:
        database: the processed database.
        task: name of the task that is asked.
        query: one SELECT statement; it sees the tables of the raw folder and nothing else.
        raw: folder of the parquet files.
        metadata: their description; None: `metadata.json` in the raw folder.
        key: as in `seeds_from_table`.
        time: as in `seeds_from_table`.
        seconds: what the query may take.

    Raises:
        SchemaError: the query is not one SELECT, fails, or takes too long.
        ValueError: as in `seeds_from_table`.
    """
    from tributary.metadata import Description
    from tributary.preprocess.sql_engine import SqlEngine, SqlLimits

    raw = Path(raw)
    description = Description.load(metadata or raw / "metadata.json")
    with tempfile.TemporaryDirectory() as scratch:
        files = description.table_files(raw.resolve())
        with SqlEngine(files, Path(scratch), SqlLimits(seconds=seconds)) as engine:
            (output,) = engine.outputs(1)
            checked = engine.check(task, query)
            engine.run(task, query, [name for name, _ in checked.columns], output)
        return seeds_from_table(database, task, output, key=key, time=time)


def _asked(database: Database, task: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """A task and its anchor table, as the manifest describes them."""
    manifest = json.loads(database.manifest)
    described = _find(task, {found["name"]: found for found in manifest["tasks"]}, "task", manifest["name"])
    return described, manifest["tables"][described["anchor_table"]]


def _seeds(
    database: Database,
    task: Mapping[str, Any],
    table: Mapping[str, Any],
    pieces: Iterable[tuple[Any, Any]],
) -> Seeds:
    """Seeds of keys and times that come in pieces; of a piece either all seeds have a time or none."""
    rows, moments = Lookup(database, table), []
    name = task["name"]
    for keys, times in pieces:
        first = rows.num_keys
        count = rows.add(_plain(keys))
        if times is not None:
            moments.append(_moments(times, count, name, first))
    found = rows.finish()
    if not moments and task["kind"] == "table" and task["observation_time_column"] is not None:
        raise ValueError(f"task `{name}` asks about `{table['name']}` at a time; say at which time each key is asked")
    return Seeds(found, np.concatenate(moments) if moments else None)


def _opened(source: Any) -> tuple[list[str], Callable[[list[str]], Iterator[pa.Table]]]:
    """Names of the columns of whatever holds some, and a reader of the wanted ones, piece by piece."""
    if isinstance(source, (str, Path)):
        found = _file(Path(source))

        def stream(wanted: list[str]) -> Iterator[pa.Table]:
            batches = found.to_batches(columns=wanted, batch_size=_CHUNK)
            yield from (pa.Table.from_batches([batch]) for batch in batches if batch.num_rows)

        return found.schema.names, stream
    table = _table(source)

    def cut(wanted: list[str]) -> Iterator[pa.Table]:
        chosen = table.select(wanted)
        yield from (chosen.slice(begin, _CHUNK) for begin in range(0, table.num_rows, _CHUNK))

    return table.column_names, cut


def _table(source: Any) -> pa.Table:
    """Whatever holds columns in memory as a pyarrow Table."""
    if isinstance(source, pa.Table):
        return source
    if isinstance(source, np.ndarray) and source.dtype.names is not None:
        return pa.table({name: source[name] for name in source.dtype.names})
    if isinstance(source, Mapping):
        return pa.table({name: pa.array(column) for name, column in source.items()})
    if hasattr(source, "__arrow_c_stream__"):
        return pa.table(source)
    raise ValueError(f"seeds: expected a file or a table of columns, found {type(source).__name__}")


def _file(path: Path) -> Any:
    """A file as a pyarrow Dataset, which reads it piece by piece and in order."""
    import pyarrow.dataset

    kinds = {".parquet": "parquet", ".csv": "csv", ".arrow": "feather", ".feather": "feather"}
    if path.suffix not in kinds:
        raise ValueError(f"{path}: expected a file that ends in .parquet, .csv, .arrow or .feather")
    if not path.is_file():
        raise FileNotFoundError(2, "no such file", str(path))
    return pyarrow.dataset.dataset(str(path), format=kinds[path.suffix])


def _plain(keys: Any) -> list[Any]:
    values: list[Any] = (
        keys.to_pylist() if isinstance(keys, (pa.Array, pa.ChunkedArray)) else np.asarray(keys, object).tolist()
    )
    return values


class Lookup:
    """Rows of primary keys, all of which must exist; keys come in pieces. Integers may be written as texts.

    Args:
        database: an opened database.
        table: of its manifest.
    """

    def __init__(self, database: Database, table: Mapping[str, Any]):
        self._database, self._table = database, table
        self._rows: list[np.ndarray] = []
        self._unknown: list[str] = []
        self._num_unknown = 0
        self.num_keys = 0
        """Keys that were looked up."""

    def add(self, keys: list[Any]) -> int:
        """Looks keys up; their number.

        Raises:
            ValueError: a key is neither an integer nor a text.
        """
        name, first = self._table["name"], self.num_keys
        if self._table["key_kind"] in ("int", "uint"):
            keys = [int(key) if isinstance(key, str) and re.fullmatch(r"[+-]?\d+", key) else key for key in keys]
        for place, key in enumerate(keys):
            if key is None or isinstance(key, (bool, float)):
                raise ValueError(f"key {first + place} of table `{name}`: expected an integer or a text, found {key!r}")
        rows = self._database.find_rows(name, [int(key) if isinstance(key, np.integer) else key for key in keys])
        unknown = np.flatnonzero(rows < 0)
        room = _SHOWN - len(self._unknown)
        self._unknown += [f"{keys[place]!r} (place {first + place})" for place in unknown[:room]]
        self._num_unknown += len(unknown)
        self._rows.append(rows)
        self.num_keys += len(keys)
        return len(keys)

    def finish(self) -> np.ndarray:
        """int64 [N]: rows of all keys.

        Raises:
            ValueError: there is no key, or some do not exist; places are counted from 0.
        """
        name = self._table["name"]
        if not self.num_keys:
            raise ValueError(f"no key of table `{name}` is given; expected at least one")
        if self._num_unknown:
            dots = ", ..." if self._num_unknown > len(self._unknown) else ""
            raise ValueError(
                f"table `{name}` has no row with {self._num_unknown:,} of {self.num_keys:,} keys: "
                f"{', '.join(self._unknown)}{dots}"
            )
        return np.concatenate(self._rows)


def _moments(times: Any, count: int, task: str, first: int) -> np.ndarray:
    """int64 [count] microseconds; places are counted on from `first`."""
    if isinstance(times, (pa.Array, pa.ChunkedArray)):
        if times.null_count:
            place = first + pc.index(times.is_null(), True).as_py()
            raise ValueError(f"seeds of task `{task}`: the time at place {place} is null")
        if pa.types.is_timestamp(times.type) or pa.types.is_date(times.type):
            zone = getattr(times.type, "tz", None)
            times = times.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64()).to_numpy()
        else:
            times = times.to_pylist()
    if isinstance(times, np.ndarray) and times.dtype.kind in "iM" and times.ndim == 1:
        if np.isnat(times).any() if times.dtype.kind == "M" else False:
            place = first + int(np.isnat(times).argmax())
            raise ValueError(f"seeds of task `{task}`: the time at place {place} is null")
        found = times.astype("datetime64[us]") if times.dtype.kind == "M" else times
        moments = found.astype(np.int64)
    elif isinstance(times, (list, tuple, np.ndarray)) and np.ndim(times) == 1:
        moments = np.array([moment_us(time) for time in times], np.int64)
    else:
        return np.full(count, moment_us(times), np.int64)
    if len(moments) != count:
        raise ValueError(f"seeds of task `{task}`: {count} keys with {len(moments)} times; expected as many")
    return np.ascontiguousarray(moments)


def _find(name: str, known: Mapping[str, Any], what: str, where: str) -> Any:
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"found {', '.join(known) or 'none'}"
        raise ValueError(f"{where}: no {what} `{name}`; {hint}")
    return known[name]
