"""The figures of saves and restores: on results, through the callback, and in the log."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import uuid

import numpy as np
import pytest

from asyncsaver import Checkpoint, RestoreStats, Saver, SaveStats
from asyncsaver.errors import CheckpointNotFoundError, StoreError
from asyncsaver.store import Buffer, ObjectInfo, PutMode
from asyncsaver.testing import FaultyStore, faults
from asyncsaver_backends.memory import MemoryStore

SIZE = 4096
Told = list[tuple[Checkpoint, SaveStats | RestoreStats]]


@pytest.fixture
def url() -> str:
    return f"memory://stats-{uuid.uuid4().hex}/run"


def arrays(count: int, value: int = 1) -> dict[str, np.ndarray]:
    return {f"t{index}": np.full(SIZE, value + index, np.uint8) for index in range(count)}


def stats_of(checkpoint: Checkpoint) -> SaveStats:
    assert checkpoint.stats is not None
    return checkpoint.stats


async def test_a_save_sends_no_more_requests_than_it_needs(url: str) -> None:
    async with Saver(url, shard_bytes=1) as saver:
        await saver.save(arrays(5), step=1)
        saved = await saver.save(arrays(5), step=2)
    stats = stats_of(saved)
    # shards, part and index; the manifest; the state file; the folder before and after.
    assert stats.requests == {"put": 5 + 2, "create": 1, "replace": 1, "list": 2}
    assert (stats.files, stats.tensors, stats.retries) == (5, 5, 0)


async def test_a_restore_of_the_latest_sends_no_more_requests_than_it_needs(url: str) -> None:
    told: Told = []
    async with Saver(url, shard_bytes=1) as saver:
        await saver.save(arrays(5), step=1)
    async with Saver(url, on_stats=lambda *both: told.append(both)) as saver:
        await saver.restore()
    [(checkpoint, stats)] = told
    assert isinstance(stats, RestoreStats)
    assert checkpoint.step == 1
    assert stats.requests == {"list": 1, "get": 2, "get_range": 5}
    assert (stats.bytes_read, stats.tensors, stats.retries) == (5 * SIZE, 5, 0)
    assert stats.peak_memory_bytes >= SIZE
    assert stats.seconds_finding > 0
    assert stats.seconds_reading > 0


async def test_the_times_of_a_save_lie_within_the_call(url: str) -> None:
    loop = asyncio.get_running_loop()
    async with Saver(url, shard_bytes=1) as saver:
        began = loop.time()
        stats = stats_of(await saver.save(arrays(5), step=1))
        passed = loop.time() - began
    times = [
        stats.seconds_staging, stats.seconds_waiting, stats.seconds_writing, stats.seconds_committing, stats.seconds_pruning,
    ]  # fmt: skip
    assert all(seconds >= 0 for seconds in times)
    assert 0 < sum(times) <= passed
    assert stats.seconds_blocked == 0


async def test_waiting_for_memory_is_told(url: str) -> None:
    told: Told = []
    async with Saver(url, shard_bytes=1, memory_budget=2 * SIZE, on_stats=lambda *both: told.append(both)) as saver:
        saved = await saver.save(arrays(8), step=1)
        await saver.restore()
    assert [type(stats) for _, stats in told] == [SaveStats, RestoreStats]
    assert told[0] == (saved, saved.stats)
    for _, stats in told:
        assert stats.seconds_blocked > 0
        assert SIZE < stats.peak_memory_bytes <= 2 * SIZE


async def test_a_background_save_counts_the_wait_for_its_copy_and_its_own_requests(url: str) -> None:
    async with Saver(url, shard_bytes=1, memory_budget=5 * SIZE) as saver:
        await saver.save(arrays(1), step=1)
        first = await saver.save_in_background(arrays(5), step=2)
        second = await saver.save_in_background(arrays(5), step=3)
        assert first.done()
        one, other = stats_of(await first), stats_of(await second)
    assert one.requests["put"] == other.requests["put"] == 5 + 2
    assert other.seconds_blocked > 0


async def test_operations_at_the_same_time_are_counted_apart(url: str) -> None:
    told: Told = []
    async with Saver(url, shard_bytes=1, on_stats=lambda *both: told.append(both)) as saver:
        await saver.save(arrays(1), step=1)
        told.clear()
        checkpoints = await asyncio.gather(*(saver.save(arrays(count), step=10 + count) for count in range(1, 5)))
        first = await saver.latest()
        await asyncio.gather(*(saver.restore(step=10 + count) for count in range(1, 5)))
    assert first == dataclasses.replace(checkpoints[-1], stats=None)
    assert [stats_of(saved).requests["put"] for saved in checkpoints] == [count + 2 for count in range(1, 5)]
    restored = {c.step: stats for c, stats in told if isinstance(stats, RestoreStats)}
    assert {step: stats.requests["get_range"] for step, stats in restored.items()} == {11: 1, 12: 2, 13: 3, 14: 4}


async def test_retries_are_counted(url: str) -> None:
    store = FaultyStore(MemoryStore(url), [faults.Throttle(faults.on("put", "*part-*"), times=2)])
    async with Saver(store) as saver:
        stats = stats_of(await saver.save(arrays(2), step=1))
    assert stats.retries == 2
    assert stats.requests["put"] == 1 + 3 + 1


async def test_a_callback_that_fails_harms_nothing_and_is_logged(url: str, caplog: pytest.LogCaptureFixture) -> None:
    def fail(checkpoint: Checkpoint, stats: object) -> None:
        raise RuntimeError(f"no room for {checkpoint.step}")

    async with Saver(url, on_stats=fail) as saver:
        saved = await saver.save(arrays(1), step=1)
        await saver.restore()
        assert await saver.latest() is not None
    assert saved.step == 1
    assert [record.getMessage() for record in caplog.records] == ["the on_stats callback failed"] * 2


async def test_one_line_at_info_for_each_and_none_for_what_failed(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="asyncsaver")
    told: Told = []
    async with Saver(url, on_stats=lambda *both: told.append(both)) as saver:
        with pytest.raises(CheckpointNotFoundError):
            await saver.restore()
        await saver.save(arrays(1), step=1)
        await saver.restore()
    lines = [record.getMessage() for record in caplog.records if record.name == "asyncsaver"]
    assert lines == [
        f"{url}/ckpt-00000001: {verb} {stats}" for verb, (_, stats) in zip(("saved", "restored"), told, strict=True)
    ]


class CrowdedStore(MemoryStore):
    """Throttles puts that overwrite while two are in flight."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.in_flight = 0
        self.refused = 0

    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        if mode == "create":
            return await super().put(path, data, mode=mode)
        self.in_flight += 1
        try:
            if self.in_flight > 2:
                self.refused += 1
                raise StoreError("503 slow down", retryable=True)
            for _ in range(5):
                await asyncio.sleep(0)
            return await super().put(path, data, mode=mode)
        finally:
            self.in_flight -= 1


async def test_a_throttling_store_gets_everything_with_few_refusals(url: str) -> None:
    store = CrowdedStore(url)
    state = arrays(100)
    async with Saver(store, shard_bytes=1, concurrency=16) as saver:
        stats = stats_of(await saver.save(state, step=1))
        restored = await saver.restore()
    assert stats.retries == store.refused
    assert 0 < store.refused < 100
    for name, array in state.items():
        np.testing.assert_array_equal(restored[name], array)
