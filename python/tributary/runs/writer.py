"""One thread that writes while training goes on, and the error of a disk that takes no more.

A failure comes to whoever asks next (`check`, `wait`); nothing is written after it.
"""

from __future__ import annotations

import concurrent.futures
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM)


class WriteError(OSError):
    """A file of a run could not be written; the message says how much room it needs and how much there is."""


class BackgroundWriter:
    """Runs jobs one after another in a thread of its own."""

    def __init__(self, name: str):
        self._pool = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=name)
        self._jobs: list[concurrent.futures.Future[None]] = []

    def submit(self, job: Callable[[], None]) -> None:
        """Adds a job."""
        self._jobs.append(self._pool.submit(job))

    def check(self) -> bool:
        """Whether nothing is in flight.

        Raises:
            Exception: whatever a job that has ended raised, once.
        """
        while self._jobs and self._jobs[0].done():
            self._finish()
        return not self._jobs

    def wait(self) -> None:
        """Waits for all jobs.

        Raises:
            Exception: what the first failing one raised, once; jobs behind it are not begun.
        """
        while self._jobs:
            self._finish()

    def _finish(self) -> None:
        try:
            self._jobs.pop(0).result()
        except BaseException:
            for job in self._jobs:
                job.cancel()
            concurrent.futures.wait(self._jobs)
            self._jobs.clear()
            raise

    def close(self) -> None:
        """Waits for the thread; idempotent. Failures are for `wait`."""
        self._pool.shutdown(wait=True)


def disk_error(error: BaseException, path: Path, what: str, num_bytes: int, advice: str) -> WriteError | None:
    """What a failure of the disk is reported as; None where the failure is of another kind.

    Args:
        error: what was raised, by Python or by a library that only kept the words of the system.
        path: what was to be written.
        what: the same in words.
        num_bytes: bytes it needs.
        advice: what is safe, and what to do.
    """
    number = next(_numbers(error), None)
    if number is None:
        return None
    existing = next(folder for folder in path.parents if folder.exists())
    free = shutil.disk_usage(existing).free
    text = (
        f"{what} could not be written ({os.strerror(number).lower()}): it needs up to {num_bytes:,} bytes, "
        f"{free:,} are free in {existing}; {advice}"
    )
    return WriteError(number, text, str(path))


def _numbers(error: BaseException | None) -> Iterator[int]:
    """Error numbers of the system along the causes of an error, which may go round in a circle."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno is not None:
            if error.errno in _DISK_ERRORS:
                yield error.errno
        else:
            yield from (number for number in _DISK_ERRORS if os.strerror(number) in str(error))
        error = error.__cause__ or error.__context__
