"""Who may use an object: one event loop, in one process, until it is closed."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from asyncsaver.errors import SaverClosedError, WrongLoopError

P = ParamSpec("P")
T = TypeVar("T")


class LoopGuard:
    """Binds an object to the loop and process that first use it, and refuses others with a clear error.

    Args:
        what: how messages call the object.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._uses = 0
        self._unused = asyncio.Event()
        self.closed = False

    def check(self) -> None:
        """Raise `SaverClosedError` or `WrongLoopError` unless this loop may use the object now."""
        if self.closed:
            raise SaverClosedError(f"{self._what} is closed")
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop, self._pid = loop, os.getpid()
        elif os.getpid() != self._pid:
            raise WrongLoopError(
                f"{self._what} was used in process {self._pid} and cannot be used in its fork {os.getpid()}: connections do "
                "not survive a fork. Make a new one in the child."
            )
        elif self._loop is not loop:
            raise WrongLoopError(
                f"{self._what} belongs to the event loop that used it first, and this is another one. Make one a loop, "
                "or use asyncsaver.blocking.Saver, which works from anywhere."
            )

    @contextmanager
    def use(self) -> Iterator[None]:
        """Hold off `wait_unused` for the length of a block. Raises as `check`."""
        self.check()
        self._uses += 1
        try:
            yield
        finally:
            self._uses -= 1
            if not self._uses:
                self._unused.set()

    async def wait_unused(self) -> None:
        """Wait until no block of `use` is left; once closed, none can begin."""
        while self._uses:
            self._unused.clear()
            await self._unused.wait()


class _Guarded(Protocol):
    _guard: LoopGuard


G = TypeVar("G", bound=_Guarded)


def guarded(
    method: Callable[Concatenate[G, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[G, P], Coroutine[Any, Any, T]]:
    """Make every call of a method a use of the object's ``_guard``, so that closing it waits for the call to end."""

    @functools.wraps(method)
    async def call(self: G, /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._guard.use():
            return await method(self, *args, **kwargs)

    return call
