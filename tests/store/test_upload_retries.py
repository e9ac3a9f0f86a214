"""Uploads in parts whose requests fail: each is sent again by itself, with its memory held and its slot given back."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import pytest

from asyncsaver import Saver
from asyncsaver.aio.meter import metered
from asyncsaver.aio.tasks import raise_first
from asyncsaver.aio.window import RequestWindow
from asyncsaver.errors import StoreError
from asyncsaver.store import NEVER, Part, Resend, Store
from asyncsaver.store.paced import PacedStore
from asyncsaver.store.resend import until_sent
from asyncsaver.store.retry import Retries, RetryingStore
from asyncsaver.testing import FailBefore, FaultyStore, LoseReply, Throttle, on
from asyncsaver.testing.faults import Operation
from asyncsaver_backends.memory import MemoryStore

PART = 1000


def busy() -> StoreError:
    return StoreError("503 slow down", retryable=True)


class UploadingStore(MemoryStore):
    """Sends parts side by side and each again as it may, like a cloud's; a request is refused where the test says so."""

    def __init__(self) -> None:
        super().__init__(f"memory://uploads-{uuid.uuid4().hex}/run")
        self.capabilities = replace(self.capabilities, part_bytes=PART)
        self.sent: Counter[str] = Counter()
        self.unfinished = 0

    def refuse(self, what: str, count: int) -> StoreError | None:
        """How the ``count``-th try of "begin", "complete" or "part 7" fails."""

    async def _request(self, what: str) -> None:
        self.sent[what] += 1
        await asyncio.sleep(0)
        error = self.refuse(what, self.sent[what])
        if error is not None:
            raise error

    @property
    def parts_sent(self) -> int:
        return sum(count for what, count in self.sent.items() if what.startswith("part"))

    async def put_parts(self, path: str, parts: AsyncIterable[Part], *, size: int, resend: Resend = NEVER) -> None:
        landed: dict[int, bytes] = {}

        async def one(number: int, part: Part) -> None:
            with part as data:
                await until_sent(resend.part(number), lambda: self._request(f"part {number}"))
                landed[number] = bytes(data)

        await until_sent(resend.request(), lambda: self._request("begin"))
        self.unfinished += 1
        try:
            async with asyncio.TaskGroup() as group:
                number = 0
                async for part in parts:
                    number += 1
                    group.create_task(one(number, part))
            await until_sent(resend.request(), lambda: self._request("complete"))
        except BaseExceptionGroup as errors:
            raise_first(errors)
        finally:
            self.unfinished -= 1
        content = b"".join(landed[number] for number in sorted(landed))
        assert len(content) == size
        await super().put(path, content)


@dataclass
class Memory:
    """Counts the parts whose memory is held."""

    held: int = 0
    given: int = 0

    @contextmanager
    def _part(self, number: int) -> Iterator[memoryview]:
        try:
            yield memoryview(bytes([number % 256]) * PART)
        finally:
            self.held -= 1

    async def parts(self, count: int) -> AsyncIterator[Part]:
        for number in range(count):
            self.held += 1
            self.given += 1
            yield self._part(number)


class Clock:
    """A clock that only pauses move."""

    def __init__(self) -> None:
        self.now = 0.0

    async def sleep(self, seconds: float) -> None:
        self.now += seconds
        await asyncio.sleep(0)

    def retries(self, timeout: float = 60.0) -> Retries:
        return Retries(timeout, sleep=self.sleep, clock=lambda: self.now, rng=random.Random(1))


def wrapped(store: Store, retries: Retries, window: RequestWindow) -> RetryingStore:
    return RetryingStore(PacedStore(store, window, retries), retries)


class Stubborn(UploadingStore):
    """Refuses the first tries of some requests."""

    def __init__(self, **refusals: int) -> None:
        super().__init__()
        self.refusals = {what.replace("_", " "): times for what, times in refusals.items()}

    def refuse(self, what: str, count: int) -> StoreError | None:
        return busy() if count <= self.refusals.get(what, 0) else None


async def test_only_what_was_refused_is_sent_again_and_all_of_it_is_counted() -> None:
    store, window, memory = Stubborn(begin=2, part_3=4, part_5=1, complete=3), RequestWindow(4), Memory()
    with metered() as meter:
        await wrapped(store, Clock().retries(), window).put_parts("large.bin", memory.parts(7), size=7 * PART)
    assert store.sent == {"begin": 3, "complete": 4} | {f"part {n}": {3: 5, 5: 2}.get(n, 1) for n in range(1, 8)}
    assert meter.requests == {"part": store.parts_sent, "put_parts": 1 + 2 + 3}
    assert meter.retries == 2 + 4 + 1 + 3
    assert (await store.get("large.bin")).data == b"".join(bytes([n]) * PART for n in range(7))
    assert (memory.given, memory.held) == (7, 0)
    await asyncio.wait_for(window.acquire(window.limit), 10)


