"""Saves that go on while the caller trains: staged at once, committed in order, and no failure goes unseen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import numpy as np
import pytest

from asyncsaver import CheckpointExistsError, Progress, Saver

from .place import Place
from .states import bits

HeldBack = Callable[[Saver], AbstractAsyncContextManager[asyncio.Event]]
STATE = {"x": np.arange(100, dtype=np.float32)}


async def test_a_state_may_change_once_it_is_staged(memory: Place, held_back: HeldBack) -> None:
    state: dict[str, Any] = {"x": np.arange(50_000, dtype=np.float64), "view": None, "list": [1, 2]}
    state["view"] = state["x"][::7]
    before = bits(
        {key: np.array(value) if isinstance(value, np.ndarray) else list(value) for key, value in state.items()}
    )
    async with memory.saver() as saver:
        async with held_back(saver):
            pending = await saver.save_in_background(state, step=1)
            state["x"][...] = -1
            state["list"].append(3)
            state["new"] = 5
        await pending
        assert bits(await saver.restore()) == before


async def test_saves_commit_in_the_order_of_the_calls(memory: Place) -> None:
    order: list[int | None] = []

    def committed(progress: Progress) -> None:
        if progress.phase == "committed":
            order.append(progress.step)

    async with memory.saver(progress=committed, max_to_keep=None) as saver:
        pending = []
        for step in range(10):
            # The earlier, the larger: by size alone they would end the other way round.
            state = {"x": np.zeros((10 - step) * 100_000, np.uint8)}
            pending.append(await saver.save_in_background(state, step=step))
        await saver.save(STATE, step=10)
        assert all(one.done() for one in pending)
        checkpoints = [await one for one in reversed(pending)]
        assert [one.step for one in await saver.checkpoints()] == list(range(11))
    assert order == list(range(11))
    assert len({one.save_id for one in checkpoints}) == 10


async def test_progress_of_a_pending_save(memory: Place, held_back: HeldBack) -> None:
    async with memory.saver() as saver:
        async with held_back(saver) as reached:
            pending = await saver.save_in_background(STATE, step=4)
            assert (pending.step, pending.done()) == (4, False)
            assert pending.progress == Progress("writing", 4, 0, 400)
            await reached.wait()
            assert pending.progress == Progress("writing", 4, 400, 400)
        await pending
        assert pending.done()
        assert pending.progress == Progress("committed", 4, 400, 400)


async def test_a_pending_save_says_what_it_is_and_where_it_stands(memory: Place, held_back: HeldBack) -> None:
    async with memory.saver() as saver:
        async with held_back(saver) as reached:
            pending = await saver.save_in_background(STATE, step=7)
            assert repr(pending) == "<PendingSave of ckpt-00000007, step 7: staged, 0 of 400 bytes written>"
            await reached.wait()
            assert repr(pending) == "<PendingSave of ckpt-00000007, step 7: writing, 400 of 400 bytes written>"
            given_up = await saver.save_in_background(STATE, step=8)
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            assert "ckpt-00000008, step 8: cancelled" in repr(given_up)
        await pending
        assert "committed" in repr(pending)
        again = await saver.save_in_background(STATE, step=7)
        with pytest.raises(CheckpointExistsError):
            await again
        assert "failed (CheckpointExistsError(" in repr(again)


async def failed_save(saver: Saver) -> None:
    """A background save that has failed, its step being committed already, without anybody having awaited it."""
    pending = await saver.save_in_background(STATE, step=1)
    await asyncio.wait([pending._task])
    await asyncio.sleep(0)  # its callbacks run in the next turn of the loop


async def test_an_unobserved_failure_is_raised_by_the_next_save_once(memory: Place) -> None:
    async with memory.saver() as saver:
        await saver.save(STATE, step=1)
        await failed_save(saver)
        with pytest.raises(CheckpointExistsError, match="ckpt-00000001") as caught:
            await saver.save(STATE, step=2)
        assert any("background" in note for note in caught.value.__notes__)
        assert (await saver.save(STATE, step=2)).step == 2
        await failed_save(saver)
        with pytest.raises(CheckpointExistsError):
            await saver.save_in_background(STATE, step=3)
        assert [one.step for one in await saver.checkpoints()] == [1, 2]


async def test_an_unobserved_failure_is_raised_by_close(memory: Place) -> None:
    saver = memory.saver()
    await saver.save(STATE, step=1)
    await saver.save_in_background(STATE, step=1)
    with pytest.raises(CheckpointExistsError, match="ckpt-00000001"):
        await saver.close()
    await saver.close()


async def test_several_unobserved_failures_are_all_told(memory: Place) -> None:
    saver = memory.saver()
    await saver.save(STATE, step=1)
    await saver.save(STATE, step=2)
    await saver.save_in_background(STATE, step=1)
    await saver.save_in_background(STATE, step=2)
    with pytest.raises(CheckpointExistsError, match="ckpt-00000001") as caught:
        await saver.close()
    assert any("ckpt-00000002" in note for note in caught.value.__notes__)


async def test_a_failure_that_was_awaited_is_not_raised_again(memory: Place) -> None:
    async with memory.saver() as saver:
        await saver.save(STATE, step=1)
        pending = await saver.save_in_background(STATE, step=1)
        for _ in range(2):
            with pytest.raises(CheckpointExistsError):
                await pending
        await saver.save(STATE, step=2)


async def test_cancelling_who_awaits_does_not_cancel_the_save(memory: Place, held_back: HeldBack) -> None:
    async with memory.saver() as saver:
        async with held_back(saver) as reached:
            pending = await saver.save_in_background(STATE, step=1)

            async def wait() -> None:
                await pending

            waiting = asyncio.create_task(wait())
            await reached.wait()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert not pending.done()
        assert (await pending).step == 1


async def test_a_cancelled_save_leaves_nothing(memory: Place, held_back: HeldBack) -> None:
    async with memory.saver() as saver:
        async with held_back(saver) as reached:
            pending = await saver.save_in_background(STATE, step=1)
            await reached.wait()
            assert await memory.shards() != []
            pending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pending
            assert await memory.paths() == []
        await saver.save(STATE, step=1)  # and is no failure that anybody has to hear of


async def test_a_failure_between_others_does_not_change_their_order(memory: Place) -> None:
    async with memory.saver() as saver:
        await saver.save(STATE, step=2)
        pending = [await saver.save_in_background(STATE, step=step) for step in (1, 2, 3)]
        outcomes = await asyncio.gather(*pending, return_exceptions=True)
        assert [getattr(one, "step", type(one)) for one in outcomes] == [1, CheckpointExistsError, 3]
        assert [one.step for one in await saver.checkpoints()] == [2, 1, 3]


async def test_a_state_that_is_refused_takes_no_place_in_the_line(memory: Place) -> None:
    async with memory.saver() as saver:
        with pytest.raises(TypeError, match="x: "):
            await saver.save_in_background({"x": object()}, step=1)
        assert (await saver.save(STATE, step=1)).step == 1


async def test_snapshots_wait_for_memory(memory: Place, held_back: HeldBack) -> None:
    """What is staged after waiting is the state as it is then, and it is staged before the call returns."""
    state = {"x": np.zeros(1000, np.uint8)}
    async with memory.saver(memory_budget=1500) as saver:
        async with held_back(saver) as reached:
            first = await saver.save_in_background(state, step=1)
            second = asyncio.create_task(saver.save_in_background(state, step=2))
            await reached.wait()
            assert not second.done()
            state["x"][...] = 7
        await first
        pending = await second
        state["x"][...] = 9
        await pending
        assert (await saver.restore(step=1))["x"].max() == 0
        assert (await saver.restore(step=2))["x"].min() == 7


async def test_close_waits_for_background_saves(memory: Place) -> None:
    saver = memory.saver()
    pending = [await saver.save_in_background({"x": np.zeros(100_000)}, step=step) for step in range(3)]
    await saver.close()
    assert [(await one).step for one in pending] == [0, 1, 2]
    async with memory.saver() as other:
        assert [one.step for one in await other.checkpoints()] == [0, 1, 2]


async def test_a_cancelled_close_cancels_background_saves(memory: Place, held_back: HeldBack) -> None:
    saver = memory.saver()
    async with held_back(saver) as reached:
        pending = await saver.save_in_background(STATE, step=1)
        closing = asyncio.create_task(saver.close())
        await reached.wait()
        await asyncio.sleep(0)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert pending.done()
    assert await memory.paths() == []
