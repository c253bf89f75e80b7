"""`tributary import postgresql://...` against a server of its own: keys, comments, types, snapshot, secrets."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tributary.importing import import_source

pytestmark = pytest.mark.slow
_PASSWORD = "s3cr/t p@ss"
_QUOTED = "s3cr%2Ft%20p%40ss"


def _binaries() -> Path | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    on_path = shutil.which("initdb")
    found = [Path(on_path).parent] if on_path else []
    return next((folder for folder in [*found, *folders] if (folder / "initdb").exists()), None)


def _as_nobody(command: list[str | Path]) -> None:
    """Runs a command as a user that PostgreSQL accepts, which root is not."""
    prefix = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    subprocess.run([*prefix, *map(str, command)], check=True, capture_output=True, timeout=60, cwd="/")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of a database of a server on loopback, in a folder of its own."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("NO POSTGRESQL SERVER: apt-get install postgresql")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="tributary-postgres-"))
    try:
        (folder / "password").write_text(_PASSWORD)
        if os.geteuid() == 0:
            for path in (folder, folder / "password"):
                shutil.chown(path, "postgres", "postgres")
        data = folder / "data"
        options = ["-U", "boss", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--no-sync"]
        _as_nobody([binaries / "initdb", "-D", data, *options, "--encoding=UTF8", "--locale=C"])
        settings = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off"
        _as_nobody([binaries / "pg_ctl", "-D", data, "-l", folder / "log", "-o", settings, "-w", "start"])
        try:
            yield f"postgresql://boss:{_QUOTED}@127.0.0.1:{port}/postgres"
        finally:
            _as_nobody([binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_SHOP = """
CREATE SCHEMA other;
CREATE TABLE other.away (id int PRIMARY KEY);
CREATE TYPE mood AS ENUM ('sad', 'glad');
CREATE TABLE people (code bigint PRIMARY KEY, "full name" varchar(40), mood mood, tags text[], doc jsonb,
    balance numeric(12, 2), big numeric(30, 0), u uuid, raw bytea, wait interval, ok boolean, free numeric);
COMMENT ON TABLE people IS 'who buys';
COMMENT ON COLUMN people.balance IS 'in euros: 100% of it';
CREATE TABLE orders (id serial PRIMARY KEY, buyer bigint NOT NULL REFERENCES people, giver bigint REFERENCES people,
    away int REFERENCES other.away, placed timestamptz NOT NULL, day date) ;
CREATE TABLE stock (shelf int, slot int, PRIMARY KEY (shelf, slot));
CREATE TABLE moves (id int PRIMARY KEY, shelf int, slot int, FOREIGN KEY (shelf, slot) REFERENCES stock);
CREATE TABLE logs (id int, at date) PARTITION BY RANGE (id);
CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM (0) TO (100);
CREATE VIEW rich AS SELECT code FROM people;
INSERT INTO people VALUES (1, 'ann', 'glad', '{a,b}', '{"k": 1}', 1.25, 123456789012345678901234567890,
    '00000000-0000-0000-0000-000000000001', 'ab', '1 day', true, 'NaN'), (2, 'é', NULL, NULL, NULL, NULL, NULL, NULL,
    NULL, NULL, NULL, 2.5);
INSERT INTO orders (buyer, giver, placed, day) SELECT 1 + i % 2, NULL, TIMESTAMPTZ '2024-01-01 00:00+02' + i * INTERVAL
    '1 hour', CASE WHEN i = 5 THEN 'infinity' WHEN i = 6 THEN '0044-03-15 BC' ELSE DATE '2024-01-01' END
    FROM generate_series(0, 24999) i;
