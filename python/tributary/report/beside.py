"""Other runs beside the one that a report is about: what differs in their configuration, and what it is worth."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tributary.evaluation import evaluate, several


@dataclasses.dataclass(frozen=True)
class Other:
    """A run beside the first.

    Attributes:
        name: of its folder.
        differs: `section.key: the first run's value → its own` of everything that differs.
        results: what was evaluated, by (database build, task, split, regime).
    """

    name: str
    differs: list[str]
    results: dict[tuple[str, ...], Mapping[str, Any]]


def read_others(run_dir: Path, others: Sequence[Path | str]) -> list[Other]:
    """The runs beside `run_dir`.

    Raises:
        FileNotFoundError: one is no run.
        ValueError: one was not evaluated, or two have the same name.
    """
    first, found = _config(run_dir), []
    for folder in map(Path, others):
        config = _config(folder)
        kept = evaluate.load(folder)
        if not kept:
            raise ValueError(f"{folder}: nothing is evaluated yet; run `tributary evaluate {folder}` first")
        results: dict[tuple[str, ...], Mapping[str, Any]] = {key_of(result): result for result in kept}
        found.append(Other(folder.name, _differences(first, config), results))
    names = [run_dir.name, *(other.name for other in found)]
    if len(set(names)) < len(names):
        raise ValueError(f"runs to be shown beside each other need different folder names, found {', '.join(names)}")
    return found


def key_of(result: Mapping[str, Any]) -> tuple[str, ...]:
    """What two results have to have in common to be shown beside each other."""
    return result.get("database", {}).get("build_id", ""), result["task"], result["split"], result["regime"]


def bars_of(name: str, result: Mapping[str, Any], others: Sequence[Other]) -> list[tuple[str, Mapping[str, Any]]]:
    """(run, entry) of the first run and of those that were evaluated on the same rows of the same task."""
    found = [(name, result["model"])]
    for other in others:
        theirs = other.results.get(key_of(result))
        if theirs is not None and theirs["num_evaluated"] == result["num_evaluated"]:
            found.append((other.name, theirs["model"]))
    return found


def _config(run_dir: Path) -> dict[str, Any]:
    path = run_dir / "config.yaml"
    if not path.is_file():
        raise FileNotFoundError(2, "no such run (it holds no config.yaml)", str(run_dir))
    config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return config


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    found = []
    for name in several.differences([first, second]):
        section, key = name.split(".", 1)
        values = [_plain(config.get(section, {}).get(key)) for config in (first, second)]
        found.append(f"{name}: {values[0]} → {values[1]}")
    return found


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
