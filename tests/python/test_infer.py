"""Inference: names, keys, links, times and stypes of made-up folders with traps, and of the shared databases."""

from __future__ import annotations

import json
import random
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tributary.infer import draft
from tributary.infer.files import find_tables
from tributary.infer.words import says_id, singular, table_words, without_id, words
from tributary.metadata import Description

_ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(_ROOT / "benches"))
_START = datetime(2021, 1, 1)


# ---- words ----------------------------------------------------------------------------------------------------------


def test_names_are_cut_into_words() -> None:
    assert words("LastEditorUserId") == ("last", "editor", "user", "id")
    assert words("HTTPStatus_code2") == ("http", "status", "code", "2")
    assert [singular(word) for word in ("categories", "boxes", "statuses", "class", "species")] == [
        "category",
        "box",
        "status",
        "class",
        "species",
    ]
    assert table_words("dim_customers") == ("customer",)
    assert without_id("owner_user_id") == ("owner", "user")
    assert without_id("l_orderkey") == ("l", "order")
    assert without_id("concept_id_2") == ("concept",)
    assert says_id("concept_id_2")
    assert not says_id("valid")


def test_numbered_files_are_parts(tmp_path: Path) -> None:
    for name in ("orders-0001", "orders-0002", "users", "f1-2010"):
        pq.write_table(pa.table({"x": [1]}), tmp_path / f"{name}.parquet")
    (tmp_path / "events").mkdir()
    pq.write_table(pa.table({"x": [1]}), tmp_path / "events" / "a.parquet")
    found = find_tables(tmp_path)
    assert list(found) == ["events", "f1-2010", "orders", "users"]
    assert [path.name for path in found["orders"]] == ["orders-0001.parquet", "orders-0002.parquet"]
    with pytest.raises(ValueError, match="no parquet file"):
        find_tables(tmp_path / "events" / "..") if not found else find_tables(_empty(tmp_path))


def _empty(folder: Path) -> Path:
    (folder / "none").mkdir()
    return folder / "none"


# ---- a folder with traps --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A draft of a company whose small integers all lie in each other's keys."""
    folder = tmp_path_factory.mktemp("company")
    draw = random.Random(1)
    num = 400

    def day(least: int, most: int) -> datetime:
        return _START + timedelta(days=draw.randrange(least, most), hours=draw.randrange(24))

    employees = {
        "employee_id": list(range(1, 31)),
        "name": [f"name {i}" for i in range(30)],
        "birth_date": [_START - timedelta(days=9000 + 37 * i) for i in range(30)],
        "hire_date": [_START - timedelta(days=300 + i) for i in range(30)],
        "reports_to": [None, *[draw.randrange(1, 4) for _ in range(29)]],
        "office": [draw.choice(["OSL", "STO", "CPH", "HEL"]) for _ in range(30)],
    }
    offices = {
        "iata": ["OSL", "STO", "CPH", "HEL", "LON"],
        "city": ["Oslo", "Stockholm", "Kobenhavn", "Helsinki", "London"],
    }
    customers = {
        "id": list(range(1, 101)),
        "signed_up": [day(-400, 0) for _ in range(100)],
        "sales_rep_id": [draw.randrange(1, 31) for _ in range(100)],
        "num_orders": [0] * 100,
        "email": [f"person{i}@example.org" for i in range(100)],
    }
    ordered = sorted(day(0, 700) for _ in range(num))
    orders = {
        "order_id": list(range(1, num + 1)),
        "customer_id": [draw.randrange(1, 101) for _ in range(num)],
        "ordered_at": ordered,
        "shipped_at": [t + timedelta(days=3) if t < _START + timedelta(days=650) else None for t in ordered],
        "quantity": [draw.randrange(1, 30) for _ in range(num)],
        "status": [draw.choice(["new", "paid", "sent"]) for _ in range(num)],
        "is_gift": [draw.randrange(2) for _ in range(num)],
        "note": [" ".join(draw.choices(["please", "leave", "at", "the", "door", "thanks"], k=6)) for _ in range(num)],
    }
    for customer in orders["customer_id"]:
        customers["num_orders"][customer - 1] += 1
    tables = {"employees": employees, "offices": offices, "customers": customers, "orders": orders}
    for name, table in tables.items():
        pq.write_table(pa.table(table), folder / f"{name}.parquet")
    return draft(folder), folder


