"""Moving bytes over HTTP: request bodies that are sent in slices, and parts that are uploaded side by side."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable
from typing import TypeVar

from asyncsaver.aio.tasks import raise_first
from asyncsaver.store.buffers import plain_bytes
from asyncsaver.store.contract import Part

T = TypeVar("T")

SLICE_BYTES = 256 * 2**10
"""How much is copied and given to the transport at once: some ten microseconds of the event loop."""


class SlicedBody:
    """A request body that is sent from the caller's memory a slice at a time, so that it is never copied whole.

    aiohttp sends it as an async iterable. Every slice is a copy: a transport may keep what it was given after the
    request was cancelled, when the caller's buffer is free for other use. To botocore it is a seekable file.

    Args:
        data: flat bytes.
    """

    def __init__(self, data: memoryview) -> None:
        self._view = data
        self._position = 0

    def __len__(self) -> int:
        return len(self._view)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Give the slices, always from the start: a redirected request is sent again."""
        for start in range(0, len(self._view), SLICE_BYTES):
            yield bytes(self._view[start : start + SLICE_BYTES])

    def read(self, size: int = -1) -> bytes:
        """Read like a file; used where the user's configuration asks for signed payloads."""
        stop = len(self._view) if size < 0 else self._position + size
        data = bytes(self._view[self._position : stop])
        self._position += len(data)
        return data

    def tell(self) -> int:
        """Where the next `read` starts, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set where the next `read` starts, in bytes."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._view)}[whence]
        self._position = base + offset
        return self._position


def request_body(data: memoryview) -> bytes | SlicedBody:
    """What to give to an HTTP client for flat bytes: a copy of a few, slices of many."""
    return SlicedBody(data) if len(data) > SLICE_BYTES else bytes(data)


async def upload_each(
    parts: AsyncIterable[Part], upload: Callable[[int, memoryview], Awaitable[T]]
) -> tuple[list[T], int]:
    """Enter every part as it is given and upload it, side by side; when one fails, cancel the others.

    Args:
        parts: the parts of one object.
        upload: takes a part's number, from 1 on, and its bytes, flat.

    Returns:
        What ``upload`` returned, in the order of the parts, and the sum of their sizes in bytes.
    """

    async def run(number: int, part: Part) -> tuple[T, int]:
        with part as buffer:
            return await upload(number, plain_bytes(buffer)), memoryview(buffer).nbytes

    tasks: list[asyncio.Task[tuple[T, int]]] = []
    try:
        async with asyncio.TaskGroup() as group:
            async for part in parts:
                tasks.append(group.create_task(run(len(tasks) + 1, part)))
    except BaseExceptionGroup as failures:
        raise_first(failures)
    return [task.result()[0] for task in tasks], sum(task.result()[1] for task in tasks)
