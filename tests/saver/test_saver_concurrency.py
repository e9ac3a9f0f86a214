"""Many coroutines, several savers, and cancellation at any moment: a checkpoint is whole or not there."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncsaver import Checkpoint, CheckpointExistsError, SaveAbortedError, Saver

from .place import Place

HeldBack = Callable[[Saver], AbstractAsyncContextManager[asyncio.Event]]


def state_of(number: int) -> dict[str, Any]:
    return {"x": np.full(2000, number), "y": [np.full(300, -number), number]}


async def check_whole(place: Place, **arguments: Any) -> list[Checkpoint]:
    """Every checkpoint is whole, and nothing is there that belongs to none."""
    async with place.saver(**arguments) as saver:
        checkpoints = await saver.checkpoints()
        for one in checkpoints:
            async with await saver.open(one.step) as reader:
                restored = await reader.restore()
            assert restored["y"][1] == (restored["x"][0]) == -restored["y"][0][0]
            assert len(set(restored["x"])) == len(set(restored["y"][0])) == 1
        saves = {(one.name, one.save_id) for one in checkpoints}
    left = {tuple(path.split("/")[:2]) for path in await place.paths() if path.count("/") == 2}
    assert left == saves
    return checkpoints


async def test_many_steps_from_many_coroutines(nearby: Place) -> None:
    async with nearby.saver(max_to_keep=None, shard_bytes=10_000) as saver:
        saved = await asyncio.gather(*(saver.save(state_of(step), step=step) for step in range(1, 21)))
        assert [one.step for one in saved] == list(range(1, 21))
        assert [one.step for one in await saver.checkpoints()] == list(range(1, 21))
        restored = await asyncio.gather(*(saver.restore(step=step) for step in range(1, 21)))
        assert [one["y"][1] for one in restored] == list(range(1, 21))
    assert len(await check_whole(nearby)) == 20


async def test_many_steps_while_pruning(nearby: Place) -> None:
    async with nearby.saver(max_to_keep=2) as saver:
        await asyncio.gather(*(saver.save(state_of(step), step=step) for step in range(1, 13)), saver.prune())
    assert [one.step for one in await check_whole(nearby)] == [11, 12]


async def test_the_same_step_at_once_from_one_saver(nearby: Place) -> None:
    async with nearby.saver() as saver:
        outcomes = await asyncio.gather(
            *(saver.save(state_of(number), step=1) for number in range(1, 6)), return_exceptions=True
        )
        assert [type(one) for one in outcomes] == [Checkpoint] + [CheckpointExistsError] * 4
        assert (await saver.restore())["y"][1] == 1  # who calls first, comes first
    assert len(await check_whole(nearby)) == 1


@pytest.mark.server
async def test_the_same_step_at_once_from_several_savers(anywhere: Place) -> None:
    savers = [anywhere.saver() for _ in range(4)]
    outcomes = await asyncio.gather(
        *(saver.save(state_of(number), step=1) for number, saver in enumerate(savers, 1)), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in outcomes) == ["Checkpoint"] + ["CheckpointExistsError"] * 3
    winner = next(number for number, one in enumerate(outcomes, 1) if isinstance(one, Checkpoint))
    assert (await savers[0].restore())["y"][1] == winner
    for saver in savers:
        await saver.close()
    assert len(await check_whole(anywhere)) == 1


async def test_a_commit_that_comes_second_leaves_nothing_behind(memory: Place, held_back: HeldBack) -> None:
    async with memory.saver() as slow, memory.saver() as fast:
        async with held_back(slow) as reached:
            late = asyncio.create_task(slow.save(state_of(1), step=1))
            await reached.wait()
            await fast.save(state_of(2), step=1)
        with pytest.raises(CheckpointExistsError, match="was committed first"):
            await late
        assert (await slow.restore())["y"][1] == 2
    assert len(await check_whole(memory)) == 1


async def test_saves_without_a_step_at_once_replace_each_other(nearby: Place) -> None:
    async with nearby.saver() as saver:
        saved = await asyncio.gather(*(saver.save(state_of(number)) for number in range(1, 6)))
        assert len({one.save_id for one in saved}) == 5
        assert (await saver.restore())["y"][1] == 5
    [checkpoint] = await check_whole(nearby)
    assert checkpoint.save_id == saved[-1].save_id


async def test_overwriting_while_others_restore(memory: Place) -> None:
    async with memory.saver() as writer, memory.saver() as reader:
        await writer.save(state_of(1), step=1)

        async def overwrite() -> None:
            for number in range(2, 12):
                await writer.save(state_of(number), step=1, overwrite=True)

        async def restore() -> list[int]:
            return [(await reader.restore())["y"][1] for _ in range(10)]

        _, *seen = await asyncio.gather(overwrite(), *(restore() for _ in range(3)))
        for numbers in seen:
            assert numbers == sorted(numbers)  # never back in time
    assert len(await check_whole(memory)) == 1


async def test_a_sweep_leaves_a_save_of_its_own_saver_alone_and_fences_others(
    memory: Place, held_back: HeldBack
) -> None:
    async with memory.saver() as one, memory.saver() as other:
        async with held_back(one) as reached, held_back(other) as other_reached:
            mine = asyncio.create_task(one.save(state_of(1), step=1))
            theirs = asyncio.create_task(other.save(state_of(2), step=2))
            await asyncio.gather(reached.wait(), other_reached.wait())
            assert [item.name for item in (await one.sweep(3600)).leftovers] == []
            dry = await one.sweep(0, dry_run=True)
            swept = await one.sweep(0)
            assert [item.name for item in dry.leftovers] == [item.name for item in swept.leftovers] == ["ckpt-00000002"]
        assert (await mine).step == 1
        with pytest.raises(SaveAbortedError, match="given up for dead"):
            await theirs
        assert (await other.save(state_of(3), step=2)).step == 2
    assert [one.step for one in await check_whole(memory)] == [1, 2]


async def test_a_dry_sweep_writes_nothing(memory: Place, held_back: HeldBack) -> None:
    async with memory.saver() as saver, memory.saver(read_only=True) as other:
        async with held_back(saver) as reached:
            save = asyncio.create_task(saver.save(state_of(1), step=1))
            await reached.wait()
            inner = other._root.store._store  # type: ignore[attr-defined]
            versions = inner._bucket.versions
            before = next(versions)
            assert [item.name for item in (await other.sweep(0, dry_run=True)).leftovers] == ["ckpt-00000001"]
            assert next(versions) == before + 1
        await save


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
    assert [one.step for one in await check_whole(anywhere)][-1] == 100


async def test_cancelling_leaves_no_file_on_a_disk(local: Place) -> None:
    async with local.saver(max_to_keep=None, shard_bytes=5000) as saver:
        ended, turns = False, 0
        while not ended:
            ended = await cancelled_after(saver.save(state_of(turns), step=turns), turns)
            turns += 7
        assert turns > 30
        expected = await local.paths()
    found = [path.relative_to(local.url).as_posix() for path in await asyncio.to_thread(files_below, Path(local.url))]
    assert sorted(found) == sorted(expected)  # temporary files would be among the first only


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
        assert saver._root.budget.used == saver._snapshots.used == 0
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
        assert saver._snapshots.used == 0
    assert [one.step for one in await check_whole(memory)] == [turns - 1, turns]


async def test_cancelling_a_restore_at_any_moment(memory: Place, no_leaks: None) -> None:
    async with memory.saver(shard_bytes=5000) as saver:
        await saver.save(state_of(3), step=1)
        turns, ended = 0, False
        while not ended:
            target = {"x": np.zeros(2000, int), "y": [np.zeros(300, int), 0]}
            ended = await cancelled_after(saver.restore(target), turns)
            assert set(target["x"]) in ({0}, {3})  # type: ignore[arg-type]
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
            for step in steps:
                await saver.verify(step)
            await saver.prune()
            assert [one.step for one in await saver.checkpoints()] == [3]
    assert len(await check_whole(memory)) == 1
