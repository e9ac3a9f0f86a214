"""The part of the store contract about large objects that are written in parts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import pairwise
from types import TracebackType

import numpy as np
import pytest

from asyncsaver.errors import ObjectNotFoundError, StoreError
from asyncsaver.store import Part, ScatteredPart, Store


class SourceBrokenError(Exception):
    """What the test's own sequence of parts raises."""


class WatchedPart(AbstractContextManager[memoryview]):
    """A part that counts its entries and exits, and overwrites its memory when it is left."""

    def __init__(self, content: bytes) -> None:
        self._memory = bytearray(content)
        self.entered = 0
        self.left = 0

    def __enter__(self) -> memoryview:
        self.entered += 1
        return memoryview(self._memory)

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.left += 1
        self._memory[:] = bytes(len(self._memory))


class _PartInPieces(ScatteredPart):
    """A part of which the first byte, a little more, and the last byte lie by themselves."""

    def __init__(self, content: bytes) -> None:
        self._content = memoryview(content)
        self.left = 0

    def __enter__(self) -> memoryview:
        return self._content

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.left += 1

    @contextmanager
    def pieces(self) -> Iterator[Sequence[memoryview]]:
        with self:
            content = self._content
            cuts = [0, *(cut for cut in (1, 5000, len(content) - 1) if 0 < cut < len(content)), len(content)]
            yield [content[start:stop] for start, stop in pairwise(sorted(cuts))]


async def _given(parts: Sequence[Part]) -> AsyncIterator[Part]:
    for part in parts:
        await asyncio.sleep(0)
        yield part


def _cut(content: bytes, part_bytes: int) -> list[WatchedPart]:
    return [WatchedPart(content[start : start + part_bytes]) for start in range(0, len(content), part_bytes)]


async def _assert_only(store: Store, expected: dict[str, bytes]) -> None:
    assert [info.path for info in (await store.list()).objects] == sorted(expected)
    for path, content in expected.items():
        assert (await store.get(path)).data == content


