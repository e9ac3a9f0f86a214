"""The part of the store contract about single objects, listings and closing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any, ClassVar

import numpy as np
import pytest

from asyncsaver.errors import ObjectNotFoundError, ObjectTruncatedError, StoreError
from asyncsaver.store import Buffer, Store


def _bodies() -> dict[str, Buffer]:
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    read_only = np.arange(7, dtype=np.uint16)
    read_only.flags.writeable = False
    return {
        "bytes": b"bytes",
        "bytearray": bytearray(b"bytearray"),
        "memoryview": memoryview(b"memoryview"),
        "slice": memoryview(bytearray(b"__slice__"))[2:-2],
        "float matrix": matrix.data,
        "rows of a matrix": matrix[1:].data,
        "read-only array": read_only.data,
        "empty memoryview": memoryview(b""),
        "array of shape (0, 3)": np.empty((0, 3)).data,
    }


async def listed(store: Store, prefix: str = "") -> list[str]:
    """The paths that the store lists below a prefix."""
    return [info.path for info in (await store.list(prefix)).objects]


async def put_many(store: Store, paths: Sequence[str]) -> None:
    """Write small objects, each holding its own path, a few at a time."""
    free = asyncio.Semaphore(32)

    async def put(path: str) -> None:
        async with free:
            await store.put(path, path.encode())

    async with asyncio.TaskGroup() as group:
        for path in paths:
            group.create_task(put(path))


class ObjectTests:
    """put, get, get_into, head, list, delete, close."""

    listing_count: ClassVar[int] = 1100
    unusual_paths: ClassVar[Sequence[str]] = (
        "with space/and more.bin",
        "ünïcødé/検査点.bin",
        "percent%20encoded%.bin",
        "plus+plus.bin",
        "hash#fragment.bin",
        "question?mark=1&more.bin",
        "brackets[0]*.bin",
        "at@colon;equals=,~quote'.bin",
        ".hidden/.file",
    )

    async def test_put_then_get_gives_the_bytes_back(self, store: Store) -> None:
        written = await store.put("a/b/object.bin", b"content")
        assert (written.path, written.size) == ("a/b/object.bin", 7)
        blob = await store.get("a/b/object.bin")
        assert blob.data == b"content"
        assert type(blob.data) is bytes
        assert (blob.info.path, blob.info.size) == ("a/b/object.bin", 7)

    async def test_head_describes_without_reading(self, store: Store) -> None:
        await store.put("object.bin", b"content")
        info = await store.head("object.bin")
        assert (info.path, info.size) == ("object.bin", 7)
        if info.modified is not None:
            assert info.modified.utcoffset() == timedelta(0)

    async def test_etags_agree_and_change_with_the_object(self, store: Store) -> None:
        if not store.capabilities.compare_and_swap:
            pytest.skip("the store has no compare-and-swap")
        first = await store.put("object.bin", b"first")
        assert first.etag
        assert (await store.head("object.bin")).etag == first.etag
        assert (await store.get("object.bin")).info.etag == first.etag
        second = await store.put("object.bin", b"other")  # the same size
        assert second.etag
        assert second.etag != first.etag
        assert (await store.head("object.bin")).etag == second.etag

    @pytest.mark.parametrize("kind", _bodies())
    async def test_any_buffer_is_written_as_plain_bytes(self, store: Store, kind: str) -> None:
        body = _bodies()[kind]
        expected = memoryview(body).tobytes()
        written = await store.put("object.bin", body)
        assert written.size == len(expected)
        assert (await store.get("object.bin")).data == expected
        assert memoryview(body).tobytes() == expected, "put changed the caller's buffer"

    async def test_pieces_are_written_as_one_object(self, store: Store) -> None:
        pieces = [memoryview(b"head"), memoryview(bytearray(300_000)), memoryview(b"tail")]
        await store.put("object.bin", b"what was there")
        written = await store.put_pieces("object.bin", pieces)
        assert (written.path, written.size) == ("object.bin", 300_008)
        assert (await store.get("object.bin")).data == b"".join(pieces)

    async def test_a_buffer_is_free_once_put_has_returned(self, store: Store) -> None:
        body = bytearray(b"before")
        await store.put("object.bin", body)
        body[:] = b"after!"
        assert (await store.get("object.bin")).data == b"before"

    async def test_put_replaces_whole(self, store: Store) -> None:
        await store.put("object.bin", b"a longer first version")
        await store.put("object.bin", b"short")
        assert (await store.get("object.bin")).data == b"short"
        assert (await store.head("object.bin")).size == 5

    async def test_empty_objects(self, store: Store) -> None:
        await store.put("empty.bin", b"")
        assert (await store.get("empty.bin")).data == b""
        assert (await store.head("empty.bin")).size == 0
        assert [(info.path, info.size) for info in (await store.list()).objects] == [("empty.bin", 0)]

    async def test_readers_see_one_version_whole(self, store: Store) -> None:
        versions = [b"a" * 300_000, b"b" * 100_000, b"c" * 200_000]
        await store.put("object.bin", versions[0])
        done = asyncio.Event()
        seen: list[bytes] = []

        async def read() -> None:
            while not done.is_set():
                try:
                    seen.append((await store.get("object.bin")).data)
                except StoreError as error:
                    if not error.retryable:  # a server under test may stumble over a reader and a writer at once
                        raise
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            group.create_task(read())
            for turn in range(12):
                await store.put("object.bin", versions[turn % 3])
                await asyncio.sleep(0)
            done.set()
        assert seen
        assert all(data in versions for data in seen)

    async def test_missing_objects_are_reported_with_their_path(self, store: Store) -> None:
        await store.put("folder/there.bin", b"x")
        for path in ("folder/missing.bin", "no/such/folder/missing.bin"):
            for call in (store.get(path), store.head(path), store.get_into(path, [(0, 1)], [memoryview(bytearray(1))])):
                with pytest.raises(ObjectNotFoundError, match=r"missing\.bin") as caught:
                    await call
                assert caught.value.path == path
                assert not caught.value.retryable

    async def test_a_folder_is_no_object(self, store: Store) -> None:
        await store.put("folder/there.bin", b"x")
        with pytest.raises(ObjectNotFoundError):
            await store.get("folder")
        with pytest.raises(ObjectNotFoundError):
            await store.head("folder")

    async def test_get_into_fills_every_range(self, store: Store) -> None:
        content = np.random.default_rng(0).bytes(100_000)
        await store.put("object.bin", content)
        ranges = [(start, start + 997) for start in range(0, 90_000, 4_500)]
        ranges += [(0, 100_000), (5, 5), (99_999, 100_000), (50, 60), (50, 60)]
        memory = [bytearray(stop - start) for start, stop in ranges]
        await store.get_into("object.bin", ranges, [memoryview(buffer) for buffer in memory])
        assert memory == [content[start:stop] for start, stop in ranges]

    async def test_get_into_fills_slices_of_an_array_and_nothing_else(self, store: Store) -> None:
        source = np.arange(4_000, dtype=np.int64).reshape(40, 100)
        await store.put("object.bin", source.data)
        target = np.zeros_like(source)
        row = source.shape[1] * source.itemsize
        await store.get_into(
            "object.bin",
            [(3 * row, 5 * row), (10 * row, 11 * row)],
            [target[3:5].data.cast("B"), target[10].data.cast("B")],
        )
        expected = np.zeros_like(source)
        expected[3:5], expected[10] = source[3:5], source[10]
        np.testing.assert_array_equal(target, expected)

    @pytest.mark.parametrize(("start", "stop"), [(5, 11), (10, 12), (100, 120), (0, 11)])
    async def test_ranges_past_the_end_are_errors(self, store: Store, start: int, stop: int) -> None:
        await store.put("object.bin", b"0123456789")
        buffer = memoryview(bytearray(stop - start))
        with pytest.raises(ObjectTruncatedError, match=r"object\.bin") as caught:
            await store.get_into("object.bin", [(0, 2), (start, stop)], [memoryview(bytearray(2)), buffer])
        assert caught.value.path == "object.bin"

    async def test_listing_is_in_order_and_complete(self, store: Store) -> None:
        assert await listed(store) == []
        paths = ["b.bin", "a/2.bin", "a/10.bin", "a/nested/1.bin", "a.bin", "a-b/1.bin", "Z.bin", "ab/1.bin"]
        await put_many(store, paths)
        objects = (await store.list()).objects
        assert [info.path for info in objects] == sorted(paths)
        assert [info.size for info in objects] == [len(path) for path in sorted(paths)]
        assert await listed(store, "a/") == ["a/10.bin", "a/2.bin", "a/nested/1.bin"]
        assert await listed(store, "a/nested/") == ["a/nested/1.bin"]
        assert await listed(store, "missing/") == []
        assert await listed(store, "a/2.bin/") == []

    async def test_listing_with_delimiter_stops_at_folders(self, store: Store) -> None:
        await put_many(store, ["top.bin", "a/1.bin", "a/x/1.bin", "a/x/2.bin", "a/y/z/1.bin", "b/1.bin"])
        top = await store.list(delimiter=True)
        assert [info.path for info in top.objects] == ["top.bin"]
        assert list(top.prefixes) == ["a/", "b/"]
        below = await store.list("a/", delimiter=True)
        assert [info.path for info in below.objects] == ["a/1.bin"]
        assert list(below.prefixes) == ["a/x/", "a/y/"]
        missing = await store.list("missing/", delimiter=True)
        assert (list(missing.objects), list(missing.prefixes)) == ([], [])
        assert list((await store.list("a/")).prefixes) == []

    async def test_long_listings_and_deletions(self, store: Store) -> None:
        paths = [f"many/{index:05d}.bin" for index in range(self.listing_count)]
        await put_many(store, paths)
        assert await listed(store, "many/") == paths
        assert [info.path for info in (await store.list("many/", delimiter=True)).objects] == paths
        assert dict(await store.delete([*paths, "many/missing.bin"])) == {}
        assert await listed(store) == []

    async def test_deleting(self, store: Store) -> None:
        await put_many(store, ["a/1.bin", "a/2.bin", "b/1.bin"])
        assert dict(await store.delete([])) == {}
        assert dict(await store.delete(["a/1.bin", "b/1.bin", "missing.bin", "no/folder.bin"])) == {}
        assert await listed(store) == ["a/2.bin"]
        with pytest.raises(ObjectNotFoundError):
            await store.get("a/1.bin")
        assert list((await store.list(delimiter=True)).prefixes) == ["a/"]
        await store.put("b/1.bin", b"back")
        assert (await store.get("b/1.bin")).data == b"back"

    async def test_unusual_paths(self, store: Store) -> None:
        paths = list(self.unusual_paths)
        await put_many(store, paths)
        assert await listed(store) == sorted(paths)
        for path in paths:
            content = path.encode()
            assert (await store.get(path)).data == content
            assert (await store.head(path)).path == path
            buffer = bytearray(3)
            await store.get_into(path, [(1, 4)], [memoryview(buffer)])
            assert buffer == content[1:4]
        assert dict(await store.delete(paths[1:])) == {}
        assert await listed(store) == paths[:1]

    async def test_many_calls_at_once(self, store: Store) -> None:
        paths = [f"{index % 5}/{index}.bin" for index in range(60)]
        await put_many(store, paths)
        async with asyncio.TaskGroup() as group:
            gets = [group.create_task(store.get(path)) for path in paths]
            heads = [group.create_task(store.head(path)) for path in paths]
            group.create_task(store.put("more.bin", b"more"))
            group.create_task(store.list())
        assert [task.result().data for task in gets] == [path.encode() for path in paths]
        assert [task.result().size for task in heads] == [len(path) for path in paths]

    @pytest.mark.parametrize("steps", [0, 1, 2, 5, 20])
    async def test_a_cancelled_put_leaves_the_object_whole_or_not_there(self, store: Store, steps: int) -> None:
        body = bytearray(b"x" * 500_000)
        task = asyncio.create_task(store.put("object.bin", body))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        body[:] = b"y" * 500_000
        if await listed(store):
            assert (await store.get("object.bin")).data == b"x" * 500_000
            assert await listed(store) == ["object.bin"]

    async def test_two_stores_on_one_root_see_each_other(self, store: Store, peer: Store | None) -> None:
        if peer is None:
            pytest.skip("no second store")
        await store.put("a/object.bin", b"content")
        assert (await peer.get("a/object.bin")).data == b"content"
        assert await listed(peer) == ["a/object.bin"]
        await peer.put("a/object.bin", b"from the peer")
        await peer.close()
        assert (await store.get("a/object.bin")).data == b"from the peer"
        assert (await store.head("a/object.bin")).size == 13

    async def test_closing_twice_is_fine_and_using_it_afterwards_an_error(self, store: Store) -> None:
        await store.put("object.bin", b"content")
        await store.close()
        await store.close()
        calls: list[Callable[[], Coroutine[Any, Any, object]]] = [
            lambda: store.put("object.bin", b"again"),
            lambda: store.get("object.bin"),
            lambda: store.get_into("object.bin", [(0, 1)], [memoryview(bytearray(1))]),
            lambda: store.head("object.bin"),
            store.list,
            lambda: store.delete(["object.bin"]),
        ]
        for call in calls:
            with pytest.raises(StoreError) as caught:
                await call()
            assert not caught.value.retryable
