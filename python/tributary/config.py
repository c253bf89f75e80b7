"""Configuration of a run: pydantic models of the YAML files, presets, and strict `--set a.b=c` overrides.

Every key has a description and a unit; an unknown key is an error with a suggestion. Nothing here opens a database.
Described in `documentation/training.md`.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from tributary.moments import moment_us

AttentionKind = Literal["column", "feature", "neighbor", "temporal", "full"]

PublishedKind = Literal["rt-v1", "rt-plurel", "rt-j"]
PUBLISHED_KINDS: tuple[PublishedKind, ...] = get_args(PublishedKind)

ModelKind = Literal["transformer", "gnn", "tree-lstm", "rt-v1", "rt-plurel", "rt-j"]
SHARED_MODEL_KEYS = frozenset(("preset", "kind", "d_model", "num_layers", "num_heads", "d_ff", "dtype", "param_dtype"))
"""Keys of the section `model` that every kind reads."""
ROW_MODEL_KEYS = frozenset(("time_features", "age_cycles", "link_head"))
"""Keys that the kinds over rows share with the transformer."""
OWN_MODEL_KEYS: dict[str, frozenset[str]] = {"gnn": frozenset(("num_bases",)), "tree-lstm": frozenset(("levels",))}
"""Keys that only one kind reads besides; the kinds that are not named here read all but these."""

TimeFeature = Literal["second", "minute", "hour", "weekday", "day", "month", "yearday", "absolute"]
TIME_FEATURES: tuple[TimeFeature, ...] = get_args(TimeFeature)

TrackerName = Literal["tensorboard", "mlflow", "wandb"]

AgeCycle = Literal["hour", "day", "week", "year"]

PRESETS: dict[str, dict[str, Any]] = {
    "demo": {"kind": "transformer", "d_model": 64, "num_layers": 3, "num_heads": 2, "d_ff": 128, "readout": True},
    "rt-22m": {"kind": "transformer", "d_model": 256, "num_layers": 12, "num_heads": 8, "d_ff": 1024, "readout": False},
    "rt-86m": {"kind": "transformer", "d_model": 512, "num_layers": 12, "num_heads": 8, "d_ff": 2048, "readout": False},
    "rt-v1": {"kind": "rt-v1", "d_model": 256, "num_layers": 12, "num_heads": 8, "d_ff": 1024},
    "rt-plurel": {"kind": "rt-plurel", "d_model": 256, "num_layers": 12, "num_heads": 8, "d_ff": 1024},
    "rt-j": {"kind": "rt-j", "d_model": 512, "num_layers": 12, "num_heads": 8, "d_ff": 2048},
}
"""Model sizes by name: `demo` trains on two CPU cores in minutes; `rt-22m` is the paper's size, for an accelerator,
`rt-86m` one of twice its width; `rt-v1`, `rt-plurel` and `rt-j` are published models, whose weights
`tributary import-weights` reads."""


Count = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
PredictableStype = Literal["numerical", "timestamp", "boolean", "categorical", "text"]
PerHop = Count | Annotated[list[Count], Field(min_length=1)]
NumNeighbors = PerHop | dict[str, PerHop]


class ConfigError(ValueError):
    """A configuration is wrong; the message names every wrong key, and what would be right."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class RunSection(_Section):
    """Where a run lives and which random numbers it uses."""

    name: str = Field(
        default="run", description="folder of the run below `dir`", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
    )
    dir: str = Field(default="runs", description="folder that holds the runs")
    seed: int = Field(
        default=0, ge=0, lt=2**31, description="rng_seed of the parameters and the sampler, its masked cells among it"
    )

    @property
    def path(self) -> Path:
        """Folder of the run."""
        return Path(self.dir) / self.name


def _check_rows_until(value: str | None) -> str | None:
    if value not in (None, "val", "test", "end"):
        try:
            moment_us(value)
        except ValueError as error:
            raise ValueError(f"{error}, or one of val, test, end") from None
    return value


