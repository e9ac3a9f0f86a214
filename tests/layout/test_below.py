"""A folder of a store is a store."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from asyncsaver.errors import StoreError
from asyncsaver.store import Store
from asyncsaver.store.below import Below
from asyncsaver.testing import StoreContract
from asyncsaver_backends.memory import MemoryStore


@pytest.fixture
def url() -> str:
    return f"memory://test-{uuid.uuid4().hex}/run"


class _Closing(Below):
    """Closes the other store as well, which the contract asks for."""

    async def close(self) -> None:
        await self._store.close()


class TestBelow(StoreContract):
    @pytest.fixture
    async def store(self, url: str) -> AsyncIterator[Store]:
        outer = MemoryStore(url)
        await outer.put(".record/object.bin", b"a neighbour")
        async with _Closing(outer, ".records") as store:
            yield store

    @pytest.fixture
    async def peer(self, url: str) -> AsyncIterator[Store]:
        async with MemoryStore(f"{url}/.records") as peer:
            yield peer


async def test_it_stays_in_its_folder_and_leaves_the_other_store_open(url: str) -> None:
    async with MemoryStore(url) as outer:
        async with Below(outer, "a/b") as inner:
            assert inner.url == f"{url}/a/b"
            await inner.put("c/object.bin", b"content")
            await inner.put_pieces("pieces.bin", [memoryview(b"x"), memoryview(b"y")])
            assert (await inner.list(delimiter=True)).prefixes == ["c/"]
            assert await inner.purge(timedelta(0)) == 0
        assert [item.path for item in (await outer.list()).objects] == ["a/b/c/object.bin", "a/b/pieces.bin"]


@pytest.mark.parametrize("folder", ["", "/a", "a//b", "../a"])
def test_a_folder_is_below(url: str, folder: str) -> None:
    with pytest.raises(StoreError, match="is not a path"):
        Below(MemoryStore(url), folder)


async def test_what_could_not_be_deleted_has_its_own_path(url: str) -> None:
    class Refusing(MemoryStore):
        async def delete(self, paths: Any) -> Any:
            return {path: StoreError("no") for path in paths}

    async with Refusing(url) as outer:
        assert list(await Below(outer, "a").delete(["x/y", "a/z"])) == ["x/y", "a/z"]
