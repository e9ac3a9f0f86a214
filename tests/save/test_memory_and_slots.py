"""Memory and slots are both scarce: whoever waits for one while it holds the other must not be waited for in turn."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from asyncsaver import Saver
from asyncsaver.errors import StoreError
from asyncsaver.store import NEVER, Buffer, ObjectInfo, Part, PutMode, Resend
from asyncsaver_backends.memory import MemoryStore

PART = 1000


class SlowStore(MemoryStore):
    """Small parts, requests that take some turns of the loop, and now and then one that is refused."""

    def __init__(self, url: str, *, refuse_every: int) -> None:
        super().__init__(url)
        self.capabilities = replace(self.capabilities, part_bytes=PART)
        self._left = self._every = refuse_every

    async def _pass(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)
        self._left -= 1
        if not self._left:
            self._left = self._every
            raise StoreError("503 slow down", retryable=True)

    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        await self._pass()
        return await super().put(path, data, mode=mode)

    async def put_parts(self, path: str, parts: AsyncIterable[Part], *, size: int, resend: Resend = NEVER) -> None:
        content = bytearray()
        async for part in parts:
            with part as data:
                await self._pass()
                content += data
        await super().put(path, content)

    async def get_into(self, path: str, ranges: Sequence[tuple[int, int]], buffers: Sequence[memoryview]) -> None:
        await self._pass()
        await super().get_into(path, ranges, buffers)


@pytest.mark.parametrize("budget", [1, 2 * PART, 5 * PART])
@pytest.mark.parametrize("concurrency", [1, 2, 5])
async def test_saves_and_restores_of_all_sizes_get_through(budget: int, concurrency: int) -> None:
    rng = np.random.default_rng(0)
    state = {f"t{index}": rng.bytes(size) for index, size in enumerate([10, 4 * PART, 700, 3 * PART, 900, 2 * PART])}
    arrays = {name: np.frombuffer(content, np.uint8) for name, content in state.items()}
    store = SlowStore(f"memory://slots-{uuid.uuid4().hex}/run", refuse_every=13)
    async with Saver(store, shard_bytes=1, memory_budget=budget, concurrency=concurrency) as saver:
        await saver.save(arrays, step=0)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            saves = [group.create_task(saver.save(arrays, step=step)) for step in (1, 2, 3)]
            restores = [group.create_task(saver.restore(step=0)) for _ in range(3)]
        assert [task.result().step for task in saves] == [1, 2, 3]
        for restored in [*(task.result() for task in restores), await saver.restore()]:
            assert {name: array.tobytes() for name, array in restored.items()} == state
        assert saver._root.budget.used == 0
