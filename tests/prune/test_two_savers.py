"""Two savers that prune one root where the state file cannot be written by compare-and-swap, so that updates get lost."""

from __future__ import annotations

import asyncio

from asyncsaver import Saver
from asyncsaver.store import Store
from asyncsaver.testing import Guarantees, SimulatedBucket

from ..doubles.scripted import Hold, ScriptedStore, at  # noqa: TID252 - no name to import by
from ..doubles.world import number_of, state_of  # noqa: TID252

STATE = "checkpoint.json"


def bucket_without_swap() -> SimulatedBucket:
    return SimulatedBucket(Guarantees(compare_and_swap=False))


def saver_on(store: Store, keep: int) -> Saver:
    return Saver(store, max_to_keep=keep)


async def steps_of(bucket: SimulatedBucket) -> list[int | None]:
    async with saver_on(bucket.client(), 99) as saver:
        found = await saver.checkpoints()
        for one in found:
            assert number_of(await saver.restore(checkpoint=one)) == one.step
        return [one.step for one in found]


async def test_a_checkpoint_that_is_gone_counts_no_more_though_the_state_file_lists_it_again() -> None:
    bucket = bucket_without_swap()
    hold = Hold()
    slow = ScriptedStore(bucket.client("slow"))
    async with saver_on(slow, 3) as saver, saver_on(bucket.client("other"), 3) as other:
        for step in (1, 2):
            await saver.save(state_of(step), step=step)
        await saver.save(state_of(3), step=3)
        slow.script = at("put", STATE, hold)
        task = asyncio.create_task(saver.save(state_of(4), step=4, pin=True))
        await hold.reached.wait()
        await other.delete(3)
        hold.release.set()  # what is written now lists step 3
        await task
        for step in (5, 6):
            await saver.save(state_of(step), step=step)
            assert len(await steps_of(bucket)) >= 3
        assert await steps_of(bucket) == [4, 5, 6]


async def test_a_checkpoint_whose_entry_was_lost_does_not_stay_for_good() -> None:
    bucket = bucket_without_swap()
    hold = Hold()
    slow = ScriptedStore(bucket.client("slow"))
    async with saver_on(slow, 2) as saver, saver_on(bucket.client("other"), 2) as other:
        await saver.save(state_of(1), step=1)
        await other.save(state_of(2), step=2)
        slow.script = at("put", STATE, hold)
        task = asyncio.create_task(saver.save(state_of(3), step=3))
        await hold.reached.wait()
        await other.save(state_of(4), step=4)
        hold.release.set()  # what is written now does not list step 4
        await task
        for step in (5, 6, 7, 8):
            await (saver if step % 2 else other).save(state_of(step), step=step)
        assert await steps_of(bucket) == [7, 8]


async def test_savers_in_turn_keep_the_newest() -> None:
    bucket = bucket_without_swap()
    async with saver_on(bucket.client("one"), 2) as one, saver_on(bucket.client("two"), 2) as two:
        for step in range(1, 9):
            await (one if step % 2 else two).save(state_of(step), step=step)
            assert await steps_of(bucket) == list(range(max(1, step - 1), step + 1))