INSERT INTO stock VALUES (1, 1);
INSERT INTO moves VALUES (1, 1, 1);
INSERT INTO logs VALUES (1, '2024-01-01'), (2, NULL);
"""


@pytest.fixture(scope="module")
def shop(server: str) -> str:
    import psycopg

    with psycopg.connect(server) as connection:
        connection.execute(_SHOP)
    return server


@pytest.fixture(scope="module")
def imported(shop: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return import_source(shop, tmp_path_factory.mktemp("import") / "out", with_tasks=False, threads=1)


def _column(imported: Any, table: str, column: str) -> tuple[str, list[Any]]:
    found = pq.read_table(imported.folder / f"{table}.parquet")[column]
    return str(found.type), found.to_pylist()


def test_declared_keys_and_comments_are_taken(imported: Any) -> None:
    tables = imported.draft.metadata["tables"]
    assert sorted(tables) == ["logs", "moves", "orders", "people", "stock"]
    assert tables["people"]["primary_key"] == "code"
    assert tables["people"]["description"] == "who buys"
    assert tables["people"]["columns"]["balance"]["description"] == "in euros: 100% of it"
    orders = tables["orders"]
    assert {name: each.get("foreign_key") for name, each in orders["columns"].items() if "foreign_key" in each} == {
        "buyer": "people.code",
        "giver": "people.code",
    }
    assert orders["temporal_column"] == "placed"
    assert "primary_key" not in tables["stock"]
    said = "\n".join(imported.warnings)
    assert "stock: its primary key has 2 columns (shelf, slot)" in said
    assert "moves: the foreign key (shelf, slot) -> `stock` (shelf, slot) is left out: it has 2 columns" in said
    assert "orders: the foreign key (away) -> `other.away` (id) is left out: `other.away` is not imported" in said
    assert "orders.day: 2 times are infinite or not between" in said
    assert len(imported.warnings) == 4


def test_values_come_over(imported: Any) -> None:
    assert _column(imported, "people", "full name") == ("string", ["ann", "é"])
    assert _column(imported, "people", "mood") == ("string", ["glad", None])
    assert _column(imported, "people", "tags") == ("string", ['["a", "b"]', None])
    assert _column(imported, "people", "doc") == ("string", ['{"k": 1}', None])
    assert _column(imported, "people", "balance") == ("double", [1.25, None])
    kind, big = _column(imported, "people", "big")
    assert (kind, int(big[0])) == ("decimal128(30, 0)", 123456789012345678901234567890)
    assert _column(imported, "people", "wait") == ("double", [86400.0, None])
    assert _column(imported, "people", "ok") == ("bool", [True, None])
    assert _column(imported, "people", "raw") == ("binary", [b"ab", None])
    assert _column(imported, "people", "u")[1][0].endswith("0001")
    kind, placed = _column(imported, "orders", "placed")
    assert (kind, len(placed), str(min(placed))) == ("timestamp[us, tz=UTC]", 25_000, "2023-12-31 22:00:00+00:00")
    assert _column(imported, "logs", "id") == ("int64", [1, 2])


def test_nothing_written_tells_the_password(imported: Any) -> None:
    for path in imported.folder.rglob("*"):
        content = path.read_bytes()
        for secret in (_PASSWORD, _QUOTED):
            assert secret.encode() not in content, path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("boss:", "nobody:"), "password authentication failed"),
        (("/postgres", "/nowhere"), 'database "nowhere" does not exist'),
        (("@127.0.0.1:", "@127.0.0.1:1"), "127.0.0.1"),
        (("@127.0.0.1:", "@127.0.0.1:x"), "expected postgresql://user:password@host:port/name"),
    ],
)
def test_no_message_tells_the_password(
    shop: str, change: tuple[str, str], message: str, tmp_path: Path, tributary_command: Any
) -> None:
    scheme, rest = shop.split("://")
    done = tributary_command("import", f"{scheme}://{rest.replace(*change, 1)}", tmp_path / "out", TRIBUTARY_DEBUG="")
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    said = done.stderr + done.stdout
    assert "Traceback" not in said
    assert _PASSWORD not in said
    assert _QUOTED not in said
    assert not list(tmp_path.iterdir())


def test_schema_views_and_tables_are_chosen(shop: str, tmp_path: Path) -> None:
    done = import_source(shop, tmp_path / "a", schema="other", with_tasks=False, threads=1)
    assert list(done.draft.metadata["tables"]) == ["away"]
    done = import_source(shop, tmp_path / "b", tables=["rich", "people"], views=True, with_tasks=False, threads=1)
    assert list(done.draft.metadata["tables"]) == ["people", "rich"]
    with pytest.raises(ValueError, match="no table `rich`"):
        import_source(shop, tmp_path / "c", tables=["rich"], with_tasks=False, threads=1)


def test_it_reads_one_moment_and_can_write_nothing(shop: str) -> None:
    import psycopg
    from sqlalchemy.exc import SQLAlchemyError

    from tributary.importing.server import ServerSource

    with ServerSource(shop, ("logs",)) as source:
        assert source.tables()[0].num_rows == 2
        with psycopg.connect(shop) as writer:
            writer.execute("INSERT INTO logs VALUES (3, NULL)")
        assert sum(batch.num_rows for batch in source.batches("logs")[1]) == 2
        with pytest.raises(SQLAlchemyError, match="read-only transaction"):
            source._connection.exec_driver_sql("DELETE FROM logs")
    with psycopg.connect(shop) as writer:
        writer.execute("DELETE FROM logs WHERE id = 3")


def test_rows_are_streamed(shop: str) -> None:
    """Batches come while the cursor stays in the server: none holds the whole table."""
    from tributary.importing.server import ServerSource
    from tributary.importing.source import ROWS_PER_BATCH

    with ServerSource(shop, ("orders",)) as source:
        sizes = [batch.num_rows for batch in source.batches("orders")[1]]
    assert max(sizes) <= ROWS_PER_BATCH
    assert sum(sizes) == 25_000
