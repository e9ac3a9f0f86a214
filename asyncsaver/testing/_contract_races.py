"""The part of the store contract about conditional writes, and clients that race for them."""

from __future__ import annotations

import asyncio

import pytest

from asyncsaver.errors import AsyncSaverError, ObjectExistsError, PreconditionFailedError, StoreError
from asyncsaver.store import ObjectInfo, Store

RACERS = 8


def _clients(store: Store, peer: Store | None) -> list[Store]:
    return [store if racer % 2 or peer is None else peer for racer in range(RACERS)]


def _winners(results: list[ObjectInfo | BaseException]) -> list[int]:
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, StoreError):
            raise result
    return [racer for racer, result in enumerate(results) if isinstance(result, ObjectInfo)]


class RaceTests:
    """put(mode="create") and replace_if."""

    async def test_create_writes_where_nothing_is(self, store: Store) -> None:
        created = await store.put("folder/new.bin", b"content", mode="create")
        assert (created.path, created.size) == ("folder/new.bin", 7)
        blob = await store.get("folder/new.bin")
        assert blob.data == b"content"
        if store.capabilities.compare_and_swap:
            assert created.etag
            assert blob.info.etag == created.etag

    async def test_create_is_refused_where_something_is(self, store: Store, peer: Store | None) -> None:
        if not store.capabilities.exclusive_create:
            pytest.skip("the store has no exclusive create")
        await store.put("object.bin", b"first", mode="create")
        for client in (store, peer or store):
            with pytest.raises(ObjectExistsError, match=r"object\.bin") as caught:
                await client.put("object.bin", b"second", mode="create")
            assert caught.value.path == "object.bin"
            assert not caught.value.retryable
        assert (await store.get("object.bin")).data == b"first"
        assert [info.path for info in (await store.list()).objects] == ["object.bin"]

    async def test_create_is_refused_over_an_empty_object(self, store: Store) -> None:
        if not store.capabilities.exclusive_create:
            pytest.skip("the store has no exclusive create")
        await store.put("object.bin", b"")
        with pytest.raises(ObjectExistsError):
            await store.put("object.bin", b"second", mode="create")
        assert (await store.head("object.bin")).size == 0

    async def test_create_works_again_after_a_delete(self, store: Store) -> None:
        await store.put("object.bin", b"first", mode="create")
        await store.delete(["object.bin"])
        await store.put("object.bin", b"second", mode="create")
        assert (await store.get("object.bin")).data == b"second"

    async def test_of_many_creators_exactly_one_wins(self, store: Store, peer: Store | None) -> None:
        if not store.capabilities.exclusive_create:
            pytest.skip("the store has no exclusive create")
        for path in ("race/0.bin", "race/1.bin", "race/2.bin"):
            results = await asyncio.gather(
                *(
                    client.put(path, f"racer {racer}".encode(), mode="create")
                    for racer, client in enumerate(_clients(store, peer))
                ),
                return_exceptions=True,
            )
            winners = _winners(results)
            assert len(winners) == 1, results
            assert (await store.get(path)).data == f"racer {winners[0]}".encode()

    async def test_replace_if_needs_the_current_etag(self, store: Store, peer: Store | None) -> None:
        if not store.capabilities.compare_and_swap:
            with pytest.raises(AsyncSaverError):
                await store.replace_if("object.bin", b"content", "etag")
            return
        first = await store.put("object.bin", b"first")
        assert first.etag
        second = await store.replace_if("object.bin", b"other", first.etag)
        assert (second.path, second.size) == ("object.bin", 5)
        assert second.etag
        assert second.etag != first.etag
        for client in (store, peer or store):
            with pytest.raises(PreconditionFailedError, match=r"object\.bin") as caught:
                await client.replace_if("object.bin", b"third", first.etag)
            assert caught.value.path == "object.bin"
            assert not caught.value.retryable
        blob = await store.get("object.bin")
        assert (blob.data, blob.info.etag) == (b"other", second.etag)
        await (peer or store).replace_if("object.bin", b"a third, longer version", second.etag)
        assert (await store.get("object.bin")).data == b"a third, longer version"

    async def test_replace_if_sees_ordinary_writes(self, store: Store) -> None:
        if not store.capabilities.compare_and_swap:
            pytest.skip("the store has no compare-and-swap")
        first = await store.put("object.bin", b"first")
        assert first.etag
        await store.put("object.bin", b"other")
        with pytest.raises(PreconditionFailedError):
            await store.replace_if("object.bin", b"third", first.etag)
        assert (await store.get("object.bin")).data == b"other"

    async def test_replace_if_does_not_bring_back_what_is_gone(self, store: Store) -> None:
        if not store.capabilities.compare_and_swap:
            pytest.skip("the store has no compare-and-swap")
        first = await store.put("object.bin", b"first")
        assert first.etag
        await store.delete(["object.bin"])
        with pytest.raises(PreconditionFailedError):
            await store.replace_if("object.bin", b"second", first.etag)
        assert list((await store.list()).objects) == []

    async def test_of_many_replacers_exactly_one_wins(self, store: Store, peer: Store | None) -> None:
        if not store.capabilities.compare_and_swap:
            pytest.skip("the store has no compare-and-swap")
        etag = (await store.put("object.bin", b"start")).etag
        for turn in range(3):
            assert etag
            results = await asyncio.gather(
                *(
                    client.replace_if("object.bin", f"racer {turn} {racer}".encode(), etag)
                    for racer, client in enumerate(_clients(store, peer))
                ),
                return_exceptions=True,
            )
            winners = _winners(results)
            assert len(winners) == 1, results
            blob = await store.get("object.bin")
            assert blob.data == f"racer {turn} {winners[0]}".encode()
            etag = blob.info.etag