class DatabaseSection(_Section):
    """One of several databases of a run; what is left out is as the section `data` has it for all."""

    path: str = Field(description="folder of the processed database")
    tasks: tuple[str, ...] | None = Field(default=(), description="as data.tasks, of this database")
    tables: tuple[str, ...] = Field(default=(), description="as data.tables, of this database")
    share: float | None = Field(
        default=None,
        gt=0.0,
        description="share of the batches, in any unit; null for all: by their seeds and data.task_balance",
    )
    rows_until: str | None = Field(default=None, description="as data.rows_until, for this database")
    num_neighbors: NumNeighbors | None = Field(default=None, description="as data.num_neighbors, for this database")
    max_hops: int | None = Field(default=None, ge=0, description="as data.max_hops, for this database")
    lookback: str | None = Field(default=None, description="as data.lookback, for this database")

    _rows_until = field_validator("rows_until")(_check_rows_until)


OVERRIDES = ("rows_until", "num_neighbors", "max_hops", "lookback")
"""Keys of a database of its own that replace those of the section `data` where they are given."""


class DataSection(_Section):
    """Which databases and tasks, and how contexts are sampled."""

    database: str | None = Field(
        default=None, description="folder of the processed database; or several in data.databases"
    )
    databases: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")], DatabaseSection] = Field(
        default={},
        description="several databases in one run, by a name of your own: path, tasks, tables, share, rows_until, "
        "num_neighbors, max_hops, lookback of each",
    )
    in_memory: bool = Field(
        default=False, description="read the rows into memory, in huge pages: large databases are sampled faster"
    )
    tasks: tuple[str, ...] | None = Field(
        default=(), description="tasks to train on; empty: every task of the database; null: none"
    )
    tables: tuple[str, ...] = Field(
        default=(),
        description="tables whose rows are training seeds beside those of the tasks: what is learned from them is "
        'their masked cells and links; ["*"]: every table',
    )
    rows_until: str = Field(
        default="val",
        description="rows that are seeds see nothing later than this and are not later themselves: before the first "
        "validation seed (val) or test seed (test) of the database's tasks, a moment in ISO 8601, or end: no limit",
    )
    regime: Literal["seed-time", "frozen"] = Field(
        default="seed-time",
        description="what the run is trained for. seed-time: every seed sees all up to its own moment. frozen: a "
        "training seed sees the database as it was a random time before, at most as long as its task's validation or "
        "test split lasts, and validation seeds see it as it was at the first of them; tasks whose seeds have no time "
        "have one regime",
    )
    max_shapes: int = Field(
        default=6,
        ge=1,
        description="sizes that batches are cut to at most; more make compilation longer, steps shorter",
    )
    task_balance: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="a task's share of batches grows with its seeds to this power; 0: equal shares",
    )
    seq_len: int = Field(default=256, ge=8, description="cells per context")
    max_rows: int | None = Field(default=None, ge=1, description="rows per context; null: as many as cells")
    num_neighbors: NumNeighbors = Field(
        default=16,
        description="children kept per row and foreign key: a number, a list by hop (its last number holds for further "
        "hops), or a mapping of foreign keys (`table.column`; `*`: all others) to either",
    )
    strategy: Literal["uniform", "recent"] = Field(default="recent", description="which children are kept")
    max_hops: int | None = Field(
        default=None, ge=0, description="foreign-key links walked from the seed's row; null: no limit"
    )
    null_cells: bool = Field(default=False, description="missing cells are part of the context")
    identifiers: Literal["all", "needed"] = Field(
        default="needed", description="`needed`: identifier cells only of rows that have no other cell"
    )
    lookback: str | None = Field(
        default=None,
        description='children and labels from longer before the seed are invisible, as "90 days"; null: none is',
    )
    strict_time: bool = Field(default=False, description="rows at exactly the seed's time are invisible")
    history: bool = Field(default=True, description="past labels of the same entity are rows of the context")
    examples: int = Field(
        default=0, ge=0, le=32767, description="labelled seeds of other entities that are rows of the context"
    )
    example_choice: Literal["similar", "recent", "random"] = Field(
        default="similar",
        description="which: of the entities that random walks from the seed's entity meet most often, the latest, any",
    )
    example_share: float = Field(
        default=0.5, gt=0.0, le=1.0, description="part of the context that is kept for examples and their rows"
    )
    example_walks: int = Field(default=128, ge=0, description="random walks in search of similar entities")
    example_walk_length: int = Field(default=8, ge=0, description="links walked by each")
    walk_features: int = Field(
        default=0, ge=0, le=64, description="steps of a random walk from the seed whose probabilities every row gets"
    )
    num_links: int = Field(
        default=0,
        ge=0,
        description="pairs of rows per training context of which the model says whether one points to the other",
    )
    threads: int = Field(default=0, ge=0, description="sampler threads; 0: one per core")
    prefetch: int = Field(default=2, ge=1, description="batches sampled ahead")

    _rows_until = field_validator("rows_until")(_check_rows_until)

    @property
    def parts(self) -> dict[str, DataSection]:
        """This section for each database alone, by its name; the name of a single one is empty."""
        if not self.databases:
            return {"": self}
        return {name: self._part(database) for name, database in self.databases.items()}

    def _part(self, database: DatabaseSection) -> DataSection:
        own = {key: getattr(database, key) for key in OVERRIDES if getattr(database, key) is not None}
        own |= {"database": database.path, "databases": {}, "tasks": database.tasks, "tables": database.tables}
        return self.model_copy(update=own)

    def part(self, database: str | Path | None) -> DataSection:
        """This section for one database.

        Args:
            database: name or path of one of the run; the path of another one, which is sampled as all are; None: the
                run's only one.

        Raises:
            ConfigError: None where the run has several.
        """
        parts = self.parts
        if database is None:
            if len(parts) > 1:
                raise ConfigError(f"the run has several databases ({', '.join(parts)}): say which one")
            return next(iter(parts.values()))
        for name, part in parts.items():
            if str(database) == name or Path(str(database)).absolute() == Path(str(part.database)).absolute():
                return part
        return self.model_copy(update={"database": str(database), "databases": {}})


