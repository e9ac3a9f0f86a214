from __future__ import annotations

import logging
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence

import pytest

from asyncsaver.errors import ObjectNotFoundError, StoreError, StoreTimeoutError
from asyncsaver.store import Blob, Buffer, Listing, ObjectInfo, Part, PutMode, Store
from asyncsaver.store.retry import RetryingStore
from asyncsaver.testing import StoreContract
from asyncsaver_backends.memory import MemoryStore


class FailingStore(MemoryStore):
    """Fails the first calls, each with the next of the errors given, and counts them all."""

    def __init__(self, url: str, errors: Sequence[StoreError]) -> None:
        super().__init__(url)
        self._errors = list(errors)
        self.calls: list[str] = []

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self._errors:
            raise self._errors.pop(0)

    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        self._called("put")
        return await super().put(path, data, mode=mode)

    async def put_parts(self, path: str, parts: object, *, size: int) -> None:
        self._called("put_parts")

    async def get(self, path: str) -> Blob:
        self._called("get")
        return await super().get(path)

    async def get_into(self, path: str, ranges: Sequence[tuple[int, int]], buffers: Sequence[memoryview]) -> None:
        self._called("get_into")
        await super().get_into(path, ranges, buffers)

    async def head(self, path: str) -> ObjectInfo:
        self._called("head")
        return await super().head(path)

    async def list(self, prefix: str = "", *, delimiter: bool = False) -> Listing:
        self._called("list")
        return await super().list(prefix, delimiter=delimiter)

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        self._called("delete")
        return await super().delete(paths)

    async def replace_if(self, path: str, data: Buffer, etag: str) -> ObjectInfo:
        self._called("replace_if")
        return await super().replace_if(path, data, etag)


class Pauses:
    """Stands in for asyncio.sleep and notes what it was asked for."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


class Longest(random.Random):
    """Always draws the longest pause."""

    def uniform(self, a: float, b: float) -> float:
        return max(a, b)


@pytest.fixture
def url() -> str:
    return f"memory://test-{uuid.uuid4().hex}"


def busy() -> StoreError:
    return StoreError("503 slow down", retryable=True, path="object.bin")


def timed_out() -> StoreError:
    return StoreTimeoutError("no answer", path="object.bin")


IDEMPOTENT: dict[str, Callable[[Store], Awaitable[object]]] = {
    "put": lambda store: store.put("object.bin", b"content"),
    "get": lambda store: store.get("object.bin"),
    "get_into": lambda store: store.get_into("object.bin", [(0, 1)], [memoryview(bytearray(1))]),
    "head": lambda store: store.head("object.bin"),
    "list": lambda store: store.list(),
    "delete": lambda store: store.delete(["object.bin"]),
}


async def _no_parts() -> AsyncIterator[Part]:
    for part in ():
        yield part


ONCE: dict[str, Callable[[Store], Awaitable[object]]] = {
    "put": lambda store: store.put("object.bin", b"content", mode="create"),
    "put_parts": lambda store: store.put_parts("object.bin", _no_parts(), size=1),
    "replace_if": lambda store: store.replace_if("object.bin", b"content", "1"),
}


class TestRetryingStore(StoreContract):
    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[Store]:
        async with RetryingStore(MemoryStore(url)) as store:
            yield store


@pytest.mark.parametrize("name", IDEMPOTENT)
async def test_idempotent_calls_are_sent_again(url: str, name: str) -> None:
    await MemoryStore(url).put("object.bin", b"content")
    inner = FailingStore(url, [busy(), timed_out(), busy()])
    pauses = Pauses()
    store = RetryingStore(inner, attempts=4, sleep=pauses)
    await IDEMPOTENT[name](store)
    assert inner.calls == [name] * 4
    assert len(pauses.seconds) == 3


@pytest.mark.parametrize("name", ONCE)
async def test_other_calls_are_sent_once(url: str, name: str) -> None:
    inner = FailingStore(url, [busy()])
    pauses = Pauses()
    with pytest.raises(StoreError, match="503"):
        await ONCE[name](RetryingStore(inner, sleep=pauses))
    assert inner.calls == [name]
    assert pauses.seconds == []


async def test_gives_up_after_the_last_attempt_with_its_error(url: str) -> None:
    errors = [busy() for _ in range(5)]
    inner = FailingStore(url, errors)
    pauses = Pauses()
    with pytest.raises(StoreError) as caught:
        await RetryingStore(inner, attempts=3, sleep=pauses).get("object.bin")
    assert caught.value is errors[2]
    assert len(inner.calls) == 3
    assert len(pauses.seconds) == 2


async def test_errors_not_worth_it_are_raised_at_once(url: str) -> None:
    inner = FailingStore(url, [])
    with pytest.raises(ObjectNotFoundError):
        await RetryingStore(inner, sleep=Pauses()).get("missing.bin")
    assert inner.calls == ["get"]


async def test_pauses_double_up_to_the_cap_and_jitter_fills_them(url: str) -> None:
    pauses = Pauses()
    store = RetryingStore(
        FailingStore(url, [busy() for _ in range(5)]), attempts=6, base=0.5, cap=3.0, sleep=pauses, rng=Longest()
    )
    await store.list()
    assert pauses.seconds == [0.5, 1.0, 2.0, 3.0, 3.0]
    jittered = Pauses()
    store = RetryingStore(
        FailingStore(url, [busy() for _ in range(5)]),
        attempts=6,
        base=0.5,
        cap=3.0,
        sleep=jittered,
        rng=random.Random(7),
    )
    await store.list()
    assert all(0 <= drawn <= most for drawn, most in zip(jittered.seconds, pauses.seconds, strict=True))
    assert len(set(jittered.seconds)) == 5


async def test_retries_are_logged(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="asyncsaver.store")
    await MemoryStore(url).put("object.bin", b"content")
    await RetryingStore(FailingStore(url, [busy()]), sleep=Pauses()).get("object.bin")
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("asyncsaver.store", logging.INFO)
    assert "object.bin" in record.getMessage()
    assert "503" in record.getMessage()


async def test_only_what_could_not_be_deleted_is_sent_again(url: str) -> None:
    class Stubborn(MemoryStore):
        def __init__(self, url: str) -> None:
            super().__init__(url)
            self.batches: list[list[str]] = []

        async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
            self.batches.append(list(paths))
            failed: dict[str, StoreError] = {}
            if "locked" in paths:
                failed["locked"] = StoreError("locked for good", path="locked")
            if len(self.batches) < 3 and "busy" in paths:
                failed["busy"] = busy()
            return failed

    inner = Stubborn(url)
    failed = await RetryingStore(inner, sleep=Pauses()).delete(["fine", "locked", "busy"])
    assert inner.batches == [["fine", "locked", "busy"], ["busy"], ["busy"]]
    assert list(failed) == ["locked"]
    inner.batches.clear()
    last = await RetryingStore(inner, attempts=2, sleep=Pauses()).delete(["busy"])
    assert list(last) == ["busy"]


def test_at_least_one_attempt(url: str) -> None:
    with pytest.raises(ValueError, match="attempts"):
        RetryingStore(MemoryStore(url), attempts=0)
