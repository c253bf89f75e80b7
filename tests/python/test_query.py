"""Predictive queries: their words, their SQL against a slow definition, the official labels, and storage."""

from __future__ import annotations

import json
import random
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tributary.errors import SchemaError
from tributary.metadata import Description
from tributary.query import QueryError, Schedule, compile_query, parse, past_labels, preview, save_task

_ROOT = Path(__file__).resolve().parents[2]
_F1 = Schedule("2005-01-01", "2010-01-01", num_eval_timestamps=40)
_START = datetime(2020, 1, 1)


# ---- the words ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("PREDCT COUNT(o.*, 0, 3, days) FOR EACH c.id", "did you mean PREDICT?"),
        ("PREDICT COUNT(o.*, 0, 3, dayz) FOR EACH c.id", "did you mean DAYS?"),
        ("PREDICT COUNT(o.*, 0, 3) FOR EACH c.id", "the window has no unit"),
        ("PREDICT COUNT(o.*, 0, 3, days) FOR EACH c", "`c` is no column; write it as table.column"),
        ("PREDICT CONT(o.*, 0, 3, days) = 0 FOR EACH c.id", "there is no function `CONT`; did you mean COUNT?"),
        ("PREDICT SUM(o.*, 0, 3, days) FOR EACH c.id", "SUM needs a column"),
        ("PREDICT COUNT(o.*, 3, 0, days) FOR EACH c.id", "the window from 3 to 0 is empty"),
        ("PREDICT COUNT(o.*, INF, 0) FOR EACH c.id", "from an earlier to a later time"),
        ("PREDICT COUNT(o.*, 0, 3, days) RANK TOP 3 FOR EACH c.id", "only LIST_DISTINCT is ranked"),
        ("PREDICT c.x FOR EACH c.id WHERE c.y = 3 AN c.z = 4", "expected AND, ASSUMING, OR or the end, found `AN`"),
        ("PREDICT c.x FOR EACH c.id; DROP TABLE c", "expected the end, found `DROP`"),
        ("PREDICT c.x > TIMESTAMP '2020-13-01' FOR EACH c.id", "expected ISO 8601"),
        ("", "expected PREDICT, found the end"),
    ],
)
def test_what_is_not_understood_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text)
    message, line, mark = str(caught.value).split("\n")
    assert said in message
    assert line[2:] == text
    assert mark.strip() == "^"


def test_words_are_free_in_case_and_names_are_not() -> None:
    query = parse('predict avg("my orders"."Total", -INF, 7, Days) > 2 for each c.Id -- why')
    assert (query.target.value.table, query.target.value.column) == ("my orders", "Total")
    assert (query.target.value.window.start, query.target.value.window.end) == (None, 7)
    assert str(query.entity) == "c.Id"


# ---- names ----------------------------------------------------------------------------------------------------------