class ModelConfig(_Section):
    """Sizes of the model; a preset fills the keys that are not given."""

    preset: Literal["demo", "rt-22m", "rt-86m", "rt-v1", "rt-plurel", "rt-j"] = Field(
        default="demo", description="sizes to start from"
    )
    kind: ModelKind = Field(
        default="transformer",
        description="architecture: the relational transformer, a graph network (gnn) or a Tree-LSTM over rows, or a "
        "published model",
    )
    number_output: Literal["z-score", "log-odds"] = Field(
        default="z-score",
        description="kind rt-j only: what its number head says of a boolean; log-odds if trained with cross-entropy",
    )
    d_model: int = Field(default=64, ge=8, description="width of a cell's token")
    num_layers: int = Field(
        default=3,
        ge=1,
        description="blocks, the readout block included; layers of a gnn (links that a cell sees) or a tree-lstm",
    )
    num_heads: int = Field(default=2, ge=1, description="attention heads; divides d_model")
    d_ff: int = Field(default=128, ge=1, description="inner width of the gated MLP")
    attentions: tuple[AttentionKind, ...] = Field(
        default=("column", "feature", "neighbor", "full"),
        min_length=1,
        description="attentions of every block, in order; leave some out to ablate",
    )
    lookback_days: float | None = Field(
        default=None, gt=0.0, description="how far back the temporal attention looks; null: no limit"
    )
    time_features: tuple[TimeFeature, ...] = Field(
        default=TIME_FEATURES,
        description="what of a timestamp is read: its cycles, and its place among all timestamps (absolute); later "
        "moments than those trained on have places, and perhaps months, never seen",
    )
    age_cycles: tuple[AgeCycle, ...] = Field(
        default=("day", "week", "year"), description="cycles by which the age of a row at the seed's time is read"
    )
    variable_selection: bool = Field(
        default=False,
        description="a column's cells weigh in every attention by what the asked column has to do with it",
    )
    positional: Literal["none", "walk", "pearl-random", "pearl-basis"] = Field(
        default="none",
        description="where a row stands in the graph of its context. walk: probabilities of a random walk from the "
        "seed (data.walk_features); pearl-random, pearl-basis: a graph network on node features without meaning",
    )
    positional_steps: int = Field(default=8, ge=1, description="steps of the walk that are read")
    positional_layers: int = Field(default=3, ge=1, description="layers of the graph network: links it reads along")
    positional_width: int = Field(default=16, ge=1, description="width of the graph network")
    positional_samples: int = Field(default=16, ge=1, description="random node features of pearl-random")
    qk_norm: bool = Field(default=True, description="queries and keys are normalised per head")
    output_gates: bool = Field(default=False, description="what a head read is scaled by a gate of the query's token")
    link_bias: bool = Field(
        default=False,
        description="attention along links prefers some foreign keys, by a bias computed from their names",
    )
    link_head: bool = Field(
        default=False, description="the model judges links between rows (link tasks, data.num_links)"
    )
    readout: bool = Field(default=True, description="the last block updates only the cells that are predicted")
    attention: Literal["auto", "dense", "chunked", "structured", "native", "pallas"] = Field(
        default="auto",
        description="implementation of attention; auto: native on a CPU, chunked or structured on several, else dense",
    )
    scan: bool = Field(
        default=True, description="layers run in a loop: compilation does not grow with depth; false: written out"
    )
    remat: bool = Field(
        default=False, description="a layer's values are computed again in the backward pass: less memory, more time"
    )
    num_bases: int = Field(
        default=4, ge=1, description="gnn: matrices of which the transform of every foreign key is a combination"
    )
    levels: int = Field(default=4, ge=1, description="tree-lstm: rows at most so many links from the seed are read")
    dtype: Literal["float32", "bfloat16"] = Field(default="float32", description="dtype of computation")
    param_dtype: Literal["float32"] = Field(default="float32", description="dtype of stored parameters")

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        sizes = PRESETS.get(str(values.get("preset", "demo")), {})
        foreign = cls.foreign_keys(str(values.get("kind", sizes.get("kind", "transformer"))))
        return {**{key: size for key, size in sizes.items() if key not in foreign}, **values}

    @model_validator(mode="after")
    def _check_sizes(self) -> ModelConfig:
        if self.d_model % self.num_heads:
            raise ValueError(f"num_heads = {self.num_heads} does not divide d_model = {self.d_model}")
        if len(set(self.attentions)) != len(self.attentions):
            raise ValueError(f"attentions names a layer twice: {', '.join(self.attentions)}")
        return self

    @classmethod
    def foreign_keys(cls, kind: str) -> frozenset[str]:
        """Keys of this section that a kind of model does not read."""
        others = frozenset[str]().union(*(keys for name, keys in OWN_MODEL_KEYS.items() if name != kind))
        if kind not in OWN_MODEL_KEYS:
            return others
        return frozenset(cls.model_fields) - SHARED_MODEL_KEYS - ROW_MODEL_KEYS - OWN_MODEL_KEYS[kind]

    @model_validator(mode="after")
    def _check_kind(self) -> ModelConfig:
        fields, foreign = type(self).model_fields, self.foreign_keys(self.kind)
        wrong = [key for key in fields if key in foreign and getattr(self, key) != fields[key].default]
        if wrong:
            known = ", ".join(key for key in fields if key not in foreign)
            raise ValueError(f"kind {self.kind} does not read {', '.join(wrong)}: leave that out; it reads {known}")
        return self


