"""Progress of a run: bars with rate and remaining time on a terminal, short lines elsewhere."""

import time
from types import TracebackType
from typing import Self

from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from tributary.cli.console import messages, print_warning

_MIN_SECONDS_PER_LINE = 2.0


class _Rate(ProgressColumn):
    """Units done per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        unit = task.fields["unit"]
        return Text(f"{task.completed:,.0f} {unit}" + (f", {speed:,.0f} {unit}/s" if speed else ""))


class ProgressWatcher:
    """A watcher of preprocessing that shows what it is told; used as a context manager."""

    def __init__(self) -> None:
        console = messages()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f}%"),
            _Rate(),
            TimeRemainingColumn(compact=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._is_live = console.is_terminal
        self._stage = ""
        self._items: dict[tuple[str, str], TaskID] = {}
        self._warned: set[str] = set()
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def stage(self, name: str) -> None:
        """Remembers the stage that its items belong to."""
        self._stage = name

    def progress(self, item: str, done: int, total: int, unit: str) -> None:
        """Moves the bar of an item, or prints a line now and then."""
        if not self._is_live:
            now = time.monotonic()
            if now - self._last_line >= _MIN_SECONDS_PER_LINE:
                self._last_line = now
                messages().print(f"{self._stage}: {item}: {done:,} of {total:,} {unit}", markup=False, soft_wrap=True)
            return
        key = (self._stage, item)
        if key not in self._items:
            self._items[key] = self._bars.add_task(escape(f"{self._stage:8} {item}"), total=total, unit=unit)
        self._bars.update(self._items[key], completed=done, total=total)

    def warn(self, message: str) -> None:
        """Prints a warning, once."""
        if message not in self._warned:
            self._warned.add(message)
            print_warning(message)
