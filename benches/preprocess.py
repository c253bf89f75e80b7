"""The encode stage beside what nobody can avoid, done in full by polars, DuckDB and pyarrow.

Usage: python benches/preprocess.py FOLDER_WITH_METADATA ... [--peers-python PYTHON] [--threads 1 2]
       python benches/preprocess.py FOLDER --contestants tributary --memory 6      (peak memory alone, in GiB)

For every folder and number of threads, in one run: CPU-seconds, rows per CPU-second and peak memory of our encode
stage (decode, statistics, keys, links in both directions, vocabulary, records, hashes, fsync: all of it written), and
of each engine doing in memory, and writing nothing:

- read: every described column of every table decoded;
- statistics: mean and standard deviation of every numerical column;
- keys: the parent's row of every foreign key, by a hash join;
- children: per foreign key the children of each parent in the order of time, with counts per parent;
- categories: a dictionary and codes of every categorical column;
- texts: the same of every text column.

Every contestant runs in a process of its own, with the same number of threads; medians of `--rounds`, the order turned
around every other round. polars and DuckDB need not be installed beside Tributary: `--peers-python` names an
interpreter that has them. The time an engine needs for each part is printed below its line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from measure import Figures, cpu_seconds, describe, folder_bytes, in_turn, measured, run, verdict

PARTS = ("read", "statistics", "keys", "children", "categories", "texts")
OWN = "tributary"


@dataclass(frozen=True)
class Table:
    """What metadata.json says of one table."""

    name: str
    files: list[Path]
    primary_key: str | None
    time: str | None
    columns: dict[str, str]
    """Stype by column, ignored ones left out."""
    parents: dict[str, tuple[str, str]]
    """By foreign key: the parent table and its primary key."""

    def of(self, *stypes: str) -> list[str]:
        """Its columns of some stypes."""
        return [column for column, stype in self.columns.items() if stype in stypes]


def tables(folder: Path) -> dict[str, Table]:
    """The tables of a folder's metadata.json."""
    found = {}
    for name, table in json.loads((folder / "metadata.json").read_text())["tables"].items():
        files = table.get("file", f"{name}.parquet")
        files = [files] if isinstance(files, str) else files
        keys = {column: d["foreign_key"].split(".", 1) for column, d in table["columns"].items() if "foreign_key" in d}
        stypes = {column: d["stype"] for column, d in table["columns"].items() if d["stype"] != "ignored"}
        found[name] = Table(
            name,
            sorted(path for file in files for path in folder.glob(file)),
            table.get("primary_key"),
            table.get("temporal_column"),
            stypes,
            {column: (parent, key) for column, (parent, key) in keys.items()},
        )
    return found


@contextmanager
def part(figures: Figures, name: str) -> Iterator[None]:
    """Takes the CPU time of one part of the work."""
    begin = cpu_seconds()
    yield
    figures[name] = cpu_seconds() - begin


def with_tributary(folder: Path, threads: int) -> None:
    """Our encode stage."""
    from tributary import _headwater

    with tempfile.TemporaryDirectory() as staging, measured() as figures:
        _headwater.encode(folder, staging, threads=threads)
        figures["bytes"] = folder_bytes(Path(staging), "*.bin")


