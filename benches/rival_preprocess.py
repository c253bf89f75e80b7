"""Preprocessing beside the rival's: `relational-transformer` 1.10.0, whose engine is native too.

Usage: python benches/rival_preprocess.py [shop] [tpch-0.1] --rival-python PYTHON     (or --make-venv FOLDER)

Both read the same parquet files and the same label rows and write what their samplers read; neither makes text
vectors. `tables` is our encode stage, which reads everything, links both directions, interns every text and writes, and
stands beside the rival told to skip its tasks; `tables + tasks` adds the labels and publishing (hashes, fsync) and
stands beside all of the rival's one call. Rows are those of the tables, with the labels where they are processed, and
so are the bytes of parquet. Every run is a process of its own; CPU seconds are those of the call, without imports;
memory is the highest resident set, for the rival also without what its imports (torch) had taken before the call.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import rival
from measure import Figures, describe, folder_bytes, in_turn, measured, run, verdict

CONTESTANTS = ("tables", "tables + tasks", "rival, tables", "rival")
PAIRS = {"tables": "rival, tables", "tables + tasks": "rival"}


def encode(folder: Path, out: Path, threads: int, *, with_tasks: bool) -> None:
    """Our stages up to what a sampler reads, vectors left out."""
    from tributary import _headwater

    with measured() as figures:
        _headwater.encode(folder, out, threads=threads)
        if with_tasks:
            text = _headwater.read_metadata(folder)
            for task, description in json.loads(text)["tasks"].items():
                _headwater.write_task(out, task, folder / description["table"], metadata=text)
            _headwater.publish(out)
        figures["bytes"] = folder_bytes(out, "*.bin")


def rival_preprocess(folder: Path, out: Path, *, with_tasks: bool) -> None:
    """The rival's preprocessing."""
    from rt.rustler import preprocess

    with measured() as figures:
        preprocess(str(folder), str(out), source="local", skip_tasks=not with_tasks)
        figures["bytes"] = folder_bytes(out)


def contest(arguments: argparse.Namespace) -> None:
    """Is one contestant, in a process of its own."""
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        out = arguments.keep or Path(scratch) / "out"
        if arguments.contestant in PAIRS.values():
            rival_preprocess(arguments.databases[0], out, with_tasks=arguments.contestant == "rival")
        else:
            encode(arguments.databases[0], out, arguments.threads, with_tasks="tasks" in arguments.contestant)


def num_rows(folder: Path, python: Path) -> tuple[int, int]:
    """Rows of the tables, rows of the labels."""
    code = (
        "import json, sys, pathlib, pyarrow.parquet as pq; root = pathlib.Path(sys.argv[1]); "
        "count = lambda p: sum(pq.read_metadata(f).num_rows for f in root.glob(p)); "
        "print(json.dumps([count('db/*.parquet'), count('labels/*.parquet')]))"
    )
    tables, labels = json.loads(subprocess.run([python, "-c", code, folder], capture_output=True, check=True).stdout)
    return tables, labels


def compare(name: str, arguments: argparse.Namespace, python: Path) -> None:
    """Prints one database's figures, ratios and targets."""
    folder = rival.database(name, arguments, python)
    tables, labels = num_rows(folder, python)
    of_tables = folder_bytes(folder / "db", "*.parquet")
    whole = of_tables + folder_bytes(folder / "labels", "*.parquet")
    rows = dict.fromkeys(PAIRS, tables) | {"tables + tasks": tables + labels}
    rows |= {other: rows[own] for own, other in PAIRS.items()}
    parquet = {who: of_tables if number == tables else whole for who, number in rows.items()}

    def start(contestant: str) -> Figures:
        interpreter = python if contestant in PAIRS.values() else Path(sys.executable)
        options = ("--contestant", contestant, "--threads", str(arguments.threads))
        return run(interpreter, __file__, folder, *options, RAYON_NUM_THREADS=str(arguments.threads))

    print(
        f"{name}: {tables:,} rows and {labels:,} labels, {whole / 1e6:.1f} MB of parquet; {arguments.threads} "
        f"threads, medians of {arguments.rounds}",
        flush=True,
    )
    results = in_turn(CONTESTANTS, arguments.rounds, start)
    rates = {who: rows[who] / found["cpu_s"] for who, found in results.items()}
    for contestant, found in results.items():
        print(
            f"  {contestant:15} {found['cpu_s']:7.2f} CPU-s {found['wall_s']:7.2f} s"
            f" {describe(rates[contestant]):>12} rows/CPU-s  peak {found['peak_mb']:6.0f} MiB"
            f" (before the call {found['before_mb']:4.0f})  output {found['bytes'] / 1e6:7.1f} MB,"
            f" {found['bytes'] / parquet[contestant]:5.2f} x parquet"
        )
    for contestant, rivals in PAIRS.items():
        own, other = results[contestant], results[rivals]
        speed, memory = rates[contestant] / rates[rivals], own["peak_mb"] / other["peak_mb"]
        growth = own["peak_mb"] / (other["peak_mb"] - other["before_mb"])
        size = own["bytes"] / parquet[contestant]
        print(
            f"  {contestant} beside {rivals}: {speed:.1f} x its rows/CPU-s (10: {verdict(speed >= 10)});"
            f" {memory:.2f} of its memory, {growth:.2f} without its imports (0.5: {verdict(growth <= 0.5)});"
            f" output {size:.2f} x parquet (2: {verdict(size <= 2)}), {own['bytes'] / other['bytes']:.2f} its output",
            flush=True,
        )


def main() -> None:
    """Compares on every database asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("databases", nargs="*", type=Path, default=[Path("shop"), Path("tpch-0.1")])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scratch", type=Path, help="where the outputs go; default: the system's folder")
    parser.add_argument("--contestant", choices=CONTESTANTS, help=argparse.SUPPRESS)
    parser.add_argument("--keep", type=Path, help=argparse.SUPPRESS)
    rival.add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.contestant:
        contest(arguments)
        return
    python = rival.rival_python(arguments)
    for name in arguments.databases:
        compare(str(name), arguments, python)


if __name__ == "__main__":
    main()
