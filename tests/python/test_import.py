"""`tributary import` of files, SQLite and DuckDB: types, declared keys, traps, and nothing left behind."""

from __future__ import annotations

import gzip
import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tributary.importing import Imported, import_source

_ROOT = Path(__file__).resolve().parents[2]


def _import(source: Path | str, out: Path, **options: Any) -> Imported:
    return import_source(source, out, with_tasks=False, threads=1, **options)


def _csv(folder: Path, name: str, data: str | bytes) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    content = data.encode() if isinstance(data, str) else data
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def _column(out: Path, table: str, column: str) -> tuple[str, list[Any]]:
    found = pq.read_table(out / f"{table}.parquet")[column]
    return str(found.type), found.to_pylist()


# ---- files ----------------------------------------------------------------------------------------------------------


def test_a_folder_of_every_format(tmp_path: Path) -> None:
    source = tmp_path / "shop"
    _csv(source, "customers.csv", "id,name\n1,ann\n2,bob\n3,eve\n")
    _csv(
        source,
        "orders-01.tsv.gz",
        "id\tcustomer_id\tordered_at\n1\t1\t2024-01-01 10:00:00\n2\t1\t2024-01-02 11:30:00\n",
    )
    _csv(source, "orders-02.tsv.gz", "id\tcustomer_id\tordered_at\n3\t3\t2024-01-03 00:00:00\n")
    _csv(source, "visits.jsonl", '{"id": 1, "customer_id": 2, "seconds": 1.5}\n{"id": 2, "customer_id": 2}\n')
    pq.write_table(pa.table({"id": [1, 2], "big": pa.array([2**60, 1], pa.int64())}), source / "things.parquet")
    done = _import(source, tmp_path / "out")
    tables = json.loads((tmp_path / "out" / "metadata.json").read_text())["tables"]
    assert sorted(tables) == ["customers", "orders", "things", "visits"]
    assert tables["orders"]["primary_key"] == "id"
    assert tables["orders"]["temporal_column"] == "ordered_at"
    assert tables["orders"]["columns"]["customer_id"]["foreign_key"] == "customers.id"
    assert _column(tmp_path / "out", "orders", "id") == ("int64", [1, 2, 3])
    assert _column(tmp_path / "out", "orders", "ordered_at")[0] == "timestamp[us]"
    assert _column(tmp_path / "out", "visits", "seconds") == ("double", [1.5, None])
    assert _column(tmp_path / "out", "things", "big") == ("int64", [2**60, 1])
    assert done.warnings == []


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["1", "2", ""], "int64", [1, 2, None]),
        (["01234", "12345"], "string", ["01234", "12345"]),
        (["1.5", "2", "1e3"], "double", [1.5, 2.0, 1000.0]),
        (["true", "FALSE"], "bool", [True, False]),
        (["1", "NA"], "int64", [1, None]),
        (["NA", "DE"], "string", ["NA", "DE"]),
        (["2024-02-30", "2024-02-28"], "string", ["2024-02-30", "2024-02-28"]),
        (["2024-01-01T10:00:00Z", "2024-01-01T10:00:00+02:00"], "timestamp[us, tz=UTC]", None),
        (["9223372036854775808", "1"], "double", [2.0**63, 1.0]),
        (["1,234.5", "2"], "string", ["1,234.5", "2"]),
        (["0x10", "1"], "string", ["0x10", "1"]),
    ],
)
def test_a_column_has_a_type_if_every_value_has_it(
    tmp_path: Path, values: list[str], kind: str, expected: list[Any] | None
) -> None:
    rows = "".join(f'{number},"{value}"\n' for number, value in enumerate(values))
    _import(_csv(tmp_path, "t.csv", f"n,x\n{rows}"), tmp_path / "out")
    found = _column(tmp_path / "out", "t", "x")
    assert found[0] == kind
    if expected is not None:
        assert found[1] == expected


