"""What a failing disk is reported as."""

import errno
import logging
from pathlib import Path

import pytest

from tributary.runs.checkpoint import Checkpoints
from tributary.runs.retention import Retention
from tributary.runs.writer import disk_error


@pytest.mark.timeout(20)
def test_causes_that_go_round_in_a_circle_come_to_an_end(tmp_path: Path) -> None:
    gone = FileNotFoundError(errno.ENOENT, "No such file or directory")
    behind = RuntimeError("the writer stopped")
    gone.__cause__, behind.__cause__ = behind, gone
    words = (tmp_path / "history.json", "history", 10, "make room")
    assert disk_error(gone, *words) is None
    behind.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    behind.__cause__.__cause__ = gone
    told = disk_error(gone, *words)
    assert told is not None
    assert told.errno == errno.ENOSPC
    assert "history could not be written (no space left on device): it needs up to 10 bytes" in str(told)


def test_a_writer_leaves_out_the_tracebacks_of_arrays_that_fail_beside_the_one_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Checkpoints(tmp_path, Retention(1, 1, None, None, None)):
        logging.getLogger("asyncio").error("Task exception was never retrieved")
        logging.getLogger("asyncio").error("something else")
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == ["something else"]
