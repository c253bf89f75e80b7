"""A query kept as a task in a `metadata.json`."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tributary.metadata import Description


def save_task(metadata: Path, name: str, task: Mapping[str, Any], *, replace: bool = False) -> None:
    """Adds a task to a description; the file is whole at every moment, and the rest of it stays as it was written.

    Args:
        metadata: the file.
        name: of the task.
        task: its fields.
        replace: a task of that name is replaced.

    Raises:
        ValueError: there is a task of that name.
        SchemaError: the description would not be valid; nothing is written.
    """
    text = metadata.read_text(encoding="utf-8")
    json.loads(text)
    written = _with_task(text, name, json.dumps(dict(task), indent=2, ensure_ascii=False), str(metadata), replace)
    handle, scratch = tempfile.mkstemp(prefix=".metadata-", suffix=".json", dir=metadata.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(written)
            file.flush()
            os.fsync(file.fileno())
        Description.load(scratch)  # it must be a description before it replaces one
        os.chmod(scratch, metadata.stat().st_mode)
        os.replace(scratch, metadata)
    except BaseException:
        os.unlink(scratch)
        raise


def _with_task(text: str, name: str, task: str, source: str, replace: bool) -> str:
    """The text of a description with one task more; the rest of it stays as the user wrote it."""
    top = _members(text, text.index("{"))
    if "tasks" not in top:
        last = max(end for _, end in top.values())
        return text[:last] + f',\n  "tasks": {{{_member(name, task)}\n  }}' + text[last:]
    start, end = top["tasks"]
    tasks = _members(text, start)
    if name in tasks:
        if not replace:
            raise ValueError(f"{source}: there is a task `{name}` already; take another name, or say --replace")
        first, last = tasks[name]
        return text[:first] + task.replace("\n", "\n    ") + text[last:]
    if not tasks:
        return text[:start] + f"{{{_member(name, task)}\n  }}" + text[end:]
    last = max(stop for _, stop in tasks.values())
    return text[:last] + "," + _member(name, task) + text[last:]


def _member(name: str, task: str) -> str:
    indented = task.replace("\n", "\n    ")
    return f"\n    {json.dumps(name, ensure_ascii=False)}: {indented}"


def _members(text: str, start: int) -> dict[str, tuple[int, int]]:
    """Where the values of the JSON object that begins at `start` begin and end, by key."""
    decoder = json.JSONDecoder()
    found: dict[str, tuple[int, int]] = {}
    place = _skip(text, start + 1)
    while text[place] != "}":
        key, place = decoder.raw_decode(text, place)
        first = _skip(text, _skip(text, place) + 1)
        _, place = decoder.raw_decode(text, first)
        found[key] = (first, place)
        place = _skip(text, place)
        place = _skip(text, place + 1) if text[place] == "," else place
    return found


def _skip(text: str, place: int) -> int:
    while text[place].isspace():
        place += 1
    return place
