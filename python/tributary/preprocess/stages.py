"""What each stage was made from, and which of its files can be used again.

`stages.json` lies in the database itself. For every finished stage it holds a fingerprint of all the stage depends on
(bytes of the input, description, options, the stages before it) and the files the stage wrote. Equal fingerprints
mean equal files, so a later run takes them over: from a staging folder that a killed run left, or from the output it
is about to replace. It holds no times and no paths outside the database: equal input gives equal bytes.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tributary.metadata import Description
from tributary.preprocess.staging import link_or_copy, sync_files, sync_folder

STAGES_FILE = "stages.json"
ENCODE = "encode"
EMBED_TEXTS = "embed texts"
EMBED_COLUMNS = "embed columns"
EMBED_FILES = {EMBED_TEXTS: "vocab_embeddings.bin", EMBED_COLUMNS: "column_embeddings.bin"}
_VERSION = 2


def task_stage(task: str) -> str:
    """The name of the stage that makes a task."""
    return f"task {task}"


def fingerprint(*parts: Any) -> str:
    """A hash of JSON values, the same on every machine."""
    text = json.dumps([_VERSION, *parts], sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def embed_fingerprints(
    description: Description, made: Mapping[str, str], identity: Mapping[str, Any]
) -> dict[str, str]:
    """What the two halves of the embed stage are made from: the texts, and the phrases of the columns.

    Both follow the order of the tasks. A task whose labels add no text has no part in the first half, and what its
    labels are has no part in the second.

    Args:
        description: The described database.
        made: Fingerprint of every stage before.
        identity: That of the embedder.
    """
    texts = [made[task_stage(task.name)] for task in description.tasks if task.may_add_texts]
    phrases = [
        [task.name, task.observation_time_column, task.target_column, task.raw["description"]]
        for task in description.tasks
    ]
    content = {
        EMBED_TEXTS: fingerprint(EMBED_TEXTS, made[ENCODE], texts),
        EMBED_COLUMNS: fingerprint(EMBED_COLUMNS, made[ENCODE], phrases),
    }
    return {stage: by_embedder(value, identity) for stage, value in content.items()}


def by_embedder(value: str, identity: Mapping[str, Any]) -> str:
    """The fingerprint of a half of the embed stage with another embedder.

    Args:
        value: A fingerprint of the same half, with any embedder or without.
        identity: That of the embedder.
    """
    return f"{value.split('.')[0]}.{fingerprint(dict(identity))}"


def file_fingerprint(path: Path) -> str:
    """A hash of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


class StageRecord:
    """The finished stages of the database in one folder.

    Args:
        folder: A database, staged or published. A missing or unreadable record means that no stage is finished.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._stages: dict[str, dict[str, Any]] = _read(folder / STAGES_FILE)

    def fingerprints(self) -> dict[str, str]:
        """Fingerprint by stage."""
        return {stage: entry["fingerprint"] for stage, entry in self._stages.items()}

    def has(self, stage: str, expected: str) -> bool:
        """Whether a stage is finished with this fingerprint and its files are still there."""
        entry = self._stages.get(stage)
        return (
            entry is not None
            and entry["fingerprint"] == expected
            and all((self.folder / name).is_file() for name in entry["files"])
        )

    def restart(self, expected: Mapping[str, str]) -> list[str]:
        """Keeps the stages that `expected` names with their fingerprints and removes everything else.

        Args:
            expected: Fingerprint by stage.

        Returns:
            The stages kept.
        """
        kept = [stage for stage in self._stages if stage in expected and self.has(stage, expected[stage])]
        self._stages = {stage: self._stages[stage] for stage in kept}
        wanted = {name for entry in self._stages.values() for name in entry["files"]}
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.relative_to(self.folder).as_posix() not in wanted:
                path.unlink()
        if self._stages:
            self._write()
        return kept

    def take_over(self, other: "StageRecord", expected: Mapping[str, str]) -> list[str]:
        """Takes the stages that `expected` names and this database lacks from another one.

        Args:
            other: The record of a sound database.
            expected: Fingerprint by stage.

        Returns:
            The stages taken.
        """
        taken = [s for s, value in expected.items() if s not in self._stages and other.has(s, value)]
        for stage in taken:
            entry = other._stages[stage]
            for name in entry["files"]:
                link_or_copy(other.folder / name, self.folder / name)
            self._stages[stage] = entry
        if taken:
            self._write()
        return taken

    def finish(self, stage: str, value: str, files: list[str] | None = None) -> None:
        """Records a stage.

        Args:
            stage: Its name.
            value: Its fingerprint.
            files: Its files; None: every file that no earlier stage claims.
        """
        if files is None:
            files = self._unclaimed()
        sync_files(self.folder / name for name in files)
        self._stages[stage] = {"fingerprint": value, "files": files}
        self._write()

    def _unclaimed(self) -> list[str]:
        claimed = {name for entry in self._stages.values() for name in entry["files"]} | {STAGES_FILE}
        present = {p.relative_to(self.folder).as_posix() for p in self.folder.rglob("*") if p.is_file()}
        return sorted(present - claimed)

    def _write(self) -> None:
        target = self.folder / STAGES_FILE
        draft = target.with_suffix(".draft")
        draft.write_text(json.dumps(self._stages, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        sync_files([draft])
        os.replace(draft, target)
        sync_folder(self.folder)


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The stages in a record; none when it is missing or was not written by this version."""
    try:
        stages = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return stages if isinstance(stages, dict) and all(map(_is_entry, stages.values())) else {}


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and entry.keys() == {"fingerprint", "files"}
        and isinstance(entry["fingerprint"], str)
        and isinstance(entry["files"], list)
        and all(isinstance(name, str) and _is_inside(name) for name in entry["files"])
    )


def _is_inside(name: str) -> bool:
    return bool(name) and not name.startswith("/") and ".." not in name.split("/")
