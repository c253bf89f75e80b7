"""Faults from outside: a full disk, flipped bits, kills, two runs at once; and what a dry run counts."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tributary import _headwater
from tributary.cli.progress import PlainProgress
from tributary.embed import make_embedder
from tributary.errors import SchemaError
from tributary.preprocess import PreprocessOptions, plan, preprocess, verify
from tributary.preprocess.staging import Staging

_COMMAND = [sys.executable, "-c", "from tributary.cli import main; main()", "preprocess"]


def _digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        found.update(path.relative_to(folder).as_posix().encode())
        found.update(path.read_bytes() if path.is_file() else b"")
    return found.hexdigest()


# ---- a full disk ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("limit", [1 << 10, 6 << 10, 10 << 10])
def test_a_full_disk_is_an_error_and_keeps_the_old_output(shop, tmp_path: Path, limit: int) -> None:
    """No file may grow beyond the limit, as if the disk ended there: in each stage another file meets it."""
    shop.tables["orders"] = {name: values * 20 for name, values in shop.tables["orders"].items()}
    shop.tables["orders"]["id"] = list(range(1200))
    preprocess(shop.write(), tmp_path / "db")
    before = _digest(tmp_path / "db")
    shop.tables["products"]["price"] = [9.0] * 5
    shop.write()
    small_disk = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); "
    command = [sys.executable, "-c", small_disk + _COMMAND[2], *_COMMAND[3:], shop.folder, tmp_path / "db", "--force"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert "file too large" in result.stderr.lower()
    assert str(tmp_path) in result.stderr
    assert _digest(tmp_path / "db") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db", "shop"]


# ---- flipped bits ---------------------------------------------------------------------------------------------------


def _flip(path: Path, value: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(value)] ^= 1
    path.write_bytes(content)


def _with_checksums(shop: Any, table: str, *, checksum: bool) -> Path:
    shop.write()
    path = shop.folder / f"{table}.parquet"
    pq.write_table(
        pa.table(shop.tables[table]),
        path,
        compression="none",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=checksum,
    )
    return path


def test_a_flipped_bit_in_a_page_with_crc_is_found(shop, tmp_path: Path) -> None:
    path = _with_checksums(shop, "customers", checksum=True)
    preprocess(shop.folder, tmp_path / "sound")
    _flip(path, b"customer 7")
    with pytest.raises(SchemaError, match=r"(?s)table `customers`.*customers.parquet.*(?i:crc|checksum)"):
        preprocess(shop.folder, tmp_path / "db")
    with pytest.raises(SchemaError, match=r"table `customers`"):
        _headwater.survey(shop.folder)
    assert not (tmp_path / "db").exists()


def test_without_crc_it_is_another_value(shop, tmp_path: Path) -> None:
    path = _with_checksums(shop, "customers", checksum=False)
    _flip(path, b"customer 7")
    preprocess(shop.folder, tmp_path / "db")
    texts = _headwater.vocab_texts(tmp_path / "db")
    assert "customer 7" not in texts
    assert "bustomer 7" in texts


# ---- two runs, kills ------------------------------------------------------------------------------------------------


def test_a_second_run_names_the_first(shop, tmp_path: Path, tributary_command) -> None:
    shop.write()
    with Staging(tmp_path / "db"):
        result = tributary_command("preprocess", shop.folder, tmp_path / "db")
    assert result.returncode == 2
    assert f"process {os.getpid()} is making this output; wait for it to end" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(4))
def test_a_killed_run_is_continued_to_the_same_bytes(shop, tmp_path: Path, moment: int) -> None:
    shop.write()
    preprocess(shop.folder, tmp_path / "fresh")
    stage = ["encode.json", "tasks/churn.json", "column_embeddings.bin", "metadata.json"][moment]
    child = subprocess.Popen(
        [*_COMMAND, shop.folder, tmp_path / "db"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    sign, output = tmp_path / ".db.partial" / "database" / stage, tmp_path / "db"
    deadline = time.monotonic() + 60
    while not (sign.exists() or output.exists()) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.0005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not output.exists() or verify(output)
    preprocess(shop.folder, output)
    assert _digest(output) == _digest(tmp_path / "fresh")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db", "fresh", "shop"]


def test_a_stage_file_is_never_half_there(shop, tmp_path: Path) -> None:
    """What a kill within the rewriting of a stage file leaves: the draft beside the old file."""
    shop.write()
    preprocess(shop.folder, tmp_path / "fresh")
    staging = tmp_path / ".db.partial"
    (staging / "database").mkdir(parents=True)
    for path in (tmp_path / "fresh").rglob("*"):
        if path.is_file():
            target = staging / "database" / path.relative_to(tmp_path / "fresh")
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(path.read_bytes())
    (staging / "database" / "tasks" / "churn.draft").write_text("{")
    (staging / "database" / "metadata.json").unlink()
    outcome = preprocess(shop.folder, tmp_path / "db")
    assert outcome.made == ()
    assert _digest(tmp_path / "db") == _digest(tmp_path / "fresh")


# ---- dry run --------------------------------------------------------------------------------------------------------


def _tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in sorted(folder.rglob("*"))}


def test_a_dry_run_counts_what_a_run_makes(shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIBUTARY_CACHE", str(tmp_path / "cache"))
    shop.write()
    before = _tree(tmp_path)
    planned = plan(shop.folder, tmp_path / "db")
    assert _tree(tmp_path) == before
    outcome = preprocess(shop.folder, tmp_path / "db")
    assert {table.name: table.num_rows for table in planned.tables} == {"customers": 12, "products": 5, "orders": 60}
    assert planned.texts is not None
    assert planned.texts.num_texts == outcome.manifest.num_texts == 12 + 3 + 5
    assert (planned.texts.num_cached, planned.texts.num_to_make) == (0, 20)
    assert planned.texts.open_tasks == ()
    made = sum(outcome.manifest.files.values())
    assert 0.5 < sum(planned.output_bytes.values()) / made < 2
    assert all(planned.stages.values())


def test_a_dry_run_knows_the_cache_and_leaves_it_alone(shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        """The hash embedder under a name that is worth a cache."""

        def __init__(self) -> None:
            self._hash = make_embedder("hash", dimension=16)
            self.identity = {**self._hash.identity, "kind": "slow"}

        def embed(self, texts: Any) -> Any:
            return self._hash.embed(texts)

    monkeypatch.setenv("TRIBUTARY_CACHE", str(tmp_path / "cache"))
    shop.write()
    preprocess(shop.folder, tmp_path / "db", embedder=Slow())
    shop.tables["products"]["title"][0] = "a new thing"
    shop.write()
    before = _digest(tmp_path / "db"), (tmp_path / "cache" / "embeddings.sqlite").read_bytes()
    planned = plan(shop.folder, tmp_path / "db", embedder=Slow(), options=PreprocessOptions(force=True))
    assert (_digest(tmp_path / "db"), (tmp_path / "cache" / "embeddings.sqlite").read_bytes()) == before
    assert planned.texts is not None
    assert (planned.texts.num_texts, planned.texts.num_cached, planned.texts.num_to_make) == (20, 19, 1)


def test_a_dry_run_says_what_is_taken_over(shop, tmp_path: Path, tributary_command) -> None:
    preprocess(shop.write(), tmp_path / "db")
    shop.metadata["tasks"]["spend"]["query"] += " HAVING sum(o.amount) > 1"
    shop.write()
    before = _digest(tmp_path / "db")
    result = tributary_command("preprocess", shop.folder, tmp_path / "db", "--force", "--dry-run")
    assert result.returncode == 0, result.stderr
    for line in ("encode: is there already", "task spend: would be made", "task churn: is there already", "77 rows"):
        assert line in result.stdout
    assert "to embed" not in result.stdout
    assert _digest(tmp_path / "db") == before


# ---- progress -------------------------------------------------------------------------------------------------------


def test_lines_of_progress_have_rate_and_remaining_time() -> None:
    now, lines = [100.0], []
    progress = PlainProgress(lines.append, lambda: now[0])
    for seconds, done in [(0, 0), (1, 0), (1.5, 1000), (3, 4000), (3.5, 5000), (5, 8000), (9, 10_000)]:
        now[0] = 100 + seconds
        progress.progress("encode", "orders", done, 10_000, "rows")
    assert lines == [
        "encode: orders: 4,000 of 10,000 rows (40%), 2,000 rows/s, 3 s left",
        "encode: orders: 8,000 of 10,000 rows (80%), 2,000 rows/s, 1 s left",
        "encode: orders: 10,000 of 10,000 rows (100%), 1,250 rows/s, 0 s left",
    ]


def test_a_lock_is_free_after_every_end(shop, tmp_path: Path) -> None:
    shop.metadata["tasks"]["churn"]["query"] = "SELECT nothing"
    with pytest.raises(SchemaError):
        preprocess(shop.write(), tmp_path / "db")
    with Staging(tmp_path / "db") as staging:
        lock = (staging.folder / "lock").open()
        with lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop"]
