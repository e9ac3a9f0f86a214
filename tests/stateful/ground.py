"""Where the machine runs: a root, a saver on it that may die, a clock that jumps, and what the root should hold."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from hypothesis.stateful import RuleBasedStateMachine

from asyncsaver import Saver
from asyncsaver.formats.encodings import STATE_FILES
from asyncsaver.store import Store

from ..doubles.world import World, state_of, unretried  # noqa: TID252 - test folders have no name
from .inside import Inside
from .model import Held, Outcome, Saved, after_commit, without
from .mortal import Died, Life, Moment, NoThreads
from .policies import Policy


class Ground(RuleBasedStateMachine):
    """One root and the saver that has it open, beside the model.

    Attributes:
        tally: counts what the machine went through; set by who runs it.
        wrap: put around the store of every saver; set by who wants a store that does something else.
        formats: of manifests; every saver writes one of them.
        held: what the root should hold.
        gone: names of checkpoints that once were there, and should be known as deleted.
        left_by_the_dead: what processes that died have left, for a sweep.
        may_not_know_all: the state file was lost under an open saver, which then prunes only what it has saved since.
    """

    tally: Callable[[str], None] = staticmethod(lambda _what: None)
    wrap: Callable[[Store], Store] = staticmethod(lambda store: store)
    formats: Sequence[str] = ("json",)

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.world = World()
        self.inside = Inside(self.world)
        self.time = self.world.time
        self.random = random.Random(0)
        self.kinds = random.Random(0)
        self.numbers = itertools.count(1)
        self.held = Held()
        self.gone: set[str] = set()
        self.left_by_the_dead: set[str] = set()
        self.foreign: dict[str, bytes] = {}
        self.old_states: list[tuple[str, bytes]] = []

    # --- the saver -----------------------------------------------------------------------------------

    def _open(self, policy: Policy) -> None:
        self.policy = policy
        self.life = Life()
        self.saver = self._make(self.life)
        self.began = self.time
        self.may_not_know_all = False

    def _make(self, life: Life) -> Saver:
        store = self.wrap(self.world.store(life))
        saver = Saver(
            store,
            shard_bytes=1,
            retention=self.policy.real,
            clock=self._clock,
            manifest_format=self.kinds.choice(self.formats),
        )
        root = saver._root
        root.threads = NoThreads()
        root.random_bits = self.random.getrandbits
        return unretried(saver, store)

    def _clock(self) -> float:
        return self.time.timestamp()

    def _arguments(self, new: Saved) -> dict[str, Any]:
        return {
            "state": state_of(new.number),
            "step": new.step,
            "metrics": new.metrics,
            "metadata": new.number,
            "overwrite": new.overwrite,
            "pin": new.pinned,
        }

    def _do(
        self,
        work: Callable[[], Awaitable[None]],
        outcomes: Sequence[Outcome],
        death: Moment | None,
        *,
        certain: int | None = 1,
    ) -> None:
        """Do something, and die in the middle of it if it takes that many store calls; then see what came of it.

        Args:
            work: what.
            outcomes: what may come of it when it is interrupted.
            death: when.
            certain: so many of the last outcomes are those of work that was not interrupted; None for all of them.
        """

        async def do() -> bool:
            self.life.lives(death)
            try:
                await work()
            except Died:
                return False
            finally:
                self.life.lives(None)
            return True

        if self.loop.run(do()):
            self._adopt(outcomes if certain is None else outcomes[-certain:])
            return
        self.tally("deaths of the process in random histories")
        self.loop.run(self._bury(self.saver))
        self._open(self.policy)
        self.left_by_the_dead |= self.inside.leftovers(self.foreign)
        self._adopt(outcomes)

    def _do_anywhere(
        self,
        work: Callable[[Saver], Awaitable[None]],
        outcomes: Sequence[Outcome],
        death: Moment | None,
        *,
        elsewhere: bool,
        dies_elsewhere: bool = False,
    ) -> None:
        """The same with this saver, or with another one while this one stays open, which nothing happens to unless told."""
        if not elsewhere:
            self._do(lambda: work(self.saver), outcomes, death)
            return

        life = Life()
        life.lives(death if dies_elsewhere else None)

        async def do() -> bool:
            other = self._make(life)
            try:
                await work(other)
                await other.close()
            except Died:
                await self._bury(other)
                return False
            return True

        survived = self.loop.run(do())
        self._adopt(outcomes[-1:] if survived else outcomes)

    async def _bury(self, saver: Saver) -> None:
        with contextlib.suppress(Died):
            await saver.close()

    # --- the model -----------------------------------------------------------------------------------

    def _plan(self, new: Sequence[Saved]) -> tuple[list[bool], list[Outcome], int]:
        """Which of several saves commit, what may be seen after none, one, … of them, and how many ends there are.

        The ends come last.
        """
        commits, outcomes, end = self._plan_with(new, None)
        if not self.may_not_know_all:
            return commits, [*outcomes, end], 1
        _, others, other_end = self._plan_with(new, self.inside.listed())
        return commits, [*outcomes, *others, end, other_end], 2

    def _plan_with(self, new: Sequence[Saved], known: set[str] | None) -> tuple[list[bool], list[Outcome], Outcome]:
        """The same for a saver that knows of all checkpoints (None), or of these."""
        commits, outcomes = [], []
        now, marks, time = self.held, self.inside.marks(), self.time
        for one in new:
            time += one.pause
            # Its pin comes before its commit; all that a prune may take can be gone, or not yet.
            outcomes.append(Outcome(now, may_have_changed_pin={one.name} if one.pinned else ()))
            saved = after_commit(now.saved, one, marks, time)
            commits.append(saved is not None)
            if saved is None:
                continue
            known = None if known is None else known | {one.name}
            began = now.mark or self.began
            fate = self.policy.fate([one for one in saved if known is None or one.name in known], began)
            after = replace(now, saved=saved)
            outcomes.append(Outcome(after, fate.victims, (), fate.preserved, {began, fate.mark}))
            now = self._preserving(without(replace(after, mark=fate.mark), fate.victims), fate.preserved)
            marks = marks.after(one, fate.victims, fate.preserved)
        return commits, outcomes, Outcome(now)

    def _preserving(self, held: Held, names: Collection[str]) -> Held:
        return replace(held, saved=[replace(one, preserved=one.preserved or one.name in names) for one in held.saved])

    def _adopt(self, outcomes: Sequence[Outcome]) -> None:
        seen = self.loop.run(self._seen())
        assert any(outcome.explains(seen) for outcome in outcomes), f"seen {seen}, which is none of {outcomes}"
        self.gone = (self.gone | self.held.names) - seen.names
        self.old_states += [one for one in self.inside.objects().items() if one[0] in STATE_FILES.values()]
        self.held = seen

    async def _seen(self) -> Held:
        preserved = self.inside.marks().preserved
        saved = [
            Saved(
                one.step,
                one.metadata,
                one.metrics.get("loss"),
                one.pinned,
                preserved=one.name in preserved,
                created=one.created,
            )
            for one in await self.saver.checkpoints()
        ]
        return Held(saved, self.inside.state().last_preserved)
