"""A saver that lives, dies and lives again, beside a list of what it should hold."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from asyncsaver import Saver
from asyncsaver.errors import CheckpointDeletedError, CheckpointExistsError, CheckpointNotFoundError
from asyncsaver.formats.encodings import STATE_FILES

from ..doubles.world import number_of  # noqa: TID252 - test folders have no name
from .always import Always
from .choices import DEATHS, FOREIGN, GIVING_UP, JUMPS, MAX_STEP, POLICY_NAMES, REQUESTS, STEPS
from .inside import Inside
from .model import Outcome, Saved, name_of, without
from .mortal import Died, Moment
from .policies import POLICIES


class SaverMachine(Always):
    """The machine: what may happen, in any order. After each step holds what `Always` says."""

    @initialize(policy=POLICY_NAMES)
    def begins(self, policy: str) -> None:
        self._open(POLICIES[policy])

    # --- what a trainer does -----------------------------------------------------------------------

    @rule(requests=st.lists(REQUESTS, min_size=1, max_size=4), death=DEATHS)
    def save(self, requests: list[Saved], death: Moment | None) -> None:
        """One after another, with time between them."""
        new = self._numbered(requests)
        expected, outcomes, certain = self._plan(new)

        async def work() -> None:
            for one, commits in zip(new, expected, strict=True):
                self.time += one.pause
                try:
                    made = await self.saver.save(**self._arguments(one))
                except CheckpointExistsError:
                    assert not commits
                else:
                    assert commits
                    assert (made.step, dict(made.metrics)) == (one.step, one.metrics)
                    assert made.stats is not None
                    assert made.stats.prune_error is None
                    assert made.stats.state_file_error is None

        self._do(work, outcomes, death, certain=certain)

    @rule(
        requests=st.lists(REQUESTS, min_size=1, max_size=4),
        death=DEATHS,
        give_up=GIVING_UP,
    )
    def save_in_background(self, requests: list[Saved], death: Moment | None, give_up: int | Moment | None) -> None:
        """Several at once, the arrays changed as soon as they are staged, and perhaps the last one cancelled."""
        new = [replace(one, pause=timedelta(0)) for one in self._numbered(requests)]
        expected, outcomes, certain = self._plan(new)

        async def work() -> None:
            pending = []
            for one in new:
                arguments = self._arguments(one)
                pending.append(await self.saver.save_in_background(**arguments))
                arguments["state"]["weights"].fill(-1)
            if isinstance(give_up, Moment):
                self.life.meets(give_up, pending[-1].cancel)
            elif give_up is not None:
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

        self._do(work, outcomes, death, certain=certain if give_up is None else None)

    @rule(step=STEPS)
    def restore(self, step: int | None) -> None:
        """A checkpoint by its step, if it is there; the one without a step by its checkpoint."""

        async def work() -> None:
            there = [one for one in self.held.saved if one.step == step]
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
    def delete(self, step: int | None, death: Moment | None, elsewhere: bool) -> None:
        name = name_of(step)
        there = name in self.held.names

        async def work(saver: Saver) -> None:
            try:
                await saver.delete(step)
            except CheckpointNotFoundError:
                assert not there
            else:
                assert there
                marks = self.inside.marks()
                assert name not in {*marks.pinned, *marks.preserved}

        outcomes = [Outcome(self.held, may_be_gone={name}), Outcome(without(self.held, {name}))]
        self._do_anywhere(work, outcomes, death, elsewhere=elsewhere)

    @rule(step=STEPS, pinned=st.booleans(), death=DEATHS, elsewhere=st.booleans())
    def pin(self, step: int | None, pinned: bool, death: Moment | None, elsewhere: bool) -> None:
        name = name_of(step)
        there = name in self.held.names

        async def work(saver: Saver) -> None:
            try:
                await (saver.pin(step) if pinned else saver.unpin(step))
            except CheckpointNotFoundError:
                assert not there
            else:
                assert there

        after = [replace(one, pinned=pinned) if one.name == name else one for one in self.held.saved]
        # A pin that is in no state file counts all the same; one that is there no more is seen at the next look at the root.
        outcomes = [Outcome(self.held), Outcome(replace(self.held, saved=after))]
        self._do_anywhere(work, outcomes, death, elsewhere=elsewhere, dies_elsewhere=pinned)

    @rule(death=DEATHS)
    def prune(self, death: Moment | None) -> None:
        mark = self.held.mark or self.began
        fate = self.policy.fate(self.held.saved, mark)
        kept = self._preserving(replace(without(self.held, fate.victims), mark=fate.mark), fate.preserved)

        async def work() -> None:
            forecast = await self.saver.prune(dry_run=True)
            report = await self.saver.prune()
            assert not report.failed
            assert {one.name for one in report.kept} == kept.names
            assert {one.name for one in report.deleted} >= fate.victims
            assert {one.name for one in forecast.kept} == {one.name for one in report.kept}

        halfway = Outcome(self.held, fate.victims, (), fate.preserved, {mark, fate.mark})
        self._do(work, [halfway, Outcome(kept)], death)
        self.may_not_know_all = False

    @rule(hours=st.sampled_from([0, 0, 0, 1, 24]), death=DEATHS, elsewhere=st.booleans())
    def sweep(self, hours: int, death: Moment | None, elsewhere: bool) -> None:
        leftovers = self.inside.leftovers(self.foreign)
        quiet = {one for one in leftovers if self.inside.quiet_for(one) >= timedelta(hours=hours)}

        async def work(saver: Saver) -> None:
            report = await saver.sweep(timedelta(hours=hours))
            assert all(one.error is None for one in report.leftovers)
            swept = {one.save_id for one in report.leftovers}
            assert swept == quiet, f"swept {swept} rather than {quiet}"

        self._do_anywhere(work, [Outcome(self.held)], death, elsewhere=elsewhere)

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
            for one in self.held.saved:
                if one.step is not None:
                    await self.saver.verify(one.step)
            for step in range(MAX_STEP + 1):
                if name_of(step) in self.gone:  # and is known as such, not as one that never was
                    with pytest.raises(CheckpointDeletedError):
                        await self.saver.restore(step=step)
            Inside(ours).clear()

        self.loop.run(work())

    # --- what happens to them ----------------------------------------------------------------------

    @rule(policy=POLICY_NAMES, state_file=st.sampled_from(["stays", "stays", "lost", "damaged", "old"]))
    def restart(self, policy: str, state_file: str) -> None:
        self.loop.run(self.saver.close())
        self._change_state_file(state_file)
        self._open(POLICIES[policy])

    @rule(state_file=st.sampled_from(["lost", "damaged"]))
    def loses_the_state_file(self, state_file: str) -> None:
        """Under a saver that has it open: what the file does not list any more stays until a prune, or another saver, looks."""
        self._change_state_file(state_file)
        self.may_not_know_all = True

    @rule(by=JUMPS, of_store=st.booleans())
    def clock_jumps(self, by: timedelta, of_store: bool) -> None:
        now = (self.world.time if of_store else self.time) + by
        if not 1980 < now.year < 2200:
            return
        if of_store:
            self.world.time = now
        else:
            self.time = now

    @rule(path=FOREIGN, content=st.binary(max_size=20))
    def somebody_puts(self, path: str, content: bytes) -> None:
        self.loop.run(self.world.memory().put(path, content))
        self.foreign[path] = content

    def teardown(self) -> None:
        try:
            if hasattr(self, "saver"):
                self.clean_up()
                self.lists_what_there_is()
                self.loop.run(self.saver.close())
            self.tally("histories of a saver")
        finally:
            self.inside.clear()
            self.loop.close()

    def _numbered(self, requests: list[Saved]) -> list[Saved]:
        # Whether one of several is refused would depend on how far the prunes of those before it have come.
        several = len(requests) > 1
        return [replace(one, number=next(self.numbers), overwrite=several or one.overwrite) for one in requests]

    def _change_state_file(self, what: str) -> None:
        store = self.world.memory()
        standing = {path: data for path, data in self.inside.objects().items() if path in STATE_FILES.values()}
        if not standing:
            return
        match what:
            case "lost":
                self.loop.run(store.delete([*standing]))
            case "damaged":
                for path, now in standing.items():
                    self.loop.run(store.put(path, now[: len(now) // 2]))
            case "old":
                old = [one for one in self.old_states if one[0] in standing]
                self.loop.run(store.put(*self.random.choice(old)))
        self.held = replace(self.held, mark=self.inside.state().last_preserved)
