"""Cancelled at any moment, a save leaves a whole checkpoint or nothing, and the saver goes on."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .place import Place
from .whole import check_whole, state_of


async def cancelled_after(call: Any, turns: int) -> bool:
    """Cancel a call after so many turns of the loop; returns whether it had ended by itself before."""
    task = asyncio.create_task(call)
    for _ in range(turns):
        if task.done():
            break
        await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return False
    return True


@pytest.mark.parametrize("seed", range(3))
async def test_cancelling_a_save_at_any_moment(memory: Place, no_leaks: None, seed: int) -> None:
    rng = random.Random(seed)
    async with memory.saver(max_to_keep=None, shard_bytes=5000) as saver:
        await saver.save(state_of(1), step=0)
        turns, step, ended = 0, 0, False
        while not ended:
            step += 1
            ended = await cancelled_after(saver.save(state_of(step + 1), step=step), turns)
            turns += rng.randint(1, 5)
            standing = {one.name: one.save_id for one in await saver.checkpoints()}
            left = {tuple(path.split("/")[:2]) for path in await memory.paths() if path.count("/") == 2}
            assert left == set(standing.items())
        assert step > 10
        assert saver._root.budget.used == 0
        assert not saver._root.own_saves
        last = await saver.save(state_of(5), step=step + 1)
        latest = await saver.latest()
        assert latest is not None
        assert latest.save_id == last.save_id
    await check_whole(memory)


@pytest.mark.server
async def test_cancelling_saves_on_every_store(anywhere: Place, no_leaks: None) -> None:
    large = np.arange(5 * 2**18)  # ten MiB: on some stores in parts
    async with anywhere.saver(max_to_keep=None, shard_bytes=2**20) as saver:
        await saver.save(state_of(1), step=0)
        for step, turns in enumerate((1, 4, 10, 25, 60, 150, 400), 1):
            await cancelled_after(saver.save(state_of(step) | {"large": large}, step=step), turns)
        await saver.save(state_of(1), step=100)
        # A request that was cancelled with its body on the way may be carried out after the tidying: that is for a sweep.
        await saver.sweep(0)
    assert [one.step for one in await check_whole(anywhere)][-1] == 100


async def test_cancelling_leaves_no_file_on_a_disk(local: Place) -> None:
    async with local.saver(max_to_keep=None, shard_bytes=5000) as saver:
        ended, turns = False, 0
        while not ended:
            ended = await cancelled_after(saver.save(state_of(turns), step=turns), turns)
            turns += 31
        assert turns > 30
        expected = await local.paths()
    found = {path.relative_to(local.url).as_posix() for path in await asyncio.to_thread(files_below, Path(local.url))}
    # Temporary files are not listed, but would be found; the lock file stays.
    assert found - {".asyncsaver.lock"} == set(expected)


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_cancelling_a_background_save_at_any_moment(memory: Place, no_leaks: None) -> None:
    async with memory.saver(max_to_keep=None, shard_bytes=5000) as saver:
        turns, committed = 0, False
        while not committed:
            pending = await saver.save_in_background(state_of(turns + 1), step=turns)
            for _ in range(turns):
                await asyncio.sleep(0)
            committed = pending.done()
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)
            turns += 3
        assert turns > 10
        assert saver._root.budget.used == saver._staging._snapshots.used == 0
        await saver.save(state_of(1), step=turns)
    await check_whole(memory)


async def test_cancelling_a_call_that_stages_in_the_background(memory: Place, no_leaks: None) -> None:
    async with memory.saver() as saver:
        turns, ended = 0, False
        while not ended:
            ended = await cancelled_after(saver.save_in_background(state_of(turns + 1), step=turns), turns)
            turns += 1
        assert turns > 2
        await saver.save(state_of(1), step=turns)
        assert saver._staging._snapshots.used == 0
    assert [one.step for one in await check_whole(memory)] == [turns - 1, turns]


async def test_cancelling_a_restore_at_any_moment(memory: Place, no_leaks: None) -> None:
    async with memory.saver(shard_bytes=5000) as saver:
        await saver.save(state_of(3), step=1)
        turns, ended = 0, False
        while not ended:
            target: dict[str, Any] = {"x": np.zeros(2000, int), "y": [np.zeros(300, int), 0]}
            ended = await cancelled_after(saver.restore(target), turns)
            assert set(target["x"]) in ({0}, {3})
            turns += 2
        assert turns > 10
        assert saver._root.budget.used == 0
        assert not saver._root.in_use
        assert (await saver.restore())["y"][1] == 3


async def test_cancelling_a_prune_at_any_moment(memory: Place, no_leaks: None) -> None:
    for turns in range(0, 60, 3):
        async with memory.saver(max_to_keep=None) as saver:
            for step in range(4):
                await saver.save(state_of(step + 1), step=step, overwrite=True)
        async with memory.saver(max_to_keep=1) as saver:
            await cancelled_after(saver.prune(), turns)
            steps = [one.step for one in await saver.checkpoints()]
            assert steps[-1:] == [3]
            for left in steps:
                await saver.verify(left)
            await saver.prune()
            assert [one.step for one in await saver.checkpoints()] == [3]
    assert len(await check_whole(memory)) == 1