@pytest.mark.parametrize("part", [1, 4, 6])
@pytest.mark.parametrize("times", [1, 3])
async def test_the_faulty_store_strikes_single_parts(part: int, times: int) -> None:
    struck = Counter[str]()

    def nth(operation: Operation) -> bool:
        struck[operation.name] += operation.name == "part"
        return operation.name == "part" and part <= struck["part"] < part + times

    memory = Memory()
    faulty = FaultyStore(UploadingStore(), [Throttle(nth, times=None)])
    with metered() as meter:
        store = wrapped(faulty, Clock().retries(), RequestWindow(4))
        await store.put_parts("large.bin", memory.parts(6), size=6 * PART)
    assert len(faulty.injected) == meter.retries == times
    assert [operation.name for operation in faulty.operations] == ["put_parts"] + ["part"] * (6 + times)
    assert meter.requests == {"part": 6 + times, "put_parts": 1}
    assert memory.held == 0
    assert (await store.head("large.bin")).size == 6 * PART


async def test_a_part_whose_reply_is_lost_is_sent_again() -> None:
    faulty, memory = FaultyStore(UploadingStore(), [LoseReply(on("part"), times=2)]), Memory()
    await wrapped(faulty, Clock().retries(), RequestWindow(4)).put_parts("a.bin", memory.parts(3), size=3 * PART)
    assert len(faulty.injected) == 2
    assert (await faulty.head("a.bin")).size == 3 * PART


async def test_told_to_send_everything_once_nothing_is_sent_again() -> None:
    store, memory = Stubborn(part_2=1), Memory()
    with pytest.raises(StoreError, match="503"):
        await wrapped(store, Clock().retries(0), RequestWindow(4)).put_parts("a.bin", memory.parts(3), size=3 * PART)
    assert max(store.sent.values()) == 1
    assert memory.held == 0


@pytest.mark.parametrize("share", [0.1, 0.5])
async def test_a_share_of_refusals_costs_that_share_of_requests(share: float) -> None:
    class Throttling(UploadingStore):
        rng = random.Random(7)

        def refuse(self, what: str, count: int) -> StoreError | None:
            return busy() if self.rng.random() < share else None

    store, memory, window = Throttling(), Memory(), RequestWindow(16)
    with metered() as meter:
        await wrapped(store, Clock().retries(), window).put_parts("large.bin", memory.parts(100), size=100 * PART)
    assert meter.requests["part"] == store.parts_sent
    assert 100 < store.parts_sent < 100 / (1 - share) * 1.3
    assert sum(store.sent.values()) == 102 + meter.retries
    assert 1 <= window.limit < 16


async def test_a_part_that_pauses_holds_its_memory_but_no_slot_and_leaves_nothing_when_cancelled() -> None:
    pausing, window, memory = asyncio.Event(), RequestWindow(2), Memory()

    async def pause(_: float) -> None:
        pausing.set()
        await asyncio.Event().wait()

    retries = Retries(60.0, sleep=pause)
    store = Stubborn(part_1=1)
    upload = asyncio.create_task(wrapped(store, retries, window).put_parts("a.bin", memory.parts(1), size=PART))
    await pausing.wait()
    assert memory.held == 1
    await asyncio.wait_for(window.acquire(window.limit), 10)  # all of them: none is held
    window.release(window.limit)
    upload.cancel()
    await asyncio.wait([upload])
    assert upload.cancelled()
    assert (memory.held, store.unfinished) == (0, 0)
    assert not (await store.list()).objects
    await asyncio.wait_for(window.acquire(window.limit), 10)


async def test_a_part_that_is_cancelled_while_it_waits_in_line_again_holds_no_slot() -> None:
    window, memory, refused = RequestWindow(1), Memory(), asyncio.Event()

    class Taken(UploadingStore):
        def refuse(self, what: str, count: int) -> StoreError | None:
            if what.startswith("part"):
                refused.set()
                return busy()
            return None

    async def pause(_: float) -> None:
        await window.acquire()  # by somebody else, who is faster

    store = Taken()
    upload = asyncio.create_task(
        wrapped(store, Retries(60.0, sleep=pause), window).put_parts("a.bin", memory.parts(1), size=PART)
    )
    await refused.wait()
    for _ in range(10):
        await asyncio.sleep(0)
    assert store.sent["part 1"] == 1
    upload.cancel()
    await asyncio.wait([upload])
    assert upload.cancelled()
    assert memory.held == 0
    window.release()
    await asyncio.wait_for(window.acquire(), 10)


