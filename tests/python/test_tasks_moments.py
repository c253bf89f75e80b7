"""`{timedelta}` and `timestamps`: RelBench's task SQL as it is written, and what is refused about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
import yaml

from tributary import Database
from tributary.errors import SchemaError
from tributary.importing import import_source
from tributary.metadata import Description
from tributary.moments import moment_us
from tributary.preprocess import PreprocessOptions, plan, preprocess
from tributary.preprocess.moments import Round, duration_us, interval_text, rounds

DAY = 86_400_000_000


# ---- RelBench's own tasks on its own data ---------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("with_parameter", [False, True])
def test_relbench_labels_to_the_last_one(shared_data, tmp_path: Path, with_parameter: bool) -> None:
    """The labels shipped with rel-f1 come out of its SQL, every one and no other, in the same splits."""
    import json

    folder = shared_data("rel-f1-relbench3")
    metadata = import_source(folder, tmp_path / "raw", threads=1).draft.metadata
    manifests = {path.parent.name: yaml.safe_load(path.read_text()) for path in folder.glob("tasks/*/manifest.yaml")}
    if with_parameter:
        for task in metadata["tasks"].values():
            days = task["timedelta"].split()[0]
            filled = task["query"].replace(f"INTERVAL {days}\n  DAY", f"INTERVAL {days} DAY")
            task["query"] = filled.replace(f"INTERVAL {days} DAY", "INTERVAL '{timedelta}'")
            assert "{timedelta}" in task["query"]
    (tmp_path / "metadata.json").write_text(json.dumps(metadata))
    outcome = preprocess(
        tmp_path / "raw", tmp_path / "db", options=PreprocessOptions(metadata=tmp_path / "metadata.json")
    )
    database = Database(tmp_path / "db")
    assert sorted(manifests) == ["driver-dnf", "driver-position", "driver-top3"]
    for described in outcome.manifest.tasks:
        task = manifests[described.name]
        assert described.horizon_us == duration_us(task["timedelta"])
        found = database.task_seeds(described.name)
        keys = np.asarray(database.row_keys("drivers", found["row"]))
        for code, split in enumerate(("train", "val", "test")):
            shipped = duckdb.sql(
                f"SELECT epoch_us({task['time_col']}) AS t, {task['entity_col']} AS k, {task['target_col']} AS y"
                f" FROM '{folder}/tasks/{described.name}/{split}.parquet' ORDER BY t, k"
            ).fetchnumpy()
            own = np.flatnonzero(found["split"] == code)
            own = own[np.lexsort((keys[own], found["time"][own]))]
            assert np.array_equal(found["time"][own], shipped["t"])
            assert np.array_equal(keys[own], shipped["k"])
            values = found["value"][own].astype(np.float64)
            if described.target_stype == "numerical":
                values = values * described.statistics["std"] + described.statistics["mean"]
            np.testing.assert_allclose(values, shipped["y"].astype(np.float64), rtol=1e-5, atol=1e-5)


# ---- the moments of a task ------------------------------------------------------------------------------------------


def _task(shop: Any, **fields: Any) -> Any:
    """The task `churn`, asked at moments."""
    task = shop.metadata["tasks"]["churn"]
    task["query"] = (
        "SELECT t.timestamp AS obs_time, c.id AS customer_id, count(o.id) = 0 AS churn FROM timestamps t"
        " CROSS JOIN customers c LEFT JOIN orders o ON o.customer_id = c.id AND o.ts > t.timestamp"
        " AND o.ts <= t.timestamp + INTERVAL '{timedelta}' GROUP BY ALL"
    )
    task |= {"timedelta": "7 days", "split": {"val": "2020-02-01", "test": "2020-02-12"}} | fields
    shop.metadata["tasks"] = {"churn": {key: value for key, value in task.items() if value is not None}}
    return task


def _parsed(shop: Any) -> Any:
    from tributary import _headwater

    return Description.from_json(_headwater.read_metadata(shop.write())).tasks[0]


def _moments(parts: list[Round]) -> dict[str | None, list[str]]:
    return {part.split: [str(np.datetime64(moment, "us"))[:10] for moment in part.moments] for part in parts}


def test_the_moments_are_those_of_relbench(shop) -> None:
    _task(shop, num_eval_timestamps=5)
    parts = rounds(_parsed(shop), moment_us("2020-01-05"), moment_us("2020-02-29 12:00:00"))
    assert _moments(parts) == {
        "train": ["2020-01-11", "2020-01-18", "2020-01-25"],
        "val": ["2020-02-01"],  # a second window would end after `test`
        "test": ["2020-02-12", "2020-02-19"],  # a third one after the last time
    }
    assert [part.until_us for part in parts] == [moment_us("2020-02-12"), moment_us("2020-02-12"), None]


def test_validation_and_test_are_asked_once_unless_told_otherwise(shop) -> None:
    _task(shop)
    parts = rounds(_parsed(shop), moment_us("2020-01-05"), moment_us("2020-03-31"))
    assert _moments(parts)["test"] == ["2020-02-12"]


@pytest.mark.parametrize(
    ("timestamps", "expected"),
    [
        (["2020-02-12", "2020-01-20 12:00:00"], {"train": ["2020-01-20"], "test": ["2020-02-12"]}),
        (
            {"start": "2020-01-30", "end": "2020-02-02", "every": "2 days"},
            {"train": ["2020-01-30"], "val": ["2020-02-01"]},
        ),
        ({"start": "2020-02-01"}, {"val": ["2020-02-01", "2020-02-08"], "test": ["2020-02-15", "2020-02-22"]}),
    ],
)
def test_moments_of_ones_own(shop, timestamps: Any, expected: dict[str, list[str]]) -> None:
    _task(shop, timestamps=timestamps)
    assert _moments(rounds(_parsed(shop), moment_us("2020-01-02"), moment_us("2020-03-01"))) == expected


def test_without_split_times_there_is_one_round(shop) -> None:
    _task(shop, timestamps=["2020-01-20", "2020-02-20"], split=None)
    assert rounds(_parsed(shop), None, None) == [Round([moment_us("2020-01-20"), moment_us("2020-02-20")])]


@pytest.mark.parametrize(
    ("days", "text"), [(60, "60 days 00:00:00"), (0.25, "0 days 06:00:00"), (1.5, "1 days 12:00:00")]
)
def test_a_window_is_written_as_relbench_writes_it(days: float, text: str) -> None:
    window = int(days * DAY)
    assert interval_text(window) == text
    assert duckdb.sql(f"SELECT epoch(INTERVAL '{text}') * 1000000").fetchall() == [(window,)]
    assert duckdb.sql(f"SELECT epoch(INTERVAL '{text} days') * 1000000").fetchall() == [(window,)]  # its older tasks


# ---- from metadata to seeds -----------------------------------------------------------------------------------------


class Warnings:
    """A watcher that keeps warnings."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def stage(self, name: str) -> None:
        pass

    def progress(self, item: str, done: int, total: int, unit: str) -> None:
        pass

    def warn(self, message: str) -> None:
        self.heard.append(message)


