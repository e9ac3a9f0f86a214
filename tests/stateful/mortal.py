"""A process that can die at any store call, and threads that leave nothing to chance."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, ParamSpec, TypeVar

from asyncsaver.aio.threads import Threads
from asyncsaver.formats.encodings import STATE_FILES
from asyncsaver.model.names import PINNED_MARKER, PRESERVED_MARKER, parse_slot

from ..doubles.scripted import Call, Fault, Work  # noqa: TID252 - test folders have no name

P = ParamSpec("P")
T = TypeVar("T")


Change = Literal["any", "commit", "tombstone", "deletion", "mark", "state file"]
_CHANGES = frozenset({"put", "create", "put_parts", "replace_if", "delete"})
_TURNS = 20


class Died(BaseException):
    """The process is gone. Not an Exception: nothing that handles errors may handle this one."""


class Moment(NamedTuple):
    """When something happens to a process: as it changes the store. Between two changes it does not matter when.

    Attributes:
        after: at the how-manieth change.
        applied: whether that one is carried out first.
        of: only changes of this kind count. Most windows are one change wide: those that are told apart get hit.
    """

    after: int
    applied: bool
    of: Change = "any"


def change_of(call: Call) -> Change | None:
    """What kind of change a call makes; None for one that only reads."""
    if call.operation not in _CHANGES:
        return None
    if call.operation == "delete":
        return "deletion"
    if call.path in STATE_FILES.values():
        return "state file"
    rest = call.path.partition("/")[2]
    if rest in {PINNED_MARKER, PRESERVED_MARKER}:
        return "mark"
    if parse_slot(rest) is None:
        return "any"
    return "commit" if call.operation == "create" else "tombstone"


@dataclass(frozen=True, slots=True)
class _Dies:
    applied: bool

    async def around(self, work: Work) -> Any:
        if self.applied:
            await work()
        raise Died


@dataclass(frozen=True, slots=True)
class _Answers:
    """In time, so that others get their turn, and a cancellation may come, before the call and after it."""

    async def around(self, work: Work) -> Any:
        await asyncio.sleep(0)
        result = await work()
        await asyncio.sleep(0)
        return result


@dataclass(frozen=True, slots=True)
class _Meets:
    """Something happens to who made the call, while it is in flight."""

    action: Callable[[], object]
    applied: bool

    async def around(self, work: Work) -> Any:
        result = await work() if self.applied else None
        self.action()
        for _ in range(_TURNS):  # in which a cancellation gets here, unless the caller is shielded
            await asyncio.sleep(0)
        return result if self.applied else await work()


class Life:
    """A script for a store: lets calls through until the process has died, and nothing from then on."""

    def __init__(self) -> None:
        self.dead = False
        self._death: Moment | None = None
        self._meeting: tuple[Moment, Callable[[], object]] | None = None
        self._changes: Counter[Change] = Counter()

    def lives(self, until: Moment | None) -> None:
        """Count anew; None to live on."""
        self._death = until
        self._meeting = None
        self._changes.clear()

    def meets(self, moment: Moment, action: Callable[[], object]) -> None:
        """Have something happen on the way, by the same count."""
        self._meeting = (moment, action)

    def __call__(self, call: Call) -> Fault:
        if self.dead:
            return _Dies(applied=False)
        kind = change_of(call)
        if kind is None:
            return _Answers()
        self._changes.update({"any", kind})
        if self._death is not None and self._is_now(self._death, kind):
            self.dead = True
            return _Dies(self._death.applied)
        if self._meeting is not None and self._is_now(self._meeting[0], kind):
            return _Meets(self._meeting[1], self._meeting[0].applied)
        return _Answers()

    def _is_now(self, moment: Moment, kind: Change) -> bool:
        return moment.of in {"any", kind} and self._changes[moment.of] == moment.after


class NoThreads(Threads):
    """Runs at once what would run in a thread: the order of all store calls is then the same each time."""

    def __init__(self) -> None:
        super().__init__("none", 1)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)
