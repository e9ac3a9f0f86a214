"""One event loop in a thread of its own, for callers that have none."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from asyncsaver.errors import SaverClosedError, WrongLoopError

T = TypeVar("T")


class Portal:
    """Runs coroutines for synchronous callers, from any thread, also while another loop runs in the caller's.

    Args:
        name: of the thread.
        what: how messages call the object that owns this.
    """

    def __init__(self, name: str, what: str) -> None:
        self._name = name
        self._what = what
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._stop: asyncio.Event | None = None
        self._pid = 0
        self.closed = False

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine and return what it returns. An interrupt (Ctrl-C) cancels it, and waits until it has cleaned up."""
        try:
            loop = self._started()
        except BaseException:
            coroutine.close()
            raise
        outcome: Future[T] = Future()
        tasks: list[asyncio.Task[T]] = []

        def begin() -> None:
            tasks.append(loop.create_task(coroutine))
            tasks[0].add_done_callback(end)

        def end(task: asyncio.Task[T]) -> None:
            if task.cancelled():
                outcome.cancel()
                outcome.set_running_or_notify_cancel()  # without this, nobody who waits for it is told
            elif (error := task.exception()) is not None:
                outcome.set_exception(error)
            else:
                outcome.set_result(task.result())

        loop.call_soon_threadsafe(begin)
        try:
            return outcome.result()
        except BaseException:
            if not outcome.done():  # interrupted while waiting
                loop.call_soon_threadsafe(lambda: tasks[0].cancel())  # noqa: PLW0108 - there may be no task yet
                wait([outcome])
            raise

    def close(self) -> None:
        """End the loop and its thread. Calling twice is fine."""
        with self._lock:
            self.closed = True
            if self._thread is None or self._loop is None or self._stop is None or self._pid != os.getpid():
                return
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()
            self._thread = None

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self.closed:
                raise SaverClosedError(f"{self._what} is closed")
            if self._loop is None:
                ready: Future[asyncio.AbstractEventLoop] = Future()
                # A daemon: a program that ends without closing the saver should end, not hang.
                self._thread = threading.Thread(target=self._run, args=(ready,), name=self._name, daemon=True)
                self._pid = os.getpid()
                self._thread.start()
                self._loop = ready.result()
            elif self._pid != os.getpid():
                raise WrongLoopError(
                    f"{self._what} was used in process {self._pid} and cannot be used in its fork {os.getpid()}: "
                    "threads and connections do not survive a fork. Make a new one in the child."
                )
            return self._loop

    def _run(self, ready: Future[asyncio.AbstractEventLoop]) -> None:
        async def serve() -> None:
            self._stop = asyncio.Event()
            ready.set_result(asyncio.get_running_loop())
            await self._stop.wait()

        asyncio.run(serve())