def test_labels_of_a_split_see_nothing_later(shop, tmp_path: Path) -> None:
    """What the query counts over the whole table ends at `test` for train and val."""
    _task(shop, target_column="seen", target_stype="numerical")
    shop.metadata["tasks"]["churn"]["query"] = (
        "SELECT timestamp AS obs_time, 1 AS customer_id, (SELECT count(*) FROM orders) AS seen FROM timestamp_df;"
        " -- RelBench's older tasks end like this"
    )
    outcome = preprocess(shop.write(), tmp_path / "db")
    preview = outcome.manifest.tasks[0].preview
    assert (preview["train"]["mean"], preview["val"]["mean"], preview["test"]["mean"]) == (42, 42, 60)


def test_labels_without_an_entity_are_left_out(shop, tmp_path: Path) -> None:
    """An outer join leaves a row without entity where nothing happened; RelBench drops it, too."""
    _task(shop)
    shop.metadata["tasks"]["churn"]["query"] = (
        "SELECT t.timestamp AS obs_time, o.customer_id, true AS churn FROM timestamps t LEFT JOIN orders o"
        " ON o.ts > t.timestamp AND o.ts <= t.timestamp + INTERVAL '{self.timedelta} days' AND o.id > 115 GROUP BY ALL"
    )
    watcher = Warnings()
    outcome = preprocess(shop.write(), tmp_path / "db", watcher=watcher)
    assert sum("1 rows of the query's result have no `customer_id`" in text for text in watcher.heard) == 1
    assert outcome.manifest.tasks[0].num_seeds > 0


