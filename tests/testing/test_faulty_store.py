"""`FaultyStore`: each fault does what its name says, where it is told to, and is written down."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from asyncsaver import Saver
from asyncsaver.errors import (
    CheckpointCorruptError,
    ObjectNotFoundError,
    ObjectTruncatedError,
    StoreError,
    StoreTimeoutError,
)
from asyncsaver.testing import (
    Delay,
    FailBefore,
    FaultyStore,
    FlipBit,
    Hang,
    LoseReply,
    Operation,
    StoreContract,
    Throttle,
    Truncate,
    after,
    at,
    on,
)
from asyncsaver_backends.memory import MemoryStore


def memory() -> MemoryStore:
    return MemoryStore(f"memory://{uuid.uuid4().hex}")


class TestWithoutFaults(StoreContract):
    """A faulty store without faults is a store."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[FaultyStore]:
        async with FaultyStore(memory()) as store:
            yield store


async def test_a_failure_before_leaves_the_object_as_it_was() -> None:
    store = FaultyStore(memory(), [FailBefore(on("put", "b"))])
    await store.put("a", b"1")
    with pytest.raises(StoreError, match="put b: broken") as caught:
        await store.put("b", b"1")
    assert not caught.value.retryable
    with pytest.raises(ObjectNotFoundError):
        await store.get("b")
    await store.put("b", b"2")  # once only
    assert (await store.get("b")).data == b"2"


async def test_an_error_of_ones_own() -> None:
    store = FaultyStore(memory(), [FailBefore(at(1), error=lambda operation: KeyError(operation.path))])
    with pytest.raises(KeyError, match="a"):
        await store.put("a", b"1")


async def test_a_lost_reply_leaves_the_object_written() -> None:
    store = FaultyStore(memory(), [LoseReply(on("create"))])
    with pytest.raises(StoreTimeoutError) as caught:
        await store.put("a", b"1", mode="create")
    assert caught.value.retryable
    assert (await store.get("a")).data == b"1"


async def test_throttling_is_worth_a_retry_and_may_strike_more_than_once() -> None:
    store = FaultyStore(memory(), [Throttle(on("get*"), times=2)])
    await store.put("a", b"1")
    for _ in range(2):
        with pytest.raises(StoreError, match="503") as caught:
            await store.get("a")
        assert caught.value.retryable
    assert (await store.get("a")).data == b"1"


async def test_a_fault_without_an_end_strikes_for_ever() -> None:
    store = FaultyStore(memory(), [FailBefore(after(1), times=None)])
    await store.put("a", b"1")
    for _ in range(5):
        with pytest.raises(StoreError, match="broken"):
            await store.head("a")


async def test_a_hanging_operation_can_be_cancelled() -> None:
    for applied in (False, True):
        store = FaultyStore(memory(), [Hang(on("put"), applied=applied)])
        task = asyncio.create_task(store.put("a", b"1"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert store.injected
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert bool((await store.list()).objects) == applied


async def test_a_delayed_operation_lets_others_go_first() -> None:
    store = FaultyStore(memory(), [Delay(on("put", "late"), seconds=0.01)])
    order: list[str] = []

    async def put(path: str) -> None:
        await store.put(path, b"1")
        order.append(path)

    await asyncio.gather(put("late"), put("early"))
    assert order == ["early", "late"]


async def test_truncated_reads() -> None:
    store = FaultyStore(memory(), [Truncate(on(path="a"), size=2, times=None)])
    await store.put("a", b"12345")
    assert (await store.get("a")).data == b"12"
    with pytest.raises(ObjectTruncatedError):
        await store.get_into("a", [(0, 2), (2, 4)], [memoryview(bytearray(2)), memoryview(bytearray(2))])
    first = bytearray(2)
    await store.get_into("a", [(0, 2), (4, 4)], [memoryview(first), memoryview(bytearray())])
    assert first == b"12"


async def test_a_flipped_bit() -> None:
    store = FaultyStore(memory(), [FlipBit(on(path="a"), bit=8, times=None)])
    await store.put("a", b"\0\0\0\0")
    assert (await store.get("a")).data == b"\0\1\0\0"
    one, other = bytearray(1), bytearray(2)
    await store.get_into("a", [(0, 1), (1, 3)], [memoryview(one), memoryview(other)])
    assert (one, other) == (b"\0", b"\1\0")
    await store.put("a", b"")
    assert (await store.get("a")).data == b""


async def test_reads_only_are_damaged() -> None:
    store = FaultyStore(memory(), [FlipBit(at(1, 2, 3)), Truncate(at(1, 2, 3))])
    await store.put("a", b"\0")
    await store.head("a")
    await store.list()
    assert store.injected == []


async def test_faults_compose_from_the_outside_in() -> None:
    seen: list[str] = []

    class Note:
        def __init__(self, name: str) -> None:
            self.name = name

        def strikes(self, operation: Operation) -> bool:
            return operation.name == "put"

        async def around(self, operation: Operation, work: Callable[[], Awaitable[Any]]) -> Any:
            seen.append(self.name)
            return await work()

    lose = LoseReply(on("put"))
    store = FaultyStore(memory(), [Note("outer"), Note("inner"), lose])
    with pytest.raises(StoreTimeoutError):
        await store.put("a", b"1")
    assert seen == ["outer", "inner"]
    assert [one.fault for one in store.injected][-1] is lose
    assert {str(one.operation.count) + one.operation.name for one in store.injected} == {"1put"}
    assert (await store.get("a")).data == b"1"
    assert [operation.name for operation in store.operations] == ["put", "get"]


async def test_a_saver_outlives_throttling_and_lost_replies() -> None:
    store = FaultyStore(
        memory(), [Throttle(on("put")), LoseReply(on("create", "*/manifest.json")), Throttle(on("get"))]
    )
    async with Saver(store) as saver:
        checkpoint = await saver.save({"w": np.arange(4)}, step=1)
        assert checkpoint.slot == 0
        assert (await saver.restore())["w"].tolist() == [0, 1, 2, 3]
    assert len(store.injected) == 3


async def test_a_saver_finds_a_flipped_bit() -> None:
    store = FaultyStore(memory())
    async with Saver(store) as saver:
        await saver.save({"w": np.arange(4)}, step=1)
        store.faults.append(FlipBit(on("get_into")))
        with pytest.raises(CheckpointCorruptError, match="'w'"):
            await saver.restore()
