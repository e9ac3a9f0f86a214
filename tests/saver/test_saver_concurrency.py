"""Many coroutines and several savers at once: a checkpoint is whole or not there, and nothing is left over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import pytest

from asyncsaver import Checkpoint, CheckpointExistsError, SaveAbortedError, Saver

from .place import Place
from .whole import check_whole, state_of

HeldBack = Callable[[Saver], AbstractAsyncContextManager[asyncio.Event]]


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

        _, *seen = await asyncio.gather(overwrite(), restore(), restore(), restore())
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
            inner = other._root.store._store._store  # type: ignore[attr-defined]
            versions = inner._bucket.versions
            before = next(versions)
            assert [item.name for item in (await other.sweep(0, dry_run=True)).leftovers] == ["ckpt-00000001"]
            assert next(versions) == before + 1
        await save
