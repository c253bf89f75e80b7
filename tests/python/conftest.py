"""Fixtures every test may use: a tiny shop as parquet, the shared data, a command line in a child process."""

from __future__ import annotations

import collections
import copy
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tributary import _headwater

# a shell that starts the tests in the background makes them ignore Ctrl-C, and their children inherit that
signal.signal(signal.SIGINT, signal.default_int_handler)
# the default, a sentence encoder, takes seconds that only its own tests need
os.environ["TRIBUTARY_EMBEDDER"] = "hash"
_ROOT = Path(__file__).resolve().parents[2]
# what JAX compiled for an earlier run, or for another process of this one, is compiled once: a third of the time
_CACHE = _ROOT / ".pytest_cache" / f"jax-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}"
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # most of the time goes into compiling
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
_CHURN = """SELECT c.id AS customer_id, TIMESTAMP '2020-02-01' AS obs_time, count(o.id) = 0 AS churn
FROM customers c LEFT JOIN orders o ON o.customer_id = c.id AND o.ts >= TIMESTAMP '2020-02-01'
GROUP BY c.id ORDER BY c.id"""
_SPEND = """SELECT c.id AS customer_id, TIMESTAMP '2020-02-01' AS obs_time, sum(o.amount) AS spend
FROM customers c JOIN orders o ON o.customer_id = c.id AND o.ts >= TIMESTAMP '2020-02-01'
GROUP BY c.id"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the slowest tests first, so that no process is left alone with one at the end."""
    counts = collections.Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -counts[item.path])


def _metadata() -> dict[str, Any]:
    def label_task(query: str, target: str, stype: str) -> dict[str, Any]:
        return {
            "query": query,
            "anchor_table": "customers",
            "anchor_key": "customer_id",
            "target_column": target,
            "target_stype": stype,
            "observation_time_column": "obs_time",
        }

    tables = {
        "customers": {"id": "identifier", "name": "text", "country": "categorical", "signup_ts": "timestamp"},
        "products": {"id": "identifier", "title": "text", "price": "numerical"},
        "orders": {
            "id": "identifier",
            "customer_id": "identifier",
            "product_id": "identifier",
            "ts": "timestamp",
            "amount": "numerical",
            "is_gift": "boolean",
        },
    }
    metadata: dict[str, Any] = {"name": "shop", "tables": {}, "tasks": {}}
    for table, columns in tables.items():
        metadata["tables"][table] = {
            "file": f"{table}.parquet",
            "primary_key": "id",
            "temporal_column": {"customers": "signup_ts", "orders": "ts"}.get(table),
            "columns": {name: {"stype": stype, "description": ""} for name, stype in columns.items()},
        }
    metadata["tables"]["orders"]["columns"]["customer_id"]["foreign_key"] = "customers.id"
    metadata["tables"]["orders"]["columns"]["product_id"]["foreign_key"] = "products.id"
    metadata["tasks"]["churn"] = label_task(_CHURN, "churn", "boolean")
    metadata["tasks"]["spend"] = label_task(_SPEND, "spend", "numerical")
    metadata["tasks"]["country"] = {
        "anchor_table": "customers",
        "target_column": "country",
        "target_stype": "categorical",
    }
    return metadata


def _tables() -> dict[str, dict[str, list[Any]]]:
    start = datetime(2020, 1, 1)
    countries = ["DE", "FR", None, "IT"]
    return {
        "customers": {
            "id": list(range(1, 13)),
            "name": [f"customer {i}" for i in range(12)],
            "country": [countries[i % 4] for i in range(12)],
            "signup_ts": [start + timedelta(hours=i) for i in range(12)],
        },
        "products": {"id": list(range(1, 6)), "title": [f"thing {i}" for i in range(5)], "price": [1.5] * 5},
        "orders": {
            "id": list(range(100, 160)),
            "customer_id": [1 + i * 5 % 12 for i in range(60)],
            "product_id": [1 + i % 5 for i in range(60)],
            "ts": [start + timedelta(days=1 + i) for i in range(60)],
            "amount": [float(i % 7) for i in range(60)],
            "is_gift": [i % 3 == 0 for i in range(60)],
        },
    }


class Shop:
    """A tiny database as a user would hand it over, to be changed before it is written.

    Attributes:
        metadata: what goes into metadata.json.
        tables: columns of values by table.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.metadata = copy.deepcopy(_metadata())
        self.tables = _tables()

    def write(self) -> Path:
        """Writes metadata.json and the parquet files; the folder."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.folder.mkdir(parents=True, exist_ok=True)
        for name, columns in self.tables.items():
            pq.write_table(pa.table(columns), self.folder / f"{name}.parquet")
        (self.folder / "metadata.json").write_text(json.dumps(self.metadata), encoding="utf-8")
        return self.folder


@pytest.fixture(scope="module", autouse=True)
def _forget_compiled_programs() -> Iterator[None]:
    """What one file of tests compiled is of no use to the next, and would fill the memory of a small machine."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Twelve customers, five products, sixty orders, three tasks; not yet written."""
    return Shop(tmp_path / "shop")


@pytest.fixture(scope="session")
def spend_shop(tmp_path_factory: pytest.TempPathFactory) -> _headwater.Database:
    """A processed shop with times, splits and a horizon: `native_database.spend_shop`."""
    import native_database

    return native_database.spend_shop(tmp_path_factory.mktemp("spend_shop") / "processed")


@pytest.fixture(scope="session")
def rel_f1(shared_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> _headwater.Database:
    """The shared rel-f1, processed once by the native stages."""
    import native_database

    metadata = json.loads((_ROOT / "data" / "metadata" / "rel-f1.json").read_text())
    raw = shared_data("rel-f1") / "raw"
    return native_database.process(raw, metadata, tmp_path_factory.mktemp("rel-f1") / "database")


@pytest.fixture(scope="session")
def tributary_command() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `tributary ...` in a process of its own."""

    def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from tributary.cli import main; main()", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "COLUMNS": "200", **environment},
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Folder of a shared data set by name; skips loudly where it is absent.

    `TRIBUTARY_SHARED_DATA` says where they are; by default in `../shared/data` beside the repository.
    """
    root = Path(os.environ.get("TRIBUTARY_SHARED_DATA", _ROOT.parent / "shared" / "data"))

    def find(name: str) -> Path:
        folder = root / name
        if not folder.is_dir():
            pytest.skip(f"SHARED DATA MISSING: {folder} (set TRIBUTARY_SHARED_DATA)")
        return folder

    return find
