"""The staging folder: where a database is made before anyone can see it.

Beside the output `name` stands `.name.partial` while a run is at work:

    .name.partial/lock        held (flock) by the one run that may write here; says its process id
    .name.partial/database/   the database in the making; renamed to the output when it is complete
    .name.partial/scratch/    results and spill files of task queries
    .name.partial/old/        the output being replaced, on systems that cannot exchange two folders at once

The lock belongs to a process, so a killed run frees it and the next run takes the folder over, whatever is in it.
The output is always absent or complete; after success or an error nothing of the staging folder remains.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from tributary.exchange import exchange


class Staging:
    """The staging folder of one output, locked for as long as the `with` block runs.

    Args:
        output: The folder to be made. Missing parents are created, and removed again if nothing is published.

    Raises:
        BlockingIOError: Another run is making the same output.
        OSError: The folder beside the output cannot be written.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.parent / f".{output.name}.partial"
        self.database = self.folder / "database"
        self.scratch = self.folder / "scratch"
        self._old = self.folder / "old"
        self._lock: int | None = None
        self._made_parents: list[Path] = []

    def __enter__(self) -> Self:
        self._make_parents()
        try:
            self._lock = self._acquire()
            self._recover()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def publish(self) -> None:
        """Makes the staged database the output: at one moment the old one or nothing, at the next the new one."""
        sync_tree(self.database)
        if not os.path.lexists(self.output) or _is_empty_folder(self.output):
            os.rename(self.database, self.output)
        elif not exchange(self.database, self.output):
            shutil.rmtree(self._old, ignore_errors=True)
            os.rename(self.output, self._old)
            os.rename(self.database, self.output)
        sync_folder(self.output.parent)
        self._made_parents.clear()

    def _make_parents(self) -> None:
        missing = []
        parent = self.output.parent
        while not parent.exists():
            missing.append(parent)
            parent = parent.parent
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
        self._made_parents = missing

    def _acquire(self) -> int:
        """Locks the folder; a lock on a file that was removed meanwhile does not count."""
        path = self.folder / "lock"
        while True:
            self.folder.mkdir(exist_ok=True)
            try:
                lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except FileNotFoundError:
                continue  # the previous run removed the folder in between
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                owner = os.read(lock, 32).decode(errors="replace").strip()
                os.close(lock)
                who = f"process {owner}" if owner else "another run"
                raise BlockingIOError(
                    errno.EWOULDBLOCK, f"{who} is making this output; wait for it to end", os.fspath(self.output)
                ) from error
            if _is_same_file(lock, path):
                os.ftruncate(lock, 0)
                os.write(lock, f"{os.getpid()}\n".encode())
                return lock
            os.close(lock)

    def _recover(self) -> None:
        """Puts back an output that a killed run had moved aside, and clears what no run can use again."""
        if self._old.exists() and not os.path.lexists(self.output):
            os.rename(self._old, self.output)
        shutil.rmtree(self._old, ignore_errors=True)
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir()
        self.database.mkdir(exist_ok=True)

    def _release(self) -> None:
        if self._lock is None:
            self._remove_parents()
            return
        for entry in (self.database, self.scratch, self._old):
            shutil.rmtree(entry, ignore_errors=True)
        (self.folder / "lock").unlink(missing_ok=True)
        try:
            self.folder.rmdir()
        except OSError as error:
            # a run that came in between has its own lock file here by now
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
                raise
        os.close(self._lock)
        self._lock = None
        self._remove_parents()

    def _remove_parents(self) -> None:
        for folder in self._made_parents:
            try:
                folder.rmdir()
            except OSError:
                return  # someone else uses it by now
        self._made_parents = []


def sync_files(paths: Iterable[Path]) -> None:
    """Waits until files and the folders that name them are on the disk."""
    folders = set()
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        folders.add(path.parent)
    for folder in folders:
        sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Waits until everything below a folder is on the disk."""
    for path, _, files in os.walk(folder):
        sync_files(Path(path) / name for name in files)
        sync_folder(Path(path))


def link_or_copy(source: Path, target: Path) -> None:
    """The same bytes under a second name: a hard link where the file system has them, else a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())
