"""One window of requests over all work on a store, which counts what it sends."""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import pytest

from asyncsaver.aio.meter import metered
from asyncsaver.aio.tasks import run_all
from asyncsaver.aio.window import RequestWindow
from asyncsaver.errors import ObjectNotFoundError, StoreError
from asyncsaver.store import NEVER, Buffer, ObjectInfo, Part, PutMode, Resend, Store
from asyncsaver.store.paced import PacedStore
from asyncsaver.store.retry import Retries, RetryingStore
from asyncsaver.testing import StoreContract
from asyncsaver_backends.memory import MemoryStore


@pytest.fixture
def url() -> str:
    return f"memory://test-{uuid.uuid4().hex}"


class TestPacedStore(StoreContract):
    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[Store]:
        async with PacedStore(MemoryStore(url), RequestWindow(2), Retries()) as store:
            yield store


class TestPacedStoreWithOneSlot(StoreContract):
    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[Store]:
        async with PacedStore(MemoryStore(url), RequestWindow(1), Retries()) as store:
            yield store


class CrowdedStore(MemoryStore):
    """Refuses requests that move data while as many as it bears are in flight; a request takes some turns of the loop."""

    def __init__(self, url: str, bears: int) -> None:
        super().__init__(url)
        self.bears = bears
        self.in_flight = 0
        self.most = 0
        self.sent = 0
        self.refused = 0

    @contextmanager
    def _flying(self) -> Iterator[None]:
        self.sent += 1
        self.in_flight += 1
        try:
            if self.in_flight > self.bears:
                self.refused += 1
                raise StoreError("503 slow down", retryable=True)
            self.most = max(self.most, self.in_flight)
            yield
        finally:
            self.in_flight -= 1

    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        with self._flying():
            for _ in range(7):
                await asyncio.sleep(0)
            return await super().put(path, data, mode=mode)

    async def get_into(self, path: str, ranges: Sequence[tuple[int, int]], buffers: Sequence[memoryview]) -> None:
        with self._flying():
            for _ in range(7):
                await asyncio.sleep(0)
            await super().get_into(path, ranges, buffers)

    async def put_parts(self, path: str, parts: AsyncIterable[Part], *, size: int, resend: Resend = NEVER) -> None:
        held: list[bytes] = []

        async def one(part: Part) -> None:
            with part as data, self._flying():
                for _ in range(7):
                    await asyncio.sleep(0)
                held.append(bytes(data))

        try:
            async with asyncio.TaskGroup() as group:
                async for part in parts:
                    group.create_task(one(part))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        assert sum(len(data) for data in held) == size


def retrying(store: Store, window: RequestWindow) -> RetryingStore:
    """Retries that pause for some turns of the loop, by a clock that the loop's turns move."""
    now = 0.0

    async def pause(seconds: float) -> None:
        nonlocal now
        now += 0.001
        for _ in range(1 + int(seconds * 20)):
            await asyncio.sleep(0)

    retries = Retries(60.0, sleep=pause, clock=lambda: now, rng=random.Random(1))
    return RetryingStore(PacedStore(store, window, retries), retries)


@pytest.mark.parametrize("bears", [1, 4, 8, 31])
async def test_a_store_that_throttles_is_soon_sent_no_more_than_it_bears(url: str, bears: int) -> None:
    crowded, window = CrowdedStore(url, bears), RequestWindow(32)
    store = retrying(crowded, window)
    door = asyncio.Semaphore(32)  # as many are being prepared as a save prepares

    async def one(number: int) -> None:
        async with door:
            await store.put(f"{number}.bin", b"%d" % number)

    await run_all(one(number) for number in range(600))
    assert len((await crowded.list()).objects) == 600
    assert crowded.sent == 600 + crowded.refused
    assert crowded.most == bears
    assert 0 < crowded.refused < 300, "by one that stays open, 1,000 and more; by 31, a few"
    assert window.limit <= bears + 1


async def test_without_a_window_the_same_store_refuses_far_more(url: str) -> None:
    """What the test above would measure if the window did nothing."""
    refused = []
    for narrows in (True, False):
        crowded = CrowdedStore(f"{url}-{narrows}", 2)
        window = RequestWindow(32)
        if not narrows:
            window.refused = lambda era: None  # type: ignore[method-assign]
        store = retrying(crowded, window)
        await run_all(store.put(f"{number}.bin", b"x") for number in range(300))
        refused.append(crowded.refused)
    assert refused[0] * 2 < refused[1]


async def test_reading_and_writing_share_the_window(url: str) -> None:
    crowded, window = CrowdedStore(url, 4), RequestWindow(32)
    await MemoryStore(url).put("old.bin", bytes(range(100)))
    store = retrying(crowded, window)
    buffers = [bytearray(1) for _ in range(100)]
    await run_all(
        [
            *(store.put(f"{number}.bin", b"x") for number in range(100)),
            *(store.get_into("old.bin", [(n, n + 1)], [memoryview(buffer)]) for n, buffer in enumerate(buffers)),
        ]
    )
    assert b"".join(buffers) == bytes(range(100))
    assert crowded.most == 4
    assert window.limit <= 5


async def parts_of(count: int) -> AsyncIterator[Part]:
    for _ in range(count):
        yield nullcontext(memoryview(b"xy"))


