from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import uuid
from collections.abc import Mapping, Sequence

import pytest

from asyncsaver.errors import ObjectExistsError, StoreError, StoreTimeoutError, UnsupportedStoreError
from asyncsaver.store import Buffer, ObjectInfo, PutMode, Store
from asyncsaver.store.probe import probe_exclusive_create
from asyncsaver_backends.memory import MemoryStore


@pytest.fixture
def url() -> str:
    return f"memory://test-{uuid.uuid4().hex}"


class Careless(MemoryStore):
    """Ignores the precondition, as ``rclone serve s3`` does."""

    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        return await super().put(path, data)


class Deceitful(MemoryStore):
    """Refuses the second creator, but has written its content."""

    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        try:
            return await super().put(path, data, mode=mode)
        except ObjectExistsError:
            await super().put(path, data)
            raise


class LooksFirst(MemoryStore):
    """Looks, and then writes: right one at a time, wrong when two race."""

    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        if mode == "create":
            there = [info.path for info in (await self.list()).objects]
            await asyncio.sleep(0)
            if path in there:
                raise ObjectExistsError(path, path=path)
        return await super().put(path, data)


class Unclear(MemoryStore):
    """Refuses without saying why, as a 412 that became ``OSError(22)``."""

    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        try:
            return await super().put(path, data, mode=mode)
        except ObjectExistsError as exc:
            raise StoreError("Invalid argument", path=path) from exc


class WithoutLinks(MemoryStore):
    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        raise UnsupportedStoreError("no hard links here")


class Down(MemoryStore):
    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        await super().put(path, data)
        raise StoreTimeoutError("no answer", retryable=True, path=path)

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        await super().delete(paths)
        raise StoreTimeoutError("no answer", retryable=True)


@pytest.mark.parametrize(
    ("kind", "real"),
    [
        (MemoryStore, True),
        (Unclear, True),
        (Careless, False),
        (Deceitful, False),
        (LooksFirst, False),
        (WithoutLinks, False),
    ],
)
async def test_the_probe_tells_and_cleans_up(url: str, kind: type[MemoryStore], real: bool) -> None:
    store = kind(url)
    assert await probe_exclusive_create(store, token="t1") is real
    assert list((await store.list()).objects) == []


async def test_a_store_that_says_no_is_not_asked(url: str) -> None:
    class Modest(WithoutLinks):
        pass

    store = Modest(url)
    store.capabilities = dataclasses.replace(store.capabilities, exclusive_create=False)
    store.put = None  # type: ignore[method-assign, assignment]
    assert await probe_exclusive_create(store, token="t1") is False


async def test_what_cannot_be_found_out_is_raised(url: str) -> None:
    with pytest.raises(StoreTimeoutError):
        await probe_exclusive_create(Down(url), token="t1")
    assert list((await MemoryStore(url).list()).objects) == []


async def test_a_cancelled_probe_cleans_up(url: str) -> None:
    reached = asyncio.Event()

    class Stalls(MemoryStore):
        async def get(self, path: str) -> object:  # type: ignore[override]
            reached.set()
            await asyncio.Event().wait()

    store: Store = Stalls(url)
    task = asyncio.create_task(probe_exclusive_create(store, token="t1"))
    await reached.wait()
    assert list((await store.list()).objects) != []
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list((await store.list()).objects) == []


class SendsAgain(MemoryStore):
    """Sends a creation again whose answer was lost, as HTTP clients do, and reports the second answer."""

    def __init__(self, url: str, lost: str) -> None:
        super().__init__(url)
        self._lost = lost

    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        if mode == "create" and self._lost in path:
            with contextlib.suppress(ObjectExistsError):
                await super().put(path, data, mode=mode)
        return await super().put(path, data, mode=mode)


@pytest.mark.parametrize("lost", ["in-turn", "race"])
async def test_a_creator_refused_because_of_itself_says_nothing_against_the_store(url: str, lost: str) -> None:
    assert await probe_exclusive_create(SendsAgain(url, lost), token="t")
    assert not (await MemoryStore(url).list()).objects