def test_junk_among_numbers_is_named(tmp_path: Path) -> None:
    rows = "".join(f"{n},{n / 2 if n != 70 else 'about 35'}\n" for n in range(100))
    done = _import(_csv(tmp_path, "t.csv", f"n,x\n{rows}"), tmp_path / "out")
    assert done.warnings == [
        "t.x: 99 of 100 values are numbers, but t.csv, row 71 has `about 35`; kept as text,"
        " correct the file for another type"
    ]
    assert _column(tmp_path / "out", "t", "x")[0] == "string"


def test_decimal_commas_and_days_first(tmp_path: Path) -> None:
    text = "\ufeffid;price;day;either\r\n1;1,5;31.12.2023;01/02/2024\r\n2;10;01.01.2024;03/04/2024\r\n"
    done = _import(_csv(tmp_path, "t.csv", text), tmp_path / "out")
    assert _column(tmp_path / "out", "t", "id") == ("int64", [1, 2])
    assert _column(tmp_path / "out", "t", "price") == ("double", [1.5, 10.0])
    kind, days = _column(tmp_path / "out", "t", "day")
    assert kind == "timestamp[us]"
    assert str(days[0])[:10] == "2023-12-31"
    assert _column(tmp_path / "out", "t", "either")[0] == "string"
    assert any("day/month or month/day" in warning for warning in done.warnings)