async def test_parts_share_the_window_and_a_refused_upload_gives_all_slots_back(url: str) -> None:
    crowded, window = CrowdedStore(url, 2), RequestWindow(8)
    store = PacedStore(crowded, window, Retries())
    sizes = []
    while window.limit > 2:
        with pytest.raises(StoreError, match="503"):
            await store.put_parts("large.bin", parts_of(20), size=40)
        sizes.append(window.limit)
        await store.put("small.bin", b"x")
    assert sizes == [4, 2]
    await store.put_parts("large.bin", parts_of(2), size=4)
    assert crowded.most == 2
    await asyncio.wait_for(window.acquire(window.limit), 10)


async def test_parts_that_were_handed_over_but_never_entered_give_their_slots_back(url: str) -> None:
    class Careless(MemoryStore):
        async def put_parts(self, path: str, parts: AsyncIterable[Part], *, size: int, resend: Resend = NEVER) -> None:
            iterator = aiter(parts)
            for _ in range(3):
                await anext(iterator)
            raise StoreError("reset", retryable=True)

    window = RequestWindow(4)
    with pytest.raises(StoreError, match="reset"):
        await PacedStore(Careless(url), window, Retries()).put_parts("large.bin", parts_of(5), size=10)
    assert window.limit == 2
    for _ in range(2):
        await asyncio.wait_for(window.acquire(), 10)


async def test_commits_and_records_do_not_stand_in_line_behind_data(url: str) -> None:
    window = RequestWindow(1)
    store = PacedStore(MemoryStore(url), window, Retries())
    await store.put("there.bin", b"there")
    await window.acquire()
    data = asyncio.create_task(store.put("data.bin", b"data"))
    made = await store.put("manifest.json", b"{}", mode="create")
    assert made.etag is not None
    await store.replace_if("manifest.json", b"{ }", made.etag)
    assert (await store.get("manifest.json")).data == b"{ }"
    assert [item.path for item in (await store.list()).objects] == ["manifest.json", "there.bin"]
    assert (await store.head("there.bin")).size == 5
    assert await store.delete(["there.bin"]) == {}
    assert not data.done()
    window.release()
    await data


REFUSED: dict[str, Callable[[Store], Awaitable[object]]] = {
    "create": lambda store: store.put("a", b"", mode="create"),
    "put": lambda store: store.put("a", b""),
    "get": lambda store: store.get("a"),
    "get_range": lambda store: store.get_into("a", [(0, 1)], [memoryview(bytearray(1))]),
    "head": lambda store: store.head("a"),
    "list": lambda store: store.list(),
    "delete": lambda store: store.delete(["a"]),
    "replace": lambda store: store.replace_if("a", b"", "1"),
    "put_parts": lambda store: store.put_parts("a", parts_of(1), size=2),
}


class Answering(MemoryStore):
    """Answers everything with an error."""

    def __init__(self, url: str, error: StoreError) -> None:
        super().__init__(url)
        self._error = error

    async def _fail(self, *_: object, **__: object) -> object:
        raise self._error

    put = get = get_into = head = list = delete = replace_if = put_parts = _fail  # type: ignore[assignment]


@pytest.mark.parametrize("kind", REFUSED)
async def test_any_refusal_narrows_the_window_and_any_answer_shows_life(url: str, kind: str) -> None:
    window, retries = RequestWindow(8), Retries(clock=lambda: 5.0)
    with metered() as meter, pytest.raises(StoreError, match="busy"):
        await REFUSED[kind](PacedStore(Answering(url, StoreError("busy", retryable=True)), window, retries))
    assert meter.requests == {kind: 1}
    assert window.limit == 4
    assert retries.answers.latest < 0
    with pytest.raises(ObjectNotFoundError):
        await REFUSED[kind](PacedStore(Answering(url, ObjectNotFoundError("gone")), window, retries))
    assert window.limit == 4
    assert retries.answers.latest == 5.0


async def test_a_deletion_that_was_throttled_in_part_narrows_the_window(url: str) -> None:
    class Throttled(MemoryStore):
        async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
            return {path: StoreError("slow down", retryable=path == "b") for path in paths}

    window, retries = RequestWindow(8), Retries(clock=lambda: 5.0)
    store = PacedStore(Throttled(url), window, retries)
    await store.delete(["a", "b"])
    assert window.limit == 4
    assert retries.answers.latest < 0
    await store.delete(["a"])
    assert window.limit == 4
    assert retries.answers.latest == 5.0


async def test_every_try_counts_as_a_request_and_every_further_one_as_a_retry(url: str) -> None:
    crowded = CrowdedStore(url, 1)
    store = retrying(crowded, RequestWindow(4))
    with metered() as meter:
        await run_all(store.put(f"{number}.bin", b"x") for number in range(4))
        await store.put_parts("large.bin", parts_of(1), size=2)
        await store.get_into("0.bin", [(0, 1), (0, 0)], [memoryview(bytearray(1)), memoryview(bytearray(0))])
    assert meter.requests == {"put": 4 + crowded.refused, "put_parts": 1, "part": 1, "get_range": 1}
    assert meter.retries == crowded.refused > 0
    assert meter.bytes_read == 1


async def test_a_put_that_is_cancelled_in_line_or_in_flight_gives_its_slot_back(url: str) -> None:
    crowded, window = CrowdedStore(url, 8), RequestWindow(1)
    store = PacedStore(crowded, window, Retries())
    flying, waiting = (asyncio.create_task(store.put(path, b"x")) for path in ("a", "b"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert crowded.in_flight == 1
    for task in (waiting, flying):
        task.cancel()
    await asyncio.wait([waiting, flying])
    assert waiting.cancelled()
    assert flying.cancelled()
    assert crowded.sent == 1
    await asyncio.wait_for(store.put("c", b"x"), 10)
