from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver.errors import ObjectExistsError, StoreError
from asyncsaver.store import Listing, Store
from asyncsaver.testing import StoreContract
from asyncsaver_backends.memory import MemoryStore, open_store


@pytest.fixture
def url() -> str:
    return f"memory://test-{uuid.uuid4().hex}"


class TestMemoryStore(StoreContract):
    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[Store]:
        async with MemoryStore(url) as store:
            yield store

    @pytest.fixture
    async def peer(self, url: str) -> AsyncIterator[Store]:
        async with MemoryStore(url + "/") as peer:
            yield peer


class TestMemoryStoreInAFolder(StoreContract):
    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[Store]:
        async with MemoryStore(url) as outside:
            await outside.put("run", b"a neighbour")
            await outside.put("run/10/object.bin", b"another neighbour")
        async with MemoryStore(f"{url}/run/1") as store:
            yield store


async def test_a_folder_is_a_prefix_of_the_same_store(url: str) -> None:
    async with MemoryStore(url) as outer, MemoryStore(f"{url}/a/b") as inner:
        await inner.put("object.bin", b"content")
        assert (await outer.get("a/b/object.bin")).data == b"content"


async def test_names_do_not_share_objects(url: str) -> None:
    async with MemoryStore(url) as one, MemoryStore(url + "-other") as other:
        await one.put("object.bin", b"content")
        assert (await other.list()).objects == ()


async def test_the_clock_stamps_objects(url: str) -> None:
    noon = datetime(2024, 5, 1, 12, tzinfo=UTC)
    async with MemoryStore(url, clock=lambda: noon) as store:
        await store.put("object.bin", b"content")
        assert (await store.head("object.bin")).modified == noon


@pytest.mark.parametrize("path", ["", "/absolute", "a//b", "../up", "a/../b", "./a", "folder/"])
async def test_paths_outside_the_root_are_refused(url: str, path: str) -> None:
    async with MemoryStore(url) as store:
        with pytest.raises(StoreError):
            await store.put(path, b"content")


# Of characters that sort before the slash, after it, and straight after it.
PATHS = st.lists(st.text("-0a", min_size=1, max_size=2), min_size=1, max_size=3).map("/".join)


@given(st.lists(st.tuples(PATHS, st.booleans()), max_size=30), st.just("") | PATHS.map("{}/".format), st.booleans())
def test_listings_are_what_looking_at_every_path_finds(
    changes: list[tuple[str, bool]], prefix: str, delimiter: bool
) -> None:
    expected: set[str] = set()

    async def change_and_list() -> Listing:
        async with MemoryStore(f"memory://test-{uuid.uuid4().hex}/root") as store:
            for path, stays in changes:
                await store.put(path, b"")
                expected.add(path)
                if not stays:
                    await store.delete([path])
                    expected.discard(path)
            return await store.list(prefix, delimiter=delimiter)

    listing = asyncio.run(change_and_list())
    found = {path for path in expected if path.startswith(prefix)}
    folded = {path for path in found if delimiter and "/" in path[len(prefix) :]}
    assert [info.path for info in listing.objects] == sorted(found - folded)
    assert list(listing.prefixes) == sorted({prefix + path[len(prefix) :].split("/")[0] + "/" for path in folded})


class CountingList(list[str]):
    looks = 0

    def __getitem__(self, index: Any) -> Any:
        self.looks += 1
        return super().__getitem__(index)


@pytest.mark.parametrize(("prefix", "delimiter", "count"), [("run-0500/", False, 10), ("", True, 1000)])
async def test_a_listing_looks_only_at_what_it_returns(url: str, prefix: str, delimiter: bool, count: int) -> None:
    async with MemoryStore(url) as store:
        for index in range(10_000):
            await store.put(f"run-{index // 10:04}/{index % 10}", b"")
        store._bucket.keys = keys = CountingList(store._bucket.keys)
        listing = await store.list(prefix, delimiter=delimiter)
    assert len(listing.objects) + len(listing.prefixes) == count
    assert count <= keys.looks <= 16 * (count + 1)  # a search among ten thousand takes fourteen looks


def test_loops_in_several_threads_share_a_store(url: str) -> None:
    won: list[int] = []

    async def create_all(racer: int) -> None:
        async with MemoryStore(url) as store:
            for index in range(200):
                try:
                    await store.put(f"{index}.bin", b"x", mode="create")
                except ObjectExistsError:
                    continue
                won.append(racer)

    threads = [threading.Thread(target=asyncio.run, args=(create_all(racer),)) for racer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 200


def test_options_it_does_not_know_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="colour"):
        open_store(url, storage_options={"colour": "blue"})