def _shop_description() -> dict[str, Any]:
    return {
        "name": "shop",
        "tables": {
            "customers": {
                "primary_key": "id",
                "temporal_column": "born",
                "columns": {
                    "id": {"stype": "identifier"},
                    "born": {"stype": "timestamp"},
                    "country": {"stype": "categorical"},
                    "age": {"stype": "numerical"},
                    "vip": {"stype": "boolean"},
                },
            },
            "orders": {
                "primary_key": "id",
                "temporal_column": "ts",
                "columns": {
                    "id": {"stype": "identifier"},
                    "customer_id": {"stype": "identifier", "foreign_key": "customers.id"},
                    "referrer_id": {"stype": "identifier", "foreign_key": "customers.id"},
                    "ts": {"stype": "timestamp"},
                    "amount": {"stype": "numerical"},
                    "gift": {"stype": "boolean"},
                },
            },
            "items": {
                "columns": {
                    "order_id": {"stype": "identifier", "foreign_key": "orders.id"},
                    "product": {"stype": "categorical"},
                    "price": {"stype": "numerical"},
                }
            },
        },
        "tasks": {},
    }


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Description, dict[str, list[dict[str, Any]]]]:
    """A random shop, its description and its rows."""
    folder = tmp_path_factory.mktemp("shop")
    draw = random.Random(3)

    def moment() -> datetime:
        return _START + timedelta(days=draw.randrange(60), hours=draw.choice([0, 0, 12]))

    customers = [
        {
            "id": idx,
            "born": _START + timedelta(days=draw.randrange(20)) if draw.random() < 0.9 else None,
            "country": draw.choice(["NO", "SE", None]),
            "age": draw.choice([None, 20.0, 30.5, 40.0]),
            "vip": draw.choice([True, False, None]),
        }
        for idx in range(12)
    ]
    orders = [
        {
            "id": 100 + idx,
            "customer_id": draw.choice([*range(12), None]),
            "referrer_id": draw.choice([*range(12), None]),
            "ts": draw.choice([moment(), moment(), moment(), None]),
            "amount": draw.choice([None, 1.0, 2.5, -4.0]),
            "gift": draw.choice([True, False, None]),
        }
        for idx in range(150)
    ]
    items = [
        {"order_id": 100 + draw.randrange(160), "product": draw.choice("abc"), "price": float(draw.randrange(9))}
        for _ in range(300)
    ]
    rows = {"customers": customers, "orders": orders, "items": items}
    for name, table in rows.items():
        pq.write_table(pa.Table.from_pylist(table), folder / f"{name}.parquet")
    (folder / "metadata.json").write_text(json.dumps(_shop_description()))
    return folder, Description.load(folder / "metadata.json"), rows


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "PREDICT COUNT(order.*, 0, 3, days) FOR EACH customers.id",
            "no table `order`; did you mean `orders`?",
        ),
        ("PREDICT customers.ages FOR EACH customers.id", "has no column `ages`; did you mean `age`?"),
        ("PREDICT customers.age FOR EACH customers.age", "write FOR EACH customers.id"),
        ("PREDICT items.price FOR EACH items.product", "table `items` has no primary key"),
        ("PREDICT COUNT(orders.*, 0, 3, days) FOR EACH customers.id", "VIA orders.customer_id, VIA orders.referrer_id"),
        (
            "PREDICT COUNT(orders.* VIA orders.amount, 0, 3, days) FOR EACH customers.id",
            "`orders.amount` is no fo",
        ),
        ("PREDICT COUNT(customers.*, 0, 3, days) FOR EACH orders.id", "no foreign keys lead from a row of `customers`"),
        ("PREDICT COUNT(orders.*, 0, 3, days) FOR EACH orders.id", "`orders` is the table asked about"),
        ("PREDICT SUM(items.product, 0, 3, days) FOR EACH orders.id", "rows of `items` have no time"),
        ("PREDICT SUM(orders.ts VIA orders.customer_id, 0, 3, days) FOR EACH customers.id", "SUM needs numbers"),
        ("PREDICT customers.age > 'x' FOR EACH customers.id", "a numerical value cannot be compared with 'x'"),
        ("PREDICT customers.age FOR EACH orders.id", "FOR EACH customers.<primary key>"),
        ("PREDICT orders.customer_id FOR EACH orders.id", "is identifier, which cannot be predicted"),
        ("PREDICT NOT customers.age FOR EACH customers.id", "a condition compares its value"),
        ("PREDICT COUNT(items.*, -3, 3, days) FOR EACH orders.id", "starts at the moment or after it"),
        ("PREDICT COUNT(items.*, 0, INF, days) FOR EACH orders.id", "ends after a fixed time"),
        ("PREDICT COUNT(items.*, 0, 1, months) FOR EACH orders.id", "ends after a fixed time"),
        (
            "PREDICT orders.amount FOR EACH orders.id ASSUMING COUNT(items.*, 0, 3, days) > 0",
            "target has no window",
        ),
        (
            "PREDICT orders.amount FOR EACH orders.id WHERE COUNT(items.*, 0, 3, days) > 0",
            "needs a moment",
        ),
    ],
)
def test_names_that_mean_nothing_here(shop: Any, text: str, said: str) -> None:
    with pytest.raises(QueryError) as caught:
        compile_query(text, shop[1])
    assert said in str(caught.value)


# ---- the labels, against a slow definition --------------------------------------------------------------------------


