"""Configuration of a run: pydantic models of the YAML files, presets, and strict `--set a.b=c` overrides.

Every key has a description and a unit; an unknown key is an error with a suggestion. Nothing here opens a database.
Described in `documentation/training.md`.
"""

from tributary.config.data import DatabaseSection, DataSection
from tributary.config.model import (
    PRESETS,
    PUBLISHED_KINDS,
    ModelConfig,
    ModelKind,
    PublishedKind,
)
from tributary.config.run import RunConfig
from tributary.config.section import ConfigError
from tributary.config.training import DevicesSection, ObjectiveSection, OptimizerSection, RunSection, TrainSection

__all__ = [
    "PRESETS",
    "PUBLISHED_KINDS",
    "ConfigError",
    "DataSection",
    "DatabaseSection",
    "DevicesSection",
    "ModelConfig",
    "ModelKind",
    "ObjectiveSection",
    "OptimizerSection",
    "PublishedKind",
    "RunConfig",
    "RunSection",
    "TrainSection",
]
