"""How preprocessing tells whoever watches how far it is."""

from typing import Protocol


class Watcher(Protocol):
    """Someone who watches a run; every method is called from the thread that runs it."""

    def stage(self, name: str) -> None:
        """A stage begins: `encode`, `tasks`, `embed` or `publish`."""
        ...

    def progress(self, item: str, done: int, total: int, unit: str) -> None:
        """Of an item of the stage (a table, a task), `done` of `total` units are finished."""
        ...

    def warn(self, message: str) -> None:
        """Something the user should know, but not a reason to stop."""
        ...


class Silence:
    """A watcher that looks away."""

    def stage(self, name: str) -> None:
        """Says nothing."""

    def progress(self, item: str, done: int, total: int, unit: str) -> None:
        """Says nothing."""

    def warn(self, message: str) -> None:
        """Says nothing."""