def _in_window(time: datetime | None, moment: datetime, start: float | None, end: float | None) -> bool:
    if time is None:
        return False
    return (start is None or time > moment + timedelta(days=start)) and (
        end is None or time <= moment + timedelta(days=end)
    )


def _orders_of(rows: Any, key: str, customer: int, moment: datetime, start: float | None, end: float | None) -> list:
    return [o for o in rows["orders"] if o[key] == customer and _in_window(o["ts"], moment, start, end)]


def _known(values: list) -> list:
    return [value for value in values if value is not None]


_CASES = [
    (
        "PREDICT COUNT(orders.* VIA orders.customer_id, 0, 7, days) FOR EACH customers.id",
        lambda rows, c, t: len(_orders_of(rows, "customer_id", c["id"], t, 0, 7)),
    ),
    (
        "PREDICT SUM(orders.amount VIA orders.referrer_id WHERE orders.gift OR orders.amount < 0, 2, 9, days)"
        " FOR EACH customers.id WHERE customers.country = 'NO'",
        lambda rows, c, t: (
            sum(
                _known(
                    [
                        o["amount"]
                        for o in _orders_of(rows, "referrer_id", c["id"], t, 2, 9)
                        if o["gift"] or (o["amount"] is not None and o["amount"] < 0)
                    ]
                )
            )
            if c["country"] == "NO"
            else None
        ),
    ),
    (
        "PREDICT MAX(orders.amount VIA orders.customer_id, 0, 7, days) > 1 FOR EACH customers.id"
        " WHERE COUNT(orders.* VIA orders.customer_id, -10, 0, days) > 0 AND NOT (customers.age IS NULL)",
        lambda rows, c, t: (
            max(amounts) > 1
            if (amounts := _known([o["amount"] for o in _orders_of(rows, "customer_id", c["id"], t, 0, 7)]))
            and _orders_of(rows, "customer_id", c["id"], t, -10, 0)
            and c["age"] is not None
            else None
        ),
    ),
    (
        "PREDICT COUNT_DISTINCT(items.product VIA orders.customer_id, 0, 7, days) FOR EACH customers.id"
        " ASSUMING COUNT(orders.* VIA orders.customer_id, 0, 7, days) > 0",
        lambda rows, c, t: (
            len({i["product"] for i in rows["items"] if i["order_id"] in {o["id"] for o in orders}})
            if (orders := _orders_of(rows, "customer_id", c["id"], t, 0, 7))
            else None
        ),
    ),
    (
        "PREDICT AVG(orders.amount VIA orders.customer_id WHERE customers.country IN ('NO', 'SE'), 0, 7, days)"
        " FOR EACH customers.id",
        None,  # two keys lead to customers.country: refused
    ),
    (
        "PREDICT LAST(orders.amount VIA orders.customer_id, 0, 7, days) IS NULL OR"
        " MIN(orders.amount VIA orders.customer_id, 0, 7, days) NOT IN (1, 2.5) FOR EACH customers.id",
        lambda rows, c, t: (
            True
            if (last := _last(_orders_of(rows, "customer_id", c["id"], t, 0, 7))) is None
            else (min(_known([o["amount"] for o in _orders_of(rows, "customer_id", c["id"], t, 0, 7)])) not in (1, 2.5))
            if last is not None
            else None
        ),
    ),
]


def _last(orders: list) -> float | None:
    known = [o for o in orders if o["amount"] is not None]
    return max(known, key=lambda o: (o["ts"], o["amount"]))["amount"] if known else None


