"""The SQL child: one read-only SELECT, fenced in, with messages that name the task."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from tributary.errors import SchemaError
from tributary.preprocess.sql_engine import SqlEngine, SqlLimits


def _engine(shop, scratch: Path, **limits: float) -> SqlEngine:
    folder = shop.write()
    scratch.mkdir()
    return SqlEngine({name: [folder / f"{name}.parquet"] for name in shop.tables}, scratch, SqlLimits(**limits))


@pytest.fixture
def engine(shop, tmp_path: Path) -> Iterator[SqlEngine]:
    with _engine(shop, tmp_path / "scratch", seconds=20) as engine:
        engine.result = engine.outputs(1)[0]  # type: ignore[attr-defined]
        yield engine


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "the query is empty"),
        ("-- nothing", "the query is empty"),
        ("SELECT 1; SELECT 2", "one SELECT statement, found 2"),
        ("DROP VIEW orders", "read-only SELECT statement, found DROP"),
        ("CREATE TABLE t AS SELECT 1", "found CREATE"),
        ("INSERT INTO orders SELECT * FROM orders", "found INSERT"),
        ("UPDATE orders SET amount = 1", "found UPDATE"),
        ("PRAGMA memory_limit='1TB'", "read-only SELECT"),
        ("SET threads = 8", "found SET"),
        ("INSTALL httpfs", "found LOAD"),
        ("LOAD httpfs", "found LOAD"),
        ("ATTACH 'other.db'", "found ATTACH"),
        ("COPY orders TO 'orders.csv'", "found COPY"),
        ("CALL pragma_version()", "found CALL"),
        ("SELECT $1", r"parameters without a value: \$1"),
        ("SELEC 1", "syntax error"),
        ("SELECT idd FROM customers", 'column "idd" not found'),
        ("SELECT id FROM custmers", "custmers"),
        ("WITH d AS (DELETE FROM orders RETURNING *) SELECT 1 AS a", "found DELETE in it"),
        ("SELECT 1" + "+1" * 50_000, "depth"),
        ("SELECT * FROM read_text('/etc/passwd')", "sees the tables of the database and nothing else"),
        ("SELECT * FROM '/etc/passwd'", "/etc/passwd"),
        ("SELECT * FROM glob('/*')", "nothing else"),
        ("SELECT * FROM read_csv('https://example.com/a.csv')", "nothing else"),
        ("SELECT getenv('PATH')", "getenv"),
        ("SELECT * FROM query('DROP VIEW orders')", "may not run the text of another one"),
        ("SELECT * FROM query('SELECT 1 AS a')", "may not run the text of another one"),
        ("SELECT * FROM \"QUERY\"('SELECT 1 AS a')", "may not run the text of another one"),
        ("WITH x AS (COPY (SELECT 1 AS a) TO 'x.parquet') SELECT * FROM x", "found COPY in it"),
        ("WITH x AS (INSERT INTO orders VALUES (1) RETURNING *) SELECT * FROM x", "found INSERT in it"),
        ("WITH x AS (UPDATE orders SET id = 1 RETURNING *) SELECT * FROM x", "found UPDATE in it"),
    ],
)
def test_refused(engine: SqlEngine, query: str, message: str) -> None:
    with pytest.raises(SchemaError, match=f"(?s)^query of task `churn`: .*{message}"):
        engine.check("churn", query)
    assert engine.check("other", "SELECT count(*) AS n FROM orders").columns == (("n", "BIGINT"),)


def test_result_holds_the_asked_columns(engine: SqlEngine) -> None:
    query = "SELECT id AS k, upper(name) AS n, 1 AS unused FROM customers WHERE id < 3 -- the end"
    assert [name for name, _ in engine.check("t", query).columns] == ["k", "n", "unused"]
    engine.run("t", query, ["n", "k"], engine.result)
    assert duckdb.read_parquet(str(engine.result)).fetchall() == [("CUSTOMER 0", 1), ("CUSTOMER 1", 2)]


def test_time_limit(shop, tmp_path: Path) -> None:
    with _engine(shop, tmp_path / "scratch", seconds=1.0) as engine:
        (result,) = engine.outputs(1)
        with pytest.raises(SchemaError, match=r"query of task `slow`: took longer than 1 seconds .*time limit"):
            engine.run("slow", "SELECT count(*) AS n FROM range(1000000000000) a, range(10) b", ["n"], result)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT length(repeat('x', 4000000000 + id)) AS n FROM customers",
        "SELECT list(a) AS n FROM range(100000000000) t(a)",
    ],
)
def test_memory_limit(shop, tmp_path: Path, query: str) -> None:
    with _engine(shop, tmp_path / "scratch", seconds=60, memory_bytes=512 << 20) as engine:
        (result,) = engine.outputs(1)
        with pytest.raises(SchemaError, match=r"(?s)^query of task `big`: .*memory limit.*0\.5 GiB"):
            engine.run("big", query, ["n"], result)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELECT random() AS a, uuid () AS b", ("random", "uuid")),
        ("SELECT now() AS a, current_date AS b, CURRENT_TIMESTAMP AS c", ("current_date", "current_timestamp", "now")),
        ("SELECT id FROM customers TABLESAMPLE 10%", ("tablesample",)),
        ("SELECT 'random()' AS a, id AS \"now()\" /* uuid() */ FROM customers -- now()", ()),
        ("SELECT year(ts) AS a, ts AT TIME ZONE 'Europe/Berlin' AS b FROM orders", ()),
    ],
)
def test_words_that_vary_from_run_to_run(engine: SqlEngine, query: str, words: tuple[str, ...]) -> None:
    assert engine.check("t", query).unstable == words


def test_hostile_names_of_tables_and_files(shop, tmp_path: Path) -> None:
    shop.folder = tmp_path / "in [1]*? 'x' \"y\""
    folder = shop.write()
    scratch = tmp_path / "scr'atch [2]"
    scratch.mkdir()
    with SqlEngine({'sel "ect\n%s': [folder / "orders.parquet"]}, scratch, SqlLimits()) as engine:
        (result,) = engine.outputs(1)
        engine.run("t", 'SELECT count(*) AS n FROM "sel ""ect\n%s"', ["n"], result)
        assert result.stat().st_size > 0


def test_unreadable_table_is_known_by_name(shop, tmp_path: Path) -> None:
    folder = shop.write()
    (folder / "orders.parquet").write_bytes(b"not parquet at all")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    tables = {name: [folder / f"{name}.parquet"] for name in shop.tables}
    with SqlEngine(tables, scratch, SqlLimits()) as engine:
        assert list(engine.broken_tables("t")) == ["orders"]
        with pytest.raises(SchemaError, match=r"(?s)query of task `t`: .*`orders` cannot be read: .*orders\.parquet"):
            engine.check("t", "SELECT * FROM orders")
        engine.check("t", "SELECT * FROM customers")


def test_child_does_not_see_the_environment(engine: SqlEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    engine.check("t", "SELECT 1 AS a")
    assert engine._child is not None
    assert b"sk-secret" not in Path(f"/proc/{engine._child.pid}/environ").read_bytes()


def test_child_ends_with_the_engine(engine: SqlEngine) -> None:
    engine.check("t", "SELECT 1 AS a")
    assert engine._child is not None
    pid = engine._child.pid
    engine.close()
    engine.close()
    assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("end", ["", ";", " ; -- done", "; /* done; */ ;", " -- done", "\n;\n"])
def test_what_follows_a_statement_does_not_matter(engine: SqlEngine, end: str) -> None:
    query = "SELECT id, '; -- no' AS text FROM customers" + end
    engine.check("churn", query)
    engine.run("churn", query, ["id", "text"], engine.result)  # type: ignore[attr-defined]
    assert duckdb.sql(f"SELECT count(*) FROM '{engine.result}' WHERE text = '; -- no'").fetchall() == [(12,)]  # type: ignore[attr-defined]


def test_a_flood_of_labels_is_refused(shop, tmp_path: Path) -> None:
    """More labels than reading them has memory for would end the process that asked, not this one."""
    with _engine(shop, tmp_path / "scratch", seconds=20, memory_bytes=512 << 20) as engine:
        (result,) = engine.outputs(1)
        query = "SELECT 1 AS id FROM range(9000000)"
        engine.check("churn", query)
        with pytest.raises(SchemaError, match=r"the result has 9,000,000 rows, more than .* --sql-memory"):
            engine.run("churn", query, ["id"], result)


def test_a_stopped_query_is_gone_at_once(shop, tmp_path: Path) -> None:
    with _engine(shop, tmp_path / "scratch", seconds=1) as engine:
        (result,) = engine.outputs(1)
        query = "SELECT count(*) AS n FROM range(1000000) a, range(1000000) b WHERE a.range * b.range = 7"
        engine.check("churn", query)
        child = engine._child
        assert child is not None
        with pytest.raises(SchemaError, match="time limit"):
            engine.run("churn", query, ["n"], result)
        assert child.wait(timeout=5) == -9


def test_a_sample_varies(engine: SqlEngine) -> None:
    assert engine.check("churn", "SELECT id FROM orders USING SAMPLE 5").unstable == ("using sample",)


def test_a_quoted_function_varies_like_any_other(engine: SqlEngine) -> None:
    query = "SELECT \"random\"() AS r, 'now()' AS text, $$uuid()$$ AS more -- current_date"
    assert engine.check("churn", query).unstable == ("random",)


def test_hard_limits_of_the_user_are_kept(shop, tmp_path: Path) -> None:
    """A limit that was lowered for good cannot be raised, and is no reason to fail."""
    import resource
    import subprocess
    import sys

    limits = {resource.RLIMIT_FSIZE: 1 << 20, resource.RLIMIT_CPU: 50, resource.RLIMIT_AS: 3 << 30}
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from tributary.preprocess.sql_engine import SqlEngine, SqlLimits\n"
        f"for what, limit in {limits}.items(): resource.setrlimit(what, (limit, limit))\n"
        "with SqlEngine({}, Path(sys.argv[1]), SqlLimits()) as engine:\n"
        "    print(engine.check('t', 'SELECT 1 AS one').columns)"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.stdout == "(('one', 'INTEGER'),)\n", result.stderr


@pytest.mark.parametrize(
    "query",
    [
        "WITH x AS (COPY (SELECT 42 AS id) TO '{file}' (FORMAT parquet, USE_TMP_FILE false)) SELECT * FROM x",
        "with x as materialized (copy orders to '{file}' (use_tmp_file false, format parquet)) from x",
        "WITH y AS (WITH x AS (COPY orders TO '{file}' (USE_TMP_FILE false)) FROM x) FROM y",
        "SELECT * FROM query('WITH x AS (COPY orders TO ''{file}'' (USE_TMP_FILE false)) FROM x')",
        "SELECT * FROM (WITH x AS (COPY orders TO '{file}' (USE_TMP_FILE false)) FROM x) z",
        "COPY orders TO '{file}' (USE_TMP_FILE false)",
    ],
)
def test_a_query_cannot_write_the_files_it_reads(shop, tmp_path: Path, query: str) -> None:
    with _engine(shop, tmp_path / "scratch", seconds=20) as engine:
        file = shop.folder / "customers.parquet"
        before = file.read_bytes()
        with pytest.raises(SchemaError, match="query of task `churn`: the query"):
            engine.check("churn", query.format(file=file))
        assert file.read_bytes() == before


def test_text_that_looks_like_a_node_is_text(engine: SqlEngine) -> None:
    query = 'SELECT \'"type":"COPY_NODE" "function_name":"query"\' AS text, 1 AS """type"":""X_NODE"""'
    assert next(iter(engine.check("churn", query).columns)) == ("text", "VARCHAR")
