"""How many requests are under way at once: as many as the server takes.

The limit grows by one with every success until the server is overrun for the first time (429, 503, a time-out); that
halves it, and from then on it grows by one after as many successes as it has. A server that says when to come back is
left alone until then.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_FIRST_LIMIT = 4
_MIN_SECONDS_BETWEEN_CUTS = 1.0


class Traffic:
    """A gate for requests.

    Args:
        max_limit: Never more than this.
        first_limit: Where to begin; a few if nothing is known.

    Attributes:
        limit: Requests that may be under way.
    """

    def __init__(self, max_limit: int, *, first_limit: int | None = None) -> None:
        self._max_limit = max_limit
        self.limit = min(first_limit or _FIRST_LIMIT, max_limit)
        self._under_way = self._waiting = 0
        self._successes = 0
        self._closed_until = 0.0
        self._last_cut = float("-inf")
        self._is_over = False
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Waits for a place, then holds it."""
        self._waiting += 1
        try:
            async with self._changed:
                while not self._is_over and (self._under_way >= self.limit or self._seconds_closed() > 0):
                    await self._wait(self._seconds_closed() or None)
                self._under_way += 1
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            async with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    async def room(self) -> None:
        """Waits until nobody else waits for a place and one is free: time for new work, after what failed before."""
        await asyncio.sleep(0)  # work that was begun takes its place first
        async with self._changed:
            while not self._is_over and (self._under_way + self._waiting >= self.limit or self._seconds_closed() > 0):
                await self._wait(self._seconds_closed() or None)

    async def pause(self, seconds: float, *, is_overrun: bool) -> None:
        """After a failure.

        Args:
            seconds: What the failed request waits or, if the server is overrun, all of them.
            is_overrun: Fewer requests from here on.
        """
        if is_overrun:
            self._overrun(seconds)
            return
        until = asyncio.get_running_loop().time() + seconds
        async with self._changed:
            while not self._is_over and (left := until - asyncio.get_running_loop().time()) > 0:
                await self._wait(left)

    def end(self) -> None:
        """Lets everybody who waits go on, to find that there is nothing more to do."""
        self._is_over = True
        self._ending = asyncio.ensure_future(self._wake())

    def succeeded(self) -> None:
        """A request was answered."""
        self._successes += 1
        was_never_cut = self._last_cut == float("-inf")
        if self.limit < self._max_limit and (was_never_cut or self._successes >= self.limit):
            self.limit += 1
            self._successes = 0

    def _overrun(self, seconds: float) -> None:
        now = asyncio.get_running_loop().time()
        self._closed_until = max(self._closed_until, now + seconds)
        self._successes = 0
        if now - self._last_cut >= _MIN_SECONDS_BETWEEN_CUTS:  # requests sent together fail together: one cut
            self.limit = max(1, self.limit // 2)
            self._last_cut = now

    def _seconds_closed(self) -> float:
        return max(0.0, self._closed_until - asyncio.get_running_loop().time())

    async def _wait(self, seconds: float | None) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), seconds)

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()
