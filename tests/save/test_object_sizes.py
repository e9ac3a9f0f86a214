"""No object is made larger than its store takes, and what cannot be is refused before anything is written."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from asyncsaver import Saver
from asyncsaver.errors import InvalidStateError
from asyncsaver.store import NEVER, Buffer, Capabilities, ObjectInfo, Part, PutMode, Resend
from asyncsaver_backends.memory import MemoryStore

from ..doubles.scripted import ScriptedStore  # noqa: TID252 - no name to import by
from ..doubles.world import World  # noqa: TID252

LIMIT = 10_000


def small_store(world: World) -> ScriptedStore:
    return world.store(capabilities=Capabilities(True, True, max_object_bytes=LIMIT, part_bytes=1000))


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("nbytes", [LIMIT - 20, LIMIT, 10 * LIMIT])
async def test_a_tensor_that_is_too_large_is_refused_by_name(nbytes: int, background: bool) -> None:
    world = World()
    store = small_store(world)
    state = {"small": np.zeros(3), "model": {"huge": np.zeros(nbytes, np.uint8)}}
    async with world.saver(store) as saver:
        save: Any = saver.save_in_background if background else saver.save
        with pytest.raises(InvalidStateError) as caught:
            await save(state, step=1)
    for words in ("model.huge", str(nbytes), str(LIMIT), world.url):
        assert words in str(caught.value)
    assert store.calls == []


async def test_what_fits_is_saved_in_shards_that_fit() -> None:
    world = World()
    rng = np.random.default_rng(1)
    state = {f"t{size}": rng.integers(0, 255, size, np.uint8) for size in (9_000, 4_000, 4_000 + 1, 4_000 + 2, 10)}
    async with world.saver(small_store(world), shard_bytes=10**9) as saver:
        checkpoint = await saver.save(state, step=1)
        assert checkpoint.stats is not None
        assert checkpoint.stats.files > 2
        restored = await saver.restore()
    assert max(map(len, (await world.objects()).values())) <= LIMIT
    for name, tensor in state.items():
        np.testing.assert_array_equal(restored[name], tensor)


class OneByOneStore(MemoryStore):
    """Sends the parts of an object one after another, and none before so many objects are on their way."""

    def __init__(self, url: str, *, objects: int) -> None:
        super().__init__(url)
        self.capabilities = replace(self.capabilities, part_bytes=1000, concurrency=8, sequential=True)
        self._barrier = asyncio.Barrier(objects)

    async def put_parts(self, path: str, parts: AsyncIterable[Part], *, size: int, resend: Resend = NEVER) -> None:
        await self._barrier.wait()
        await super().put_parts(path, parts, size=size, resend=resend)


async def test_where_parts_go_one_by_one_more_shards_go_side_by_side() -> None:
    state = {f"t{number}": np.full(2000, number, np.uint8) for number in range(16)}
    url = f"memory://sequential-{uuid.uuid4().hex}/run"
    async with asyncio.timeout(60), Saver(OneByOneStore(url, objects=8)) as saver:
        checkpoint = await saver.save(state, step=1)
        assert checkpoint.stats is not None
        assert checkpoint.stats.files == 8
        for name, tensor in (await saver.restore()).items():
            np.testing.assert_array_equal(tensor, state[name])


class WindowStore(MemoryStore):
    """Sends whole objects, and answers none before so many are on their way; takes no uploads in parts."""

    def __init__(self, url: str, *, objects: int, scattered: bool) -> None:
        super().__init__(url)
        self.capabilities = replace(
            self.capabilities, part_bytes=1000, put_bytes=2000, concurrency=8, scattered=scattered
        )
        self.shards: list[int] = []
        self._barrier = asyncio.Barrier(objects)

    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        if path.endswith(".safetensors"):
            self.shards.append(memoryview(data).nbytes)
            await self._barrier.wait()
        return await super().put(path, data, mode=mode)

    async def put_parts(self, path: str, parts: AsyncIterable[Part], *, size: int, resend: Resend = NEVER) -> None:
        raise NotImplementedError


@pytest.mark.parametrize(("scattered", "budget"), [(True, 8000), (False, 16_000)])
async def test_tensors_as_large_as_a_part_are_a_request_each_and_fill_the_window(scattered: bool, budget: int) -> None:
    state = {f"t{number:02d}": np.full(1000, number, np.uint8) for number in range(24)}
    store = WindowStore(f"memory://window-{uuid.uuid4().hex}/run", objects=8, scattered=scattered)
    async with asyncio.timeout(60), Saver(store, memory_budget=budget) as saver:
        checkpoint = await saver.save(state, step=1)
        assert checkpoint.stats is not None
        assert checkpoint.stats.peak_memory_bytes <= budget
        assert len(store.shards) == checkpoint.stats.files == 24
        assert min(store.shards) > 1000
        for name, tensor in (await saver.restore()).items():
            np.testing.assert_array_equal(tensor, state[name])


@pytest.mark.parametrize(("put_bytes", "shards", "uploads"), [(0, 1, 1), (2000, 24, 0)])
async def test_shards_are_spread_only_where_one_request_each_is_faster(
    put_bytes: int, shards: int, uploads: int
) -> None:
    world = World()
    store = world.store(capabilities=Capabilities(True, True, part_bytes=1000, put_bytes=put_bytes, concurrency=8))
    state = {f"t{number:02d}": np.full(1000, number, np.uint8) for number in range(24)}
    async with world.saver(store, shard_bytes=10**6) as saver:
        checkpoint = await saver.save(state, step=1)
    assert checkpoint.stats is not None
    assert (checkpoint.stats.files, store.count("put_parts")) == (shards, uploads)
