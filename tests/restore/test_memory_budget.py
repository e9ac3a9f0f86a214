"""A state that fits in the memory budget is restored all or nothing; a larger one straight into the target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from asyncsaver.errors import CheckpointCorruptError

from ..doubles.world import World  # noqa: TID252 - test folders are not packages with a name

COUNT, SIZE = 8, 4096


def arrays(value: int) -> dict[str, Any]:
    return {f"t{index}": np.full(SIZE, value + index, np.uint8) for index in range(COUNT)}


async def saved(world: World) -> None:
    async with world.saver() as saver:
        await saver.save(arrays(1), step=1)


async def damage_last_shard(world: World) -> None:
    path = max(path for path in await world.objects() if path.endswith(".safetensors"))
    data = bytearray((await world.objects())[path])
    data[-1] ^= 1
    await world.memory().put(path, bytes(data))


async def test_a_larger_state_goes_straight_into_the_target_within_the_budget() -> None:
    world = World()
    await saved(world)
    target = arrays(100)
    before = {name: (id(array), array.ctypes.data) for name, array in target.items()}
    async with world.saver(memory_budget=2 * SIZE) as saver:
        restored = await saver.restore(target)
        assert SIZE <= saver._root.budget.peak <= 2 * SIZE
        assert saver._root.budget.used == 0
    assert {name: (id(array), array.ctypes.data) for name, array in restored.items()} == before
    for name, array in arrays(1).items():
        np.testing.assert_array_equal(target[name], array)


async def test_damage_in_a_larger_state_names_what_was_overwritten() -> None:
    world = World()
    await saved(world)
    await damage_last_shard(world)
    async with world.saver(memory_budget=2 * SIZE) as saver:
        with pytest.raises(CheckpointCorruptError, match="xxh3_128") as caught:
            await saver.restore(arrays(100))
    assert set(caught.value.overwritten) == set(arrays(1))
    assert caught.value.tensors == (f"t{COUNT - 1}",)
    assert any("undefined" in note for note in caught.value.__notes__)


async def test_damage_in_a_smaller_state_leaves_the_target_alone() -> None:
    world = World()
    await saved(world)
    await damage_last_shard(world)
    target = arrays(100)
    async with world.saver() as saver:
        with pytest.raises(CheckpointCorruptError, match="xxh3_128") as caught:
            await saver.restore(target)
    assert caught.value.overwritten == ()
    for name, array in arrays(100).items():
        np.testing.assert_array_equal(target[name], array)


async def test_a_file_that_is_missing_is_found_before_a_larger_target_is_touched() -> None:
    world = World()
    await saved(world)
    path = max(path for path in await world.objects() if path.endswith(".safetensors"))
    await world.memory().delete([path])
    target = arrays(100)
    async with world.saver(memory_budget=2 * SIZE) as saver:
        with pytest.raises(CheckpointCorruptError, match="missing"):
            await saver.restore(target)
    for name, array in arrays(100).items():
        np.testing.assert_array_equal(target[name], array)


async def test_saving_stays_within_the_budget() -> None:
    world = World()
    budget = 3 * SIZE
    async with world.saver(memory_budget=budget) as saver:
        checkpoint = await saver.save(arrays(1), step=1)
        assert checkpoint.stats is not None
        assert SIZE < checkpoint.stats.peak_memory_bytes <= budget
        assert saver._root.budget.used == 0


async def test_a_tensor_larger_than_the_budget_is_saved_and_restored() -> None:
    world = World()
    async with world.saver(memory_budget=16) as saver:
        await saver.save(arrays(1), step=1)
        target = arrays(100)
        await saver.restore(target)
        assert saver._root.budget.used == 0
    np.testing.assert_array_equal(target["t3"], arrays(1)["t3"])