class ObjectiveSection(_Section):
    """What is learned: the target cells, and cells masked at random beside them."""

    mask_rate: Probability | dict[PredictableStype, Probability] = Field(
        default=0.15,
        description="fraction of the other cells that is masked, or a mapping of stypes to such fractions (those that "
        "are not named: 0); 0: none",
    )
    mask_columns: Probability = Field(
        default=0.0, description="fraction of the columns of each context that is masked as a whole"
    )
    masked_weight: float = Field(
        default=0.3, ge=0.0, description="weight of the masked cells' loss; the targets' weight is 1"
    )
    null_weight: float = Field(default=0.1, ge=0.0, description="weight of the null loss inside the masked cells' loss")
    huber_delta: float = Field(
        default=0.1, gt=0.0, description="standard deviations beyond which the loss of a number grows linearly"
    )
    num_candidates: int = Field(
        default=512,
        ge=2,
        description="distinct values of a batch that a masked categorical or text cell is told apart from",
    )
    calendar_weight: float = Field(
        default=0.5,
        ge=0.0,
        description="weight of the cycles (hour, weekday, month...) of a masked timestamp; that of its place is 1",
    )
    positive_weight: Annotated[float, Field(gt=0.0)] | Literal["auto"] = Field(
        default=1.0,
        description="weight of a boolean's loss where the label is true; auto: false labels per true one, of each "
        "column and each task's training labels",
    )
    focal_gamma: float = Field(
        default=0.0, ge=0.0, description="exponent by which booleans that are predicted well weigh less; 0: all alike"
    )
    z_loss: float = Field(
        default=0.0, ge=0.0, description="weight of the squared log-normaliser of classes, which keeps logits small"
    )
    link_weight: float = Field(
        default=0.3, ge=0.0, description="weight of the links' loss (model.link_head); the targets' weight is 1"
    )


