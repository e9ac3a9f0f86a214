"""Memory that obstore reads while it sends, and how to know that it is no longer read.

obstore takes a Python buffer as it is and drops it when the request is over. After an error or a cancellation that is a moment
after the call has ended, on a thread of its own, and until then the memory must not change. The view that is lent tells:
it dies with the last reference.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import Callable
from typing import Self

from asyncsaver.aio.completion import to_completion

RETURN_SECONDS = 5.0
"""How long a request that has ended may keep its memory. A server that answers early and then reads no more makes obstore keep
it as long as the connection lasts; what changes in it then can only reach a request that was refused already."""


class Loan:
    """One buffer that is lent for one request.

    Args:
        return_seconds: how long `settle` waits at most.
    """

    def __init__(self, return_seconds: float = RETURN_SECONDS) -> None:
        self._returned = asyncio.Event()
        self._return_seconds = return_seconds

    def lend(self, data: memoryview) -> memoryview:
        """Return a view of ``data`` to hand over; keep no reference to it.

        Args:
            data: flat bytes.
        """
        lent = memoryview(data)
        # It may die on any thread, and after the loop has ended.
        weakref.finalize(lent, _tell, asyncio.get_running_loop(), self._returned).atexit = False
        return lent

    async def returned(self) -> None:
        """Wait until the memory is read no more, however long the request takes."""
        await self._returned.wait()

    async def settle(self) -> None:
        """Wait, whatever is cancelled, until a request that has ended has let go of the memory."""
        if not self._returned.is_set():
            await to_completion(_within(self._returned, self._return_seconds))


async def _within(event: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


def _tell(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(event.set)


class AbandonedError(Exception):
    """Ends an upload from within obstore, which completes what merely comes to its end."""


class Feed:
    """The asynchronous iterator that a multipart upload takes its parts from.

    Attributes:
        begun: set when obstore has asked for the first part: the upload exists from then on.
        on_begun: called then.
        ended: whether all parts have been offered.
    """

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.on_begun: Callable[[], None] | None = None
        self._waiting: deque[memoryview] = deque()
        self._changed = asyncio.Event()
        self.ended = False
        self._abandoned = False

    def put(self, lent: memoryview) -> None:
        """Offer the next part."""
        if not self._abandoned:
            self._waiting.append(lent)
        self._changed.set()

    def end(self) -> None:
        """Say that there are no more parts."""
        self.ended = True
        self._changed.set()

    def abandon(self) -> None:
        """Drop what was not taken, and fail whoever asks for a part, now or later."""
        self._abandoned = True
        self._waiting.clear()
        self._changed.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> memoryview:
        """Give the next part; obstore asks for one at a time."""
        if not self.begun.is_set():
            self.begun.set()
            if self.on_begun is not None:
                self.on_begun()
        while True:
            if self._abandoned:
                raise AbandonedError
            if self._waiting:
                return self._waiting.popleft()
            if self.ended:
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
