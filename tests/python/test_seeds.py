"""Questions of the user's own: by keys, by a table, by SQL; what they see, and what is said of wrong ones."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from native_database import process
from tributary import Sampler, SchemaError, seeds_from_keys, seeds_from_query, seeds_from_table
from tributary.data import Database
from tributary.moments import duration_us, moment_us

_DAY = 86_400_000_000


@pytest.fixture
def pair(shop: Any, tmp_path: Path) -> tuple[Database, Path]:
    """The processed shop and its raw folder."""
    raw = shop.write()
    return process(raw, shop.metadata, tmp_path / "processed"), raw


def test_any_key_at_any_time(pair: tuple[Database, Path]) -> None:
    database, _ = pair
    seeds = seeds_from_keys(database, "churn", [3, 3, 12], times=["2020-01-20", datetime(2020, 2, 20), "2020-01-20"])
    options = {"batch_size": 3, "shuffle": False, "num_neighbors": 99}
    with Sampler(database, ["churn"], seeds=seeds, **options) as sampler:
        assert (sampler.num_seeds, sampler.steps_per_epoch) == (3, 1)
        batch = sampler.batch(0)
        explained = sampler.explain(1)
    assert batch.seed_row.tolist() == [2, 2, 11]
    assert batch.seed_time.tolist() == [moment_us("2020-01-20"), moment_us("2020-02-20"), moment_us("2020-01-20")]
    assert batch.target_is_null.all()
    assert not batch.seed_is_padding.any()
    orders = (batch.row_table == 2).sum(axis=1)
    assert 0 < orders[0] < orders[1], "a later question sees more orders"
    assert (explained["split"], explained["label"], explained["entity"]) == ("asked", None, 3)


def test_the_same_question_has_the_same_context_in_every_list(pair: tuple[Database, Path]) -> None:
    database, _ = pair
    one = seeds_from_keys(database, "churn", [5], times="2020-02-10")
    many = seeds_from_keys(database, "churn", [1, 2, 5], times="2020-02-10")
    options = {"shuffle": False, "num_neighbors": 1, "seq_len": 64, "batch_size": 1}
    with (
        Sampler(database, ["churn"], seeds=one, **options) as first,
        Sampler(database, ["churn"], seeds=many, **options) as second,
    ):
        alone, among = first.batch(0), second.batch(2)
    np.testing.assert_array_equal(alone.cell_value, among.cell_value)
    np.testing.assert_array_equal(alone.row_table, among.row_table)


def test_a_known_label_of_the_very_question_stays_hidden(pair: tuple[Database, Path]) -> None:
    database, _ = pair
    seeds = database.task_seeds("churn")
    key, when = database.row_keys("customers", seeds["row"][:1])[0], int(seeds["time"][0])
    asked = seeds_from_keys(database, "churn", [key], times=when)
    with Sampler(database, ["churn"], seeds=asked, shuffle=False, batch_size=1) as sampler:
        assert (sampler.batch(0).row_table == 3).sum() == 1, "only the question itself"


def test_tables_of_every_kind(pair: tuple[Database, Path], tmp_path: Path) -> None:
    database, _ = pair
    columns = {"customer_id": [4, 9], "obs_time": [datetime(2020, 2, 1), datetime(2020, 2, 3)]}
    table = pa.table(columns)
    pq.write_table(table, tmp_path / "asked.parquet")
    (tmp_path / "asked.csv").write_text("customer_id,obs_time\n4,2020-02-01\n9,2020-02-03\n")
    structured = np.array([(4, "2020-02-01"), (9, "2020-02-03")], [("customer_id", "i8"), ("obs_time", "M8[ns]")])
    renamed = {"who": pa.array([4, 9]), "when": ["2020-02-01", "2020-02-03"]}
    found = [seeds_from_table(database, "churn", source) for source in (table, columns, structured)]
    found += [seeds_from_table(database, "churn", tmp_path / name) for name in ("asked.parquet", "asked.csv")]
    found += [seeds_from_table(database, "churn", renamed, key="who", time="when")]
    for seeds in found:
        assert seeds.rows.tolist() == [3, 8]
        assert seeds.times.tolist() == [moment_us("2020-02-01"), moment_us("2020-02-03")]
    zoned = pa.array([datetime(2020, 2, 1)], pa.timestamp("ns", "Europe/Berlin"))
    asked = seeds_from_table(database, "churn", {"customer_id": [4], "obs_time": zoned})
    assert asked.times.tolist() == [moment_us("2020-02-01")]


def test_a_query_asks_too(pair: tuple[Database, Path]) -> None:
    database, raw = pair
    query = "SELECT DISTINCT customer_id AS id, DATE '2020-02-20' AS at FROM orders WHERE amount > 5 ORDER BY 1"
    seeds = seeds_from_query(database, "churn", query, raw=raw, key="id", time="at")
    orders = pq.read_table(raw / "orders.parquet").to_pylist()
    keys = sorted({order["customer_id"] for order in orders if order["amount"] > 5})
    assert database.row_keys("customers", seeds.rows) == keys
    assert set(seeds.times.tolist()) == {moment_us("2020-02-20")}
    with pytest.raises(SchemaError, match="SELECT"):
        seeds_from_query(database, "churn", "DROP TABLE orders", raw=raw)


def test_without_times_the_row_has_one(pair: tuple[Database, Path]) -> None:
    database, _ = pair
    seeds = seeds_from_keys(database, "country", [2, 7])
    assert seeds.times is None
    with Sampler(database, ["country"], seeds=seeds, batch_size=2, shuffle=False) as sampler:
        batch = sampler.batch(0)
    np.testing.assert_array_equal(batch.seed_time, database.row_times("customers")[[1, 6]])
    assert batch.cell_is_target.sum() == 2


@pytest.mark.parametrize(
    ("task", "keys", "times", "message"),
    [
        ("churm", [1], "2020-02-01", "no task `churm`; did you mean `churn`"),
        ("churn", [1, 77, 78], "2020-02-01", r"no row with 2 of 3 keys: 77 \(place 1\), 78 \(place 2\)"),
        ("churn", ["x"], "2020-02-01", "keys of table `customers` are integers"),
        ("churn", [None], "2020-02-01", "key 0 of table `customers`: expected an integer or a text, found None"),
        ("churn", [], "2020-02-01", "no key of table `customers` is given"),
        ("churn", [1], None, "say at which time"),
        ("churn", [1], "soon", "moment 'soon': expected ISO 8601"),
        ("churn", [1, 2], ["2020-02-01"], "2 keys with 1 times"),
        ("churn", [1], pa.array([None], pa.timestamp("us")), "the time at place 0 is null"),
        ("churn", [1], np.array(["NaT"], "M8[us]"), "the time at place 0 is null"),
    ],
)
def test_wrong_questions_are_named(
    pair: tuple[Database, Path], task: str, keys: list[Any], times: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        seeds_from_keys(pair[0], task, keys, times)


def test_missing_columns_are_named(pair: tuple[Database, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no column `customer_id`; did you mean `custmer_id`"):
        seeds_from_table(pair[0], "churn", {"custmer_id": [1]})
    with pytest.raises(ValueError, match=r"ends in \.parquet"):
        seeds_from_table(pair[0], "churn", tmp_path / "asked.xlsx")
    with pytest.raises(ValueError, match="expected a file or a table"):
        seeds_from_table(pair[0], "churn", 7)


def test_moments_and_durations() -> None:
    assert duration_us("90 days") == 90 * _DAY
    assert duration_us("1 week") == 7 * _DAY
    assert moment_us(date(1970, 1, 3)) == 2 * _DAY
    assert moment_us("1970-01-01T02:00+02:00") == 0
    for wrong in ("ninety days", "1 month", "-1 days", -1):
        with pytest.raises(ValueError, match="duration"):
            duration_us(wrong)


def test_the_look_back_window_hides_what_is_older(pair: tuple[Database, Path]) -> None:
    database, _ = pair
    seeds = seeds_from_keys(database, "churn", list(range(1, 13)), times="2020-02-20")
    options = {"seeds": seeds, "shuffle": False, "batch_size": 12, "num_neighbors": 99}
    with Sampler(database, ["churn"], lookback="10 days", **options) as sampler:
        near, explained = sampler.batch(0), sampler.explain(0)
    with Sampler(database, ["churn"], **options) as sampler:
        all_ = sampler.batch(0)
    is_order = near.row_table == 2
    assert near.row_age[is_order].max() <= 10 < near.row_age.max(), "customers are of any age"
    assert is_order.sum() < (all_.row_table == 2).sum()
    assert explained["counts"]["hidden_by_lookback"] > 0
    with pytest.raises(ValueError, match="duration 'long'"):
        Sampler(database, ["churn"], lookback="long")


def test_num_neighbors_by_hop_and_key(pair: tuple[Database, Path]) -> None:
    database, _ = pair

    def orders(**options: Any) -> int:
        with Sampler(database, ["churn"], batch_size=1, history=False, max_hops=2, **options) as sampler:
            return int((sampler.batch(0).row_table == 2).sum())

    assert orders(num_neighbors=3) == orders(num_neighbors=[9, 3]) == orders(num_neighbors={"*": 3}) == 3
    assert orders(num_neighbors={"orders.customer_id": [0, 2], "*": 0}) == 2
    assert orders(num_neighbors={"orders.customer_id": 0}) == 0
    with pytest.raises(ValueError, match=r"unknown foreign key `orders.customer`.*did you mean `orders.customer_id`"):
        orders(num_neighbors={"orders.customer": 1})
    with pytest.raises(ValueError, match="at least one number"):
        orders(num_neighbors=[])
    with pytest.raises(TypeError, match="expected a number, a list"):
        orders(num_neighbors="many")