async def test_a_refusal_that_ends_the_upload_narrows_the_window_once() -> None:
    store, window = Stubborn(part_1=1), RequestWindow(16)
    with pytest.raises(StoreError, match="503"):
        await wrapped(store, Clock().retries(0), window).put_parts("a.bin", Memory().parts(1), size=PART)
    assert window.limit == 8


async def test_a_late_refusal_tells_nothing_new_though_a_later_part_has_landed() -> None:
    window = RequestWindow(16)

    class Late(UploadingStore):
        async def put_parts(self, path: str, parts: AsyncIterable[Part], *, size: int, resend: Resend = NEVER) -> None:
            given = aiter(parts)
            with await anext(given):
                window.refused(window.era)  # another request
                with await anext(given):
                    pass
                error = StoreError(f"{path} of {size} bytes: 503", retryable=True)
                assert not await resend.part(1).another(error)
                raise error

    with pytest.raises(StoreError, match="503"):
        await wrapped(Late(), Clock().retries(0), window).put_parts("a.bin", Memory().parts(2), size=2 * PART)
    assert window.limit == 8


# --- a whole save ------------------------------------------------------------------------------------


def saver_on(store: Store, clock: Clock, *, timeout: float = 60.0) -> Saver:
    saver = Saver(store, shard_bytes=1, memory_budget=10 * PART, concurrency=4, retry_timeout=timeout)
    saver._root.retries = clock.retries(timeout)
    saver._root.store = wrapped(store, saver._root.retries, RequestWindow(4))
    return saver


async def test_a_save_gets_through_a_store_that_throttles_parts_hard() -> None:
    state = {f"t{n}": np.random.default_rng(n).integers(0, 256, 40 * PART, np.uint8) for n in range(4)}

    class Throttling(UploadingStore):
        rng = random.Random(3)

        def refuse(self, what: str, count: int) -> StoreError | None:
            return busy() if self.rng.random() < 0.3 else None

    store = Throttling()
    async with saver_on(store, Clock()) as saver:
        saved = await saver.save(state, step=1)
        assert saved.stats is not None
        assert saved.stats.requests["part"] == store.parts_sent < 4 * 41 * 2
        assert saver._root.budget.used == 0
        restored = await saver.restore()
    assert all((restored[name] == array).all() for name, array in state.items())


async def test_a_part_that_is_always_refused_ends_the_save_after_one_period_not_two() -> None:
    class Down(UploadingStore):
        def refuse(self, what: str, count: int) -> StoreError | None:
            return busy() if what == "part 2" else None

    store, clock = Down(), Clock()
    async with saver_on(store, clock) as saver:
        with pytest.raises(StoreError, match="503"):
            await saver.save({"t": np.zeros(3 * PART, np.uint8)}, step=1)
        assert saver._root.budget.used == 0
    assert store.sent["begin"] == 1
    assert 60 <= clock.now <= 2 * 60
    assert store.unfinished == 0


async def test_a_client_that_has_sent_again_by_itself_leaves_that_much_less_time() -> None:
    clock = Clock()

    class Unasked(UploadingStore):
        async def put_parts(self, path: str, parts: AsyncIterable[Part], *, size: int, resend: Resend = NEVER) -> None:
            self.sent["upload"] += 1
            await clock.sleep(resend.timeout / 2)
            resend.failing_for(resend.timeout / 2)
            raise StoreError(f"{path} {size}: 503", retryable=True)

    store = Unasked()
    async with saver_on(store, clock) as saver:
        with pytest.raises(StoreError, match="503"):
            await saver.save({"t": np.zeros(3 * PART, np.uint8)}, step=1)
    assert store.sent["upload"] == 2
    assert 60 <= clock.now < 61


async def test_an_upload_that_is_lost_as_a_whole_is_begun_anew_with_the_same_bytes() -> None:
    inner = UploadingStore()
    faulty = FaultyStore(inner, [FailBefore(on("put_parts"), times=3, error=lambda _: busy())])
    array = np.arange(5 * PART, dtype=np.uint8)
    async with saver_on(faulty, Clock()) as saver:
        await saver.save({"t": array}, step=1)
        assert (await saver.restore())["t"].tobytes() == array.tobytes()
    assert [entry.operation.name for entry in faulty.injected] == ["put_parts"] * 3
    assert inner.sent["begin"] == 1
