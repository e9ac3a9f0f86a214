"""A whole saver on the obstore engine: everything that a root goes through, and cancellation at any moment of it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import obstore.store
import pytest

from asyncsaver import Saver
from asyncsaver.store.registry import open_store

pytestmark = pytest.mark.server

LARGE = 20 * 2**20
"""Two parts, in bytes, on either cloud."""


@dataclass(frozen=True, slots=True)
class Grounds:
    """A root, and what is there past the engine under test."""

    url: str
    storage_options: Mapping[str, Any]

    def saver(self, *, engine: str = "obstore", **arguments: Any) -> Saver:
        return Saver(self.url, storage_options=self.storage_options, engine=engine, **arguments)

    async def saves(self) -> set[tuple[str, ...]]:
        """Checkpoint and save id of everything that a save has written."""
        async with open_store(self.url, storage_options=self.storage_options, engine="fsspec") as store:
            paths = [info.path.split("/") for info in (await store.list()).objects]
        return {tuple(path[:2]) for path in paths if len(path) == 3}

    async def unfinished_uploads(self) -> int:
        """How many there are, by counting what fsspec's engine removes."""
        async with open_store(self.url, storage_options=self.storage_options, engine="fsspec") as store:
            return await store.purge(timedelta(0))


@pytest.fixture(params=["s3", "azure"])
async def grounds(request: pytest.FixtureRequest) -> Grounds:
    """A fresh root in each cloud that obstore serves."""
    root = request.getfixturevalue(f"{request.param}_root")
    return Grounds(root.url, root.storage_options)


def _open_files() -> set[str]:
    folder, found = Path("/proc/self/fd"), set()
    for entry in folder.iterdir() if folder.exists() else ():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile, on another thread
            found.add(f"{entry.name} {entry.readlink()}")
    return {name for name in found if "/proc/" not in name}


@pytest.fixture
async def nothing_left(grounds: Grounds) -> AsyncIterator[None]:
    """No task and no open file is left when all savers are closed."""
    # The threads and sockets of its own that obstore keeps for the process are there before anyone looks.
    await obstore.put_async(obstore.store.MemoryStore(), "object.bin", b"content")
    async with grounds.saver(engine="fsspec") as saver:
        await saver.latest()
    tasks, files = asyncio.all_tasks(), _open_files()
    yield
    assert asyncio.all_tasks() - tasks - {asyncio.current_task()} == set()
    gc.collect()  # the traceback of a request that was cancelled may keep its client
    async with asyncio.timeout(10):  # obstore's threads close the connections, a moment after they were dropped
        while _open_files() - files:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.01)


def state_of(number: int, *, large: bool = True) -> dict[str, Any]:
    """A state that tells in every element which one it is."""
    return {
        "large": np.full(LARGE // 8 if large else 100, number),
        "small": [np.full(300, number), number],
        "empty": np.zeros((0, 4), np.float32),
    }


def numbers_of(state: Mapping[str, Any]) -> set[int]:
    """Which states its elements are of; one, when it is whole."""
    assert state["empty"].shape == (0, 4)
    return {int(number) for array in (state["large"], state["small"][0]) for number in np.unique(array)}


async def cancelled_after(call: Awaitable[object], turns: int) -> bool:
    """Cancel a call after so many turns of the loop; returns whether it had ended by itself before."""
    task = asyncio.ensure_future(call)
    for _ in range(turns):
        if task.done():
            break
        await asyncio.sleep(0)
    task.cancel()
    return not isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)


async def check_root(grounds: Grounds) -> list[int]:
    """Through the other engine: every checkpoint is whole, and nothing is there that belongs to none. Returns the steps."""
    async with grounds.saver(engine="fsspec", read_only=True) as saver:
        checkpoints = await saver.checkpoints()
        for one in checkpoints:
            await saver.verify(one.step)
            assert len(numbers_of(await saver.restore(step=one.step))) == 1
    assert await grounds.saves() == {(one.name, one.save_id) for one in checkpoints}
    return [int(one.step or 0) for one in checkpoints]


