"""One stream of batches out of several samplers: tasks and databases mixed by weight.

Described in `documentation/sampling.md`, "Mixtures".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from tributary.batch import Batch
from tributary.config import RunConfig
from tributary.data import Sampler, Turn, fitted_size, merged_sizes, training_options, trim
from tributary.training.databases import ROWS, Offsets, RowSeeds, Source
from tributary.training.devices import Devices

__all__ = ["Mixture", "training_mixture"]


class Mixture:
    """Batches of several samplers in turn, each cut to the size its contexts need.

    A turn goes to the sampler that is furthest behind its share, so who makes the batch of a step, and which of its
    own it is, is a pure function of shares and step. Every batch is of one sampler and has the ids of its database.
    One sampler per task lets short contexts stay short: a batch costs what its longest context does.

    Args:
        samplers: by name; of one database or several, all with the same rank and world size.
        shares: share of the turns of each name; any positive numbers.
        steps_per_turn: steps a sampler has before the next turn. A run that goes on with fewer processes keeps the
            global order of seeds when a turn has that many times more steps.
        sizes: cells and rows that batches are cut to, by name; None: what the contexts of each sampler need.

    Raises:
        ValueError: there is no sampler, or names or shares are wrong.

    Example:
        ```
        shop = tributary.Sampler(tributary.Database("data/processed/shop"), ["churn"])
        f1 = tributary.Sampler(tributary.Database("data/processed/rel-f1"), ["driver-dnf", "driver-top3"])
        with tributary.Mixture({"shop": shop, "f1": f1}, {"shop": 2, "f1": 1}) as mixture:
            for batch in mixture:
                print(mixture.source(mixture.step - 1), batch.seed_task)
        ```
    """

    def __init__(
        self,
        samplers: Mapping[str, Sampler],
        shares: Mapping[str, float],
        *,
        steps_per_turn: int = 1,
        sizes: Mapping[str, tuple[int, int]] | None = None,
    ):
        if not samplers or samplers.keys() != shares.keys():
            raise ValueError(f"shares of {sorted(shares)}, expected one per sampler: {sorted(samplers) or 'none'}")
        for name, share in shares.items():
            if not (math.isfinite(share) and share > 0):
                raise ValueError(f"share of `{name}`: expected a positive number, found {share}")
        if steps_per_turn < 1:
            raise ValueError(f"steps_per_turn: expected at least 1, found {steps_per_turn}")
        self._samplers, self._steps_per_turn = dict(samplers), steps_per_turn
        self._shares = {name: float(shares[name]) for name in self._samplers}
        self._sizes = dict(sizes) if sizes else {name: fitted_size(sampler) for name, sampler in samplers.items()}
        self._step = 0

    @property
    def step(self) -> int:
        """The step of the next batch."""
        return self._step

    def _next_turn(self, counts: Mapping[str, int]) -> str:
        return min(counts, key=lambda name: (counts[name] + 1) / self._shares[name])

    def _counts(self, turn: int) -> dict[str, int]:
        """Turns each sampler had before a turn."""
        total = math.fsum(self._shares.values())
        # Everybody has had at least the whole part of a fair share; one less is safe from rounding.
        counts = {name: max(0, math.floor(turn * share / total) - 1) for name, share in self._shares.items()}
        for _ in range(turn - sum(counts.values())):
            counts[self._next_turn(counts)] += 1
        return counts

    def _place(self, step: int) -> tuple[str, int]:
        """Who makes the batch of a step, and which of its own steps it is."""
        if step < 0:
            raise ValueError(f"step is out of range, found {step}")
        turn, within = divmod(step, self._steps_per_turn)
        counts = self._counts(turn)
        name = self._next_turn(counts)
        return name, counts[name] * self._steps_per_turn + within

    def source(self, step: int) -> str:
        """Name of the sampler that makes the batch of a step."""
        return self._place(step)[0]

    def batch(self, step: int) -> Batch:
        """The batch of a step, a pure function of samplers, shares and step."""
        name, own = self._place(step)
        return trim(self._samplers[name].batch(own), self._sizes[name])

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        """The next batch, sampled ahead; ends with the first sampler that ends."""
        name, _ = self._place(self._step)
        batch = next(self._samplers[name])
        self._step += 1
        return trim(batch, self._sizes[name])

    def draw(self) -> Turn:
        """The batches of the present turn, or what is left of it, sampled ahead; not cut yet."""
        name, _ = self._place(self._step)
        count = self._steps_per_turn - self._step % self._steps_per_turn
        # a list: a generator would turn the end of a sampler into an error
        batches = tuple([next(self._samplers[name]) for _ in range(count)])
        self._step += count
        return Turn(name, batches, self._sizes[name])

    def get_state(self) -> str:
        """JSON to continue from: step, shares and the state of each sampler."""
        states = {name: json.loads(sampler.get_state()) for name, sampler in self._samplers.items()}
        steps = {"step": self._step, "steps_per_turn": self._steps_per_turn}
        return json.dumps({**steps, "shares": self._shares, "samplers": states})

    def set_state(self, state: str) -> None:
        """Continues from a state.

        Raises:
            ValueError: the state is of other samplers or shares, stands within a turn that this mixture divides
                differently, or a sampler refuses its part.
        """
        parsed = json.loads(state)
        if parsed["shares"] != self._shares or list(parsed["shares"]) != list(self._shares):
            raise ValueError(f"state of shares {parsed['shares']}, expected {self._shares}")
        step, rest = divmod(parsed["step"] * self._steps_per_turn, parsed["steps_per_turn"])
        if rest:
            raise ValueError(
                f"the state stands within a turn of {parsed['steps_per_turn']} steps, which turns of "
                f"{self._steps_per_turn} cannot take up"
            )
        turn, within = divmod(step, self._steps_per_turn)
        counts = self._counts(turn)
        now = self._next_turn(counts)
        for name, sampler in self._samplers.items():
            sampler.set_state(json.dumps(parsed["samplers"][name]))
            expected = counts[name] * self._steps_per_turn + (within if name == now else 0)
            found = json.loads(sampler.get_state())["step"]
            if found != expected:
                raise ValueError(
                    f"sampler `{name}` continues at its step {found}, turns of {self._steps_per_turn} steps at "
                    f"{expected}: with another world_size, change steps_per_turn by the inverse factor"
                )
        self._step = step

    def close(self) -> None:
        """Stops the samplers; idempotent."""
        for sampler in self._samplers.values():
            sampler.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def training_mixture(sources: Sequence[Source], config: RunConfig, devices: Devices | None = None) -> Mixture:
    """The training batches of a run: a sampler per task, and one per database for the rows of its tables.

    Args:
        sources: databases of the run.
        config: of the run.
        devices: of the run; None: one process draws whole batches.
    """
    rank, world_size = (devices.rank, devices.world_size) if devices else (0, 1)
    batch_size = config.train.batch_size // (config.train.accumulate * world_size)
    place: dict[str, Any] = {"rank": rank, "world_size": world_size} if world_size > 1 else {}
    samplers: dict[str, Sampler] = {}
    shares: dict[str, float] = {}
    for source in sources:
        options = (
            training_options(config, source.data) | {"batch_size": batch_size, "rng_seed": config.run.seed} | place
        )
        seeds = dict[str, float]()
        for task in source.tasks:
            sampler = source.task_sampler(task["name"], "train", **options)
            samplers[source.label(task["name"])] = sampler
            seeds[source.label(task["name"])] = float(sampler.num_seeds) ** config.data.task_balance
        if source.tables:
            rows = RowSeeds.of(source, "train", config.data.task_balance)
            samplers[source.label(ROWS)] = rows.sampler(source, shuffle=True, **options)
            seeds[source.label(ROWS)] = sum(rows.weights.values())
        factor = 1.0 if source.share is None else source.share / sum(seeds.values())
        shares |= {name: factor * share for name, share in seeds.items()}
    sizes = {name: fitted_size(sampler) for name, sampler in samplers.items()}
    if devices is not None:
        sizes = {name: _agreed(devices, size) for name, size in sizes.items()}
    sizes = merged_sizes(sizes, shares, config.data.max_shapes)
    return Mixture(samplers, shares, steps_per_turn=config.train.accumulate, sizes=sizes)


def _agreed(devices: Devices, size: tuple[int, int]) -> tuple[int, int]:
    num_cells, num_rows = devices.largest(np.array(size)).tolist()
    return num_cells, num_rows


def sampler_offsets(sources: Sequence[Source]) -> dict[str, Offsets]:
    """Where the ids of each sampler's batches begin among those of all databases."""
    return {
        source.label(name): source.offsets
        for source in sources
        for name in [ROWS, *(task["name"] for task in source.tasks)]
    }
