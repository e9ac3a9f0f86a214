"""Cancelling work at its so-manieth suspension, wherever in its tasks that is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


class _Counted(Coroutine[Any, Any, Any]):
    """A coroutine that tells whenever it is suspended."""

    def __init__(self, inner: Coroutine[Any, Any, Any], suspended: Callable[[], None]) -> None:
        self._inner = inner
        self._suspended = suspended

    def send(self, value: Any) -> Any:
        result = self._inner.send(value)
        self._suspended()
        return result

    def throw(self, *error: Any) -> Any:
        result = self._inner.throw(*error)
        self._suspended()
        return result

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        raise AssertionError("only a task drives this")


@dataclass(slots=True)
class Canceller:
    """Cancels a piece of work at its suspensions of the given numbers, counted over all its tasks.

    Attributes:
        at: the numbers, from 0; a second one cuts into the cleanup after the first.
        target: what cancels the work; None until it has begun.
        count: how many suspensions there were since then.
    """

    at: frozenset[int]
    target: Callable[[], object] | None = None
    count: int = 0

    def suspended(self) -> None:
        """A task is suspended."""
        if self.target is None:
            return
        number, self.count = self.count, self.count + 1
        if number in self.at:
            # Not at once: the task that has just been suspended does not wait for anything yet.
            asyncio.get_running_loop().call_soon(self.target)

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count the suspensions of every task that is created, by whomever, within this block."""
        loop = asyncio.get_running_loop()
        before = loop.get_task_factory()

        def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
            return asyncio.Task(_Counted(coroutine, self.suspended), loop=loop, **options)

        loop.set_task_factory(factory)
        try:
            yield
        finally:
            loop.set_task_factory(before)
