"""Hostile inputs, made on the fly: a clean error that names the place, or a correct database; never half of one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tributary.errors import SchemaError, TributaryError
from tributary.preprocess import Outcome, PreprocessOptions, SqlLimits, preprocess, verify


def _change(path: str, value: Any) -> Callable[[Any], None]:
    """Sets a value deep in the metadata; `path` is separated by slashes."""

    def change(shop: Any) -> None:
        *parents, last = path.split("/")
        entry = shop.metadata
        for key in parents:
            entry = entry[key]
        entry[last] = value

    return change


def _values(table: str, column: str, values: list[Any]) -> Callable[[Any], None]:
    def change(shop: Any) -> None:
        shop.tables[table][column] = values

    return change


def _digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(path.relative_to(folder).as_posix().encode())
        found.update(path.read_bytes() if path.is_file() else b"")
    return found.hexdigest()


def _edges(outcome: Outcome) -> dict[str, int]:
    return {key.column: key.edges for table in outcome.manifest.tables for key in table.foreign_keys}


BAD = {
    "no tables": (_change("tables", {}), ["tables"]),
    "unknown field": (_change("tables/orders/primry_key", "id"), ["orders", "primry_key", "primary_key"]),
    "unknown stype": (_change("tables/orders/columns/amount/stype", "numeric"), ["amount", "numeric", "numerical"]),
    "missing file": (_change("tables/orders/file", "order.parquet"), ["order.parquet"]),
    "file outside": (_change("tables/orders/file", "../orders.parquet"), ["orders", ".."]),
    "absolute file": (_change("tables/orders/file", "/etc/passwd"), ["orders", "/etc/passwd"]),
    "missing column": (_change("tables/orders/columns/weight", {"stype": "numerical"}), ["orders", "weight"]),
    "key to nowhere": (
        _change("tables/orders/columns/customer_id/foreign_key", "clients.id"),
        ["customer_id", "clients"],
    ),
    "text as number": (_change("tables/customers/columns/name/stype", "numerical"), ["name", "numerical"]),
    "duplicate key": (_values("products", "id", [1, 2, 3, 3, 5]), ["products", "id", "3"]),
    "null key": (_values("products", "id", [1, 2, None, 4, 5]), ["products", "id", "null"]),
    "names that differ by case": (
        _change("tables/orders/columns/Amount", {"stype": "numerical"}),
        ["orders", "`amount`", "`Amount`"],
    ),
    "boolean of 2": (_values("orders", "is_gift", [0, 1, 2] * 20), ["is_gift", "2"]),
    "unknown target stype": (_change("tasks/churn/target_stype", "bolean"), ["churn", "bolean", "boolean"]),
    "unknown anchor table": (_change("tasks/churn/anchor_table", "customer"), ["churn", "customer", "customers"]),
    "unknown target": (_change("tasks/churn/target_column", "churned"), ["churn", "churned"]),
    "unknown time": (_change("tasks/churn/observation_time_column", "obs"), ["churn", "obs"]),
    "empty query": (_change("tasks/churn/query", ""), ["churn", "query"]),
    "two statements": (_change("tasks/churn/query", "SELECT 1; SELECT 2"), ["churn", "one"]),
    "no label table": (
        lambda shop: shop.metadata["tasks"]["churn"].update(query=None, table="labels.parquet"),
        ["churn", "labels.parquet"],
    ),
    "unknown cell": (_change("tasks/country/target_column", "land"), ["country", "land"]),
    "null time": (
        _change(
            "tasks/churn/query", "SELECT id AS customer_id, NULL::TIMESTAMP AS obs_time, true AS churn FROM customers"
        ),
        ["churn", "obs_time"],
    ),
    "text label": (
        _change(
            "tasks/spend/query",
            "SELECT id AS customer_id, TIMESTAMP '2020-02-01' AS obs_time, 'much' AS spend FROM customers",
        ),
        ["spend", "numerical"],
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(shop, tmp_path: Path, case: str) -> None:
    change, words = BAD[case]
    change(shop)
    folder = shop.write()
    before = _digest(folder)
    with pytest.raises((TributaryError, OSError)) as caught:
        preprocess(folder, tmp_path / "db")
    message = str(caught.value)
    for word in words:
        assert word in message, message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop"]
    assert _digest(folder) == before


@pytest.mark.parametrize("damage", ["truncated", "zeros", "text", "empty"])
def test_damaged_parquet_is_named(shop, tmp_path: Path, damage: str) -> None:
    folder = shop.write()
    path = folder / "orders.parquet"
    content = path.read_bytes()
    path.write_bytes(
        {"truncated": content[:-20], "zeros": bytes(len(content)), "text": b"a,b\n1,2\n", "empty": b""}[damage]
    )
    with pytest.raises((TributaryError, OSError), match=r"orders\.parquet"):
        preprocess(folder, tmp_path / "db")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["shop"]


def test_dangling_and_null_keys_are_counted(shop, tmp_path: Path) -> None:
    shop.tables["orders"]["customer_id"][:5] = [None, None, 99, 98, 97]
    folder = shop.write()
    outcome = preprocess(folder, tmp_path / "db")
    assert _edges(outcome) == {"customer_id": 55, "product_id": 60}
    key = outcome.manifest.tables[2].foreign_keys[0]
    assert (key.dangling, key.null) == (3, 2)
    assert any("customer_id" in warning for warning in outcome.manifest.warnings)
    with pytest.raises(SchemaError, match="customer_id"):
        preprocess(folder, tmp_path / "strict", options=PreprocessOptions(strict=True))


def test_hostile_names(shop, tmp_path: Path) -> None:
    name = "../../na\"ïve 't' 订单\n%s {0}"
    shop.metadata["tables"][name] = shop.metadata["tables"].pop("products")
    shop.metadata["tables"][name]["columns"]["🚀 \"c\" '%s'"] = {"stype": "numerical"}
    shop.metadata["tables"]["orders"]["columns"]["product_id"]["foreign_key"] = f"{name}.id"
    shop.tables["products"]["🚀 \"c\" '%s'"] = [1.0] * 5
    shop.metadata["tasks"]["../tâche 🎯"] = shop.metadata["tasks"].pop("churn")
    outcome = preprocess(shop.write(), tmp_path / "db")
    assert {table.name: table.num_rows for table in outcome.manifest.tables}[name] == 5
    assert _edges(outcome)["product_id"] == 60
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db", "shop"]
    assert verify(tmp_path / "db")


def test_empty_tables(shop, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = shop.write()
    for name in shop.tables:
        table = pq.read_table(folder / f"{name}.parquet")
        pq.write_table(table.slice(0, 0), folder / f"{name}.parquet")
        assert isinstance(table, pa.Table)
    outcome = preprocess(folder, tmp_path / "db")
    assert [table.num_rows for table in outcome.manifest.tables] == [0, 0, 0]


def test_times_keep_their_instant(shop, tmp_path: Path) -> None:
    from tributary import _headwater

    instant = datetime(2020, 1, 5, 23, 30, tzinfo=UTC)
    shop.tables["customers"]["signup_ts"] = [instant] * 11 + [None]
    preprocess(shop.write(), tmp_path / "db")
    database = _headwater.Database(tmp_path / "db")
    times = database.row_times("customers")
    assert times[0] == int(instant.timestamp()) * 1_000_000
    assert times[11] == 2**63 - 1
    values, is_valid = database.column("customers", "signup_ts")
    assert values[0] == times[0]
    assert is_valid.tolist() == [True] * 11 + [False]


def test_numbers_that_are_none_are_counted(shop, tmp_path: Path) -> None:
    shop.tables["orders"]["amount"][:4] = [float("nan"), float("inf"), float("-inf"), None]
    outcome = preprocess(shop.write(), tmp_path / "db")
    amount = next(column for column in outcome.manifest.tables[2].columns if column.name == "amount")
    assert amount.statistics["nulls"] == 4
    assert amount.statistics["non_finite"] == 3
    assert any("amount" in warning for warning in outcome.manifest.warnings)


def test_unlisted_columns_and_files_are_warned_about(shop, tmp_path: Path) -> None:
    shop.tables["orders"]["extra_column"] = [1] * 60
    folder = shop.write()
    (folder / "stray.parquet").write_bytes((folder / "products.parquet").read_bytes())
    warnings = " ".join(preprocess(folder, tmp_path / "db").manifest.warnings)
    assert "extra_column" in warnings
    assert "stray.parquet" in warnings


def test_a_query_cannot_change_what_the_next_one_sees(shop, tmp_path: Path) -> None:
    shop.metadata["tasks"]["churn"]["query"] = (
        "WITH gone AS (DELETE FROM orders RETURNING *) SELECT id AS customer_id,"
        " TIMESTAMP '2020-02-01' AS obs_time, true AS churn FROM customers"
    )
    with pytest.raises(SchemaError, match="task `churn`"):
        preprocess(shop.write(), tmp_path / "db", options=PreprocessOptions(sql=SqlLimits(seconds=10)))


def test_metadata_with_a_byte_order_mark(shop, tmp_path: Path) -> None:
    folder = shop.write()
    text = json.dumps(shop.metadata)
    (folder / "metadata.json").write_text("\ufeff" + text, encoding="utf-8")
    assert len(preprocess(folder, tmp_path / "db").manifest.tasks) == 3
    for content in (b'{"tables": {},}', b"\xff\xfe{}", b""):
        (folder / "metadata.json").write_bytes(content)
        with pytest.raises(SchemaError, match=r"metadata\.json"):
            preprocess(folder, tmp_path / "other")
