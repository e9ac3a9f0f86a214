"""A budget that many tasks share, first come, first served; and one of bytes, which counts the time spent waiting."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from asyncsaver.aio.meter import current_meter


class Quota:
    """Bounds how much is held at once, first come, first served.

    An item larger than the whole waits until it is alone, then runs: it never raises and never deadlocks.

    Args:
        limit: at least 1.

    Attributes:
        limit: changed by `resize`.
        used: what is held now; more than the limit after that was lowered.
        peak: the most that was ever held at once.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"a limit must be at least 1, not {limit}")
        self.limit = limit
        self.used = 0
        self.peak = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    def would_wait(self, size: int) -> bool:
        """Whether `acquire` would not return at once."""
        return bool(self._waiting) or not self._fits(size)

    async def acquire(self, size: int) -> None:
        """Wait for so much. When cancelled, nothing is held."""
        if not self.would_wait(size):
            self._take(size)
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (size, turn)
        self._waiting.append(entry)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(size)  # granted in the same turn of the loop that cancelled us
            else:
                with contextlib.suppress(ValueError):  # a release in the meantime may have passed over it
                    self._waiting.remove(entry)
                self._grant()
            raise

    def release(self, size: int) -> None:
        """Give back what `acquire` took."""
        self.used -= size
        self._grant()

    def resize(self, limit: int) -> None:
        """Change the limit. What is held beyond a lower one is not taken away; nothing more is given until it is back."""
        self.limit = limit
        self._grant()

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Hold so much for the length of a block."""
        await self.acquire(size)
        try:
            yield
        finally:
            self.release(size)

    def _fits(self, size: int) -> bool:
        return self.used == 0 or self.used + size <= self.limit

    def _take(self, size: int) -> None:
        self.used += size
        self.peak = max(self.peak, self.used)

    def _grant(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, turn = self._waiting.popleft()
            if not turn.done():
                self._take(size)
                turn.set_result(None)


class ByteBudget(Quota):
    """Bounds how many bytes are held at once; `Meter` counts how long operations wait for them.

    Args:
        limit: in bytes, at least 1.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"a budget needs at least one byte, not {limit}")
        super().__init__(limit)

    async def acquire(self, size: int) -> None:
        """Wait for ``size`` bytes. When cancelled, none are held."""
        if not self.would_wait(size):
            self._take(size)
            return
        with current_meter().blocked():
            await super().acquire(size)
