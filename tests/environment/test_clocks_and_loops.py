"""Clocks that jump, and event loops that know nothing of each other."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsaver import KeepBest, KeepEveryHours, KeepLast, Saver
from asyncsaver.errors import CheckpointExistsError, SaverClosedError, WrongLoopError

from ..doubles.world import World, number_of, numbers_of, state_of  # noqa: TID252 - test folders have no name

pytestmark = [pytest.mark.torture, pytest.mark.slow]
YEARS = 100 * 365 * 86400.0


@settings(max_examples=25)
@given(times=st.lists(st.floats(0, YEARS), min_size=5, max_size=9), restarts=st.sets(st.integers(1, 8)))
async def test_order_and_retention_do_not_follow_the_clock(times: list[float], restarts: set[int]) -> None:
    world = World()
    now = itertools.chain.from_iterable(itertools.repeat(time, 1) for time in times)
    clock = {"now": times[0]}
    policy = KeepLast(3) | KeepBest("loss")
    saver = world.saver(retention=policy, clock=lambda: clock["now"])
    for step, time in enumerate(now):
        if step in restarts:
            await saver.close()
            saver = world.saver(retention=policy, clock=lambda: clock["now"])
        clock["now"] = time
        # The store's clock jumps too.
        world.time += timedelta(days=(time - YEARS / 2) / 86400 / 20)
        made = await saver.save(state_of(step), step=step, metrics={"loss": step})
        assert abs(made.created.timestamp() - time) < 1
        latest = await saver.latest()
        assert latest is not None
        assert latest.step == step
        kept = [0] * (step > 2) + list(range(max(0, step - 2), step + 1))
        assert list((await numbers_of(saver)).values()) == kept
    await saver.sweep(grace=0)
    await saver.close()
    await world.assert_nothing_unreferenced()


@pytest.mark.parametrize("jump", [YEARS, -YEARS / 4])
async def test_what_is_kept_every_so_many_hours_survives_a_jump(jump: float) -> None:
    world = World()
    clock = {"now": YEARS / 2}
    async with world.saver(retention=KeepLast(1) | KeepEveryHours(1), clock=lambda: clock["now"]) as saver:
        for step in range(12):
            if step == 6:
                clock["now"] += jump
            clock["now"] += 1801
            await saver.save(state_of(step), step=step)
            assert number_of(await saver.restore()) == step
        steps = [one.step for one in await saver.checkpoints()]
    # Half of the steps before the jump. After one ahead all are older than the mark plus an hour; after one back, none is.
    assert {1, 3} < set(steps)
    assert steps[-1] == 11
    assert len(steps) == (9 if jump > 0 else 4)


async def test_two_event_loops_save_under_one_root(
    tmp_path: Path, scale: Callable[[int, int], int], figures: Any
) -> None:
    steps = scale(8, 100)
    won: dict[int, list[int]] = {step: [] for step in range(steps)}
    failures: list[BaseException] = []
    start = threading.Barrier(2)

    async def save_all(number: int) -> None:
        async with Saver(tmp_path, shard_bytes=1, max_to_keep=None) as saver:
            start.wait(60)
            for step in range(steps):
                try:
                    await saver.save(state_of(1000 * number + step), step=step)
                except CheckpointExistsError:
                    continue
                won[step].append(1000 * number + step)

    def run(number: int) -> None:
        try:
            asyncio.run(save_all(number))
        except BaseException as error:  # noqa: BLE001 - told by the test
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert failures == []
    async with Saver(tmp_path, max_to_keep=2) as saver:
        there = {one.step: number_of(await saver.restore(checkpoint=one)) for one in await saver.checkpoints()}
        assert {step: [number] for step, number in there.items()} == won
        await saver.save(state_of(1), step=steps)
        assert len(await saver.checkpoints()) == 2
        assert not (await saver.sweep(grace=0)).leftovers
    figures.add("saves raced by two event loops", 2 * steps)


async def test_another_event_loop_is_refused(memory_root: Any) -> None:
    async with Saver(memory_root.url) as saver:
        await saver.save(state_of(1), step=1)

        async def elsewhere() -> None:
            with pytest.raises(WrongLoopError, match="another one"):
                await saver.save(state_of(2), step=2)
            with pytest.raises(WrongLoopError, match="another one"):
                await saver.close()

        await asyncio.to_thread(asyncio.run, elsewhere())
        assert [one.step for one in await saver.checkpoints()] == [1]
    with pytest.raises(SaverClosedError):
        await saver.latest()
