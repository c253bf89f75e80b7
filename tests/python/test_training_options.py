"""Options of training that change what a step computes, in real trainings on a small database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tributary.config import RunConfig
from tributary.prediction.predict import load_run
from tributary.runs.checkpoint import Checkpoints
from tributary.training.train import train
from visits import write_visits

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of sixty days."""
    return write_visits(tmp_path_factory.mktemp("options"), "one", 60)


def _train(database: Path, name: str, *overrides: str) -> tuple[Path, list[dict[str, Any]]]:
    settings = [
        f"data.database={database}",
        "data.seq_len=32",
        f"run.dir={database.parent / 'runs'}",
        f"run.name={name}",
        "model.d_model=16",
        "model.d_ff=16",
        "train.batch_size=8",
        "train.log_every=1",
        "train.eval_seeds=16",
        "optimizer.warmup_steps=2",
        *overrides,
    ]
    run = train(RunConfig.from_mapping({}, settings))
    return run, [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_half_precision_recomputed_layers_and_no_average(database: Path) -> None:
    run, lines = _train(
        database,
        "half",
        "model.dtype=bfloat16",
        "model.remat=true",
        "model.num_layers=2",
        "model.attentions=[column,full]",
        "optimizer.name=adamw",
        "optimizer.schedule=constant",
        "optimizer.ema_decay=null",
        "optimizer.learning_rate=0.01",
        "train.steps=40",
        "train.eval_every=40",
    )
    losses = [line["target_loss"] for line in lines if line["kind"] == "train"]
    assert np.isfinite(losses).all()
    assert np.mean(losses[-8:]) < 0.8 * np.mean(losses[:8])
    assert {line["learning_rate"] for line in lines[5:40]} == {np.float32(0.01)}
    params = load_run(run, step="last").params
    assert {leaf.dtype.name for leaf in jax.tree.leaves(params)} == {"float32"}
    assert set(params["blocks"]) == {"column_attention", "full_attention", "mlp"}


def test_steps_in_parts_with_links_weights_and_early_end(database: Path) -> None:
    run, lines = _train(
        database,
        "parts",
        "model.num_layers=1",
        "model.attentions=[neighbor,full]",
        "model.link_head=true",
        "data.num_links=4",
        "data.tables=[visits]",
        "objective.link_weight=0.5",
        "objective.positive_weight=auto",
        "objective.focal_gamma=1.0",
        "train.accumulate=2",
        "optimizer.schedule=one-cycle",
        "optimizer.learning_rate=1e-12",
        "train.steps=100",
        "train.eval_every=3",
        "train.patience=2",
    )
    # Nothing is learned, so the first validation stays the best one.
    assert lines[-1]["step"] == Checkpoints(run).steps("last")[-1] == 9
    steps = [line for line in lines if line["kind"] == "train"]
    assert all(line["link_loss"] > 0 for line in steps)
    for line in steps:
        parts = line["target_loss"] + 0.3 * line["masked_loss"] + 0.5 * line["link_loss"]
        np.testing.assert_allclose(line["loss"], parts, rtol=1e-5)
