"""Blocking work in threads, so that the event loop never waits, and cancellation never leaves a thread behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """A small pool of threads, made on first use, that one owner closes.

    Args:
        name: how the threads are called in a stack dump.
        count: the most threads at once.
    """

    def __init__(self, name: str, count: int) -> None:
        self._name = name
        self._count = count
        self._pool: ThreadPoolExecutor | None = None

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call ``function`` in a thread and return what it returns.

        When cancelled, waits until the thread is done with the call (which cannot be interrupted) before it raises
        `asyncio.CancelledError`: buffers and files that the call uses are then free. A call that has not started is dropped.
        """
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._count, thread_name_prefix=self._name)
        call = self._pool.submit(function, *args, **kwargs)
        try:
            return await _finished(asyncio.wrap_future(call), call.cancel)
        finally:
            # It holds its error, whose traceback holds this frame: together they would keep the call's buffers.
            del call

    def close(self) -> None:
        """Let the threads end. Calls in flight are waited for by their callers, not here."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None


async def _finished(call_future: asyncio.Future[T], cancel: Callable[[], bool]) -> T:
    cancelled: asyncio.CancelledError | None = None
    try:
        while not call_future.done():
            try:
                await asyncio.shield(call_future)
            except asyncio.CancelledError as error:
                if call_future.cancelled():
                    raise
                cancelled = error
                if cancel():
                    raise
            except BaseException:  # noqa: BLE001 - the call's own error is raised by result() below
                break
        if cancelled is not None:
            if not call_future.cancelled():
                call_future.exception()  # seen: the cancellation goes first
            raise cancelled
        return call_future.result()
    finally:
        del call_future, cancel, cancelled  # as above
