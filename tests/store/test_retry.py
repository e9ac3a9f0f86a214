from __future__ import annotations

import logging
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest

from asyncsaver.errors import ObjectNotFoundError, StoreError, StoreTimeoutError
from asyncsaver.store import NEVER, Blob, Buffer, Listing, ObjectInfo, Part, PutMode, Resend, Store
from asyncsaver.store.retry import Retries, RetryingStore
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

    async def put_parts(self, path: str, parts: object, *, size: int, resend: Resend = NEVER) -> None:
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
    """Stands in for asyncio.sleep and the clock, and notes what it was asked for."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.now = 1000.0

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        self.now += seconds

    def retries(self, timeout: float = 60.0, **arguments: Any) -> Retries:
        return Retries(timeout, sleep=self, clock=lambda: self.now, **arguments)


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
    store = RetryingStore(inner, pauses.retries())
    await IDEMPOTENT[name](store)
    assert inner.calls == [name] * 4
    assert len(pauses.seconds) == 3


@pytest.mark.parametrize("name", ONCE)
async def test_other_calls_are_sent_once(url: str, name: str) -> None:
    inner = FailingStore(url, [busy()])
    pauses = Pauses()
    with pytest.raises(StoreError, match="503"):
        await ONCE[name](RetryingStore(inner, pauses.retries()))
    assert inner.calls == [name]
    assert pauses.seconds == []


async def test_all_tries_share_one_deadline(url: str) -> None:
    errors = [busy() for _ in range(20)]
    inner = FailingStore(url, errors)
    pauses = Pauses()
    with pytest.raises(StoreError) as caught:
        await RetryingStore(inner, pauses.retries(10.0, base=1.0, cap=4.0, rng=Longest())).get("object.bin")
    assert pauses.seconds == [1.0, 2.0, 4.0, 3.0]
    assert caught.value is errors[4]
    assert len(inner.calls) == 5


async def test_a_try_that_failed_late_gets_another(url: str) -> None:
    """The deadline counts from the first failure, not from the beginning of a long upload."""
    pauses = Pauses()

    class Slow(FailingStore):
        def _called(self, name: str) -> None:
            pauses.now += 100.0
            super()._called(name)

    inner = Slow(url, [timed_out() for _ in range(9)])
    with pytest.raises(StoreTimeoutError):
        await RetryingStore(inner, pauses.retries(60.0)).head("object.bin")
    assert inner.calls == ["head"] * 2


@pytest.mark.parametrize("name", IDEMPOTENT)
async def test_without_time_everything_is_sent_once(url: str, name: str) -> None:
    inner = FailingStore(url, [busy()])
    pauses = Pauses()
    with pytest.raises(StoreError, match="503"):
        await IDEMPOTENT[name](RetryingStore(inner, pauses.retries(0)))
    assert inner.calls == [name]
    assert pauses.seconds == []


async def test_errors_not_worth_it_are_raised_at_once(url: str) -> None:
    inner = FailingStore(url, [])
    with pytest.raises(ObjectNotFoundError):
        await RetryingStore(inner, Pauses().retries()).get("missing.bin")
    assert inner.calls == ["get"]


async def test_pauses_double_up_to_the_cap_and_jitter_fills_them(url: str) -> None:
    pauses, jittered = Pauses(), Pauses()
    for slept, rng in ((pauses, Longest()), (jittered, random.Random(7))):
        inner = FailingStore(url, [busy() for _ in range(5)])
        await RetryingStore(inner, slept.retries(base=0.5, cap=3.0, rng=rng)).list()
    assert pauses.seconds == [0.5, 1.0, 2.0, 3.0, 3.0]
    assert all(0 <= drawn <= most for drawn, most in zip(jittered.seconds, pauses.seconds, strict=True))
    assert len(set(jittered.seconds)) == 5


async def test_retries_are_logged_and_become_warnings(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="asyncsaver.store")
    await MemoryStore(url).put("object.bin", b"content")
    await RetryingStore(FailingStore(url, [busy() for _ in range(6)]), Pauses().retries()).get("object.bin")
    assert {record.name for record in caplog.records} == {"asyncsaver.store"}
    assert [record.levelno for record in caplog.records] == [logging.INFO] * 4 + [logging.WARNING] * 2
    assert "object.bin" in caplog.records[0].getMessage()
    assert "503" in caplog.records[0].getMessage()


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
    failed = await RetryingStore(inner, Pauses().retries()).delete(["fine", "locked", "busy"])
    assert inner.batches == [["fine", "locked", "busy"], ["busy"], ["busy"]]
    assert list(failed) == ["locked"]
    inner.batches.clear()
    last = await RetryingStore(inner, Pauses().retries(0)).delete(["busy"])
    assert list(last) == ["busy"]
    assert inner.batches == [["busy"]]


async def test_deleting_that_fails_as_a_whole_and_in_part_shares_one_deadline(url: str) -> None:
    class Down(FailingStore):
        async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
            self.calls.append("delete")
            if len(self.calls) % 2:
                raise busy()
            return {path: timed_out() for path in paths}

    inner, pauses = Down(url, []), Pauses()
    with pytest.raises(StoreError, match="503"):
        await RetryingStore(inner, pauses.retries(10.0, base=1.0, cap=4.0, rng=Longest())).delete(["a", "b"])
    assert pauses.seconds == [1.0, 2.0, 4.0, 3.0]
    assert len(inner.calls) == 5


@pytest.mark.parametrize("timeout", [-1.0, float("nan")])
def test_a_time_that_makes_no_sense(timeout: float) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        Retries(timeout)


class OthersAnswered(Pauses):
    """While the caller pauses, the store answers others, until a given time."""

    def __init__(self, until: float) -> None:
        super().__init__()
        self._until = 1000.0 + until
        self.shared: Retries | None = None

    async def __call__(self, seconds: float) -> None:
        await super().__call__(seconds)
        if self.shared is not None and self.now <= self._until:
            self.shared.answered()


@pytest.mark.parametrize(("until", "gives_up_at"), [(0, 10), (7, 17), (25, 35), (39, 49), (41, 50), (1e9, 50)])
async def test_while_the_store_answers_others_a_request_is_sent_again_but_not_for_ever(
    url: str, until: float, gives_up_at: float
) -> None:
    pauses = OthersAnswered(until)
    pauses.shared = pauses.retries(10.0, base=1.0, cap=1.0, rng=Longest())
    inner = FailingStore(url, [busy() for _ in range(200)])
    with pytest.raises(StoreError, match="503"):
        await RetryingStore(inner, pauses.shared).get("object.bin")
    assert sum(pauses.seconds) == gives_up_at
    assert len(inner.calls) == gives_up_at + 1


async def test_an_answer_from_before_the_first_failure_gives_no_more_time(url: str) -> None:
    pauses = Pauses()
    retries = pauses.retries(10.0, base=1.0, cap=1.0, rng=Longest())
    retries.answered()
    pauses.now += 100
    with pytest.raises(StoreError, match="503"):
        await RetryingStore(FailingStore(url, [busy() for _ in range(50)]), retries).get("object.bin")
    assert sum(pauses.seconds) == 10


async def test_without_time_everything_is_sent_once_even_while_others_are_answered(url: str) -> None:
    pauses = OthersAnswered(1e9)
    pauses.shared = pauses.retries(0)
    pauses.shared.answered()
    inner = FailingStore(url, [busy()])
    with pytest.raises(StoreError, match="503"):
        await RetryingStore(inner, pauses.shared).get("object.bin")
    assert inner.calls == ["get"]