def with_pyarrow(folder: Path, threads: int) -> None:
    """Pyarrow's kernels; sorting by numpy."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    pa.set_cpu_count(threads)
    pa.set_io_thread_count(threads)
    described = tables(folder)
    with measured() as figures:
        with part(figures, "read"):
            data = {
                name: pa.concat_tables(
                    [pq.read_table(file, columns=list(table.columns), use_threads=threads > 1) for file in table.files]
                )
                for name, table in described.items()
            }
        with part(figures, "statistics"):
            for name, table in described.items():
                for column in table.of("numerical"):
                    pc.mean(data[name][column]), pc.stddev(data[name][column])
        with part(figures, "keys"):
            rows = {
                (name, column): pc.index_in(data[name][column], value_set=data[parent][key].combine_chunks())
                for name, table in described.items()
                for column, (parent, key) in table.parents.items()
            }
        with part(figures, "children"):
            for (name, column), found in rows.items():
                parent = pc.fill_null(found, -1).to_numpy()
                time = described[name].time
                keys = (parent,) if time is None else (data[name][time].cast(pa.int64()).to_numpy(), parent)
                np.lexsort(keys)
                num_parents = data[described[name].parents[column][0]].num_rows
                np.cumsum(np.bincount(parent[parent >= 0], minlength=num_parents))
        for kind, stypes in (("categories", "categorical"), ("texts", "text")):
            with part(figures, kind):
                for name, table in described.items():
                    for column in table.of(stypes):
                        data[name][column].combine_chunks().dictionary_encode()


def with_polars(folder: Path, threads: int) -> None:
    """Polars' eager frames."""
    os.environ["POLARS_MAX_THREADS"] = str(threads)
    import polars as pl

    described = tables(folder)
    with measured() as figures:
        with part(figures, "read"):
            data = {
                name: pl.read_parquet(table.files, columns=list(table.columns)) for name, table in described.items()
            }
        with part(figures, "statistics"):
            for name, table in described.items():
                if numbers := table.of("numerical"):
                    data[name].select(
                        [pl.col(numbers).mean().name.suffix("_mean"), pl.col(numbers).std().name.suffix("_std")]
                    )
        with part(figures, "keys"):
            rows = {}
            for name, table in described.items():
                for column, (parent, key) in table.parents.items():
                    keys = data[parent].select(pl.col(key).alias("key")).with_row_index("parent")
                    own = data[name].select(pl.col(column).alias("key"))
                    rows[name, column] = own.join(keys, on="key", how="left", maintain_order="left")["parent"]
        with part(figures, "children"):
            for (name, _), found in rows.items():
                frame, order = pl.DataFrame({"parent": found}).with_row_index("row"), ["parent"]
                if time := described[name].time:
                    frame, order = frame.with_columns(data[name][time].alias("time")), ["parent", "time"]
                frame = frame.sort(order, maintain_order=True)
                frame.group_by("parent", maintain_order=True).len()
        for kind, stypes in (("categories", "categorical"), ("texts", "text")):
            with part(figures, kind):
                for name, table in described.items():
                    for column in table.of(stypes):
                        data[name][column].cast(pl.String).cast(pl.Categorical)


def with_duckdb(folder: Path, threads: int) -> None:
    """DuckDB in memory."""
    import duckdb

    described = tables(folder)
    connection = duckdb.connect()
    connection.execute(f"SET threads = {threads}")
    with measured() as figures:
        with part(figures, "read"):
            for name, table in described.items():
                columns = ", ".join(f'"{column}"' for column in table.columns)
                files = ", ".join(f"'{file}'" for file in table.files)
                connection.execute(f'CREATE TABLE "{name}" AS SELECT {columns} FROM read_parquet([{files}])')
        with part(figures, "statistics"):
            for name, table in described.items():
                if numbers := table.of("numerical"):
                    wanted = ", ".join(f'avg("{column}"), stddev_pop("{column}")' for column in numbers)
                    connection.execute(f'SELECT {wanted} FROM "{name}"').fetchall()
        keys = [(name, column) for name, table in described.items() for column in table.parents]
        with part(figures, "keys"):
            for number, (name, column) in enumerate(keys):
                parent, key = described[name].parents[column]
                time = f', c."{described[name].time}" AS time' if described[name].time else ""
                connection.execute(
                    f"CREATE TABLE edges_{number} AS SELECT c.rowid AS child, p.rowid AS parent{time} "
                    f'FROM "{name}" c LEFT JOIN "{parent}" p ON c."{column}" = p."{key}"'
                )
        with part(figures, "children"):
            for number, (name, _) in enumerate(keys):
                order = "parent, time" if described[name].time else "parent, child"
                connection.execute(f"SELECT child::UINTEGER FROM edges_{number} ORDER BY {order}").fetchnumpy()
                connection.execute(f"SELECT parent, count(*) FROM edges_{number} GROUP BY parent").fetchnumpy()
        with part(figures, "categories"):
            duckdb_categories(connection, described)
        with part(figures, "texts"):
            duckdb_texts(connection, described)


