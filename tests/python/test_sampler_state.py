"""A state continues with the same bytes: at every step, for any threads, prefetch depth and number of processes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tributary import _headwater

# threads, prefetch
AHEAD = [(0, 0), (1, 1), (1, 4), (2, 2), (2, 7), (4, 2), (4, 9), (16, 3), (16, 16)]


def _sampler(database: _headwater.Database, **options: Any) -> _headwater.Sampler:
    return _headwater.Sampler(database, ["spend"], **({"batch_size": 8, "seq_len": 64, "split": "all"} | options))


def _contexts(batch: dict[str, np.ndarray]) -> list[str]:
    """A digest of every field of every context."""
    size = len(batch["seed_index"])
    parts = [[array[context].tobytes() for array in batch.values()] for context in range(size)]
    return [hashlib.sha256(b"|".join(part)).hexdigest() for part in parts]


def _recorded(sampler: _headwater.Sampler, steps: int) -> tuple[list[str], list[list[str]]]:
    """The states before each step, and the contexts of each."""
    states, batches = [], []
    for _ in range(steps):
        states.append(sampler.get_state())
        batches.append(_contexts(sampler.next_batch()))
    return states, batches


def _restored_everywhere(
    make: Callable[..., _headwater.Sampler], states: list[str], batches: list[list[str]], threads: int, prefetch: int
) -> None:
    """Goes from every state to the end, in a new sampler and in one that stood elsewhere."""
    reused = make(threads=threads, prefetch=prefetch)
    for step, state in enumerate(states):
        for sampler in (reused, make(threads=threads, prefetch=prefetch)):
            sampler.set_state(state)
            assert sampler.get_state() == state
            for expected in batches[step:]:
                assert _contexts(sampler.next_batch()) == expected, (step, threads, prefetch)
            if sampler is not reused:
                sampler.close()
    reused.close()


@pytest.mark.parametrize(("threads", "prefetch"), AHEAD)
def test_every_state_of_an_epoch_gives_the_same_rest(
    spend_shop: _headwater.Database, threads: int, prefetch: int
) -> None:
    def make(**options: Any) -> _headwater.Sampler:
        return _sampler(spend_shop, **options)

    reference = make(prefetch=0)
    # one step into the second epoch
    states, batches = _recorded(reference, reference.steps_per_epoch + 1)
    _restored_everywhere(make, states, batches, threads, prefetch)


# the options of a training run, and of an evaluation: 32 cells, so that an epoch of every seed stays cheap
_RUNS: list[dict[str, Any]] = [
    {"split": "train", "shuffle": True, "batch_size": 117, "seq_len": 32, "num_neighbors": 4},
    {"split": "test", "shuffle": False, "batch_size": 64, "seq_len": 64, "strategy": "recent"},
]


@pytest.mark.parametrize("options", _RUNS, ids=["train", "test"])
@pytest.mark.parametrize(("threads", "prefetch"), [(0, 0), (1, 3), (2, 2), (4, 5), (16, 16)])
def test_every_state_of_an_epoch_of_rel_f1(
    rel_f1: _headwater.Database, threads: int, prefetch: int, options: dict[str, Any]
) -> None:
    def make(**ahead: Any) -> _headwater.Sampler:
        return _headwater.Sampler(rel_f1, ["driver-top3"], **options, **ahead)

    reference = make(prefetch=0)
    states, batches = _recorded(reference, reference.steps_per_epoch)
    assert len(states) > 10
    _restored_everywhere(make, states, batches, threads, prefetch)


def _order(database: _headwater.Database, world_size: int, steps: int, state: str | None) -> tuple[list[str], str]:
    """Contexts in global order over all ranks from a state on, and the state after them."""
    size = {"batch_size": 24 // world_size, "world_size": world_size}
    ranks = [_sampler(database, **size, rank=rank, threads=1) for rank in range(world_size)]
    for rank in ranks:
        if state is not None:
            rank.set_state(state)
    order = [context for _ in range(steps) for rank in ranks for context in _contexts(rank.next_batch())]
    states = {rank.get_state() for rank in ranks}
    assert len(states) == 1, "every rank stands at the same place"
    return order, states.pop()


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 4), (4, 3), (3, 8), (8, 1)])
def test_every_state_continues_on_another_number_of_processes(
    spend_shop: _headwater.Database, before: int, after: int
) -> None:
    """24 seeds a step whatever the number of processes."""
    steps = 6
    whole, _ = _order(spend_shop, 1, steps, None)
    for step in range(1, steps):
        first, state = _order(spend_shop, before, step, None)
        second, _ = _order(spend_shop, after, steps - step, state)
        assert first + second == whole, step


def test_another_world_size_keeps_the_global_order(spend_shop: _headwater.Database) -> None:
    def order(world_size: int, steps: int, state: str | None) -> tuple[list[int], str]:
        ranks = [_sampler(spend_shop, batch_size=5, rank=rank, world_size=world_size) for rank in range(world_size)]
        for rank in ranks:
            if state is not None:
                rank.set_state(state)
        seeds = [index for _ in range(steps) for rank in ranks for index in rank.next_batch()["seed_index"].tolist()]
        return seeds, ranks[0].get_state()

    whole, _ = order(1, 48, None)
    first, state = order(4, 4, None)
    second, state = order(2, 6, state)
    third, _ = order(1, 20, state)
    assert first + second + third == whole
    assert sorted(whole[:120]) == sorted(whole[120:]) == list(range(120)), "two epochs, each seed once"
    odd = _sampler(spend_shop, batch_size=5, rank=1, world_size=7)
    with pytest.raises(ValueError, match=r"seed 80, which is no multiple of this sampler's 35"):
        odd.set_state(order(4, 4, None)[1])


def test_a_state_of_other_options_is_refused(spend_shop: _headwater.Database) -> None:
    state = _sampler(spend_shop).get_state()
    for options in ({"num_neighbors": 3}, {"num_neighbors": [16]}, {"lookback": 5}, {"max_lag": 5}, {"rng_seed": 1}):
        with pytest.raises(ValueError, match=r"the state was taken with the options .* this sampler has"):
            _sampler(spend_shop, **options).set_state(state)
    rows = np.arange(3)
    own = _headwater.Sampler(spend_shop, ["spend"], seeds=(rows, rows), batch_size=8)
    own.set_state(own.get_state())
    other = _headwater.Sampler(spend_shop, ["spend"], seeds=(rows, rows + 1), batch_size=8)
    with pytest.raises(ValueError, match="3 seeds"):
        other.set_state(own.get_state())
