"""Every key of a configuration: what it means, which values it takes, and where the value of a run comes from.

All of it is read from the pydantic models of `tributary.config`, so it cannot say anything else than they do.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from tributary.config.model import PRESETS
from tributary.config.run import RunConfig, apply_overrides, read_yaml
from tributary.config.section import ConfigError


@dataclasses.dataclass(frozen=True)
class Key:
    """A documented key."""

    name: str
    """`section.key`; `<name>` stands for a name of the user's own."""
    type: str
    """Values it takes, in words."""
    default: str
    """As one would write it in YAML; `required` where there is none."""
    description: str
    """What it means, with its unit."""


def documented_keys() -> dict[str, list[Key]]:
    """Keys of every section, in order."""
    schema = RunConfig.model_json_schema()
    return {
        section: list(_keys(f"{section}.", _resolved(entry, schema), schema))
        for section, entry in schema["properties"].items()
    }


def described_sections() -> dict[str, str]:
    """What every section is about."""
    schema = RunConfig.model_json_schema()
    return {name: _resolved(entry, schema)["description"] for name, entry in schema["properties"].items()}


def find_keys(asked: str) -> list[Key]:
    """The key of a name, or all of a section.

    Raises:
        ConfigError: there is none; the closest is suggested.
    """
    sections = documented_keys()
    if asked in sections:
        return sections[asked]
    every = [key for keys in sections.values() for key in keys]
    found = [key for key in every if key.name == asked] or [key for key in every if key.name.split(".")[-1] == asked]
    if not found:
        close = difflib.get_close_matches(asked, [*sections, *(key.name for key in every)], n=1, cutoff=0.4)
        hint = f"did you mean `{close[0]}`?" if close else "sections: " + ", ".join(sections)
        raise ConfigError(f"no section or key `{asked}`; {hint}")
    return found


def _keys(prefix: str, model: Mapping[str, Any], schema: Mapping[str, Any]) -> Iterator[Key]:
    for name, entry in model["properties"].items():
        is_required = name in model.get("required", ())
        default = "required" if is_required else to_text(entry.get("default"))
        yield Key(prefix + name, _type(entry, schema), default, entry["description"])
        nested = _nested_model(entry, schema)
        if nested is not None:
            yield from _keys(f"{prefix}{name}.<name>.", nested, schema)


def _nested_model(entry: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The model of a mapping's values; None where they are plain."""
    values = [entry.get("additionalProperties"), *entry.get("patternProperties", {}).values()]
    references = [value for value in values if isinstance(value, Mapping) and "$ref" in value]
    return _resolved(references[0], schema) if references else None


def _resolved(entry: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = schema["$defs"][entry["$ref"].rpartition("/")[2]] if "$ref" in entry else entry
    return found


def _type(entry: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "anyOf" in entry:
        return " or ".join(_type(choice, schema) for choice in entry["anyOf"])
    if "$ref" in entry:
        return "keys of its own"
    if "enum" in entry or "const" in entry:
        choices = entry.get("enum", [entry.get("const")])
        return "one of " + ", ".join(map(str, choices)) if len(choices) > 1 else f"only {choices[0]}"
    kind = str(entry.get("type", "any value"))
    if kind == "array":
        return f"list of ({_type(entry['items'], schema)})" if "items" in entry else "list"
    if kind == "object":
        values = [entry.get("additionalProperties"), *entry.get("patternProperties", {}).values()]
        known = [value for value in values if isinstance(value, Mapping)]
        return f"mapping of names to ({_type(known[0], schema)})" if known else "mapping"
    names = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text"}
    return names.get(kind, kind) + _bounds(entry)


def _bounds(entry: Mapping[str, Any]) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    if "pattern" in entry:
        return f" that matches {entry['pattern']}"
    bounds = [f"{text} {_plain(entry[name])}" for name, text in words.items() if name in entry]
    return f" ({', '.join(bounds)})" if bounds else ""


def _plain(bound: float) -> str:
    return f"{int(bound):,}" if bound == int(bound) else f"{bound:g}"


def to_text(value: Any) -> str:
    """A value on one line, as one would write it in YAML."""
    text = str(yaml.safe_dump(value, default_flow_style=True, width=10**9)).strip()
    return text.removesuffix("...").strip()


def to_markdown() -> str:
    """The page `documentation/config.md`."""
    lines = [
        "# Configuration",
        "",
        "Every key of a run's YAML file. This page is written by `tributary config docs --markdown`; a test holds it",
        "equal to the models of `python/tributary/config/`. `tributary config show FILE` prints what they come to.",
    ]
    for section, description in described_sections().items():
        lines += ["", f"## {section}", "", description, ""]
        lines += ["| key | values | default | meaning |", "|---|---|---|---|"]
        for key in documented_keys()[section]:
            cells = (f"`{key.name}`", key.type, f"`{key.default}`", key.description)
            lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


# --- Where values come from ------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Setting:
    """The value of a key in a run."""

    name: str
    value: Any
    origin: str
    """`default`, `preset NAME`, the file, or `--set`."""


def resolved_settings(path: str | Path, overrides: Iterable[str] = ()) -> list[Setting]:
    """Every key of a configuration with its value and where that comes from.

    Raises:
        ConfigError: the file is no valid configuration.
    """
    overrides = list(overrides)
    config = RunConfig.load(path, overrides)
    given = read_yaml(path)
    merged = apply_overrides(given, overrides)
    sizes = PRESETS[config.model.preset]
    set_keys = {override.partition("=")[0].strip() for override in overrides}
    settings = []
    for section, values in config.model_dump(mode="json").items():
        for key, value in values.items():
            name, default = f"{section}.{key}", "default"
            if section == "model" and key in sizes:
                default = f"preset {config.model.preset}"
            if any(one == name or one.startswith(f"{name}.") for one in set_keys):
                origin = "--set"
            else:
                origin = str(path) if key in (merged.get(section) or {}) else default
            settings.append(Setting(name, value, origin))
    return settings
