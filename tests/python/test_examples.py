"""Labelled examples of other entities from Python: threads, states, seeds of one's own, the picture and the options."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from tributary import _headwater
from tributary.cli.picture import context_svg
from tributary.config import DataSection
from tributary.data import sampler_options

_CHOICES = ["similar", "recent", "random"]


def _sampler(database: _headwater.Database, **options: Any) -> _headwater.Sampler:
    return _headwater.Sampler(database, ["spend"], **({"batch_size": 8, "seq_len": 96, "examples": 4} | options))


def _bytes(batch: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in batch.items()}


@pytest.mark.parametrize("choice", _CHOICES)
def test_threads_and_states_give_the_same_bytes(spend_shop: _headwater.Database, choice: str) -> None:
    direct = _sampler(spend_shop, example_choice=choice)
    ahead = _sampler(spend_shop, example_choice=choice, threads=3, prefetch=5)
    states = []
    for step in range(6):
        states.append(ahead.get_state())
        assert _bytes(direct.batch(step)) == _bytes(ahead.next_batch())
    ahead.set_state(states[2])
    assert _bytes(direct.batch(2)) == _bytes(ahead.next_batch())
    ahead.close()
    with pytest.raises(ValueError, match="examples"):
        _sampler(spend_shop, example_choice=choice, examples=3).set_state(states[0])


@pytest.mark.parametrize("choice", _CHOICES)
def test_examples_are_of_other_entities_and_were_known(spend_shop: _headwater.Database, choice: str) -> None:
    labels = spend_shop.task_seeds("spend")
    sampler = _sampler(spend_shop, split="all", shuffle=False, batch_size=1, history=False, example_choice=choice)
    found = 0
    for position in range(sampler.num_seeds):
        context = sampler.batch(position)
        seed = context["seed_index"][0]
        explained = _explained(sampler, position)
        for row in (row for row in explained["rows"] if row["kind"] == "example"):
            found += 1
            assert labels["row"][row["row"]] != labels["row"][seed]
            assert labels["time"][row["row"]] < labels["time"][seed]
            assert labels["split"][row["row"]] <= labels["split"][seed]
            assert any(cell["column"] == "spend" and cell["value"] is not None for cell in row["cells"])
    assert found > 0


def _explained(sampler: _headwater.Sampler, position: int) -> Any:
    return json.loads(sampler.explain(position))


def test_seeds_of_ones_own_see_examples(spend_shop: _headwater.Database) -> None:
    seeds = (np.zeros(1, np.int64), np.full(1, spend_shop.task_seeds("spend")["time"].max() + 10**14))
    with_examples = _explained(_sampler(spend_shop, seeds=seeds, shuffle=False, history=False), 0)
    examples = [row for row in with_examples["rows"] if row["kind"] == "example"]
    assert len(examples) == 4
    picture = context_svg(with_examples)
    ElementTree.fromstring(picture)
    assert all(f"example: spend #{row['row']}" in picture for row in examples)


def test_the_options_reach_the_sampler(spend_shop: _headwater.Database) -> None:
    section = DataSection(database="x", examples=3, example_choice="recent", example_share=0.25, example_walks=7)
    options = sampler_options(section)
    expected = {"examples": 3, "example_choice": "recent", "example_share": 0.25, "example_walks": 7}
    assert options.items() >= (expected | {"example_walk_length": 8}).items()
    with pytest.raises(ValueError, match="expected one of: similar, recent, random"):
        _sampler(spend_shop, example_choice="nearest")
    with pytest.raises(ValueError, match="example_share must be above 0"):
        _sampler(spend_shop, example_share=0.0)
