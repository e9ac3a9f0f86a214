"""Run coroutines in one chosen order of their store operations, again and again the same way.

Every operation on a `SimulatedStore` is a point at which its coroutine waits. When nothing else can run, a chooser picks
which of the waiting operations goes on, and how it ends. Time is simulated: a sleep takes none.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Outcome = Literal[
    "done",
    "lost reply",
    "refused",
    "in part",
    "delayed",
    "duplicated",
    "crash before",
    "crash after",
    "cancelled",
    "cancelled after",
    "cancelled, delayed",
]
"""How an operation ends.

* ``done``: it is carried out and answered.
* ``lost reply``: it is carried out, and the caller sees a timeout.
* ``refused``: it is not carried out, and the caller sees a 503.
* ``in part``: of a deletion, the first half of the paths (rounded down) is gone, and the others are reported as failed.
* ``delayed``: the caller sees a timeout, and it is carried out at a later point, or never.
* ``duplicated``: it is carried out and answered, and carried out once more at a later point.
* ``crash before``, ``crash after``: the caller stops for good, and the operation was not, or was, carried out.
* ``cancelled``, ``cancelled after``, ``cancelled, delayed``: the task of the actor is cancelled while this operation is under
  way, which is then not carried out, or was, or may be later. One that is shielded goes on as if nothing had happened.
