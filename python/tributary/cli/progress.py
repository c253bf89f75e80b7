"""Progress of a run: bars with rate and remaining time on a terminal, short lines elsewhere."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from tributary.cli.console import messages, print_warning

_SECONDS_BETWEEN_LINES = 2.0


class _Rate(ProgressColumn):
    """Units done per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        unit = task.fields["unit"]
        return Text(f"{task.completed:,.0f} {unit}" + (f", {speed:,.0f} {unit}/s" if speed else ""))


@dataclass
class _Item:
    """How an item stood when its work began (it may go on from an earlier run) and when it was last spoken of."""

    began: float
    first: int
    done: int


class PlainProgress:
    """Lines instead of bars: an item that takes long speaks every two seconds, with rate and remaining time.

    Args:
        say: Takes a line.
        clock: Seconds that only grow.
    """

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say = say
        self._clock = clock
        self._items: dict[tuple[str, str], _Item] = {}
        self._last_line = clock()

    def progress(self, stage: str, item: str, done: int, total: int, unit: str) -> None:
        """Prints a line if the last one is long enough ago."""
        now = self._clock()
        known = self._items.get((stage, item))
        if known is None or not known.done:
            # the clock of an item runs from the last report without progress: before, it waited for its turn
            began = now if known is None or not done else known.began
            known = self._items[stage, item] = _Item(began, done if known is None else 0, done)
        known.done = done
        if now - self._last_line < _SECONDS_BETWEEN_LINES:
            return
        self._last_line = now
        line = f"{stage}: {item}: {done:,} of {total:,} {unit}"
        if done > known.first and now > known.began:
            rate = (done - known.first) / (now - known.began)
            line += f" ({100 * done / total:.0f}%), {rate:,.0f} {unit}/s, {(total - done) / rate:,.0f} s left"
        self._say(line)


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
        self._lines = PlainProgress(lambda line: console.print(line, markup=False, soft_wrap=True))
        self._stage = ""
        self._items: dict[tuple[str, str], TaskID] = {}
        self._warned: set[str] = set()

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
            self._lines.progress(self._stage, item, done, total, unit)
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
