"""Restoring while other savers overwrite, delete and damage what is being read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asyncsaver.errors import CheckpointCorruptError, CheckpointDeletedError, CheckpointNotFoundError

from ..doubles.scripted import Call, Fault, Hold, Meanwhile, Work, at, nth  # noqa: TID252 - no name to import by
from ..doubles.world import World, for_each, number_of, state_of  # noqa: TID252

NAME = "ckpt-00000001"


async def with_steps(world: World, *steps: int) -> None:
    async with world.saver() as saver:
        for step in steps:
            await saver.save(state_of(step), step=step)


async def delete(world: World, step: int) -> None:
    async with world.saver() as saver:
        await saver.delete(step)


async def overwrite(world: World) -> None:
    async with world.saver() as saver:
        await saver.save(state_of(2), step=1, overwrite=True)


async def lose_shards(world: World, name: str) -> None:
    await world.memory().delete([path for path in await world.objects() if name in path and "model-0" in path])


@pytest.mark.parametrize("which", ["step", "checkpoint"])
async def test_a_checkpoint_that_is_deleted_while_it_is_read(which: str) -> None:
    world = World()
    await with_steps(world, 1, 2)
    store = world.store(at("get_into", NAME, Meanwhile(lambda: delete(world, 1))))
    async with world.saver(store) as saver:
        checkpoint = (await saver.checkpoints())[0]
        with pytest.raises(CheckpointDeletedError):
            await (saver.restore(step=1) if which == "step" else saver.restore(checkpoint=checkpoint))


async def test_restoring_the_latest_goes_on_with_the_next_one(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    await with_steps(world, 1, 2, 3)
    store = world.store(
        at("get_into", "ckpt-0000000", Meanwhile(lambda: delete(world, 3)), Meanwhile(lambda: delete(world, 2)))
    )
    async with world.saver(store, concurrency=1) as saver:
        assert number_of(await saver.restore()) in {1, 2}
    assert "restoring the next one" in caplog.text


async def test_the_latest_deleted_between_the_listing_and_its_manifest() -> None:
    world = World()
    await with_steps(world, 1, 2)
    store = world.store(at("get", "ckpt-00000002/manifest", Meanwhile(lambda: delete(world, 2))))
    async with world.saver(store) as saver:
        assert number_of(await saver.restore()) == 1


async def test_the_only_one_deleted_while_it_is_read() -> None:
    world = World()
    await with_steps(world, 1)
    store = world.store(at("get_into", NAME, Meanwhile(lambda: delete(world, 1))))
    async with world.saver(store) as saver:
        with pytest.raises(CheckpointNotFoundError):
            await saver.restore()


@pytest.mark.parametrize("when", ["before", "while it is read"])
async def test_a_shard_that_is_missing_though_the_checkpoint_stands(when: str) -> None:
    world = World()
    await with_steps(world, 1, 2)
    fault = Meanwhile(lambda: lose_shards(world, NAME))
    if when == "before":
        await lose_shards(world, NAME)
    store = world.store(at("get_into", NAME, fault))
    async with world.saver(store) as saver:
        with pytest.raises(CheckpointCorruptError, match=r"model-0000\d-of-00003") as caught:
            await saver.restore(step=1)
        assert caught.value.path.startswith(f"{NAME}/")
        assert caught.value.tensors
        assert not isinstance(caught.value, CheckpointNotFoundError)


@pytest.mark.parametrize("options", [{"step": 1}, {}], ids=["step", "latest"])
async def test_at_every_call_of_a_restore_an_overwrite_gives_the_old_or_the_new_state(options: dict[str, Any]) -> None:
    template = World()
    await with_steps(template, 1)
    store = template.store()
    async with template.saver(store) as saver:
        await saver.restore(**options)
    calls = list(store.calls)

    async def check(call: Call) -> None:
        world = template.copy()
        async with world.saver(world.store(nth(call.number, Meanwhile(lambda: overwrite(world))))) as saver:
            assert number_of(await saver.restore(**options)) in {1, 2}
            assert number_of(await saver.restore(**options)) == 2

    await for_each(calls, check)


async def test_at_every_call_of_an_overwrite_a_reader_restores_the_old_or_the_new_state() -> None:
    world = World()
    await with_steps(world, 1)
    restored: list[int] = []

    async def read() -> None:
        async with world.saver() as reader:
            (checkpoint,) = await reader.checkpoints()
            ways: list[dict[str, Any]] = [{}, {"step": 1}, {"checkpoint": checkpoint}]
            restored.extend([number_of(await reader.restore(**options)) for options in ways])

    class ReadAround:
        async def around(self, work: Work) -> Any:
            await read()
            result = await work()
            await read()
            return result

    def script(call: Call) -> Fault | None:
        return ReadAround() if call.operation not in {"get", "list"} else None

    async with world.saver(world.store(script), concurrency=1) as saver:
        await saver.save(state_of(2), step=1, overwrite=True)
    assert restored == sorted(restored)
    assert set(restored) == {1, 2}


async def test_a_reader_that_is_open_is_told_of_a_prune_by_another_saver() -> None:
    world = World()
    await with_steps(world, 1, 2)
    async with world.saver() as saver, world.saver(max_to_keep=1) as other, await saver.open(1) as reader:
        await other.prune()
        with pytest.raises(CheckpointDeletedError):
            await reader.read("weights")


async def test_a_cancelled_restore_lets_go_of_everything() -> None:
    world = World()
    await with_steps(world, 1, 2)
    hold = Hold()
    async with world.saver(world.store(at("get_into", "ckpt", hold)), max_to_keep=1) as saver:
        task = asyncio.create_task(saver.restore(step=1))
        await hold.reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert saver._root.budget.used == 0
        assert not saver._root.in_use
        await saver.prune()
    assert await world.numbers() == {"ckpt-00000002": 2}
