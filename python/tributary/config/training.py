"""The sections `run`, `objective`, `optimizer`, `train` and `devices`: how a model learns, where, and what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from tributary.config.section import Probability, Section

TrackerName = Literal["tensorboard", "mlflow", "wandb"]
PredictableStype = Literal["numerical", "timestamp", "boolean", "categorical", "text"]


class RunSection(Section):
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


class ObjectiveSection(Section):
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


class OptimizerSection(Section):
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


class TrainSection(Section):
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


class DevicesSection(Section):
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
