"""What training needs before its first step: databases, a model that learns, and a state to begin with.

The loop is `tributary.training.train`'s. Described in `documentation/training.md`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from tributary.batch import Batch, DatabaseArrays
from tributary.config import PUBLISHED_KINDS, RunConfig
from tributary.links import check_judges_rows
from tributary.model.forward import describe_model, draw_params
from tributary.runs.checkpoint import Checkpoints, check_same_run
from tributary.training.databases import Source, join, open_sources
from tributary.training.devices import Devices
from tributary.training.journal import Position
from tributary.training.losses import Objective, Shares, objective_loss, part_shares
from tributary.training.optim import State, init_state, make_train_step
from tributary.training.origin import take_params

RESUMABLE_CHANGES = {
    "data.in_memory",
    "data.prefetch",
    "data.threads",
    "devices.coordinator",
    "devices.data",
    "devices.fsdp",
    "devices.num_processes",
    "devices.process_id",
    "run.dir",
    "train.accumulate",
    "train.archive_dir",
    "train.checkpoint_every",
    "train.keep_best",
    "train.keep_every",
    "train.keep_hours",
    "train.keep_last",
    "train.log_every",
    "train.plots",
    "train.project",
    "train.time_limit_minutes",
    "train.trackers",
}
"""Keys of a config that may differ when a run is resumed."""


@dataclasses.dataclass(frozen=True)
class Material:
    """What a model is trained on."""

    sources: tuple[Source, ...]
    """The databases."""
    arrays: DatabaseArrays
    """Of all databases, on the devices."""

    @classmethod
    def open(cls, config: RunConfig, devices: Devices) -> Material:
        """Opens the databases of a run."""
        are_spread = config.model.kind not in PUBLISHED_KINDS
        opened = open_sources(config.data)
        for source in opened:
            for task in source.tasks:
                check_judges_rows(config.model, task)
        sources, arrays = join(opened, are_spread=are_spread)
        return cls(sources, devices.put_copies(arrays))

    @property
    def embedding_dim(self) -> int:
        """Width of the vectors."""
        return int(self.arrays.column_vectors.shape[1])

    @property
    def embedder(self) -> dict[str, Any] | None:
        """What made the vectors of all databases, as their manifests say."""
        embedder: dict[str, Any] | None = self.sources[0].manifest["embedder"]
        return embedder

    @property
    def builds(self) -> dict[str, str]:
        """Build id of every database, by its path."""
        return {str(source.data.database): source.database.build_id for source in self.sources}

    @property
    def task_names(self) -> list[str]:
        """Of all databases."""
        return [source.label(task["name"]) for source in self.sources for task in source.tasks]


@dataclasses.dataclass(frozen=True)
class Learner:
    """A model, and how it learns."""

    graphdef: nnx.GraphDef[Any]
    """The model without its parameters."""
    draw_params: Callable[[], Any]
    """Draws its first parameters, always the same."""
    template: State
    """Shapes of the training state."""
    num_parameters: int
    """Of the model."""
    train_step: Callable[[State, Batch, DatabaseArrays, Any], tuple[State, dict[str, jax.Array]]]
    """From `make_train_step`."""

    @classmethod
    def of(cls, config: RunConfig, material: Material, devices: Devices) -> Learner:
        """The model of a configuration."""
        dim = material.embedding_dim
        draw = functools.partial(draw_params, config.model, dim, config.run.seed)
        graphdef, params = describe_model(config.model, dim)
        objective = Objective(**config.objective.model_dump())

        def loss_function(
            params: Any, batch: Batch, arrays: DatabaseArrays, shares: Shares = None
        ) -> tuple[jax.Array, dict[str, jax.Array]]:
            return objective_loss(nnx.merge(graphdef, params), batch, arrays, objective, shares)

        def shares_of(batch: Batch, arrays: DatabaseArrays) -> dict[str, jax.Array]:
            return part_shares(batch, arrays, objective)

        template = jax.eval_shape(lambda params: first_state(config, params), params)
        train_step = make_train_step(
            loss_function,
            config.optimizer,
            part_shares=shares_of if config.train.accumulate > 1 else None,
            shardings=(devices.state_shardings(template), devices.copied) if devices.size > 1 else None,
        )
        return cls(graphdef, draw, template, sum(leaf.size for leaf in jax.tree.leaves(params)), train_step)


def first_state(config: RunConfig, params: Any) -> State:
    """State before the first step, of parameters as nested dicts."""
    return init_state(params, config.optimizer, config.train.freeze)


@dataclasses.dataclass(frozen=True)
class Start:
    """Where a training begins."""

    state: State
    """On the devices."""
    position: Position
    """Steps done, time spent."""
    sampler_state: str | None
    """Of the mixture; None: from its beginning."""
    origin: Mapping[str, Any] | None
    """Where the first parameters came from, see `tributary.training.origin.Origin`; None: drawn at random."""
    cost: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """What the run cost before, see `tributary.training.cost`."""

    @classmethod
    def first(cls, config: RunConfig, material: Material, learner: Learner, devices: Devices) -> Start:
        """With parameters drawn at random, or those of another run.

        Raises:
            CheckpointError: the other run does not fit.
        """
        params, origin = learner.draw_params(), None
        if config.train.init_from is not None:
            train = config.train
            params, taken = take_params(
                config.train.init_from, train.init_step, params, config.model, material.embedder
            )
            origin = dataclasses.asdict(taken)
        return cls(devices.put_state(first_state(config, params)), Position(), None, origin)

    @classmethod
    def resumed(
        cls, config: RunConfig, material: Material, learner: Learner, devices: Devices, checkpoints: Checkpoints
    ) -> Start:
        """From the newest sound checkpoint.

        Raises:
            CheckpointError: there is none, or it had another database or configuration.
        """
        checkpoints.check_vectors(material.embedder, str(material.sources[0].data.database))
        restored, progress = checkpoints.restore("last", learner.template)
        check_same_run(progress, config.model_dump(mode="json"), material.builds, ignored=RESUMABLE_CHANGES)
        position = Position(progress.step, progress.elapsed_s, progress.best_metric, progress.best_step)
        return cls(devices.put_state(restored), position, progress.sampler_state, progress.origin, progress.cost)
