"""`tributary metadata check`: every planted fault is found at its place, and a sound database is quiet."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tributary.check import Finding, check
from tributary.check.times import check_times
from tributary.errors import SchemaError
from tributary.infer import Profiler
from tributary.metadata import Description

_START = datetime(2020, 1, 1)
_NUM = 300


def _tables() -> dict[str, dict[str, list[Any]]]:
    ordered = [_START + timedelta(days=idx) for idx in range(_NUM)]
    return {
        "customers": {"id": list(range(100)), "joined": [_START - timedelta(days=9)] * 100, "city": ["a", "b"] * 50},
        "orders": {
            "id": list(range(_NUM)),
            "customer_id": [idx % 100 for idx in range(_NUM)],
            "ts": ordered,
            "amount": [float(idx * 7 % 31) for idx in range(_NUM)],
            "returned": [idx % 3 == 0 for idx in range(_NUM)],
        },
    }


def _description() -> dict[str, Any]:
    stypes = {
        "customers": {"id": "identifier", "joined": "timestamp", "city": "categorical"},
        "orders": {
            "id": "identifier",
            "customer_id": "identifier",
            "ts": "timestamp",
            "amount": "numerical",
            "returned": "boolean",
        },
    }
    tables = {
        name: {"primary_key": "id", "columns": {column: {"stype": stype} for column, stype in columns.items()}}
        for name, columns in stypes.items()
    }
    tables["customers"]["temporal_column"] = "joined"
    tables["orders"]["temporal_column"] = "ts"
    tables["orders"]["columns"]["customer_id"]["foreign_key"] = "customers.id"  # type: ignore[index]
    return {
        "name": "shop",
        "tables": tables,
        "tasks": {"returned": {"anchor_table": "orders", "target_column": "returned"}},
    }


def _check(folder: Path, tables: dict[str, Any], description: dict[str, Any]) -> list[Finding]:
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), folder / f"{name}.parquet")
    (folder / "metadata.json").write_text(json.dumps(description))
    return check(folder)


def test_a_sound_database_is_quiet(tmp_path: Path) -> None:
    found = _check(tmp_path, _tables(), _description())
    assert [(each.kind, each.place) for each in found] == [("constant column", "customers.joined")]


def _found(findings: list[Finding], kind: str) -> list[tuple[str, str, str]]:
    return [(each.severity, each.place, each.message) for each in findings if each.kind == kind]


def test_keys(tmp_path: Path) -> None:
    tables = _tables()
    tables["customers"]["id"][:3] = [None, 7, 7]
    tables["orders"]["customer_id"][0] = 900
    found = _check(tmp_path, tables, _description())
    assert _found(found, "null keys") == [("error", "customers.id", "1 of 100 rows have no key")]
    assert _found(found, "duplicate keys") == [("error", "customers.id", "1 keys stand in several rows: 7 (3 rows)")]
    severity, place, message = _found(found, "orphans")[0]
    assert (severity, place) == ("note", "orders.customer_id")
    assert message.startswith("9 of 300 values (3.0%) name no row of `customers`, as 0, 1, 2")
    assert [each.severity for each in found] == sorted(
        (each.severity for each in found), key=["error", "warning", "note"].index
    )


def test_keys_of_two_types(tmp_path: Path) -> None:
    tables = _tables()
    tables["orders"]["customer_id"] = [str(key) for key in tables["orders"]["customer_id"]]
    found = _found(_check(tmp_path, tables, _description()), "key types")
    assert found == [
        ("error", "orders.customer_id", "it holds VARCHAR, `customers.id` holds BIGINT: no value can agree")
    ]


def test_times(tmp_path: Path) -> None:
    tables, description = _tables(), _description()
    tables["orders"]["ts"][:25] = [datetime(1970, 1, 1)] * 25
    tables["orders"]["ts"][-1] = datetime(2400, 1, 1)
    tables["orders"]["ts"][30] = None
    found = _check(tmp_path, tables, description)
    assert _found(found, "future dates")[0][1] == "orders.ts"
    assert _found(found, "placeholder dates")[0][2].startswith("25 values are a day that stands for none")
    assert _found(found, "null times") == [
        ("note", "orders.ts", "1 rows (0.3%) have no time and are visible to nobody")
    ]
    del description["tables"]["orders"]["temporal_column"]
    assert _found(_check(tmp_path, tables, description), "undated events")[0][1] == "orders"


def test_now_is_an_argument(tmp_path: Path) -> None:
    _check(tmp_path, _tables(), _description())
    described = Description.load(tmp_path / "metadata.json")
    profiler = Profiler(described.table_files(tmp_path))
    tables = {name: dict(table) for name, table in described.tables.items()}
    profiles = profiler.profile()
    early = datetime(2020, 6, 1, tzinfo=UTC)
    assert [each.kind for each in check_times(profiler, profiles, tables, early)] == ["future dates"]
    profiler.close()


def test_columns_unlike_their_stype(tmp_path: Path) -> None:
    tables, description = _tables(), _description()
    orders, columns = tables["orders"], description["tables"]["orders"]["columns"]
    orders["code"] = [f"c{idx}" for idx in range(_NUM)]
    orders["level"] = [idx % 4 for idx in range(_NUM)]
    orders["when"] = ["soon"] * 10 + ["2020-01-01"] * (_NUM - 10)
    orders["kind"] = [f"kind {idx % 3}" for idx in range(_NUM)]
    orders["extra"] = [1] * _NUM
    for name, stype in (("code", "categorical"), ("level", "boolean"), ("when", "timestamp"), ("kind", "text")):
        columns[name] = {"stype": stype}
    found = {
        place: (severity, message)
        for severity, place, message in _found(_check(tmp_path, tables, description), "stype")
    }
    assert found == {
        "orders.code": ("warning", "categorical, but 300 of 300 values are distinct"),
        "orders.level": ("error", "boolean, but it goes from 0 to 3"),
        "orders.when": ("error", "timestamp, but 3.3% of its values are no ISO 8601 times"),
        "orders.kind": ("note", "text, but it has 3 values"),
    }


def test_tables_that_nothing_reaches(tmp_path: Path) -> None:
    tables, description = _tables(), _description()
    tables["weather"] = {"day": [1, 2], "rain": [0.5, 1.5]}
    description["tables"]["weather"] = {"columns": {"day": {"stype": "numerical"}, "rain": {"stype": "numerical"}}}
    assert _found(_check(tmp_path, tables, description), "unreachable") == [
        ("warning", "weather", "no foreign key leads to it or away from it")
    ]


def test_label_leaks(tmp_path: Path) -> None:
    tables, description = _tables(), _description()
    orders, columns = tables["orders"], description["tables"]["orders"]["columns"]
    orders["refund"] = [1.0 + idx if back else 0.0 for idx, back in enumerate(orders["returned"])]
    orders["return_code"] = ["x" if back else None for back in orders["returned"]]
    orders["returned_at"] = [ts + timedelta(days=5) for ts in orders["ts"]]
    columns |= {"refund": {"stype": "numerical"}, "return_code": {"stype": "categorical"}}
    columns["returned_at"] = {"stype": "timestamp"}
    found = _check(tmp_path, tables, description)
    leaks = {place: message for _, place, message in _found(found, "label leak")}
    assert set(leaks) == {"task returned: orders.refund", "task returned: orders.return_code"}
    assert "its values rank the labels almost perfectly (AUROC 1.000" in leaks["task returned: orders.refund"]
    assert "whether it is empty tells" in leaks["task returned: orders.return_code"]
    assert _found(found, "may know the future")[0][1] == "orders.returned_at"
    description["tasks"]["returned"]["remove_columns"] = [
        ["orders", "refund"],
        ["orders", "return_code"],
        ["orders", "returned_at"],
    ]
    quiet = _check(tmp_path, tables, description)
    assert not _found(quiet, "label leak")
    assert not _found(quiet, "may know the future")


def test_a_label_query_that_leaks(tmp_path: Path) -> None:
    tables, description = _tables(), _description()
    tables["customers"]["closed"] = [idx % 2 == 0 for idx in range(100)]
    description["tables"]["customers"]["columns"]["closed"] = {"stype": "boolean"}
    description["tasks"]["leaves"] = {
        "query": "SELECT id, TIMESTAMP '2020-06-01' AS at, id % 2 = 0 AS gone FROM customers",
        "anchor_table": "customers",
        "anchor_key": "id",
        "target_column": "gone",
        "target_stype": "boolean",
        "observation_time_column": "at",
    }
    found = _found(_check(tmp_path, tables, description), "label leak")
    assert [place for _, place, _ in found] == ["task leaves: customers.closed"]


def test_what_cannot_be_checked_is_said(tmp_path: Path) -> None:
    tables, description = _tables(), _description()
    _check(tmp_path, tables, description)
    (tmp_path / "orders.parquet").unlink()
    with pytest.raises(SchemaError, match="table `orders`: no file"):
        check(tmp_path)


def test_the_command_exits_with_1_on_errors(tmp_path: Path, tributary_command: Any) -> None:
    tables = _tables()
    tables["customers"]["id"][0] = None
    _check(tmp_path, tables, _description())
    done = tributary_command("metadata", "check", tmp_path)
    assert done.returncode == 1, done.stderr
    assert "error customers.id: null keys: 1 of 100 rows have no key" in done.stdout
    assert "fix: " in done.stdout
    found = json.loads(tributary_command("metadata", "check", tmp_path, "--json").stdout)
    assert {"severity", "kind", "place", "message", "fix"} == set(found[0])
