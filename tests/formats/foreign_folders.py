"""Checkpoints of other libraries in tests: where they are, what is in them, and reading them by their description alone."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np

from asyncsaver.aio.threads import Threads
from asyncsaver.model.digests import NO_DIGEST
from asyncsaver.model.dtypes import dtype_from_name
from asyncsaver.model.foreign import NO_CRC, Foreign
from asyncsaver.store import Store
from asyncsaver.store.registry import open_store

GOLDEN = Path(__file__).parents[1] / "golden"
Array = np.ndarray[Any, np.dtype[Any]]
Describe = Callable[[Store, Threads, str], Awaitable[Foreign]]


def expected(folder: str) -> dict[str, Any]:
    """What the library that wrote a golden checkpoint says is in it."""
    found: dict[str, Any] = json.loads((GOLDEN / f"{folder}.expected.json").read_text())
    return found


def files(folder: str) -> dict[str, bytes]:
    """The files of a golden checkpoint, by their paths in it."""
    root = GOLDEN / folder
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@asynccontextmanager
async def store_with(url: str, content: dict[str, bytes]) -> AsyncIterator[Store]:
    """A store that has these objects."""
    async with open_store(url) as store:
        for path, data in content.items():
            await store.put(path, data)
        yield store


async def described(describe: Describe, store: Store, path: str) -> Foreign:
    """Describe, with threads that end."""
    threads = Threads("test", 2)
    try:
        return await describe(store, threads, path)
    finally:
        threads.close()


async def tensor(store: Store, foreign: Foreign, name: str) -> Array:
    """Read a tensor as its description says."""
    entry = foreign.tensors[name]
    dtype = dtype_from_name(entry.dtype)
    whole = np.zeros(entry.shape, dtype)
    for position, chunk in enumerate(entry.chunks):
        assert chunk.xxh3_128 == NO_DIGEST
        file = foreign.files[chunk.file]
        assert file.crc32c == NO_CRC
        data = bytearray(chunk.stop - chunk.start)
        await store.get_into(file.path, [(chunk.start, chunk.stop)], [memoryview(data)])
        encoding = foreign.encoding(name, position)
        if encoding is None:
            piece = np.frombuffer(data, dtype).reshape(chunk.shape) if data else np.empty(chunk.shape, dtype)
        else:
            piece = encoding.decode(memoryview(data).toreadonly(), dtype, chunk.shape)
        assert piece.shape == chunk.shape
        index = tuple(slice(start, start + length) for start, length in zip(chunk.offset, chunk.shape, strict=True))
        whole[index] = piece
    return whole


async def check_tensors(store: Store, foreign: Foreign, wanted: dict[str, Any], unreadable: list[str]) -> None:
    """Compare every tensor with what the other library says; none is missing, none is there besides."""
    assert foreign.unreadable.keys() == {*unreadable}
    assert foreign.tensors.keys() == wanted.keys() | {*unreadable}
    for name in wanted.keys() - {*unreadable}:
        array = await tensor(store, foreign, name)
        assert (array.dtype.name, list(array.shape)) == (wanted[name]["dtype"], wanted[name]["shape"]), name
        assert array.tobytes() == base64.b64decode(wanted[name]["data"]), name
