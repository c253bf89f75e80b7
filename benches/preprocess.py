"""The encode stage beside what nobody can avoid: reading the same parquet columns, and joining the same keys.

Usage: python benches/preprocess.py [FOLDER_WITH_METADATA ...]

For every folder, in one run: rows per CPU-second of our encode stage (decode, statistics, keys, links in both
directions, vocabulary, records, hashes, fsync), of pyarrow decoding the same files, and of DuckDB decoding them and
joining every foreign key; peak memory of each; size of the output over the input. Every contestant runs in a process
of its own, with the same number of threads.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONTESTANTS = ("tributary encode", "pyarrow read", "duckdb read + join")


def ours(folder: Path, threads: int) -> int:
    """Encodes the folder into a temporary one; answers the bytes written."""
    from tributary import _headwater

    with tempfile.TemporaryDirectory() as staging:
        _headwater.encode(folder, staging, threads=threads)
        return sum(file.stat().st_size for file in Path(staging).rglob("*.bin"))


def with_pyarrow(folder: Path, threads: int) -> int:
    """Decodes every described file; writes nothing."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pa.set_cpu_count(threads)
    for file in parquet_files(folder):
        pq.read_table(file)
    return 0


def with_duckdb(folder: Path, threads: int) -> int:
    """Decodes every described file into memory and joins every foreign key to its parent's rows; writes nothing."""
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"SET threads = {threads}")
    tables = json.loads((folder / "metadata.json").read_text())["tables"]
    for name, table in tables.items():
        file = folder / table.get("file", f"{name}.parquet")
        connection.execute(f"CREATE TABLE \"{name}\" AS SELECT * FROM read_parquet('{file}')")
    for name, table in tables.items():
        for column, description in table["columns"].items():
            if key := description.get("foreign_key"):
                parent, parent_key = key.split(".", 1)
                connection.execute(
                    f'SELECT count(p.rowid) FROM "{name}" c LEFT JOIN "{parent}" p ON c."{column}" = p."{parent_key}"'
                ).fetchall()
    return 0


RUNS = dict(zip(CONTESTANTS, (ours, with_pyarrow, with_duckdb), strict=True))


def parquet_files(folder: Path) -> list[Path]:
    """The files that the folder's metadata.json describes."""
    tables = json.loads((folder / "metadata.json").read_text())["tables"]
    return [folder / table.get("file", f"{name}.parquet") for name, table in tables.items()]


def measure(contestant: str, folder: Path, threads: int) -> dict[str, float]:
    """Runs one contestant in a process of its own: wall and CPU seconds, peak memory, bytes written."""
    argv = [sys.executable, __file__, "--contestant", contestant, "--threads", str(threads), str(folder)]
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    output = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result = json.loads(output.splitlines()[-1])
    return {"wall_s": wall, "cpu_s": cpu, "peak_mb": result["peak_kb"] / 1024, "bytes": result["bytes"]}


def compare(folder: Path, threads: int) -> None:
    """Prints one line per contestant, with its ratio to ours."""
    import pyarrow.parquet as pq

    files = parquet_files(folder)
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    size = sum(file.stat().st_size for file in files)
    print(f"{folder}: {rows:,} rows, {size / 1e6:.1f} MB of parquet, {threads} threads")
    results = {contestant: measure(contestant, folder, threads) for contestant in CONTESTANTS}
    own = results[CONTESTANTS[0]]
    for contestant, result in results.items():
        line = f"  {contestant:20} {result['wall_s']:7.2f} s  {result['cpu_s']:7.2f} CPU-s"
        line += f"  {rows / result['cpu_s']:12,.0f} rows/CPU-s  peak {result['peak_mb']:6.0f} MB"
        print(line + f"  CPU over ours {result['cpu_s'] / own['cpu_s']:5.2f}")
    print(f"  output {own['bytes'] / 1e6:.1f} MB, {own['bytes'] / size:.2f} times the parquet")


def main() -> None:
    """Parses the arguments; a contestant's own process reports its peak memory in its last line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of parquet files with a metadata.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contestant is None:
        for folder in arguments.folders:
            compare(folder, arguments.threads)
        return
    written = RUNS[arguments.contestant](arguments.folders[0], arguments.threads)
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"bytes": written, "peak_kb": peak_kb}))


if __name__ == "__main__":
    main()
