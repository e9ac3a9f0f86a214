"""Moving bytes over HTTP: request bodies that are sent in slices, and parts that are uploaded side by side."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from asyncsaver.aio.tasks import raise_first
from asyncsaver.store.buffers import pieces_of
from asyncsaver.store.contract import Part

T = TypeVar("T")

SLICE_BYTES = 256 * 2**10
"""How much is copied and given to the transport at once: some ten microseconds of the event loop."""
PATIENCE = 4
"""How many read timeouts a request may take to send a slice, its wait for a free connection included."""


class SlicedBody:
    """A request body that is sent from the caller's memory a slice at a time, so that it is never copied whole.

    aiohttp sends it as an async iterable. Every slice is a copy: a transport may keep what it was given after the
    request was cancelled, when the caller's buffer is free for other use. To botocore it is a seekable file.

    Args:
        pieces: flat bytes, in order.

    Attributes:
        on_slice: called as each slice is asked for.
    """

    def __init__(self, pieces: Sequence[memoryview]) -> None:
        self.on_slice: Callable[[], None] | None = None
        self._pieces = pieces
        self._size = sum(map(len, pieces))
        self._position = 0

    def __len__(self) -> int:
        return self._size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Give the slices, always from the start: a redirected request is sent again."""
        for start in range(0, self._size, SLICE_BYTES):
            if self.on_slice is not None:
                self.on_slice()
            yield b"".join(cut(self._pieces, start, start + SLICE_BYTES))

    def read(self, size: int = -1) -> bytes:
        """Read like a file; used where the user's configuration asks for signed payloads."""
        stop = self._size if size < 0 else self._position + size
        data = b"".join(cut(self._pieces, self._position, stop))
        self._position += len(data)
        return data

    def tell(self) -> int:
        """Where the next `read` starts, in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set where the next `read` starts, in bytes."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position


def cut(pieces: Sequence[memoryview], start: int, stop: int) -> list[memoryview]:
    """The bytes from ``start`` to ``stop`` of what the pieces make up; nothing is copied."""
    found, begins = [], 0
    for piece in pieces:
        ends = begins + len(piece)
        if begins < stop and ends > start:
            found.append(piece[max(0, start - begins) : stop - begins])
        begins = ends
    return found


def request_body(pieces: Sequence[memoryview]) -> bytes | SlicedBody:
    """What to give to an HTTP client for flat bytes: a copy of a few, slices of many."""
    return SlicedBody(pieces) if sum(map(len, pieces)) > SLICE_BYTES else b"".join(pieces)


@asynccontextmanager
async def while_it_moves(body: bytes | SlicedBody, read_timeout: float | None) -> AsyncIterator[None]:
    """Send a request in this block: it ends with `TimeoutError` once the server takes no more of the body.

    The read timeouts of aiohttp begin when the whole body is sent. A server that stops reading, or never says that it
    wants the body, would hang a save for ever.

    Args:
        body: of the request.
        read_timeout: how long the client waits for an answer, in seconds; None for no limit.
    """
    if read_timeout is None:
        yield
        return
    loop, patience = asyncio.get_running_loop(), PATIENCE * read_timeout
    async with asyncio.timeout(patience) as limit:

        def moved() -> None:
            if not limit.expired():
                limit.reschedule(loop.time() + patience)

        if isinstance(body, SlicedBody):
            body.on_slice = moved
        yield


async def upload_each(
    parts: AsyncIterable[Part], upload: Callable[[int, Sequence[memoryview]], Awaitable[T]]
) -> tuple[list[T], int]:
    """Enter every part as it is given and upload it, side by side; when one fails, cancel the others.

    Args:
        parts: the parts of one object.
        upload: takes a part's number, from 1 on, and its pieces.

    Returns:
        What ``upload`` returned, in the order of the parts, and the sum of their sizes in bytes.
    """

    async def run(number: int, part: Part) -> tuple[T, int]:
        with pieces_of(part) as pieces:
            return await upload(number, pieces), sum(map(len, pieces))

    tasks: list[asyncio.Task[tuple[T, int]]] = []
    try:
        async with asyncio.TaskGroup() as group:
            async for part in parts:
                tasks.append(group.create_task(run(len(tasks) + 1, part)))
    except BaseExceptionGroup as failures:
        raise_first(failures)
    return [task.result()[0] for task in tasks], sum(task.result()[1] for task in tasks)
