"""`tributary import mysql://...` against a MariaDB server of its own: keys, comments, types, snapshot, secrets."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tributary.importing import import_source

pytestmark = pytest.mark.slow
_SHOP = (
    "CREATE DATABASE shop",
    "CREATE USER 'r'@'127.0.0.1' IDENTIFIED BY 'p@ss w'",
    "GRANT ALL ON shop.* TO 'r'@'127.0.0.1'",
    "USE shop",
    "SET sql_mode = ''",
    "CREATE TABLE people (code BIGINT UNSIGNED PRIMARY KEY, `full name` VARCHAR(40) COMMENT 'how called', flag BIT(1),"
    " t TIME, e ENUM('a', 'b'), raw BLOB, d DATE) COMMENT 'who 100% buys'",
    "CREATE TABLE orders (id INT PRIMARY KEY AUTO_INCREMENT, buyer BIGINT UNSIGNED, placed DATETIME,"
    " FOREIGN KEY (buyer) REFERENCES people (code))",
    "CREATE TABLE stock (a INT, b INT, PRIMARY KEY (a, b))",
    "CREATE VIEW v AS SELECT 1 AS one",
    "INSERT INTO people VALUES (18446744073709551615, 'ann', b'1', '10:00', 'a', 'ab', '2024-01-01'),"
    " (2, 'é', b'0', NULL, NULL, NULL, '0000-00-00')",
    "INSERT INTO orders (buyer, placed) SELECT 2, '2024-01-01' + INTERVAL seq HOUR FROM seq_1_to_25000",
)


def _as_mysql(command: list[str]) -> list[str]:
    is_root = os.geteuid() == 0
    return [*(["setpriv", "--reuid=mysql", "--regid=mysql", "--clear-groups"] if is_root else []), *command]


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Path, int]]:
    """Socket and port of a server on loopback, in a folder of its own."""
    daemon, install = shutil.which("mariadbd", path="/usr/sbin:/usr/bin"), shutil.which("mariadb-install-db")
    pytest.importorskip("pymysql")
    if daemon is None or install is None:
        pytest.skip("NO MARIADB SERVER: apt-get install mariadb-server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="tributary-mariadb-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "mysql", "mysql")
        made = [install, "--no-defaults", f"--datadir={folder}/data", "--auth-root-authentication-method=normal"]
        subprocess.run(_as_mysql(made), check=True, capture_output=True, timeout=60, cwd="/")
        options = [f"--datadir={folder}/data", f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder}/s"]
        process = subprocess.Popen(
            _as_mysql([daemon, "--no-defaults", *options, f"--log-error={folder}/log"]), cwd="/", start_new_session=True
        )
        try:
            deadline = time.monotonic() + 60
            while not (folder / "s").exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.1)
            yield folder / "s", port
        finally:
            process.kill()
            process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def shop(server: tuple[Path, int]) -> str:
    import pymysql

    with pymysql.connect(unix_socket=str(server[0]), user="root", autocommit=True) as connection:
        for statement in _SHOP:
            connection.cursor().execute(statement)
    return f"mysql://r:p%40ss%20w@127.0.0.1:{server[1]}/shop"


def test_keys_comments_and_values_come_over(shop: str, tmp_path: Path) -> None:
    done = import_source(shop, tmp_path / "out", with_tasks=False, threads=1)
    tables = done.draft.metadata["tables"]
    assert sorted(tables) == ["orders", "people", "stock"]
    assert tables["people"]["primary_key"] == "code"
    assert tables["people"]["description"] == "who 100% buys"
    assert tables["people"]["columns"]["full name"]["description"] == "how called"
    assert tables["orders"]["columns"]["buyer"]["foreign_key"] == "people.code"
    assert sorted(warning.split(":")[0] for warning in done.warnings) == ["people.d", "stock"]
    people = sorted(pq.read_table(tmp_path / "out" / "people.parquet").to_pylist(), key=lambda row: row["code"])
    assert [row["code"] for row in people] == [2, 2**64 - 1]
    assert people[0]["d"] is None
    assert str(people[1]["d"]) == "2024-01-01"
    assert (people[1]["flag"], people[1]["t"], people[1]["raw"]) == (1, "10:00:00", b"ab")
    assert pq.read_metadata(tmp_path / "out" / "orders.parquet").num_rows == 25_000
    for path in (tmp_path / "out").iterdir():
        assert b"p@ss w" not in path.read_bytes()
        assert b"p%40ss" not in path.read_bytes()


def test_it_reads_one_moment_and_can_write_nothing(shop: str, server: tuple[Path, int]) -> None:
    import pymysql
    from sqlalchemy.exc import SQLAlchemyError

    from tributary.importing.server import ServerSource

    with ServerSource(shop, ("stock",)) as source:
        with pymysql.connect(unix_socket=str(server[0]), user="root", autocommit=True) as writer:
            writer.cursor().execute("INSERT INTO shop.stock VALUES (1, 1)")
        assert source.tables()[0].num_rows == 0
        assert sum(batch.num_rows for batch in source.batches("stock")[1]) == 0
        with pytest.raises(SQLAlchemyError, match="READ ONLY transaction"):
            source._connection.exec_driver_sql("DELETE FROM stock")


def test_no_message_tells_the_password(shop: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Access denied") as error:
        import_source(shop.replace("p%40ss%20w", "wr%40ng"), tmp_path / "out")
    said: Any = str(error.value)
    assert "wr@ng" not in said
    assert "wr%40ng" not in said
    assert error.value.__suppress_context__
