"""A whole configuration: its sections together, its YAML file, and `--set section.key=value`."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, ValidationError, model_validator

from tributary.config.data import DataSection
from tributary.config.model import PRESETS, ModelConfig
from tributary.config.section import ConfigError, Section
from tributary.config.training import DevicesSection, ObjectiveSection, OptimizerSection, RunSection, TrainSection


class RunConfig(Section):
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