class OptimizerSection(_Section):
    """Optax settings."""

    name: Literal["muon", "adamw"] = Field(
        default="muon", description="muon: Muon for the blocks' matrices, AdamW for the rest"
    )
    learning_rate: float = Field(default=3e-3, gt=0.0, description="peak learning rate")
    warmup_steps: int = Field(default=30, ge=0, description="steps of linear warm-up")
    schedule: Literal["cosine", "constant", "one-cycle"] = Field(
        default="cosine",
        description="learning rate after the warm-up: falls as half a cosine; stays; or rises from a 25th of the peak "
        "over cycle_rise of the run and then falls, both as half a cosine",
    )
    cycle_rise: float = Field(
        default=0.3, gt=0.0, lt=1.0, description="part of the run in which the rate of one-cycle rises"
    )
    final_fraction: float = Field(
        default=0.02, ge=0.0, le=1.0, description="learning rate at the end, as a part of the peak"
    )
    weight_decay: float = Field(default=0.01, ge=0.0, description="decoupled weight decay of matrices")
    b1: float = Field(default=0.9, ge=0.0, lt=1.0, description="decay of AdamW's first moment")
    b2: float = Field(default=0.98, ge=0.0, lt=1.0, description="decay of AdamW's second moment")
    clip_norm: float = Field(default=1.0, gt=0.0, description="largest global norm of a gradient")
    ema_decay: float | None = Field(
        default=0.98,
        gt=0.0,
        lt=1.0,
        description="decay of the averaged parameters used for evaluation; null: no average",
    )


def _as_groups(value: Any) -> Any:
    if isinstance(value, str):
        return () if value == "none" else (value,)
    return value


class TrainSection(_Section):
    """How long, how often, how much is kept."""

    steps: int = Field(default=1000, ge=1, description="training steps; the learning rate reaches its end there")
    time_limit_minutes: float | None = Field(
        default=None, gt=0.0, description="minutes after which training ends; the learning rate follows the nearer end"
    )
    batch_size: int = Field(default=32, ge=1, description="contexts per step, over all devices and processes")
    accumulate: int = Field(
        default=1,
        ge=1,
        description="parts that a step's contexts are computed in, one after the other: less memory, the same step",
    )
    init_from: str | None = Field(
        default=None, description="folder of a run whose parameters training starts from (fine-tuning); null: at random"
    )
    init_step: Literal["best", "last"] = Field(default="best", description="checkpoint of init_from")
    freeze: Annotated[tuple[str, ...], BeforeValidator(_as_groups)] = Field(
        default=(),
        description="parameters that stay as they are: none, backbone (all but the heads), or a list of groups, as "
        "[encoder, heads.class_kernel]",
    )
    eval_every: int = Field(default=200, ge=1, description="steps between validations")
    eval_seeds: int = Field(default=512, ge=1, description="validation seeds per task")
    eval_batch_size: int = Field(default=64, ge=1, description="contexts per batch of validation and prediction")
    log_every: int = Field(default=10, ge=1, description="steps between lines of metrics.jsonl")
    checkpoint_every: int = Field(default=200, ge=1, description="steps between checkpoints")
    keep_last: int = Field(default=2, ge=1, description="newest checkpoints kept, to resume from")
    keep_best: int = Field(default=1, ge=1, description="checkpoints of the best validation scores kept")
    keep_every: int | None = Field(
        default=None, ge=1, description="checkpoints at multiples of this step are kept for good; null: none is"
    )
    keep_hours: float | None = Field(
        default=None, gt=0.0, description="checkpoints younger than this many hours are kept too; null: none is"
    )
    archive_dir: str | None = Field(
        default=None, description="folder that checkpoints kept no longer are moved to; null: they are removed"
    )
    patience: int | None = Field(default=None, ge=1, description="validations without improvement after which it ends")
    trackers: tuple[TrackerName, ...] = Field(
        default=("tensorboard",),
        description="where figures go besides metrics.jsonl: event files of TensorBoard in the run folder; MLflow; "
        "Weights & Biases",
    )
    project: str = Field(default="tributary", min_length=1, description="experiment of MLflow, project of wandb")
    plots: bool = Field(default=True, description="draw curves into the run folder, at validations and at the end")


