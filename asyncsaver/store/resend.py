"""Whether a request of an upload in parts is sent again: what `Store.put_parts` asks, and who answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from asyncsaver.errors import StoreError

T = TypeVar("T")


class Again(Protocol):
    """The tries of one request."""

    async def another(self, error: StoreError) -> bool:
        """Whether the request is to be sent again after this error; pauses before it says so.

        Cancelled, it leaves nothing behind.
        """
        ...


class Resend(Protocol):
    """The tries of the requests of one upload, each by itself."""

    @property
    def timeout(self) -> float:
        """Seconds for which a request may be sent again by a client that does so by itself; 0 for never."""
        ...

    def request(self) -> Again:
        """The tries of a request that begins the upload or ends it."""
        ...

    def part(self, number: int) -> Again:
        """The tries of one part; while they pause, nothing may be sent of it.

        Args:
            number: which one, from 1, in the order in which the parts were given; it must not have been left yet.
        """
        ...

    def failing_for(self, seconds: float) -> None:
        """Learn that a client has sent a request again by itself for so long, in vain, and that the upload ends for it."""
        ...


class _Never:
    """Everything is sent once."""

    timeout = 0.0

    async def another(self, error: StoreError) -> bool:  # noqa: ARG002 - whatever it was
        return False

    def request(self) -> Again:
        return self

    def part(self, number: int) -> Again:  # noqa: ARG002 - whichever it is
        return self

    def failing_for(self, seconds: float) -> None:
        """Change nothing."""


NEVER: Resend = _Never()
"""Send everything once."""


async def until_sent(again: Again, call: Callable[[], Awaitable[T]]) -> T:
    """Send a request, and again as long as its tries say so; then the last error is raised.

    Args:
        again: the tries of this request.
        call: sends it once.
    """
    while True:
        try:
            return await call()
        except StoreError as error:
            if not await again.another(error):
                raise
