"""Link tasks: what is known of lists, how rows are ranked and judged, and the whole way by the commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flax import nnx

from synthetic_batch import database_arrays, synthetic_batch
from tributary.batch import END_OF_TIME, Batch
from tributary.config import ConfigError, ModelConfig
from tributary.links import KnownLinks, LinkTask, check_judges_rows, filled, rank_candidates, recall_of_context
from tributary.model import build_model
from tributary.training.losses import Objective, candidate_loss, objective_loss

# ---- what is known of lists -----------------------------------------------------------------------------------------


def _task(seeds: list[tuple[int, int, int, list[int]]], horizon: int | None = 10) -> LinkTask:
    """Seeds as (time, entity, split, rows named)."""
    seeds = sorted(seeds)
    lists = [np.array(sorted(named), np.int64) for *_, named in seeds]
    columns = np.array([seed[:3] for seed in seeds], np.int64)
    indptr = np.concatenate([[0], np.cumsum([len(each) for each in lists])])
    return LinkTask(
        "t", "a", "b", 9, 3, horizon, columns[:, 1], columns[:, 0], columns[:, 2].astype(np.int8), indptr,
        np.concatenate(lists),
    )  # fmt: skip


def _seeds(rng: np.random.Generator) -> list[tuple[int, int, int, list[int]]]:
    found = {}
    for _ in range(40):
        time = int(rng.choice([*range(0, 60, 7), END_OF_TIME], p=[0.1] * 9 + [0.1]))
        split = int(rng.integers(3)) if time == END_OF_TIME else int(time > 30) + int(time > 45)
        found[time, int(rng.integers(5)), split] = rng.choice(9, rng.integers(1, 4), replace=False).tolist()
    return [(*key, named) for key, named in found.items()]


def _visible(task: LinkTask, time: int, split: int, cutoff: int | None) -> list[int]:
    """Seeds whose list is known, by the rule of documentation/sampling.md."""
    limit = time if cutoff is None else min(time, cutoff)
    found = []
    for seed, when in enumerate(task.time):
        if when == END_OF_TIME or time == END_OF_TIME:
            is_known = when == time and task.split[seed] == 0
        else:
            is_known = task.horizon_us is not None and when + task.horizon_us <= limit and when < limit
        if is_known and task.split[seed] <= split:
            found.append(seed)
    return found


@pytest.mark.parametrize("horizon", [10, 0, None])
@pytest.mark.parametrize("cutoff", [None, 33])
def test_what_is_named_most_is_counted_in_known_lists_alone(horizon: int | None, cutoff: int | None) -> None:
    for number in range(20):
        rng = np.random.default_rng(number)
        task = _task(_seeds(rng), horizon)
        known = KnownLinks(task, cutoff)
        times = np.array([*rng.integers(0, 70, 12), END_OF_TIME])
        splits = rng.integers(0, 3, len(times))
        entities = rng.integers(0, 6, len(times))
        popular = known.popular(times, splits, 6)
        frequent = known.past(entities, times, splits, 4, "frequent")
        for at, (time, split, entity) in enumerate(zip(times, splits, entities, strict=True)):
            seen = _visible(task, int(time), int(split), cutoff)
            timed = [task.time[seed] for seed in seen if task.time[seed] < END_OF_TIME]
            since = max(timed, default=0) - max(horizon or 0, 1)
            recent, always, own = np.zeros(9, int), np.zeros(9, int), np.zeros(9, int)
            latest = np.full(9, -1)
            for seed in seen:
                named = task.list_of(seed)
                always[named] += 1
                recent[named] += timed == [] or task.time[seed] > since
                if task.row[seed] == entity:
                    own[named] += 1
                    latest[named] = seed
            wanted = sorted(np.flatnonzero(always), key=lambda row: (-recent[row], -always[row], row))[:6]
            assert popular[at][popular[at] >= 0].tolist() == wanted, (number, at)
            wanted = sorted(np.flatnonzero(own), key=lambda row: (-own[row], -latest[row], row))[:4]
            assert frequent[at][frequent[at] >= 0].tolist() == wanted, (number, at)


def test_rankings_hold_candidates_first_and_no_row_twice() -> None:
    log_odds = np.array([[0.5, 9.0, -1.0, 0.5], [0.0, 0.0, 0.0, 0.0]], np.float32)
    rows = np.array([[4, -1, 2, 7], [-1, -1, -1, -1]])
    ranked, scores = rank_candidates(log_odds, rows, 5)
    assert ranked.tolist() == [[4, 7, 2, -1, -1], [-1] * 5]
    assert scores[0, :3].tolist() == [0.5, 0.5, -1.0]
    assert np.isnan(scores[0, 3:]).all()
    assert filled(ranked, np.array([[7, 8, 4, 0], [1, 2, -1, -1]]), 5).tolist() == [[4, 7, 2, 8, 0], [1, 2, -1, -1, -1]]


# ---- the model ------------------------------------------------------------------------------------------------------


def _link_batch(rng_seed: int = 0) -> Batch:
    """A batch whose seeds ask which shops belong to them; every second shop and order row is one."""
    batch = synthetic_batch(rng_seed, batch_size=4, tasks=(0,), has_answers=True, num_padding_seeds=1)
    batch.cell_stype[np.arange(4), np.maximum(batch.target_cell, 0)] = 0
    is_candidate = batch.row_table == 1
    is_candidate[1] = False  # a seed without candidates
    batch.row_is_candidate[:] = is_candidate
    batch.row_is_target[:] = is_candidate & (np.arange(is_candidate.shape[1]) % 2 == 0)
    batch.candidate_row[:] = np.where(is_candidate, 100 + np.arange(is_candidate.shape[1]), -1)
    return batch


def test_the_loss_is_the_mean_over_candidates_and_seeds() -> None:
    batch = _link_batch()
    log_odds = np.random.default_rng(0).normal(size=batch.row_is_candidate.shape).astype(np.float32)
    losses = candidate_loss(jnp.asarray(log_odds), batch)
    for seed in (0, 2):
        places = np.flatnonzero(batch.row_is_candidate[seed])
        signs = np.where(batch.row_is_target[seed, places], 1.0, -1.0)
        wanted = np.log1p(np.exp(-signs * log_odds[seed, places].astype(np.float64))).mean()
        assert float(losses[seed]) == pytest.approx(wanted, rel=1e-5)


_SLOW = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("gnn", "tree-lstm")]


@pytest.mark.parametrize("kind", ["transformer", *_SLOW])
def test_every_kind_learns_to_rank(kind: Any) -> None:
    config = ModelConfig(kind=kind, d_model=16, num_layers=1, num_heads=2, d_ff=16, link_head=True)
    graphdef, params = nnx.split(build_model(config, 16, rngs=nnx.Rngs(0)), nnx.Param)
    arrays, batch = database_arrays(16), _link_batch().device_fields()
    objective = Objective(mask_rate=0.0)

    def loss(params: Any) -> Any:
        return objective_loss(nnx.merge(graphdef, params), batch, arrays, objective)

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (first, metrics), _ = step(params)
    assert float(first) == pytest.approx(np.log(2.0), rel=1e-4)  # an untrained model cannot tell rows apart
    assert float(metrics["target_row_loss"]) == pytest.approx(float(first))
    for _ in range(300):
        (last, _), gradient = step(params)
        params = jax.tree.map(lambda leaf, slope: leaf - 0.3 * slope, params, gradient)
    assert float(last) < 0.9 * float(first)


def test_a_model_without_the_head_is_refused() -> None:
    task = {"name": "next", "target_stype": "link"}
    with pytest.raises(ConfigError, match=r"task `next` predicts rows of a table: .*`model.link_head: true`"):
        check_judges_rows(ModelConfig(), task)
    check_judges_rows(ModelConfig(link_head=True), task)


def test_recall_of_the_context() -> None:
    batch = _link_batch()
    batch.target_is_null[:] = False
    task = _task([(seed, 0, 0, list(range(5))) for seed in range(4)])
    batch.seed_index[:] = np.arange(4)
    real = ~batch.seed_is_padding
    assert recall_of_context([batch], task) == batch.row_is_target[real].sum() / (5 * real.sum())


# ---- the whole way --------------------------------------------------------------------------------------------------

_DAY = 86_400_000_000


def _write_shop(folder: Path) -> None:
    """40 customers who keep buying three of eight products of their own, and the task that asks for them."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    pq.write_table(pa.table({"id": np.arange(40)}), folder / "customers.parquet")
    pq.write_table(pa.table({"id": [f"p{n}" for n in range(8)]}), folder / "products.parquet")
    customer = np.repeat(np.arange(40), 30)
    liked = (customer[:, None] + np.array([0, 3, 5])) % 8
    product = np.where(rng.random(len(customer)) < 0.9, liked[np.arange(len(customer)), rng.integers(0, 3, 1200)], 0)
    at = pa.array(((19_723 + rng.uniform(0, 300, 1200)) * _DAY).astype(np.int64), pa.timestamp("us"))
    orders = {"customer": customer, "product": [f"p{n}" for n in product], "at": at}
    pq.write_table(pa.table(orders), folder / "orders.parquet")
    key = {"stype": "identifier"}
    columns = {
        "customer": {**key, "foreign_key": "customers.id"},
        "product": {**key, "foreign_key": "products.id"},
        "at": {"stype": "timestamp"},
    }
    tables = {
        "customers": {"primary_key": "id", "columns": {"id": key}},
        "products": {"primary_key": "id", "columns": {"id": key}},
        "orders": {"temporal_column": "at", "columns": columns},
    }
    (folder / "metadata.json").write_text(json.dumps({"name": "shop", "tables": tables, "tasks": {}}))