"""
_CANCELLATIONS = frozenset[Outcome]({"cancelled", "cancelled after", "cancelled, delayed"})


@dataclass(frozen=True, slots=True)
class Option:
    """One thing that can happen next.

    Attributes:
        kind: ``go on`` with the coroutine that ran last, ``switch`` to another one, a ``fault``, an old request that may
            ``land`` now, or ``time`` that passes until a timer rings.
        actor: whose operation it is; "" for time.
        what: the operation.
        outcome: how it ends.
        cost: 1 where it departs from running one coroutine after another without faults, else 0.
    """

    kind: Literal["go on", "switch", "fault", "land", "time"]
    actor: str
    what: str
    outcome: Outcome
    cost: int

    def __str__(self) -> str:
        ending = "" if self.outcome == "done" else f" ({self.outcome})"
        landing = "an old request lands: " if self.kind == "land" else ""
        return f"{self.actor or 'clock'}: {landing}{self.what}{ending}"


class Chooser(Protocol):
    """Decides what happens next."""

    def choose(self, options: Sequence[Option]) -> int:
        """Return the position of the option to take; there is always at least one, and at least one of cost 0."""
        ...


class InOrder:
    """Lets every coroutine run as far as it can, without faults."""

    def choose(self, options: Sequence[Option]) -> int:
        """Return the first."""
        return next(position for position, option in enumerate(options) if not option.cost)


class DeadlockError(RuntimeError):
    """Every coroutine waits for something that no operation and no timer will bring."""


@dataclass(slots=True)
class _Waiting:
    what: str
    outcomes: Sequence[Outcome]
    released: asyncio.Future[Outcome]


@dataclass(slots=True)
class _Late:
    actor: str
    what: str
    apply: Callable[[], None]
    alive: Callable[[], bool]


class Scheduler:
    """Runs actors: coroutines with a name. One at a time; everything that happens is in `trace`.

    While an actor is being cancelled, `cancelling` tells which fate its unfinished operations have.

    Nothing in the actors may use threads, files or sockets: what the scheduler cannot see it would not wait for.

    Args:
        chooser: decides what happens next.
        check: called before each choice and at the end; what it raises ends the run, and is raised by `run`.
        patience: seconds; a timer that is due sooner may ring before a waiting operation goes on. A later one rings only when
            nothing else can happen.
    """

    def __init__(self, chooser: Chooser, *, check: Callable[[], None] | None = None, patience: float = 60.0) -> None:
        self.time = 0.0
        self.trace: list[Option] = []
        self._chooser = self._choosing = chooser
        self._check = check
        self._patience = patience
        self._waiting: dict[str, deque[_Waiting]] = {}
        self._late: list[_Late] = []
        self._current = ""
        self._crashed: set[str] = set()
        self._running: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._cancelled: set[str] = set()
        self.cancelling: Outcome = "cancelled"
        self._ended = asyncio.Event()
        self._stopping = False

    @property
    def late(self) -> int:
        """How many old requests may still land."""
        return len(self._late)

    def run(
        self, actors: Mapping[str, Callable[[], Coroutine[Any, Any, Any]]], *, chooser: Chooser | None = None
    ) -> dict[str, Any]:
        """Run all actors until each has returned, raised or crashed.

        Must not be called from a running event loop. May be called again, for what comes before or after.

        Args:
            actors: by name; a crash concerns all operations under that name.
            chooser: for this run only.

        Returns:
            Name of each actor that has not crashed → what it returned, or the exception that it raised. A `CancelledError`
            counts only where the schedule has cancelled that actor.
        """
        loop = _SimulatedLoop(self)
        self._choosing = chooser or self._chooser
        try:
            return loop.run_until_complete(self._run(actors))
        finally:
            self._stopping = True
            self.cancelling = "cancelled"
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()
            self._stopping = False
            self._waiting.clear()

    async def point(self, actor: str, what: str, outcomes: Sequence[Outcome] = ("done",)) -> Outcome:
        """Wait here until this is chosen to go on.

        Args:
            actor: who waits. Of one actor the operations go on in the order in which they came.
            what: for, in a few words.
            outcomes: how it may end, the usual way first.

        Returns:
            How it ends. After ``crash after`` the caller carries the operation out and then awaits `crash`.
        """
        if self._stopping:
            raise asyncio.CancelledError
        if actor in self._crashed:
            await self.crash(actor)
        released: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(actor, deque()).append(_Waiting(what, outcomes, released))
        outcome = await released
        if outcome == "crash before":
            await self.crash(actor)
        return outcome

    async def crash(self, actor: str) -> None:
        """Stop an actor here for good, as if its process had been killed."""
        self._crashed.add(actor)
        self._waiting.pop(actor, None)
        self._leave(actor)
        await asyncio.get_running_loop().create_future()

    def land_later(
        self, actor: str, what: str, apply: Callable[[], None], *, alive: Callable[[], bool] = lambda: True
    ) -> None:
        """Have the network keep a request, which may be carried out at any later point while it is ``alive``."""
        self._late.append(_Late(actor, what, apply, alive))

    def forget_late(self) -> None:
        """Drop the requests that have not landed: the network keeps none for ever."""
        self._late.clear()

    def go_on(self, timeout: float | None) -> None:
        """Take one step; called by the loop when nothing is ready to run.

        Args:
            timeout: seconds until the next timer is due; None without one.
        """
        if self._stopping:
            if timeout is not None:
                self.time += timeout
            return
        if self._check is not None:
            self._check()
        self.cancelling = "cancelled"
        options, steps = self._options(timeout)
        if not options:
            running = ", ".join(sorted(self._running))
            raise DeadlockError(f"nothing can happen any more, and these have not ended: {running}")
        position = self._choosing.choose(options) if len(options) > 1 else 0
        self.trace.append(options[position])
        steps[position]()

    async def _run(self, actors: Mapping[str, Callable[[], Coroutine[Any, Any, Any]]]) -> dict[str, Any]:
        self._ended = asyncio.Event()
        self._running = set(actors)
        self._crashed.clear()
        self._cancelled.clear()
        self._current = ""
        results: dict[str, Any] = {}

        async def run(name: str, actor: Callable[[], Coroutine[Any, Any, Any]]) -> None:
            try:
                results[name] = await actor()
            except Exception as error:  # noqa: BLE001 - the caller judges it
                results[name] = error
            except asyncio.CancelledError as error:
                if self._stopping or name not in self._cancelled:
                    raise
                results[name] = error
            if name in self._crashed:
                del results[name]  # it cannot have ended: what it was waiting for was cancelled from within
            self._leave(name)

        self._tasks = {name: asyncio.create_task(run(name, actor)) for name, actor in actors.items()}
        await self._ended.wait()
        for task in self._tasks.values():
            if task.done():
                task.result()
        if self._check is not None:
            self._check()
        return results

    def _leave(self, actor: str) -> None:
        self._running.discard(actor)
        if not self._running:
            self._ended.set()

    def _options(self, timeout: float | None) -> tuple[list[Option], list[Callable[[], None]]]:
        options: list[Option] = []
        steps: list[Callable[[], None]] = []
        first: dict[str, _Waiting] = {}
        for actor, queue in self._waiting.items():
            while queue and queue[0].released.done():
                queue.popleft()  # its caller was cancelled
            if queue:
                first[actor] = queue[0]
        staying = self._current in first
        order = sorted(first, key=lambda actor: actor != self._current)
        for actor in order:
            waiting = first[actor]
            switch = actor != self._current
            for outcome in waiting.outcomes:
                if outcome in _CANCELLATIONS and actor not in self._tasks:
                    continue  # not an actor of its own: there is no task to cancel
                fault = outcome != "done"
                kind: Literal["go on", "switch", "fault"] = "fault" if fault else "switch" if switch else "go on"
                options.append(Option(kind, actor, waiting.what, outcome, int(switch and staying) + int(fault)))
                steps.append(lambda actor=actor, outcome=outcome: self._release(actor, outcome))  # type: ignore[misc]
        for late in self._late:
            if not late.alive():
                continue
            options.append(Option("land", late.actor, late.what, "done", 0 if first or timeout is not None else 1))
            steps.append(lambda late=late: self._land(late))  # type: ignore[misc]
        if timeout is not None and (timeout < self._patience or not first):
            options.append(Option("time", "", f"{timeout:.3g} s pass", "done", int(staying)))
            steps.append(lambda: self._pass(timeout))
        if not first and timeout is None:
            return [], []  # what lands now would wake nobody
        return options, steps

    def _release(self, actor: str, outcome: Outcome) -> None:
        self._current = actor
        if outcome in _CANCELLATIONS:
            self.cancelling = outcome
            self._cancelled.add(actor)
            self._tasks[actor].cancel()
        else:
            self._waiting[actor].popleft().released.set_result(outcome)

    def _land(self, late: _Late) -> None:
        self._late.remove(late)
        late.apply()

    def _pass(self, seconds: float) -> None:
        self.time += seconds


class _Idle(selectors.SelectSelector):
    """Asks the scheduler where another selector would wait for the outside world."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__()
        self._scheduler = scheduler

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Take a step if nothing is ready to run."""
        if timeout is None or timeout > 0:
            self._scheduler.go_on(timeout)
        return []


class _SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock is the scheduler's."""

    def __init__(self, scheduler: Scheduler) -> None:
        super().__init__(_Idle(scheduler))
        self._scheduler = scheduler

    def time(self) -> float:
        """Seconds, simulated."""
        return self._scheduler.time
