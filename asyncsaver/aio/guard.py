"""Who may use an object: one event loop, in one process, until it is closed."""

from __future__ import annotations

import asyncio
import os

from asyncsaver.errors import SaverClosedError, WrongLoopError


class LoopGuard:
    """Binds an object to the loop and process that first use it, and refuses others with a clear error.

    Args:
        what: how messages call the object.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
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