@pytest.mark.slow
def test_the_whole_way_of_a_link_task(tmp_path: Path, tributary_command: Any) -> None:
    def run_cli(*arguments: Any, expected: int = 0) -> Any:
        done = tributary_command(*map(str, arguments))
        assert done.returncode == expected, done.stderr
        return done

    raw, database, run = tmp_path / "raw", tmp_path / "db", tmp_path / "runs" / "buys"
    _write_shop(raw)
    question = "PREDICT LIST_DISTINCT(orders.product, 0, 30, days) RANK TOP 3 FOR EACH customers.id"
    run_cli("query", raw, question, "--save", "buys")
    run_cli("preprocess", raw, database, "--embedder", "hash")
    config = tmp_path / "config.yaml"
    config.write_text(
        f"run: {{name: buys, dir: {tmp_path / 'runs'}}}\n"
        f"data: {{database: {database}, seq_len: 96, num_neighbors: 12}}\n"
        "model: {d_model: 16, num_layers: 2, num_heads: 2, d_ff: 32}\n"
        "objective: {mask_rate: 0.0}\n"
        "optimizer: {learning_rate: 0.01, warmup_steps: 5}\n"
        "train: {steps: 60, batch_size: 16, eval_every: 60, eval_seeds: 40, checkpoint_every: 60}\n"
    )
    refused = run_cli("train", "--config", config, expected=2)
    assert "model.link_head: true" in refused.stderr
    run_cli("train", "--config", config, "--set", "model.link_head=true")
    out = tmp_path / "predictions.parquet"
    run_cli("predict", run, "--task", "buys", "--out", out)
    found = pq.read_table(out).to_pylist()
    for row in found:
        assert len(set(row["prediction"])) == len(row["prediction"]) == len(row["probability"]) == 3
        assert set(row["prediction"]) | set(row["label"]) <= {f"p{n}" for n in range(8)}
        assert row["num_found"] <= len(row["label"])
    run_cli("evaluate", run)
    (result,) = json.loads((run / "evaluation.json").read_text())["evaluations"]
    assert [entry["name"] for entry in result["baselines"]] == ["popular", "entity"]
    popular, entity = (entry["metrics"]["map"] for entry in result["baselines"])
    assert result["model"]["metrics"]["map"] > popular + 0.1
    assert entity > popular + 0.1
    assert result["recall_of_context"] > 0.9
    run_cli("report", run, "--out", tmp_path / "report.html")
    assert "most named" in (tmp_path / "report.html").read_text()
    run_cli("predict", run, "--task", "buys", "--out", out, "--key", "3", "--time", "2024-06-01")
    (row,) = pq.read_table(out).to_pylist()
    assert (row["entity"], len(row["prediction"]), row["label"]) == (3, 3, None)
