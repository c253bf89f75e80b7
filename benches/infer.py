"""Inferred descriptions of the shared databases beside their reviewed schemas: precision, recall, seconds, memory.

    .venv/bin/python benches/infer.py [DATABASE ...]

Primary keys, foreign keys and times are compared with `SCHEMA.json`, stypes with `data/metadata` (written by hand, by
us). pokeapi's foreign keys in SCHEMA.json are themselves inferred and incomplete; the last lines are without it, too.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from tributary.infer import draft

_ROOT = Path(__file__).resolve().parents[1]
_DATA = Path(os.environ.get("TRIBUTARY_SHARED_DATA", _ROOT.parent / "shared" / "data"))
_KINDS = ("primary keys", "foreign keys", "times", "stypes")

Sets = dict[str, tuple[set[Any], set[Any]]]


def compare(found: dict[str, Any], schema: dict[str, Any], reviewed: dict[str, Any]) -> Sets:
    """Per kind what is true and what was inferred."""
    sets: Sets = {kind: (set(), set()) for kind in _KINDS}
    for name, table in schema["tables"].items():
        drafted = found["tables"][name]
        _add(sets["primary keys"], name, table.get("primary_key"), drafted.get("primary_key"))
        _add(sets["times"], name, table.get("time_column"), drafted.get("temporal_column"))
        sets["foreign keys"][0].update((name, each["column"], each["references"]) for each in table["foreign_keys"])
        for column, described in drafted["columns"].items():
            if "foreign_key" in described:
                sets["foreign keys"][1].add((name, column, described["foreign_key"]))
            stype = reviewed["tables"][name]["columns"].get(column, {}).get("stype")
            if stype is not None:
                _add(sets["stypes"], (name, column), stype, described["stype"])
    return sets


def _add(pair: tuple[set[Any], set[Any]], place: Any, truth: Any, found: Any) -> None:
    for members, value in zip(pair, (truth, found), strict=True):
        if value is not None:
            members.add((place, value))


def _shares(true: set[Any], found: set[Any]) -> str:
    if not true and not found:
        return f"{'-':>14}"
    both = len(true & found)
    return f"{both / max(1, len(found)):7.3f}{both / max(1, len(true)):7.3f}"


def main(names: list[str]) -> None:
    """Prints the table."""
    names = names or sorted(path.parent.name for path in _DATA.glob("*/SCHEMA.json"))
    totals: Sets = {kind: (set(), set()) for kind in _KINDS}
    without: Sets = {kind: (set(), set()) for kind in _KINDS}
    print(f"{'precision, recall':<14}" + "".join(f"{kind:>14}" for kind in _KINDS) + f"{'seconds':>9}{'MiB':>7}")
    for name in names:
        start = time.perf_counter()
        found = draft(_DATA / name / "raw", with_tasks=False)
        seconds = time.perf_counter() - start
        schema = json.loads((_DATA / name / "SCHEMA.json").read_text())
        reviewed = json.loads((_ROOT / "data" / "metadata" / f"{name}.json").read_text())
        sets = compare(found.metadata, schema, reviewed)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{name:<14}" + "".join(_shares(*sets[kind]) for kind in _KINDS) + f"{seconds:9.1f}{peak:7.0f}")
        for kind, pair in sets.items():
            for total in (totals, without) if name != "pokeapi" else (totals,):
                for members, more in zip(total[kind], pair, strict=True):
                    members.update((name, member) for member in more)
    print(f"{'all':<14}" + "".join(_shares(*totals[kind]) for kind in _KINDS))
    if "pokeapi" in names:
        print(f"{'less pokeapi':<14}" + "".join(_shares(*without[kind]) for kind in _KINDS))


if __name__ == "__main__":
    main(sys.argv[1:])
