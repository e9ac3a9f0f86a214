"""Many small tensors are read together; nobody who is given an array shares memory with anybody else."""

from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from asyncsaver.model.ranges import Fetch
from asyncsaver.model.rebuild import TensorRead
from asyncsaver.restore.fetch import Fetcher, Need

from ..doubles.world import World  # noqa: TID252 - test folders are not packages with a name

COUNT = 6


def arrays(value: float) -> dict[str, Any]:
    return {f"t{index}": np.full((2, 3), value + index, np.float32) for index in range(COUNT)}


async def saved(world: World) -> None:
    async with world.saver() as saver:
        # One byte in front shifts all others off their alignment.
        await saver.save({"first": np.zeros(1, np.uint8), **arrays(1)}, step=1)


async def test_targets_of_any_layout_are_filled_in_place() -> None:
    world = World()
    await saved(world)
    target = {"first": np.ones(1, np.uint8), **arrays(100)}
    target["t1"] = np.zeros((2, 3), np.float32, order="F")
    target["t2"] = np.zeros((2, 3), ">f4")
    target["t3"] = np.zeros((2, 6), np.float32)[:, ::2]
    target["t4"] = np.zeros((2, 3), np.float64)
    target["t5"] = np.zeros(6, np.float32)
    async with world.saver() as saver:
        restored = await saver.restore(target, dtype="target", reshape=True)
    for name, wanted in arrays(1).items():
        assert restored[name] is target[name]
        assert restored[name].reshape(2, 3).tolist() == wanted.tolist()


async def test_what_is_given_out_has_memory_of_its_own() -> None:
    world = World()
    await saved(world)
    target = arrays(100)
    for array in target.values():
        array.flags.writeable = False
    async with world.saver() as saver:
        replaced = await saver.restore(target, strict=False)
        made = await saver.restore()
    for restored in (replaced, {name: made[name] for name in target}):
        assert all(restored[name].base is None for name in target)
        assert all(restored[name].tolist() == wanted.tolist() for name, wanted in arrays(1).items())
        assert not any(np.shares_memory(one, other) for one, other in combinations(restored.values(), 2))
    assert all(array[0, 0] >= 100 for array in target.values())


async def test_the_manifest_of_an_open_reader_stays() -> None:
    world = World()
    await saved(world)
    async with world.saver() as saver, await saver.open() as reader:
        for _ in range(2):
            restored = await reader.restore(arrays(100), strict=False)
            assert restored["t0"][0, 0] == 1
        assert len(reader.source.tensors) == len(reader.tensors) == COUNT + 1


@pytest.mark.parametrize(("second", "stays"), [(100, True), (150, True), (151, False), (10_000, False)])
def test_arrays_stay_in_a_request_only_if_they_nearly_fill_it(second: int, stays: bool) -> None:
    needs = [
        Need(name, 0, start, start + 100, TensorRead(name, np.dtype(np.uint8), (100,), passing=True), None)
        for name, start in (("a", 0), ("b", second))
    ]
    data = (np.arange(second + 100) % 251).astype(np.uint8)
    fetcher = Fetcher(SimpleNamespace(), SimpleNamespace(), lambda _: None, {})  # type: ignore[arg-type]
    fetcher._hand_out(Fetch(0, 0, second + 100, (0, 1)), data, needs)
    assert fetcher.arrays["b"].tolist() == data[second:].tolist()
    assert [np.shares_memory(array, data) for array in fetcher.arrays.values()] == [stays, stays]
