"""Seeds of the caller's own: any entity at any time, from keys, a table, or a SQL query; no label is needed.

Described in `documentation/sampling.md`, "Seeds of your own".
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tributary._headwater import Database
from tributary.moments import moment_us

__all__ = ["Seeds", "seeds_from_keys", "seeds_from_query", "seeds_from_table"]

_SHOWN = 5
"""Faulty keys named in a message."""


@dataclasses.dataclass(frozen=True, eq=False)
class Seeds:
    """Who is asked about, and when."""

    rows: np.ndarray
    """int64 [N]: rows of the task's anchor table."""
    times: np.ndarray | None
    """int64 [N]: microseconds since 1970 UTC; None: each at its row's own time, or the end of time."""

    def __len__(self) -> int:
        return len(self.rows)


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
    manifest = json.loads(database.manifest)
    described = _find(task, {found["name"]: found for found in manifest["tasks"]}, "task", manifest["name"])
    table = manifest["tables"][described["anchor_table"]]
    rows = _rows(database, table, _plain(keys))
    moments = None if times is None else _moments(times, len(rows), task)
    if moments is None and described["kind"] == "table" and described["observation_time_column"] is not None:
        raise ValueError(f"task `{task}` asks about `{table['name']}` at a time; say at which time each key is asked")
    return Seeds(rows, moments)


def seeds_from_table(
    database: Database, task: str, source: Any, *, key: str | None = None, time: str | None = None
) -> Seeds:
    """Seeds of the rows of a table.

    Args:
        database: an opened database.
        task: name of the task that is asked.
        source: path of a parquet, CSV or Arrow file, a pyarrow Table, a mapping of columns, a structured numpy array,
            or whatever exports Arrow (pandas and polars frames, DuckDB relations).
        key: its column of primary keys; None: named like the task's anchor key, or like the primary key.
        time: its column of times; None: named like the task's observation times, and none where it has no such.

    Raises:
        ValueError: a column is missing, a key does not exist, a time is null.
    """
    table = _table(source)
    manifest = json.loads(database.manifest)
    described = _find(task, {found["name"]: found for found in manifest["tasks"]}, "task", manifest["name"])
    columns = {name: table[name] for name in table.column_names}
    where = f"seeds of task `{task}`"
    if key is None:
        own = [described["anchor_key"], manifest["tables"][described["anchor_table"]]["primary_key"]]
        key = next((name for name in own if name in columns), own[0] or own[1])
    if time is None and described["observation_time_column"] in columns:
        time = described["observation_time_column"]
    keys = _find(key or "id", columns, "column", where)
    times = None if time is None else _find(time, columns, "column", where)
    return seeds_from_keys(database, task, keys, times)


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


def _table(source: Any) -> pa.Table:
    """Whatever holds columns as a pyarrow Table."""
    if isinstance(source, (str, Path)):
        return _file(Path(source))
    if isinstance(source, pa.Table):
        return source
    if isinstance(source, np.ndarray) and source.dtype.names is not None:
        return pa.table({name: source[name] for name in source.dtype.names})
    if isinstance(source, Mapping):
        return pa.table({name: pa.array(column) for name, column in source.items()})
    if hasattr(source, "__arrow_c_stream__"):
        return pa.table(source)
    raise ValueError(f"seeds: expected a file or a table of columns, found {type(source).__name__}")


def _file(path: Path) -> pa.Table:
    if path.suffix == ".csv":
        import pyarrow.csv

        return pyarrow.csv.read_csv(path)
    if path.suffix in (".arrow", ".feather"):
        import pyarrow.feather

        return pyarrow.feather.read_table(path)
    if path.suffix != ".parquet":
        raise ValueError(f"{path}: expected a file that ends in .parquet, .csv, .arrow or .feather")
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path)


def _plain(keys: Any) -> list[Any]:
    values: list[Any] = (
        keys.to_pylist() if isinstance(keys, (pa.Array, pa.ChunkedArray)) else np.asarray(keys, object).tolist()
    )
    return values


def _rows(database: Database, table: Mapping[str, Any], keys: list[Any]) -> np.ndarray:
    """Rows of primary keys, all of which must exist. Integers may be written as texts."""
    name = table["name"]
    if table["key_kind"] in ("int", "uint"):
        keys = [int(key) if isinstance(key, str) and re.fullmatch(r"[+-]?\d+", key) else key for key in keys]
    if not keys:
        raise ValueError(f"no key of table `{name}` is given; expected at least one")
    for place, key in enumerate(keys):
        if key is None or isinstance(key, (bool, float)):
            raise ValueError(f"key {place} of table `{name}`: expected an integer or a text, found {key!r}")
    rows = database.find_rows(name, [int(key) if isinstance(key, np.integer) else key for key in keys])
    unknown = np.flatnonzero(rows < 0)
    if len(unknown):
        named = ", ".join(f"{keys[place]!r} (place {place})" for place in unknown[:_SHOWN])
        dots = ", ..." if len(unknown) > _SHOWN else ""
        raise ValueError(f"table `{name}` has no row with {len(unknown)} of {len(keys)} keys: {named}{dots}")
    return rows


def _moments(times: Any, count: int, task: str) -> np.ndarray:
    """int64 [count] microseconds."""
    if isinstance(times, (pa.Array, pa.ChunkedArray)):
        if times.null_count:
            place = pc.index(times.is_null(), True).as_py()
            raise ValueError(f"seeds of task `{task}`: the time at place {place} is null")
        if pa.types.is_timestamp(times.type) or pa.types.is_date(times.type):
            zone = getattr(times.type, "tz", None)
            times = times.cast(pa.timestamp("us", zone), safe=False).cast(pa.int64()).to_numpy()
        else:
            times = times.to_pylist()
    if isinstance(times, np.ndarray) and times.dtype.kind in "iM" and times.ndim == 1:
        if np.isnat(times).any() if times.dtype.kind == "M" else False:
            raise ValueError(f"seeds of task `{task}`: the time at place {int(np.isnat(times).argmax())} is null")
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
