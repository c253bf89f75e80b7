"""Staging: the output is absent or complete, one run at a time, nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tributary.preprocess import staging as staging_module
from tributary.preprocess.stages import STAGES_FILE, StageRecord, fingerprint
from tributary.preprocess.staging import Staging, link_or_copy


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _fill(staging: Staging, text: str) -> None:
    (staging.database / "tables").mkdir(exist_ok=True)
    (staging.database / "tables" / "a.bin").write_text(text)


def test_publish_leaves_the_output_alone(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "er" / "out"
    with Staging(output) as staging:
        _fill(staging, "new")
        assert not output.exists()
        staging.publish()
    assert (output / "tables" / "a.bin").read_text() == "new"
    assert _names(output.parent) == ["out"]


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with Staging(tmp_path / "deep" / "out") as staging:
            _fill(staging, "half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert _names(tmp_path) == []


@pytest.mark.parametrize("can_exchange", [True, False])
def test_publish_replaces_a_whole_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool) -> None:
    if not can_exchange:
        monkeypatch.setattr(staging_module, "exchange", lambda one, other: False)
    output = tmp_path / "out"
    for text in ("old", "new"):
        with Staging(output) as staging:
            _fill(staging, text)
            (staging.database / f"{text}.txt").touch()
            staging.publish()
    assert _names(output) == ["new.txt", "tables"]
    assert _names(tmp_path) == ["out"]


def test_an_output_moved_aside_is_put_back(tmp_path: Path) -> None:
    """A run without folder exchange was killed between its two renames."""
    output = tmp_path / "out"
    aside = tmp_path / ".out.partial" / "old"
    aside.mkdir(parents=True)
    (aside / "complete").touch()
    with Staging(output):
        assert _names(output) == ["complete"]
    assert _names(tmp_path) == ["out"]


def test_an_empty_folder_may_be_the_output(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    with Staging(output) as staging:
        _fill(staging, "new")
        staging.publish()
    assert _names(output) == ["tables"]


def test_a_second_run_is_refused_by_name(tmp_path: Path) -> None:
    with Staging(tmp_path / "out") as first:
        _fill(first, "first")
        with pytest.raises(BlockingIOError, match=f"process {os.getpid()} is making this output"):
            Staging(tmp_path / "out").__enter__()
        assert (first.database / "tables" / "a.bin").read_text() == "first"
        first.publish()
    assert _names(tmp_path) == ["out"]


def test_a_killed_run_is_taken_over(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from tributary.preprocess.staging import Staging\n"
        "with Staging(Path(sys.argv[1])) as staging:\n"
        "    (staging.database / 'kept').touch(); (staging.scratch / 'spill').touch()\n"
        "    print('ready', flush=True); time.sleep(60)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "out")], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    with pytest.raises(BlockingIOError, match=f"process {child.pid}"):
        Staging(tmp_path / "out").__enter__()
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert _names(tmp_path) == [".out.partial"]
    with Staging(tmp_path / "out") as staging:
        assert _names(staging.database) == ["kept"]
        assert _names(staging.scratch) == []
    assert _names(tmp_path) == []


def test_a_lock_on_a_removed_file_does_not_count(tmp_path: Path) -> None:
    """What a waiting run would hold when the run before it has cleaned up."""
    with Staging(tmp_path / "out") as staging:
        lock = os.open(staging.folder / "lock", os.O_RDWR)
        assert staging_module._is_same_file(lock, staging.folder / "lock")
        shutil.rmtree(staging.folder)
        assert not staging_module._is_same_file(lock, staging.folder / "lock")
        os.close(lock)


def test_link_or_copy_across_file_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "a"
    source.write_text("bytes")
    link_or_copy(source, tmp_path / "x" / "linked")
    assert source.samefile(tmp_path / "x" / "linked")

    def refuse(*_: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    link_or_copy(source, tmp_path / "x" / "copied")
    assert (tmp_path / "x" / "copied").read_text() == "bytes"


def test_stages_keep_their_files_and_lose_the_rest(tmp_path: Path) -> None:
    record = StageRecord(tmp_path)
    (tmp_path / "graph.bin").touch()
    record.finish("encode", "e1")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "churn.bin").touch()
    record.finish("task churn", "t1")
    (tmp_path / "tasks" / "half.bin").touch()
    (tmp_path / "metadata.json").touch()

    again = StageRecord(tmp_path)
    assert again.fingerprints() == {"encode": "e1", "task churn": "t1"}
    assert again.restart({"encode": "e1", "task churn": "t2", "embed": "v1"}) == ["encode"]
    assert _names(tmp_path) == ["graph.bin", STAGES_FILE]
    assert StageRecord(tmp_path).fingerprints() == {"encode": "e1"}


def test_a_stage_without_its_files_is_not_finished(tmp_path: Path) -> None:
    (tmp_path / "graph.bin").touch()
    record = StageRecord(tmp_path)
    record.finish("encode", "e1")
    (tmp_path / "graph.bin").unlink()
    assert record.restart({"encode": "e1"}) == []


def test_stages_are_taken_from_another_database(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    record = StageRecord(old)
    for stage, file in (("encode", "graph.bin"), ("embed", "vectors.bin")):
        (old / file).write_text(file)
        record.finish(stage, f"{stage} 1")
    taker = StageRecord(new)
    assert taker.take_over(StageRecord(old), {"encode": "encode 1", "embed": "embed 2"}) == ["encode"]
    assert _names(new) == ["graph.bin", STAGES_FILE]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{",
        '{"encode": 1}',
        '{"encode": {"fingerprint": "e1", "files": ["/etc/passwd"]}}',
        '{"encode": {"fingerprint": "e1", "files": ["../outside"]}}',
        '{"encode": {"fingerprint": null, "files": []}}',
    ],
)
def test_a_foreign_record_means_no_stage(tmp_path: Path, content: str) -> None:
    (tmp_path / STAGES_FILE).write_text(content)
    assert StageRecord(tmp_path).fingerprints() == {}


def test_fingerprints_tell_values_apart() -> None:
    parts = ["a", ["a"], {"a": 1}, {"a": None}, 1, "1", None]
    assert len({fingerprint(part) for part in parts} | {fingerprint(*parts)}) == len(parts) + 1
    assert fingerprint({"a": 1, "b": 2}) == fingerprint(json.loads('{"b": 2, "a": 1}'))