class DevicesSection(_Section):
    """Which devices compute, in how many processes. A batch is divided over all of them."""

    data: int | None = Field(
        default=1, ge=1, description="groups of devices that hold a copy of the model each; null: as many as there are"
    )
    fsdp: int = Field(
        default=1,
        ge=1,
        description="devices of a group, over which parameters and optimiser state are divided (FSDP)",
    )
    coordinator: str | None = Field(
        default=None,
        description="host:port of process 0, where several processes train one model; auto: from Slurm, Open MPI, "
        "Kubernetes or a TPU pod; null: from JAX_COORDINATOR_ADDRESS (with JAX_NUM_PROCESSES and JAX_PROCESS_ID), "
        "without which there is one process",
    )
    num_processes: int | None = Field(default=None, ge=1, description="processes; null: from the environment")
    process_id: int | None = Field(
        default=None, ge=0, description="number of this process, from 0; null: from the environment"
    )


class RunConfig(_Section):
    """Everything that a training run is told.

    Example:
        >>> config = RunConfig.from_mapping({"data": {"database": "data/processed/shop"}}, ["model.num_layers=2"])
        >>> config.model.num_layers, config.model.d_model
        (2, 64)
    """

    run: RunSection = Field(default=RunSection(), description="where the run lives")
    data: DataSection = Field(description="database, tasks and sampling")
    model: ModelConfig = Field(default=ModelConfig(), description="sizes of the model")
    objective: ObjectiveSection = Field(default=ObjectiveSection(), description="losses")
    optimizer: OptimizerSection = Field(default=OptimizerSection(), description="optimiser and schedule")
    train: TrainSection = Field(default=TrainSection(), description="steps, validation, checkpoints")
    devices: DevicesSection = Field(default=DevicesSection(), description="devices and processes")

    @model_validator(mode="after")
    def _check_databases(self) -> RunConfig:
        data = self.data
        if data.database is None and not data.databases:
            raise ValueError(
                "key `data.database` is required (folder of the processed database), or several in data.databases"
            )
        if data.databases:
            given = [key for key in ("database", "tasks", "tables") if getattr(data, key)]
            if given:
                raise ValueError(
                    f"key `data.{given[0]}`: belongs to each of data.databases where that is given; move it there"
                )
            shares = [database.share is None for database in data.databases.values()]
            if any(shares) and not all(shares):
                without = [name for name, database in data.databases.items() if database.share is None]
                raise ValueError(f"data.databases: {', '.join(without)} has no share; give all of them one, or none")
        for name, part in data.parts.items():
            if part.tasks is None and not part.tables:
                place = f"data.databases.{name}" if name else "data"
                raise ValueError(f"{place}: neither tasks nor tables; there is nothing to train on")
        return self

    @model_validator(mode="after")
    def _check_tables(self) -> RunConfig:
        objective, data = self.objective, self.data
        has_tables = any(part.tables for part in data.parts.values())
        rates = objective.mask_rate.values() if isinstance(objective.mask_rate, dict) else [objective.mask_rate]
        has_masks = objective.masked_weight > 0 and (any(rates) or objective.mask_columns > 0)
        if has_tables and not has_masks and not data.num_links:
            raise ValueError("data.tables: rows of tables teach nothing without objective.mask_rate or data.num_links")
        return self

    @model_validator(mode="after")
    def _check_division(self) -> RunConfig:
        size, parts = self.train.batch_size, self.train.accumulate
        if size % parts:
            raise ValueError(f"key `train.accumulate`: expected a divisor of train.batch_size = {size}, found {parts}")
        return self

    @model_validator(mode="after")
    def _check_what_the_model_reads(self) -> RunConfig:
        num_steps, num_links = self.model.positional_steps, self.data.num_links
        if self.model.positional == "walk" and self.data.walk_features < num_steps:
            raise ValueError(
                f"key `data.walk_features`: model.positional: walk reads {num_steps} steps (model.positional_steps), "
                f"expected at least as many, found {self.data.walk_features}"
            )
        if num_links > 0 and not self.model.link_head:
            raise ValueError(
                f"key `model.link_head`: data.num_links = {num_links} asks for links to be judged; set it to true"
            )
        return self

    @classmethod
    def from_mapping(
        cls, values: Mapping[str, Any], overrides: Iterable[str] = (), *, source: str = "config"
    ) -> RunConfig:
        """Checks a nested mapping after applying overrides.

        Args:
            values: sections and keys as in the YAML file.
            overrides: `section.key=value` texts, the value read as YAML.
            source: what to call the mapping in messages.

        Raises:
            ConfigError: a key is unknown, missing, or has a wrong value.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(f"{source}: expected a mapping of sections, found {type(values).__name__}")
        try:
            return cls.model_validate(apply_overrides(values, overrides))
        except ValidationError as error:
            raise ConfigError(f"{source}: " + "; ".join(_explain(item) for item in error.errors())) from None

    @classmethod
    def load(cls, path: str | Path, overrides: Iterable[str] = ()) -> RunConfig:
        """Reads a YAML file.

        Raises:
            ConfigError: the file is no valid YAML or no valid configuration.
            FileNotFoundError: there is no such file.
        """
        return cls.from_mapping(read_yaml(path), overrides, source=str(path))

    def to_yaml(self) -> str:
        """The resolved configuration, every key spelled out; `load` reads it back unchanged."""
        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False))


def read_yaml(path: str | Path) -> Any:
    """What a YAML file says; an empty mapping where it is empty.

    Raises:
        ConfigError: it is no YAML.
        FileNotFoundError: there is no such file.
    """
    text = Path(path).read_text(encoding="utf-8")
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    return {} if values is None else values


def apply_overrides(values: Mapping[str, Any], overrides: Iterable[str]) -> dict[str, Any]:
    """A copy of a nested mapping with `section.key=value` texts applied.

    Raises:
        ConfigError: a text is none, or its key is unknown.
    """
    merged = copy.deepcopy(dict(values))
    for override in sorted(overrides, key=lambda text: not text.startswith("model.preset=")):
        _apply_override(merged, override)
    return merged


def _fields_at(path: Iterable[Any]) -> dict[str, Any]:
    """Fields of the section that a path of keys leads to; empty where it leads to none."""
    section: Any = RunConfig
    for key in path:
        field = section.model_fields.get(key) if hasattr(section, "model_fields") else None
        if field is None:
            return {}
        section = field.annotation
    return dict(getattr(section, "model_fields", {}))


def _suggestion(key: str, known: Iterable[str]) -> str:
    names = list(known)
    close = difflib.get_close_matches(key, names, n=1)
    return f"did you mean `{close[0]}`?" if close else "known keys: " + ", ".join(names)


def _explain(item: Mapping[str, Any]) -> str:
    path = [str(part) for part in item["loc"]]
    if not path:  # sections that do not fit each other
        return str(item["msg"]).removeprefix("Value error, ")
    name = ".".join(path)
    if item["type"] == "extra_forbidden":
        return f"unknown key `{name}`; {_suggestion(path[-1], _fields_at(path[:-1]))}"
    if item["type"] == "missing":
        described = _fields_at(path[:-1]).get(path[-1])
        return f"key `{name}` is required" + (f" ({described.description})" if described else "")
    hint = ""
    if item["type"] == "literal_error" and isinstance(item["input"], str):
        choices = re.findall(r"'([^']*)'", item["ctx"]["expected"])
        close = difflib.get_close_matches(item["input"], choices, n=1)
        hint = f"; did you mean `{close[0]}`?" if close else ""
    is_ours = item["type"] == "value_error"
    message = str(item["msg"]).removeprefix("Value error, ") if is_ours else item["msg"].lower()
    return f"key `{name}`: {message}, found {item['input']!r}{hint}"


def _apply_override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    is_deep = parts[:2] == ["data", "databases"] and len(parts) == 4
    if not separator or (len(parts) != 2 and not is_deep):
        raise ConfigError(f"--set {override}: expected `section.key=value`")
    section, name = parts[:2]
    if section not in RunConfig.model_fields:
        hint = _suggestion(section, RunConfig.model_fields)
        raise ConfigError(f"--set {override}: unknown section `{section}`; {hint}")
    known = _fields_at([section])
    if name not in known:
        raise ConfigError(f"--set {override}: unknown key `{section}.{name}`; {_suggestion(name, known)}")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not YAML: {error}") from None
    current = values.setdefault(section, {})
    if not isinstance(current, dict):
        raise ConfigError(f"key `{section}`: expected a mapping, found {current!r}")
    if section == "model" and name == "preset":
        # A preset given on the command line replaces the sizes that an earlier preset or file spelled out.
        for size in PRESETS.get(value, {}):
            current.pop(size, None)
    if is_deep:
        database = (current.setdefault(name, {}) or {}).get(parts[2])
        if not isinstance(database, dict):
            raise ConfigError(f"--set {override}: data.databases has no `{parts[2]}`")
        database[parts[3]] = value
    else:
        current[name] = value