def test_quotes_hold_separators_and_lines(tmp_path: Path) -> None:
    _import(_csv(tmp_path, "t.csv", 'a,b\n"x, ""y""\nz",1\n'), tmp_path / "out")
    assert _column(tmp_path / "out", "t", "a") == ("string", ['x, "y"\nz'])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a,b\n1,2\n3\n", "t.csv, line 3: expected 2 values, found 1"),
        ("a,b\n1,2\n3,4,5\n", "t.csv, line 3: expected 2 values, found 3"),
        ('a,b\n1,"2\n', "t.csv, line 2: a quote is opened and not closed"),
        (b"a,b\n1,caf\xe9\n", "t.csv, line 2: not UTF-8"),
        ("a,A\n1,2\n", "names the column `A` more than once"),
        ("1,2\n3,4\n", "expected the names of the columns"),
        ("", "every file is empty"),
    ],
)
def test_a_broken_csv_is_refused_by_line(tmp_path: Path, data: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _import(_csv(tmp_path, "t.csv", data), tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t.csv"]


def test_an_empty_file_is_left_out_and_a_header_alone_is_a_table(tmp_path: Path) -> None:
    source = tmp_path / "s"
    _csv(source, "a.csv", "")
    _csv(source, "b.csv", "x,y\n")
    _csv(source, "c.csv", "x,y\n1,2\n")
    done = _import(source, tmp_path / "out")
    assert done.warnings == ["a: a.csv is empty and left out"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["b.parquet", "c.parquet", "metadata.json"]


def test_json_of_several_types_is_text(tmp_path: Path) -> None:
    path = _csv(tmp_path, "t.jsonl", '{"a": 1, "z": "007"}\n{"a": "one", "z": "008"}\n')
    done = _import(path, tmp_path / "out")
    assert _column(tmp_path / "out", "t", "a") == ("string", ["1", "one"])
    assert _column(tmp_path / "out", "t", "z") == ("string", ["007", "008"])
    assert len(done.warnings) == 1
    assert "t.a: values of several types" in done.warnings[0]


def test_one_table_in_two_formats_is_refused(tmp_path: Path) -> None:
    _csv(tmp_path / "s", "t.csv", "a\n1\n")
    _csv(tmp_path / "s", "t.jsonl", '{"a": 1}\n')
    with pytest.raises(ValueError, match=r"table `t` is in t\.csv and t\.jsonl"):
        _import(tmp_path / "s", tmp_path / "out")


# ---- the output -----------------------------------------------------------------------------------------------------


def test_what_is_there_stays(tmp_path: Path) -> None:
    source = _csv(tmp_path, "t.csv", "a\n1\n")
    out = tmp_path / "out"
    _csv(out, "mine.txt", "precious")
    with pytest.raises(FileExistsError, match="is there already"):
        _import(source, out)
    with pytest.raises(FileExistsError, match="no import made it"):
        _import(source, out, force=True)
    _import(source, tmp_path / "second")
    _import(source, tmp_path / "second", force=True)
    with pytest.raises(ValueError, match="holds the source"):
        _import(tmp_path / "second", tmp_path / "second", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "second", "t.csv"]


def test_a_failure_leaves_nothing_and_a_later_run_clears_what_was_killed(tmp_path: Path, monkeypatch: Any) -> None:
    from tributary.importing import run

    source = _csv(tmp_path, "t.csv", "a\n1\n")
    (tmp_path / ".out.importing-999999999").mkdir()

    def fail(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(run, "draft", fail)
        with pytest.raises(KeyboardInterrupt):
            _import(source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_the_command_line(tmp_path: Path, tributary_command: Any) -> None:
    source = _csv(tmp_path, "t.csv", "id,a\n1,NA\n2,3\n")
    done = tributary_command("import", source, tmp_path / "out", "--no-tasks")
    assert done.returncode == 0, done.stderr
    assert "read as missing" in done.stderr
    assert "tributary preprocess" in done.stdout
    again = tributary_command("import", source, tmp_path / "out")
    assert again.returncode == 2
    assert "is there already" in again.stderr
    absent = tributary_command("import", tmp_path / "no", tmp_path / "out2")
    assert (absent.returncode, "no such file" in absent.stderr) == (2, True)


@pytest.mark.parametrize(
    "source", ["postgres:me:hunter2@host/x", "mysql:/me:hunter2@host/x", "ftp://me:hunter2@host/x"]
)
def test_a_mistyped_url_is_not_repeated(tmp_path: Path, source: str) -> None:
    with pytest.raises(ValueError, match="expected postgresql://") as error:
        _import(source, tmp_path / "out")
    assert "hunter2" not in str(error.value)


# ---- SQLite ---------------------------------------------------------------------------------------------------------


def _sqlite(path: Path, script: str) -> Path:
    connection = sqlite3.connect(path)
    connection.executescript(script)
    connection.close()
    return path


_SHOP = """
CREATE TABLE people (code INTEGER PRIMARY KEY, born TEXT, vip BOOLEAN, mess NUMERIC, ratio);
CREATE TABLE "odd name:x" (who INTEGER REFERENCES people (code), boss INTEGER REFERENCES people, n INT,
    PRIMARY KEY (who, n));
CREATE TABLE lines (id INTEGER PRIMARY KEY, who INT, n INT, FOREIGN KEY (who, n) REFERENCES "odd name:x" (who, n));
CREATE VIEW v AS SELECT code FROM people;
INSERT INTO people VALUES (10, '2000-01-01', 1, 5, 1), (20, NULL, 0, 'five', 2.5), (30, 'é', 1, 6, NULL);
INSERT INTO "odd name:x" VALUES (10, 20, 1), (10, NULL, 2);
INSERT INTO lines VALUES (1, 10, 1);
"""


def test_sqlite_with_its_keys_and_its_types(tmp_path: Path) -> None:
    path = _sqlite(tmp_path / "shop.db", _SHOP)
    before = path.read_bytes()
    done = _import(f"sqlite:///{path}", tmp_path / "out")
    metadata = done.draft.metadata
    assert path.read_bytes() == before
    assert metadata["name"] == "shop"
    assert sorted(metadata["tables"]) == ["lines", "odd name:x", "people"]
    assert metadata["tables"]["people"]["primary_key"] == "code"
    assert "primary_key" not in metadata["tables"]["odd name:x"]
    columns = metadata["tables"]["odd name:x"]["columns"]
    assert (columns["who"]["foreign_key"], columns["boss"]["foreign_key"]) == ("people.code", "people.code")
    assert _column(tmp_path / "out", "people", "vip") == ("bool", [True, False, True])
    assert _column(tmp_path / "out", "people", "mess") == ("string", ["5", "five", "6"])
    assert _column(tmp_path / "out", "people", "ratio") == ("double", [1.0, 2.5, None])
    assert _column(tmp_path / "out", "people", "born")[1] == ["2000-01-01", None, "é"]
    said = "\n".join(sorted(done.warnings))
    assert "lines: the foreign key (who, n) -> `odd name:x` (who, n) is left out: it has 2 columns" in said
    assert "odd name:x: its primary key has 2 columns (who, n)" in said
    assert "people.mess: values of several types (2 integer, 1 text), as 'five'; kept as text" in said
    assert len(done.warnings) == 3


def test_sqlite_tables_and_views_are_chosen(tmp_path: Path) -> None:
    path = _sqlite(tmp_path / "shop.db", _SHOP)
    done = _import(path, tmp_path / "out", tables=["lines", "v"], views=True)
    assert sorted(done.draft.metadata["tables"]) == ["lines", "v"]
    assert any("`odd name:x` is not imported" in each or "it has 2 columns" in each for each in done.warnings)
    with pytest.raises(ValueError, match="no table `nope`; there are `lines`"):
        _import(path, tmp_path / "out2", tables=["nope"])


def test_sqlite_goes_the_whole_road(tmp_path: Path) -> None:
    """What is imported can be preprocessed."""
    from tributary.preprocess import preprocess

    _import(_sqlite(tmp_path / "shop.db", _SHOP), tmp_path / "out")
    outcome = preprocess(tmp_path / "out", tmp_path / "db")
    assert {table.name: table.num_rows for table in outcome.manifest.tables} == {
        "lines": 1,
        "odd name:x": 2,
        "people": 3,
    }


def test_sqlite_is_read_at_one_moment(tmp_path: Path, monkeypatch: Any) -> None:
    """What is written while an import runs is in no table of it."""
    from tributary.importing.sqlite import SqliteSource

    path = _sqlite(tmp_path / "a.db", "PRAGMA journal_mode = wal; CREATE TABLE a (x); CREATE TABLE b (x);")
    writer = sqlite3.connect(path)
    with SqliteSource(path) as source:
        assert [table.num_rows for table in source.tables()] == [0, 0]
        writer.execute("INSERT INTO b VALUES (1)")
        writer.commit()
        assert sum(batch.num_rows for batch in source.batches("b")[1]) == 0
    writer.close()


# ---- DuckDB ---------------------------------------------------------------------------------------------------------


def test_duckdb_with_its_keys_and_comments(tmp_path: Path) -> None:
    path = tmp_path / "shop.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute(
            """CREATE TABLE people (code INTEGER PRIMARY KEY, u UUID, e ENUM('a', 'b'), h HUGEINT, l INTEGER[], t TIME);
            CREATE TABLE "visit log" (who INTEGER REFERENCES people (code), "at" TIMESTAMPTZ);
            CREATE VIEW v AS SELECT 1 AS one;
            COMMENT ON TABLE people IS 'who is who'; COMMENT ON COLUMN people.e IS 'a or b';
            INSERT INTO people VALUES (1, uuid(), 'a', 5, [1], '10:00'), (2, NULL, 'b', 6, NULL, NULL);
            INSERT INTO "visit log" VALUES (1, '2024-01-01 00:00:00+00'), (2, NULL);"""
        )
    done = _import(path, tmp_path / "out")
    tables = done.draft.metadata["tables"]
    assert sorted(tables) == ["people", "visit log"]
    assert tables["people"]["description"] == "who is who"
    assert tables["people"]["columns"]["e"]["description"] == "a or b"
    assert tables["people"]["primary_key"] == "code"
    assert tables["visit log"]["columns"]["who"]["foreign_key"] == "people.code"
    assert _column(tmp_path / "out", "people", "e") == ("string", ["a", "b"])
    assert _column(tmp_path / "out", "visit log", "at")[0] == "timestamp[us, tz=UTC]"
    assert done.warnings == []


def test_a_killed_run_leaves_nothing_under_its_name(tmp_path: Path) -> None:
    """SIGKILL while tables are read; the next run clears what is left."""
    script = (
        "import os, signal, sys; from tributary.importing import run, import_source\n"
        "run.draft = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "import_source(sys.argv[1], sys.argv[2])"
    )
    source = _csv(tmp_path, "t.csv", "a\n1\n")
    command = [sys.executable, "-c", script, str(source), str(tmp_path / "out")]
    done = subprocess.run(command, timeout=60, check=False, env=os.environ)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    assert not (tmp_path / "out").exists()
    _import(source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "t.csv"]