def duckdb_categories(connection: Any, described: dict[str, Table]) -> None:
    """Makes an ENUM of every categorical column, and the column of it."""
    for number, (name, column) in enumerate((n, c) for n, table in described.items() for c in table.of("categorical")):
        value = f'"{column}"::VARCHAR'
        connection.execute(
            f"CREATE TYPE kind_{number} AS ENUM "
            f'(SELECT DISTINCT {value} FROM "{name}" WHERE "{column}" IS NOT NULL ORDER BY 1)'
        )
        connection.execute(f'CREATE TABLE codes_{number} AS SELECT {value}::kind_{number} FROM "{name}"')


def duckdb_texts(connection: Any, described: dict[str, Table]) -> None:
    """Numbers the distinct texts of every text column, and writes the numbers in the place of the texts."""
    for number, (name, column) in enumerate((n, c) for n, table in described.items() for c in table.of("text")):
        connection.execute(
            f"CREATE TABLE texts_{number} AS SELECT text, row_number() OVER () - 1 AS id "
            f'FROM (SELECT DISTINCT "{column}" AS text FROM "{name}")'
        )
        connection.execute(
            f'CREATE TABLE ids_{number} AS SELECT t.id FROM "{name}" d '
            f'LEFT JOIN texts_{number} t ON d."{column}" = t.text'
        )


CONTESTANTS: dict[str, Callable[[Path, int], None]] = {
    OWN: with_tributary,
    "polars": with_polars,
    "duckdb": with_duckdb,
    "pyarrow": with_pyarrow,
}


def compare(folder: Path, threads: int, arguments: argparse.Namespace) -> None:
    """Prints one line per contestant, then how ours stands."""
    import pyarrow.parquet as pq

    files = [file for table in tables(folder).values() for file in table.files]
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    size = sum(file.stat().st_size for file in files)
    print(f"{folder}: {rows:,} rows, {size / 1e6:.1f} MB of parquet; {threads} threads", flush=True)

    def start(contestant: str) -> Figures:
        python = sys.executable if contestant == OWN else arguments.peers_python
        options = ("--contestant", contestant, "--threads", str(threads))
        return run(python, __file__, folder, *options, OMP_NUM_THREADS=str(threads))

    results = in_turn(arguments.contestants, arguments.rounds, start)
    for contestant, found in results.items():
        print(
            f"  {contestant:10} {found['cpu_s']:7.2f} CPU-s {found['wall_s']:7.2f} s"
            f" {describe(rows / found['cpu_s']):>11} rows/CPU-s  peak {found['peak_mb']:6.0f} MiB"
        )
        if "read" in found:
            print("             " + "  ".join(f"{name} {found[name]:.2f}" for name in PARTS))
    if own := results.get(OWN):
        report(own, results, size, arguments.memory)


def report(own: Figures, results: dict[str, Figures], size: int, memory_gib: float) -> None:
    """Prints how ours stands beside the fastest of the others, its size and its memory."""
    peers = {name: found["cpu_s"] for name, found in results.items() if name != OWN}
    if peers:
        fastest = min(peers, key=lambda name: peers[name])
        ratio = peers[fastest] / own["cpu_s"]
        print(f"  {fastest}, the fastest, takes {ratio:.2f} x our CPU time (1: {verdict(ratio >= 1)})")
    peak = own["peak_mb"] / 1024
    met = verdict(peak <= memory_gib)
    print(f"  output {own['bytes'] / 1e6:.1f} MB, {own['bytes'] / size:.2f} x parquet; ", end="")
    print(f"peak {peak:.2f} GiB ({memory_gib:g}: {met})", flush=True)


def main() -> None:
    """Parses the arguments, and compares or is one contestant."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of parquet files with a metadata.json")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", type=float, default=2.0, help="peak memory ours may take, GiB")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--peers-python", default=os.environ.get("TRIBUTARY_RIVAL_PYTHON", sys.executable))
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant:
        CONTESTANTS[arguments.contestant](arguments.folders[0], arguments.threads[0])
        return
    if Path(arguments.peers_python) == Path(sys.executable) and find_spec("polars") is None:
        arguments.contestants = [name for name in arguments.contestants if name != "polars"]
        print("polars is not installed here and left out; --peers-python names an interpreter that has it")
    for folder in arguments.folders:
        for threads in arguments.threads:
            compare(folder, threads, arguments)


if __name__ == "__main__":
    main()