class PartTests:
    """put_parts."""

    @pytest.mark.parametrize("shape", ["one byte", "one short", "one full", "two full", "last short", "last one byte"])
    async def test_parts_become_one_object(self, store: Store, shape: str) -> None:
        full = store.capabilities.part_bytes
        size = {
            "one byte": 1,
            "one short": 1000,
            "one full": full,
            "two full": 2 * full,
            "last short": 2 * full + 12_345,
            "last one byte": full + 1,
        }[shape]
        content = np.random.default_rng(size).bytes(size)
        parts = _cut(content, full)
        await store.put_parts("folder/large.bin", _given(parts), size=size)
        assert [(part.entered, part.left) for part in parts] == [(1, 1)] * len(parts)
        assert (await store.head("folder/large.bin")).size == size
        assert (await store.get("folder/large.bin")).data == content
        middle = min(size, full) - 1
        buffer = bytearray(min(size - middle, 100))
        await store.get_into("folder/large.bin", [(middle, middle + len(buffer))], [memoryview(buffer)])
        assert buffer == content[middle : middle + len(buffer)]

    @pytest.mark.parametrize("over", [0, 1, 4096, 12_345])
    async def test_parts_in_pieces_become_one_object(self, store: Store, over: int) -> None:
        full = store.capabilities.part_bytes
        content = np.random.default_rng(over).bytes(2 * full + over)
        parts = [_PartInPieces(content[start : start + full]) for start in range(0, len(content), full)]
        await store.put_parts("large.bin", _given(parts), size=len(content))
        assert [part.left for part in parts] == [1] * len(parts)
        assert (await store.get("large.bin")).data == content

    async def test_parts_replace_what_is_there(self, store: Store) -> None:
        await store.put("large.bin", b"an old version that is longer than the new one")
        await store.put_parts("large.bin", _given([WatchedPart(b"new")]), size=3)
        assert (await store.get("large.bin")).data == b"new"

    async def test_several_large_objects_at_once(self, store: Store) -> None:
        full = store.capabilities.part_bytes
        contents = {f"{index}.bin": np.random.default_rng(index).bytes(full + 100) for index in range(3)}
        async with asyncio.TaskGroup() as group:
            for path, content in contents.items():
                group.create_task(store.put_parts(path, _given(_cut(content, full)), size=len(content)))
        await _assert_only(store, contents)

    @pytest.mark.parametrize("off", [-1, 1, "missing part", "extra part"])
    async def test_parts_that_do_not_add_up_write_nothing(self, store: Store, off: int | str) -> None:
        full = store.capabilities.part_bytes
        parts = _cut(bytes(full + 100), full)
        size = full + 100
        if off == "missing part":
            parts = parts[:1]
        elif off == "extra part":
            size = full
        else:
            size += int(off)
        await store.put("large.bin", b"old")
        with pytest.raises(StoreError, match=r"large\.bin") as caught:
            await store.put_parts("large.bin", _given(parts), size=size)
        assert caught.value.path == "large.bin"
        assert not caught.value.retryable
        assert [part.left for part in parts] == [part.entered for part in parts]
        await _assert_only(store, {"large.bin": b"old"})

    @pytest.mark.parametrize("count", [0, 1, 2])
    async def test_what_the_parts_raise_passes_through_and_nothing_is_written(self, store: Store, count: int) -> None:
        full = store.capabilities.part_bytes
        parts = _cut(bytes(count * full), full)

        async def broken() -> AsyncIterator[Part]:
            async for part in _given(parts):
                yield part
            raise SourceBrokenError

        await store.put("old.bin", b"old")
        with pytest.raises(SourceBrokenError):
            await store.put_parts("old.bin", broken(), size=3 * full)
        assert [part.left for part in parts] == [part.entered for part in parts]
        await _assert_only(store, {"old.bin": b"old"})

    async def test_a_part_that_cannot_be_entered_fails_the_object(self, store: Store) -> None:
        class Broken(WatchedPart):
            def __enter__(self) -> memoryview:
                raise SourceBrokenError

        full = store.capabilities.part_bytes
        parts = [WatchedPart(bytes(full)), Broken(b"x"), WatchedPart(b"y")]
        with pytest.raises(SourceBrokenError):
            await store.put_parts("large.bin", _given(parts), size=full + 2)
        assert [part.left for part in parts] == [part.entered for part in parts]
        await _assert_only(store, {})

    @pytest.mark.parametrize("count", [0, 1, 2])
    async def test_cancelling_between_parts_leaves_nothing(self, store: Store, count: int) -> None:
        full = store.capabilities.part_bytes
        parts = _cut(bytes(count * full), full)
        waiting = asyncio.Event()

        async def stalled() -> AsyncIterator[Part]:
            async for part in _given(parts):
                yield part
            waiting.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(store.put_parts("large.bin", stalled(), size=3 * full))
        await waiting.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [part.left for part in parts] == [part.entered for part in parts]
        await _assert_only(store, {})
        with pytest.raises(ObjectNotFoundError):
            await store.head("large.bin")
        await store.put_parts("large.bin", _given([WatchedPart(b"again")]), size=5)
        await _assert_only(store, {"large.bin": b"again"})

    @pytest.mark.parametrize("steps", [1, 3, 10, 40])
    async def test_cancelling_anywhere_leaves_the_object_whole_or_not_there(self, store: Store, steps: int) -> None:
        full = store.capabilities.part_bytes
        size = full + 1000
        parts = _cut(bytes(size), full)
        task = asyncio.create_task(store.put_parts("large.bin", _given(parts), size=size))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert [part.left for part in parts] == [part.entered for part in parts]
        objects = (await store.list()).objects
        assert [(info.path, info.size) for info in objects] in ([], [("large.bin", size)])

    async def test_parts_after_close_are_an_error(self, store: Store) -> None:
        await store.close()
        with pytest.raises(StoreError):
            await store.put_parts("large.bin", _given([WatchedPart(b"late")]), size=4)
