"""The whole road by its commands, on a small shop whose labels follow from its history."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

DAY = 86_400_000_000
QUERY = """
SELECT c.id AS customer, m.moment,
       EXISTS (SELECT 1 FROM orders o WHERE o.customer = c.id AND o.ts > m.moment
                 AND o.ts <= m.moment + INTERVAL 30 DAY) AS buys
FROM customers c, (SELECT unnest(generate_series(TIMESTAMP '2024-02-01', TIMESTAMP '2024-10-01',
                                                  INTERVAL 30 DAY)) AS moment) m
"""
TRAIN = [
    "model.d_model=16",
    "model.num_layers=2",
    "model.num_heads=2",
    "model.d_ff=32",
    "data.seq_len=64",
    "data.num_neighbors=8",
    "train.batch_size=16",
    "train.steps=60",
    "train.eval_every=30",
    "train.eval_seeds=64",
    "train.checkpoint_every=10",
    "optimizer.warmup_steps=5",
]

pytestmark = pytest.mark.slow


def tributary(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs one command of the command line; it must succeed."""
    command = [sys.executable, "-c", "from tributary.cli import main; main()", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def write_shop(folder: Path) -> None:
    """120 customers, every second of whom orders about every ten days and the others almost never."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    count = 120
    pq.write_table(pa.table({"id": np.arange(count), "age": rng.integers(18, 80, count)}), folder / "customers.parquet")
    customer = np.concatenate([np.full(36 if c % 2 else 1, c) for c in range(count)])
    days = rng.uniform(0, 330, len(customer))
    ts = pa.array(((19_723 + days) * DAY).astype(np.int64), pa.timestamp("us"))  # from 2024-01-01
    orders = {
        "id": np.arange(len(customer)),
        "customer": customer,
        "ts": ts,
        "amount": rng.lognormal(3, 1, len(customer)),
    }
    pq.write_table(pa.table(orders), folder / "orders.parquet")
    identifier = {"stype": "identifier"}
    metadata = {
        "name": "shop",
        "tables": {
            "customers": {"primary_key": "id", "columns": {"id": identifier, "age": {"stype": "numerical"}}},
            "orders": {
                "primary_key": "id",
                "temporal_column": "ts",
                "columns": {
                    "id": identifier,
                    "customer": {"stype": "identifier", "foreign_key": "customers.id"},
                    "ts": {"stype": "timestamp"},
                    "amount": {"stype": "numerical"},
                },
            },
        },
        "tasks": {
            "buys": {
                "query": QUERY,
                "anchor_table": "customers",
                "anchor_key": "customer",
                "target_column": "buys",
                "target_stype": "boolean",
                "observation_time_column": "moment",
                "horizon": "30 days",
                "split": {"val": "2024-07-01", "test": "2024-08-15"},
            }
        },
    }
    (folder / "metadata.json").write_text(json.dumps(metadata))


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A processed shop."""
    folder = tmp_path_factory.mktemp("shop")
    write_shop(folder / "raw")
    tributary("preprocess", folder / "raw", folder / "db", "--embedder", "hash")
    return folder


def train_arguments(shop: Path, name: str) -> list[str]:
    """Arguments of `tributary train` for a small run in the shop's folder."""
    config = shop / "config.yaml"
    config.write_text("run:\n  name: shop\ndata:\n  database: db\n  strategy: recent\nmodel:\n  preset: demo\n")
    keys = [f"run.name={name}", f"run.dir={shop / 'runs'}", f"data.database={shop / 'db'}", *TRAIN]
    return ["train", "--config", str(config), *(word for key in keys for word in ("--set", key))]


def losses(shop: Path, name: str) -> dict[int, float]:
    """Loss of every logged step."""
    records = map(json.loads, (shop / "runs" / name / "metrics.jsonl").read_text().splitlines())
    return {record["step"]: record["loss"] for record in records if record["kind"] == "train"}


def test_from_parquet_to_an_honest_prediction(shop: Path) -> None:
    tributary(*train_arguments(shop, "whole"), "--resume", "auto")
    run = shop / "runs" / "whole"
    tributary("evaluate", run, "--task", "buys")
    (result,) = json.loads((run / "evaluation.json").read_text())["evaluations"]
    auroc = {entry["name"]: entry["metrics"]["auroc"] for entry in [result["model"], *result["baselines"]]}
    assert auroc["constant"] == 0.5
    assert result["model"]["metrics"]["auroc"] > 0.8
    assert result["regime"] == "seed-time"

    tributary("predict", run, "--task", "buys", "--out", shop / "predictions.parquet")
    predictions = pq.read_table(shop / "predictions.parquet")
    manifest = json.loads((shop / "db" / "metadata.json").read_text())
    assert predictions.num_rows == manifest["tasks"][0]["splits"]["test"]
    frequent = predictions["entity"].to_numpy() % 2 == 1
    probability = predictions["probability"].to_numpy()
    assert probability[frequent].mean() > probability[~frequent].mean() + 0.2

    # anybody, at any time, without a label
    when = str(predictions["seed_time"][-1].as_py())
    keys = ["--key", "1", "--key", "2", "--time", when]
    tributary("predict", run, "--task", "buys", *keys, "--out", shop / "asked.parquet")
    asked = pq.read_table(shop / "asked.parquet").to_pydict()
    assert asked["entity"] == [1, 2]
    assert {str(moment) for moment in asked["seed_time"]} == {when}
    assert asked["split"] == asked["label"] == [None, None]
    assert asked["probability"][0] > asked["probability"][1], "customers of odd number buy more often"

    # what these answers follow from, and rows as vectors
    why, page = shop / "why.parquet", shop / "why.html"
    explained = [*keys, "--out", shop / "asked.parquet", "--explain", why, "--explain-html", page]
    assert "orders.customer" in tributary("predict", run, "--task", "buys", *explained).stderr
    table = pq.read_table(why).to_pylist()
    assert {each["entity"] for each in table} == {1, 2}
    assert {each["path"] for each in table} >= {"", "orders.customer", "buys.customer"}
    assert "probability of true" in page.read_text()
    tributary("embed-rows", run, "customers", *keys, "--out", shop / "rows.parquet")
    embedded = pq.read_table(shop / "rows.parquet")
    assert embedded["key"].to_pylist() == [1, 2]
    assert embedded.schema.field("embedding").type.list_size == 16

    # a question that is no task, asked of those who bought lately; the run's database stays as it is
    digest = tributary("verify", shop / "db").stdout
    rows = "COUNT(orders.*, {}, days)"
    query = f"PREDICT {rows.format('0, 20')} > 0 FOR EACH customers.id WHERE {rows.format('-30, 0')} > 0"
    options = ["--raw", shop / "raw", "--query", query, "--time", "2024-09-01"]
    tributary("predict", run, *options, "--out", shop / "query.parquet")
    answered = pq.read_table(shop / "query.parquet").to_pydict()
    orders = pq.read_table(shop / "raw" / "orders.parquet").to_pylist()
    end = datetime(2024, 9, 1)
    lately = {each["customer"] for each in orders if end - timedelta(days=30) < each["ts"] <= end}
    assert sorted(answered["entity"]) == sorted(lately)
    assert set(answered["seed_time"]) == {end}
    assert all(0 <= probability <= 1 for probability in answered["probability"])
    assert tributary("verify", shop / "db").stdout == digest
    assert not list(shop.glob(".asked-*"))

    tributary("report", run, "--out", shop / "report.html")
    assert "buys" in (shop / "report.html").read_text()


def test_a_run_that_was_stopped_continues_to_the_same_losses(shop: Path) -> None:
    tributary(*train_arguments(shop, "whole"), "--resume", "auto")
    arguments = [*train_arguments(shop, "stopped"), "--resume", "auto"]
    command = [sys.executable, "-c", "from tributary.cli import main; main()", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    journal = shop / "runs" / "stopped" / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (journal.exists() and journal.read_text().count("\n") >= 2):
        assert process.poll() is None, "training ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=120) == 128 + signal.SIGTERM
    tributary(*arguments)
    assert losses(shop, "stopped") == losses(shop, "whole")
