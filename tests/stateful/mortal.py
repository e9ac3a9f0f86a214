"""A process that can die at any store call, and threads that leave nothing to chance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, ParamSpec, TypeVar

from asyncsaver.aio.threads import Threads

from ..doubles.scripted import Call, Fault, Work  # noqa: TID252 - test folders have no name

P = ParamSpec("P")
T = TypeVar("T")


class Died(BaseException):
    """The process is gone. Not an Exception: nothing that handles errors may handle this one."""


class Death(NamedTuple):
    """When a process dies.

    Attributes:
        after: how many more store calls it makes.
        applied: whether the last of them is still carried out.
    """

    after: int
    applied: bool


@dataclass(frozen=True, slots=True)
class _Dies:
    applied: bool

    async def around(self, work: Work) -> Any:
        if self.applied:
            await work()
        raise Died


class Life:
    """A script for a store: lets calls through until the process has died, and nothing from then on."""

    def __init__(self) -> None:
        self.dead = False
        self._death: Death | None = None
        self._calls = 0

    def lives(self, until: Death | None) -> None:
        """Count anew; None to live on."""
        self._death = until
        self._calls = 0

    def __call__(self, call: Call) -> Fault | None:
        if self.dead:
            return _Dies(applied=False)
        self._calls += 1
        if self._death is None or self._calls < self._death.after:
            return None
        self.dead = True
        return _Dies(self._death.applied)


class NoThreads(Threads):
    """Runs at once what would run in a thread: the order of all store calls is then the same each time."""

    def __init__(self) -> None:
        super().__init__("none", 1)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)