def test_keys_links_and_times_of_a_folder_with_traps(found: Any) -> None:
    tables = found[0].metadata["tables"]
    assert {name: table.get("primary_key") for name, table in tables.items()} == {
        "customers": "id",
        "employees": "employee_id",
        "offices": "iata",
        "orders": "order_id",
    }
    links = {
        f"{name}.{column}": each["foreign_key"]
        for name, table in tables.items()
        for column, each in table["columns"].items()
        if "foreign_key" in each
    }
    assert links == {
        "customers.sales_rep_id": "employees.employee_id",
        "employees.office": "offices.iata",
        "employees.reports_to": "employees.employee_id",
        "orders.customer_id": "customers.id",
    }
    assert {name: table.get("temporal_column") for name, table in tables.items()} == {
        "customers": "signed_up",
        "employees": "hire_date",
        "offices": None,
        "orders": "ordered_at",
    }


def test_stypes(found: Any) -> None:
    columns = found[0].metadata["tables"]["orders"]["columns"]
    stypes = {name: each["stype"] for name, each in columns.items()}
    assert (stypes["quantity"], stypes["status"], stypes["is_gift"]) == ("numerical", "categorical", "boolean")
    assert (stypes["note"], stypes["shipped_at"]) == ("text", "timestamp")
    assert found[0].metadata["tables"]["customers"]["columns"]["email"]["stype"] == "ignored"


def test_what_knows_the_future_is_suspected(found: Any) -> None:
    suspects = {(each.table, each.column): each.reason for each in found[0].leak_suspects}
    assert "later than `ordered_at`" in suspects["orders", "shipped_at"]
    assert "equals the count of `orders`" in suspects["customers", "num_orders"]
    assert set(suspects) == {("orders", "shipped_at"), ("customers", "num_orders")}


def test_tasks_are_tried_and_the_draft_is_a_description(found: Any, tmp_path: Path) -> None:
    drafted = found[0]
    tasks = {each.name: each for each in drafted.tasks}
    churn = next(each for name, each in tasks.items() if name.endswith("none") and "orders" in name)
    assert churn.query.startswith("PREDICT COUNT(orders.*, 0, ")
    assert churn.name in drafted.metadata["tasks"]
    assert "labels" in churn.reason
    assert tasks["offices-city"].task is None
    assert "too few" in tasks["offices-city"].reason
    path = tmp_path / "metadata.json"
    path.write_text(json.dumps(drafted.metadata))
    assert set(Description.load(path).tables) == {"customers", "employees", "offices", "orders"}


def test_every_choice_says_why(found: Any) -> None:
    drafted = found[0]
    chosen = drafted.foreign_keys["employees", "reports_to"].chosen
    assert "named after another row of its table" in chosen.reason
    rejected = {each.value for each in drafted.temporal_columns["orders"].rejected}
    assert rejected == {"shipped_at"}
    birth = next(each for each in drafted.temporal_columns["employees"].rejected if each.value == "birth_date")
    assert "a birth is a fact about a person" in birth.reason


def test_the_command_writes_once(found: Any, tributary_command: Any, tmp_path: Path) -> None:
    target = tmp_path / "metadata.json"
    done = tributary_command("metadata", "infer", found[1], "--out", target, "--no-tasks", "--why")
    assert done.returncode == 0, done.stderr
    assert "orders.customer_id: foreign key: customers.id" in done.stdout
    assert json.loads(target.read_text())["tables"]["orders"]["primary_key"] == "order_id"
    again = tributary_command("metadata", "infer", found[1], "--out", target)
    assert again.returncode == 2
    assert "--force replaces it" in again.stderr
    assert not (found[1] / "metadata.json").exists()


# ---- the shared databases -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_shared_databases_beside_their_schemas(shared_data: Any) -> None:
    from infer import compare

    kinds: dict[str, list[int]] = {}
    for name in ("chinook", "gibleed", "northwind", "nycflights13", "rel-f1", "sakila", "stats-ceb", "unvotes"):
        folder = shared_data(name)
        schema = json.loads((folder / "SCHEMA.json").read_text())
        reviewed = json.loads((_ROOT / "data" / "metadata" / f"{name}.json").read_text())
        sets = compare(draft(folder / "raw", with_tasks=False).metadata, schema, reviewed)
        for kind, (true, inferred) in sets.items():
            counts = kinds.setdefault(kind, [0, 0, 0])
            for idx, members in enumerate((true & inferred, true, inferred)):
                counts[idx] += len(members)
    for kind, least in (("primary keys", 0.95), ("foreign keys", 0.95), ("times", 0.9), ("stypes", 0.8)):
        both, true, inferred = kinds[kind]
        assert both / inferred >= least, kind
        assert both / true >= least, kind
