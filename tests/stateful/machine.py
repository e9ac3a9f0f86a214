"""A saver that lives, dies and lives again, beside a list of what it should hold."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from asyncsaver import Saver
from asyncsaver.catalog.reader import CatalogReader
from asyncsaver.errors import CheckpointExistsError, CheckpointNotFoundError

from ..doubles.world import World, number_of, state_of  # noqa: TID252 - test folders have no name
from .choices import DEATHS, FOREIGN, POLICY_NAMES, REQUESTS, STEPS
from .model import POLICIES, Outcome, Policy, Saved, after_commit, name_of, without
from .mortal import Death, Died, Life, NoThreads

YEAR = 365 * 86400


class SaverMachine(RuleBasedStateMachine):
    """The machine. After each step the saver lists exactly what the model does, and the newest restores bit for bit.

    Attributes:
        tally: counts what it went through; set by who runs it.
    """

    tally: Callable[[str], None] = staticmethod(lambda _what: None)

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.world = World()
        self.time = self.world.time.timestamp()
        self.random = random.Random(0)
        self.numbers = itertools.count(1)
        self.saved: list[Saved] = []
        self.foreign: dict[str, bytes] = {}
        self.old_states: list[bytes] = []

    @initialize(policy=POLICY_NAMES)
    def begins(self, policy: str) -> None:
        self._open(POLICIES[policy])

    # --- what a trainer does -----------------------------------------------------------------------

    @rule(request=REQUESTS, death=DEATHS)
    def save(self, request: Saved, death: Death | None) -> None:
        new = replace(request, number=next(self.numbers))
        expected, outcomes = self._plan([new])

        async def work() -> None:
            try:
                made = await self.saver.save(**self._arguments(new))
            except CheckpointExistsError:
                assert expected == [False]
            else:
                assert expected == [True]
                assert (made.step, dict(made.metrics)) == (new.step, new.metrics)
                assert made.stats is not None
                assert made.stats.prune_error is None
                assert made.stats.state_file_error is None

        self._do(work, outcomes, death)

    @rule(
        requests=st.lists(REQUESTS, min_size=1, max_size=4),
        death=DEATHS,
        give_up=st.one_of(st.none(), st.integers(0, 60)),
    )
    def save_in_background(self, requests: list[Saved], death: Death | None, give_up: int | None) -> None:
        """Several at once, the arrays changed as soon as they are staged, and perhaps the last one cancelled."""
        # Whether one of several is refused would depend on how far the prunes of those before it have come.
        several = len(requests) > 1
        new = [
            replace(request, number=next(self.numbers), overwrite=several or request.overwrite) for request in requests
        ]
        expected, outcomes = self._plan(new)

        async def work() -> None:
            pending = []
            for one in new:
                arguments = self._arguments(one)
                pending.append(await self.saver.save_in_background(**arguments))
                arguments["state"]["weights"].fill(-1)
            if give_up is not None:
                for _ in range(give_up):
                    await asyncio.sleep(0)
                pending[-1].cancel()
            results = await asyncio.gather(*pending, return_exceptions=True)
            if self.life.dead:  # who is cancelled while it dies tells of the cancellation only
                raise Died
            for index, (result, commits) in enumerate(zip(results, expected, strict=True)):
                if give_up is not None and index == len(new) - 1 and isinstance(result, asyncio.CancelledError):
                    continue
                assert isinstance(result, CheckpointExistsError) is not commits, result

        self._do(work, outcomes, death, certain=give_up is None)

    @rule(step=STEPS)
    def restore(self, step: int | None) -> None:
        """A checkpoint by its step, if it is there; the one without a step by its checkpoint."""

        async def work() -> None:
            there = [one for one in self.saved if one.step == step]
            if step is None:
                for listed in await self.saver.checkpoints():
                    if listed.step is None:
                        assert [number_of(await self.saver.restore(checkpoint=listed))] == [one.number for one in there]
                return
            try:
                restored = number_of(await self.saver.restore(step=step))
            except CheckpointNotFoundError:
                assert not there
            else:
                assert [restored] == [one.number for one in there]

        self.loop.run(work())

    # --- what people and cleaners do ---------------------------------------------------------------

    @rule(step=STEPS, death=DEATHS, elsewhere=st.booleans())
    def delete(self, step: int | None, death: Death | None, elsewhere: bool) -> None:
        name = name_of(step)
        there = any(one.name == name for one in self.saved)

        async def work(saver: Saver) -> None:
            try:
                await saver.delete(step)
            except CheckpointNotFoundError:
                assert not there
            else:
                assert there

        outcomes = [Outcome(self.saved, may_be_gone={name}), Outcome(without(self.saved, {name}))]
        self._do_anywhere(work, outcomes, death, elsewhere=elsewhere)

    @rule(step=STEPS, pinned=st.booleans(), death=DEATHS, elsewhere=st.booleans())
    def pin(self, step: int | None, pinned: bool, death: Death | None, elsewhere: bool) -> None:
        name = name_of(step)
        there = any(one.name == name for one in self.saved)

        async def work(saver: Saver) -> None:
            try:
                await (saver.pin(step) if pinned else saver.unpin(step))
            except CheckpointNotFoundError:
                assert not there
            else:
                assert there

        after = [replace(one, pinned=pinned) if one.name == name else one for one in self.saved]
        # A pin that is in no state file counts all the same; one that is there no more is seen at the next look at the root.
        outcomes = [Outcome(self.saved), Outcome(after)]
        self._do_anywhere(work, outcomes, death, elsewhere=elsewhere, dies_elsewhere=pinned)

    @rule(death=DEATHS)
    def prune(self, death: Death | None) -> None:
        victims = self.policy.victims(self.saved)

        async def work() -> None:
            forecast = await self.saver.prune(dry_run=True)
            report = await self.saver.prune()
            assert not report.failed
            assert {one.name for one in report.kept} == {one.name for one in self.saved} - victims
            assert {one.name for one in report.deleted} >= victims
            assert {one.name for one in forecast.kept} == {one.name for one in report.kept}

        self._do(work, [Outcome(self.saved, may_be_gone=victims), Outcome(without(self.saved, victims))], death)

    @rule(hours=st.sampled_from([0, 0, 0, 1, 24]), death=DEATHS, elsewhere=st.booleans())
    def sweep(self, hours: int, death: Death | None, elsewhere: bool) -> None:
        async def work(saver: Saver) -> None:
            report = await saver.sweep(timedelta(hours=hours))
            assert all(one.error is None for one in report.leftovers)

        self._do_anywhere(work, [Outcome(self.saved)], death, elsewhere=elsewhere)

    @rule()
    def clean_up(self) -> None:
        """After a prune and a sweep, no byte is left that no checkpoint needs, and every checkpoint verifies."""
        self.prune(death=None)

        async def work() -> None:
            await self.saver.sweep(0)
            assert not (await self.saver.sweep(0, dry_run=True)).leftovers
            ours = self.world.copy()
            await ours.memory().delete(list(self.foreign))
            await ours.assert_nothing_unreferenced()
            for one in self.saved:
                if one.step is not None:
                    await self.saver.verify(one.step)
            self._forget(ours)

        self.loop.run(work())

    # --- what happens to them ----------------------------------------------------------------------

    @rule(policy=POLICY_NAMES, state_file=st.sampled_from(["stays", "stays", "lost", "damaged", "old"]))
    def restart(self, policy: str, state_file: str) -> None:
        self.loop.run(self.saver.close())
        self.loop.run(self._change_state_file(state_file))
        self._open(POLICIES[policy])

    @rule(years=st.floats(-50, 50), of_store=st.booleans())
    def clock_jumps(self, years: float, of_store: bool) -> None:
        if of_store:
            now = self.world.time + timedelta(days=365 * years)
            self.world.time = now if 1980 < now.year < 2200 else self.world.time
        else:
            self.time = min(max(self.time + years * YEAR, 0.0), 200.0 * YEAR)

    @rule(path=FOREIGN, content=st.binary(max_size=20))
    def somebody_puts(self, path: str, content: bytes) -> None:
        self.loop.run(self.world.memory().put(path, content))
        self.foreign[path] = content

    # --- what is always true -----------------------------------------------------------------------

    @invariant()
    def lists_what_there_is(self) -> None:
        assert self.loop.run(self._seen(self.saver)) == self.saved

    @invariant()
    def newest_restores(self) -> None:
        async def check() -> None:
            latest = await self.saver.latest()
            if not self.saved:
                assert latest is None
                return
            assert latest is not None
            assert latest.step == self.saved[-1].step
            assert number_of(await self.saver.restore()) == self.saved[-1].number

        self.loop.run(check())

    @invariant()
    def leaves_the_foreign_alone(self) -> None:
        objects = self.world.memory()._bucket.objects
        there = {path: bytes(objects[f"run/{path}"].content) for path in self.foreign if f"run/{path}" in objects}
        assert there == self.foreign

    def teardown(self) -> None:
        try:
            if hasattr(self, "saver"):
                self.clean_up()
                self.lists_what_there_is()
                self.loop.run(self.saver.close())
            self.tally("histories of a saver")
        finally:
            self._forget(self.world)
            self.loop.close()

    # --- how ---------------------------------------------------------------------------------------

    def _open(self, policy: Policy) -> None:
        self.policy = policy
        self.life = Life()
        self.saver = self._make(self.life)

    def _make(self, life: Life) -> Saver:
        store = self.world.store(life)
        saver = Saver(store, shard_bytes=1, retention=self.policy.real, clock=self._clock)
        root = saver._root
        root.store = store  # without retries in between
        root.threads = NoThreads()
        root.reader = CatalogReader(root.store, root.naming, root.threads)
        root.random_bits = self.random.getrandbits
        return saver

    def _clock(self) -> float:
        self.time += 0.25
        return self.time

    def _arguments(self, new: Saved) -> dict[str, Any]:
        return {
            "state": state_of(new.number),
            "step": new.step,
            "metrics": new.metrics,
            "metadata": new.number,
            "overwrite": new.overwrite,
            "pin": new.pinned,
        }

    def _plan(self, new: Sequence[Saved]) -> tuple[list[bool], list[Outcome]]:
        """Which of several saves commit, and what may be seen after none, one, … of them; the last is what should be."""
        commits, outcomes = [], []
        now = self.saved
        marked = {path.split("/")[-2] for path in self.world.memory()._bucket.objects if path.endswith("/pinned.json")}
        for one in new:
            # Its pin comes before its commit; all that a prune may take can be gone, or not yet.
            outcomes.append(Outcome(now, may_have_changed_pin={one.name} if one.pinned else ()))
            after = after_commit(now, one, marked)
            commits.append(after is not None)
            if after is not None:
                victims = self.policy.victims(after)
                outcomes.append(Outcome(after, may_be_gone=victims))
                now = without(after, victims)
                marked = (marked | ({one.name} if one.pinned else set())) - victims
        return commits, [*outcomes, Outcome(now)]

    def _do(
        self,
        work: Callable[[], Awaitable[None]],
        outcomes: Sequence[Outcome],
        death: Death | None,
        *,
        certain: bool = True,
    ) -> None:
        """Do something, and die in the middle of it if it takes that many store calls; then see what came of it."""

        async def do() -> bool:
            self.life.lives(death)
            try:
                await work()
            except Died:
                return False
            finally:
                self.life.lives(None)
            return True

        if not self.loop.run(do()):
            self.tally("deaths of the process in random histories")
            self.loop.run(self._bury(self.saver))
            self._open(self.policy)
            self._adopt(outcomes)
        elif certain:
            self._adopt(outcomes[-1:])
        else:
            self._adopt(outcomes)

    def _do_anywhere(
        self,
        work: Callable[[Saver], Awaitable[None]],
        outcomes: Sequence[Outcome],
        death: Death | None,
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

    def _adopt(self, outcomes: Sequence[Outcome]) -> None:
        seen = self.loop.run(self._seen(self.saver))
        assert any(outcome.explains(seen) for outcome in outcomes), f"seen {seen}, which is none of {outcomes}"
        self.saved = seen

    async def _seen(self, saver: Saver) -> list[Saved]:
        return [Saved(one.step, one.metadata, one.metrics.get("loss"), one.pinned) for one in await saver.checkpoints()]

    async def _bury(self, saver: Saver) -> None:
        with contextlib.suppress(Died):
            await saver.close()

    async def _change_state_file(self, what: str) -> None:
        store = self.world.memory()
        now = (await self.world.objects()).get("checkpoint.json")
        if now is not None:
            match what:
                case "lost":
                    await store.delete(["checkpoint.json"])
                case "damaged":
                    await store.put("checkpoint.json", now[: len(now) // 2])
                case "old":
                    await store.put("checkpoint.json", self.random.choice([*self.old_states, b"{}"]))
            self.old_states.append(now)

    def _forget(self, world: World) -> None:
        world.memory()._bucket.objects.clear()