def test_entities_that_came_after_test_have_no_labels(shop, tmp_path: Path) -> None:
    from datetime import datetime

    _task(shop)
    shop.tables["customers"]["signup_ts"][3] = datetime(2020, 2, 20)
    watcher = Warnings()
    outcome = preprocess(shop.write(), tmp_path / "db", watcher=watcher)
    assert any("came only after `split.test`" in text for text in watcher.heard)
    database = Database(tmp_path / "db")
    assert outcome.manifest.tasks[0].num_seeds == 11 * 6
    assert 4 not in database.row_keys("customers", database.task_seeds("churn")["row"])


def test_a_table_of_that_name_stays_a_table(shop, tmp_path: Path) -> None:
    shop.tables["timestamps"] = {"timestamp": shop.tables["orders"]["ts"][:3], "n": [1.0, 2.0, 3.0]}
    shop.metadata["tables"]["timestamps"] = {
        "columns": {"timestamp": {"stype": "timestamp"}, "n": {"stype": "numerical"}}
    }
    _task(shop, split=None)
    outcome = preprocess(shop.write(), tmp_path / "db")
    assert outcome.manifest.tasks[0].num_seeds == 3 * 12


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"timedelta": "7 fortnights"}, "`timedelta` is `7 fortnights`, expected a number and seconds, minutes"),
        ({"timedelta": "0"}, "`timedelta` is 0"),
        ({"timedelta": None}, "the query uses `{timedelta}`, but the task has no `timedelta`"),
        ({"timedelt": "7 days"}, "unknown field `timedelt`; did you mean `timedelta`"),
        ({"timestamps": []}, "`timestamps` is an empty list"),
        ({"timestamps": ["yesterday"]}, "`timestamps` is `yesterday`, expected a date or time"),
        ({"timestamps": "2020-01-01"}, "`timestamps` must be a list of times, or an object"),
        ({"timestamps": {"begin": "2020-01-01"}}, "unknown field `begin`"),
        ({"timestamps": {"start": "2021-01-01", "end": "2020-01-01"}}, "`start` is later than `end`"),
        ({"num_eval_timestamps": 0}, "`num_eval_timestamps` is 0; expected a whole number from 1 on"),
        ({"num_eval_timestamps": "4"}, "`num_eval_timestamps` must be a whole number, found a string"),
        ({"num_eval_timestamps": 4, "timestamps": ["2020-01-01"]}, "and no `timestamps`"),
        ({"split": None}, "the query reads `timestamps`, but the task does not say which moments these are"),
        ({"timedelta": "90 days"}, "is longer than the time from `val` to `test`"),
        ({"split": {"val": "2020-01-03", "test": "2020-02-12"}}, "there would be no training labels"),
        ({"split": {"val": "2020-02-01", "test": "2020-02-28"}}, "ends after the last time of the database"),
        ({"timestamps": {"start": "2020-01-01", "every": "1 seconds", "end": "2029-01-01"}}, "more than 10,000,000"),
        ({"timedelta": "4000000000 minutes", "timestamps": {"every": "1 days"}}, "there is no moment"),
        ({"query": "SELECT 1", "timestamps": ["2020-01-01"]}, "the query does not read them"),
        ({"query": "SELECT {days} AS churn FROM timestamps"}, "`{days}` is no parameter, there is `{timedelta}` alone"),
        ({"query": None, "table": "labels.parquet"}, "`timedelta` is for tasks with a `query`"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_encoded(
    shop, tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    _task(shop, **fields)
    with pytest.raises(SchemaError) as error:
        plan(shop.write(), tmp_path / "db")
    assert "`churn`" in str(error.value)
    assert message in str(error.value)


def test_a_table_may_not_hide_behind_the_moments(shop) -> None:
    shop.tables["timestamps"] = {"timestamp": shop.tables["orders"]["ts"][:3]}
    shop.metadata["tables"]["timestamps"] = {"columns": {"timestamp": {"stype": "timestamp"}}}
    _task(shop, timestamps=["2020-01-01"])
    with pytest.raises(SchemaError, match="`timestamps` hides the table `timestamps` of the same name; rename"):
        _parsed(shop)


def test_a_database_without_times_has_no_moments(shop, tmp_path: Path) -> None:
    for table in shop.metadata["tables"].values():
        table["temporal_column"] = None
    _task(shop)
    with pytest.raises(SchemaError, match="depend on the first time of the database, but no row has a time"):
        plan(shop.write(), tmp_path / "db")
