"""The section `model`: kinds, sizes and presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from tributary.config.section import Section

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


class ModelConfig(Section):
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