async def test_the_life_of_a_root(grounds: Grounds, nothing_left: None) -> None:
    async with grounds.saver(max_to_keep=2) as saver:
        for step in (1, 2):
            await saver.save(state_of(step, large=step == 2), step=step)
        state = state_of(3)
        pending = await saver.save_in_background(state, step=3)
        for array in (state["large"], state["small"][0]):
            array[...] = -1  # staged: what changes from here on is not saved
        await pending
        await saver.save(state_of(30), step=3, overwrite=True)
        assert [one.step for one in await saver.checkpoints()] == [2, 3]
        assert numbers_of(await saver.restore()) == {30}
        target = state_of(0)
        large = target["large"]
        restored = await saver.restore(target, step=2)
        assert restored["large"] is large
        assert numbers_of(restored) == {2}
        assert set((await saver.restore(step=2, select="small.*"))["small"][0]) == {2}
        async with await saver.open(3) as reader:
            assert set(await reader.read("large", index=slice(10**6, 10**6 + 5))) == {30}
        await saver.verify()
        await saver.delete(2)
        await saver.prune()
        await saver.sweep(grace=0)
        assert (await saver.sweep(grace=0, dry_run=True)).leftovers == []
    assert await check_root(grounds) == [3]
    async with grounds.saver(engine="fsspec") as other:
        await other.save(state_of(4), step=4)
    async with grounds.saver() as saver:
        assert numbers_of(await saver.restore()) == {4}


@pytest.mark.torture
@pytest.mark.timeout(600)
async def test_cancelling_saves(
    grounds: Grounds, nothing_left: None, scale: Callable[[int, int], int], figures: Any
) -> None:
    step, turns = 0, 1
    async with grounds.saver(max_to_keep=None) as saver:
        await saver.save(state_of(1, large=False), step=0)
        while turns < 4000:
            step += 1
            state = state_of(step)
            if step % 2:
                await cancelled_after(saver.save(state, step=step), turns)
                state["large"][...] = -1  # ours again, whatever was on its way
            else:
                pending = await saver.save_in_background(state, step=step)
                for _ in range(turns):
                    await asyncio.sleep(0)
                pending.cancel()
                await asyncio.gather(pending, return_exceptions=True)
            turns = turns * scale(3, 10) // scale(1, 9) + 1
        assert saver._root.budget.used == saver._staging._snapshots.used == 0
        assert not saver._root.own_saves
        await saver.save(state_of(7, large=False), step=step + 1)
        # A request that was cancelled with its body on the way may be carried out after the tidying: that is for a sweep.
        await saver.sweep(grace=0)
    assert await grounds.unfinished_uploads() == 0
    steps = await check_root(grounds)
    assert (steps[0], steps[-1]) == (0, step + 1)
    figures.add("saves through obstore cancelled", step)


@pytest.mark.torture
async def test_cancelling_restores(
    grounds: Grounds, nothing_left: None, scale: Callable[[int, int], int], figures: Any
) -> None:
    async with grounds.saver() as saver:
        await saver.save(state_of(3), step=1)
        turns, ended, count = 0, False, 0
        while not ended:
            target = state_of(0)
            arrays = target["large"], target["small"][0]
            ended = await cancelled_after(saver.restore(target), turns)
            count += 1
            assert saver._root.budget.used == 0
            assert not saver._root.in_use
            whole = all((array == 3).all() for array in arrays)
            for array in arrays:
                array[...] = 8
            # They are ours again: nothing comes in late.
            assert set((await saver.restore(select="small.*"))["small"][0]) == {3}
            assert all((array == 8).all() for array in arrays)
            turns = turns * scale(3, 10) // scale(1, 9) + 1
        assert whole
    assert count > 3
    figures.add("restores through obstore cancelled", count - 1)


async def test_cancelling_prunes(grounds: Grounds, nothing_left: None) -> None:
    for turns in (0, 3, 20, 100, 300):
        async with grounds.saver(max_to_keep=None) as saver:
            for step in (1, 2, 3):
                await saver.save(state_of(step, large=False), step=step, overwrite=True)
        async with grounds.saver(max_to_keep=1) as saver:
            await cancelled_after(saver.prune(), turns)
            assert [one.step for one in await saver.checkpoints()][-1] == 3
            await saver.prune()
            assert [one.step for one in await saver.checkpoints()] == [3]
    assert await check_root(grounds) == [3]