@pytest.mark.parametrize(("text", "definition"), _CASES, ids=range(len(_CASES)))
def test_labels_are_what_the_words_mean(shop: Any, text: str, definition: Any) -> None:
    folder, description, rows = shop
    if definition is None:
        with pytest.raises(QueryError, match="say which"):
            compile_query(text, description)
        return
    task, labels = past_labels(compile_query(text, description), description, folder, Schedule(every="5 days"))
    found = {(row["id"], row["moment"]): row["label"] for row in labels.to_pylist()}
    first, last = datetime.fromisoformat(task["timestamps"]["start"]), datetime.fromisoformat(task["timestamps"]["end"])
    moments = [first + timedelta(days=5 * step) for step in range((last - first).days // 5 + 1)]
    test = datetime.fromisoformat(task["split"]["test"])
    expected = {}
    for moment in moments:
        until = None if moment >= test else test  # training and validation see nothing of the test period
        seen = {**rows, "orders": [o for o in rows["orders"] if o["ts"] and (until is None or o["ts"] <= until)]}
        for customer in rows["customers"]:
            if customer["born"] is not None and customer["born"] <= moment:
                label = definition(seen, customer, moment)
                if label is not None:
                    expected[customer["id"], moment] = label
    assert found == pytest.approx(expected)
    assert len(found) > 20


def test_a_bare_column_is_a_cell_task(shop: Any) -> None:
    folder, description, rows = shop
    compiled = compile_query("PREDICT customers.age FOR EACH customers.id", description)
    assert "query" not in compiled.task
    assert compiled.task["target_column"] == "age"
    found = preview(compiled, description, folder)
    assert found.splits["all"].num_rows == sum(c["age"] is not None for c in rows["customers"])


def test_a_condition_on_columns_hides_them(shop: Any) -> None:
    folder, description, rows = shop
    compiled = compile_query("PREDICT customers.age >= 30 FOR EACH customers.id WHERE customers.vip", description)
    assert compiled.task["remove_columns"] == [["customers", "age"]]
    _, labels = past_labels(compiled, description, folder)
    asked = {c["id"]: c["age"] >= 30 for c in rows["customers"] if c["vip"] and c["age"] is not None}
    assert dict(zip(labels["id"].to_pylist(), labels["label"].to_pylist(), strict=True)) == asked


def _end_of_window(task: dict[str, Any], label: dict[str, Any]) -> datetime:
    """Of 20 days; labels of training and validation see no row after the first moment of test."""
    end = label["moment"] + timedelta(days=20)
    return end if label["split"] == "test" else min(end, datetime.fromisoformat(task["split"]["test"]))


def test_a_list_of_keys_is_a_link_task(shop: Any) -> None:
    folder, description, rows = shop
    text = "PREDICT LIST_DISTINCT(orders.referrer_id, 0, 20, days) RANK TOP 2 FOR EACH customers.id"
    with pytest.raises(QueryError, match="VIA"):
        compile_query(text, description)
    compiled = compile_query(text.replace("referrer_id,", "referrer_id VIA orders.customer_id,"), description)
    found = preview(compiled, description, folder, Schedule(every="5 days"))
    wanted = {"target_stype": "link", "target_table": "customers", "top_k": 2, "timedelta": "20 days"}
    assert {name: found.task[name] for name in wanted} == wanted
    task, labels = past_labels(compiled, description, folder, Schedule(every="5 days"))
    for label in labels.to_pylist():
        until = _end_of_window(task, label)
        named = {
            row["referrer_id"]
            for row in rows["orders"]
            if row["customer_id"] == label["id"] and row["ts"] is not None and label["moment"] < row["ts"] <= until
        }
        assert label["label"] == sorted(named - {None}), label
    assert found.splits["train"].statistics["distinct"] <= 12


def test_a_list_may_be_of_rows_that_the_rows_lead_to(shop: Any) -> None:
    folder, description, rows = shop
    # items have no customer_id; their orders do
    text = "PREDICT LIST_DISTINCT(items.customer_id VIA orders.referrer_id, 0, 20, days) FOR EACH customers.id"
    compiled = compile_query(text, description)
    assert compiled.task["target_table"] == "customers"
    task, labels = past_labels(compiled, description, folder, Schedule(every="5 days"))
    ordered = {row["order_id"] for row in rows["items"]}
    for label in labels.to_pylist():
        until = _end_of_window(task, label)
        named = {
            row["customer_id"]
            for row in rows["orders"]
            if row["id"] in ordered
            and row["referrer_id"] == label["id"]
            and row["ts"] is not None
            and label["moment"] < row["ts"] <= until
        }
        assert label["label"] == sorted(named - {None}), label
    assert labels.num_rows > 5


def test_a_list_of_other_values_is_refused(shop: Any) -> None:
    text = "PREDICT LIST_DISTINCT(items.product VIA orders.customer_id, 0, 20, days) FOR EACH customers.id"
    with pytest.raises(QueryError, match=r"`items.product` names no rows: a list of keys can be predicted"):
        compile_query(text, shop[1])
    with pytest.raises(QueryError, match=r"neither `orders` nor the rows it leads to have a column `prodct`"):
        compile_query(text.replace("items.product", "orders.prodct"), shop[1])


def test_a_look_ahead_in_where_is_warned_about(shop: Any) -> None:
    orders = "orders.* VIA orders.customer_id"
    text = f"PREDICT COUNT({orders}, 0, 3, days) FOR EACH customers.id WHERE COUNT({orders}, 0, 1, days) > 0"
    assert "ASSUMING" in compile_query(text, shop[1]).warnings[0]
    assert compile_query(text.replace("WHERE", "ASSUMING"), shop[1]).warnings == ()


def test_too_short_a_time_for_the_window(shop: Any) -> None:
    folder, description, _ = shop
    compiled = compile_query(
        "PREDICT COUNT(orders.* VIA orders.customer_id, 0, 50, days) FOR EACH customers.id", description
    )
    with pytest.raises(ValueError, match=r"a window of 50 days fits \d times, and at least 3 are needed"):
        past_labels(compiled, description, folder)


def test_broken_names_in_constants_stay_constants(shop: Any) -> None:
    folder, description, _ = shop
    text = "PREDICT customers.age > 1 FOR EACH customers.id WHERE customers.country = 'N''O; DROP TABLE customers'"
    _, labels = past_labels(compile_query(text, description), description, folder)
    assert labels.num_rows == 0


# ---- official labels ------------------------------------------------------------------------------------------------


_OFFICIAL = [
    (
        "rel-f1",
        "driver-position",
        "PREDICT AVG(results.positionOrder, 0, 60, days) FOR EACH drivers.driverId"
        " WHERE COUNT(results.*, -1, INF, years) > 0",
    ),
    (
        "rel-f1",
        "driver-dnf",
        "PREDICT MAX(results.statusId, 0, 30, days) > 1 FOR EACH drivers.driverId"
        " WHERE COUNT(results.*, -1, INF, years) > 0",
    ),
    (
        "rel-f1",
        "driver-top3",
        "PREDICT MIN(qualifying.position, 0, 30, days) <= 3 FOR EACH drivers.driverId"
        " WHERE COUNT(qualifying.*, -1, INF, years) > 0",
    ),
    (
        "stats-ceb",
        "user-posts-60d",
        "PREDICT COUNT(posts.* VIA posts.OwnerUserId, 0, 60, days) > 0 FOR EACH users.Id"
        " WHERE users.Id <> -1 AND COUNT(posts.* VIA posts.OwnerUserId, -365, 0, days) > 0",
    ),
    (
        "stats-ceb",
        "user-badge-60d",
        "PREDICT COUNT(badges.*, 0, 60, days) > 0 FOR EACH users.Id WHERE users.Id <> -1",
    ),
]


@pytest.mark.parametrize(("name", "task", "text"), _OFFICIAL, ids=[each[1] for each in _OFFICIAL])
def test_one_line_makes_the_official_labels(shared_data: Any, name: str, task: str, text: str) -> None:
    official = {
        split: pq.read_table(shared_data(name) / "tasks" / task / f"{split}.parquet")
        for split in ("train", "val", "test")
    }
    described = Description.load(_ROOT / "data" / "metadata" / f"{name}.json")
    schedule = _F1
    if name == "stats-ceb":
        moments = sorted({str(moment) for part in official.values() for moment in part["date"].to_pylist()})
        schedule = Schedule("2013-07-01", "2014-01-01", moments=tuple(moments))
    _, labels = past_labels(compile_query(text, described), described, shared_data(name) / "raw", schedule)
    for split, expected in official.items():
        key, target = [column for column in expected.column_names if column != "date"]
        found = {(r[key], r["moment"]): float(r["label"]) for r in labels.to_pylist() if r["split"] == split}
        assert found == {(r[key], r["date"]): float(r[target]) for r in expected.to_pylist()}


def test_one_line_makes_the_labels_of_recommendation(shared_data: Any) -> None:
    # SQL of `DriverCircuitCompeteTask`, relbench 2.1.2, `relbench/tasks/f1.py`
    sql = """SELECT t.timestamp AS date, re.driverId AS driverId, LIST(DISTINCT race.circuitId) AS circuitId
        FROM timestamp_df t
        LEFT JOIN races race ON race.date <= t.timestamp + INTERVAL 365 DAY AND race.date > t.timestamp
        LEFT JOIN results re ON re.raceId = race.raceId GROUP BY t.timestamp, re.driverId"""
    raw, described = shared_data("rel-f1") / "raw", Description.load(_ROOT / "data" / "metadata" / "rel-f1.json")
    text = "PREDICT LIST_DISTINCT(results.circuitId, 0, 365, days) RANK TOP 10 FOR EACH drivers.driverId"
    schedule = Schedule("2005-01-01", "2010-01-01", num_eval_timestamps=1)
    task, labels = past_labels(compile_query(text, described), described, raw, schedule)
    assert (task["target_stype"], task["target_table"], task["top_k"]) == ("link", "circuits", 10)
    for split, number in (("train", 2649), ("val", 27), ("test", 27)):
        found = {(r["driverId"], r["moment"]): r["label"] for r in labels.to_pylist() if r["split"] == split}
        with duckdb.connect() as connection:
            for table in ("races", "results"):
                until = "" if split == "test" else " WHERE date <= TIMESTAMP '2010-01-01'"
                connection.execute(f"CREATE VIEW {table} AS SELECT * FROM read_parquet('{raw / table}.parquet'){until}")
            moments = sorted({moment for _, moment in found})
            connection.register("timestamp_df", pa.table({"timestamp": pa.array(moments, pa.timestamp("us"))}))
            official = connection.sql(sql).fetchall()
        assert found == {(key, at): sorted(named) for at, key, named in official if key is not None}
        assert len(found) == number


# ---- keeping it -----------------------------------------------------------------------------------------------------


def test_a_kept_query_leaves_the_rest_of_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "metadata.json"
    text = '{ "name": "x",\n  "tables": {"t": {"primary_key": "k", "columns": {"k": {"stype": "identifier"},\n'
    text += '     "v": {"stype":"numerical"}}}},   "tasks": {} }\n'
    path.write_text(text)
    task = compile_query("PREDICT t.v > 3 FOR EACH t.k", Description.load(path)).task
    save_task(path, "big", task)
    written = path.read_text()
    assert written.startswith(text[: text.index('"tasks"')])
    assert json.loads(written)["tasks"] == {"big": task}
    with pytest.raises(ValueError, match="there is a task `big` already"):
        save_task(path, "big", task)
    other = compile_query("PREDICT t.v FOR EACH t.k", description=Description.load(path)).task
    save_task(path, "big", other, replace=True)
    save_task(path, "more", task)
    assert json.loads(path.read_text())["tasks"] == {"big": other, "more": task}
    with pytest.raises(SchemaError):
        save_task(path, "wrong", {**task, "anchor_table": "nowhere"})
    assert set(json.loads(path.read_text())["tasks"]) == {"big", "more"}
    assert [each.name for each in tmp_path.iterdir()] == ["metadata.json"]


def test_the_command(shop: Any, tmp_path: Path, tributary_command: Any) -> None:
    folder, _, _ = shop
    metadata = tmp_path / "metadata.json"
    metadata.write_text((folder / "metadata.json").read_text())
    text = "PREDICT COUNT(items.*, 0, 3, days) = 0 FOR EACH customers.id"
    refused = tributary_command("query", folder, text, "--metadata", metadata)
    assert refused.returncode == 2
    assert "VIA orders.customer_id" in refused.stderr
    text = text.replace("items.*", "items.* VIA orders.customer_id")
    done = tributary_command(
        "query", folder, text, "--metadata", metadata, "--every", "5 days", "--save", "quiet", "--sql"
    )
    assert done.returncode == 0, done.stderr
    assert "base rate" in done.stdout
    assert "WITH population" in done.stdout
    assert json.loads(metadata.read_text())["tasks"]["quiet"]["timedelta"] == "3 days"
