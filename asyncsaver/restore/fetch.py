"""Read and verify: byte ranges of shards go to where they belong, and every chunk is checked while it is hot."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import msgspec
import numpy as np

from asyncsaver.aio.tasks import run_all
from asyncsaver.catalog.root import Root
from asyncsaver.errors import (
    CheckpointCorruptError,
    ObjectNotFoundError,
    ObjectTruncatedError,
)
from asyncsaver.model.digests import digest_of, kind_of
from asyncsaver.model.dtypes import Array
from asyncsaver.model.ranges import Fetch, plan_fetches
from asyncsaver.model.rebuild import TensorRead
from asyncsaver.restore.decode import Decoding
from asyncsaver.restore.source import Source, shortened

_SMALL = (
    256 * 1024
)  # hashing and copying fewer bytes at once takes no longer than the Python around it, which holds the GIL


class Need(msgspec.Struct, frozen=True, gc=False):
    """A run of bytes of a chunk that is to be read.

    Attributes:
        tensor: it belongs to, for messages.
        file: position in the manifest's files.
        start: first byte in that file.
        stop: one past the last byte.
        into: C-contiguous memory of that length, little-endian; or a read that is served by this need alone, and may stay in the
            memory of the request, which then is the only one; or what is to be decoded from these bytes.
        digest: what `digest_of` must find it to be; None where it is only a part of a chunk, or is not to be verified.
    """

    tensor: str
    file: int
    start: int
    stop: int
    into: Array | TensorRead | list[Decoding]
    digest: str | None


def byte_view(array: Array) -> Array:
    """The memory of a C-contiguous array as plain bytes: uint8, one axis."""
    return array.reshape(-1).view(np.uint8)


@dataclass(slots=True)
class Fetcher:
    """Reads the needs of one restore.

    Args:
        root: where from.
        source: of the checkpoint.
        done: called with the bytes of every request that has arrived.
        arrays: gets those that stay in the memory of their request, by the name of the tensor.
    """

    root: Root
    source: Source
    done: Callable[[int], None]
    arrays: dict[str, Array]

    async def fetch(self, needs: Sequence[Need]) -> None:
        """Fill all needs, concurrently, within the memory budget and the window of requests.

        Raises:
            CheckpointCorruptError: a chunk is not what was written, or its file is gone though the checkpoint still stands.
            CheckpointDeletedError: the checkpoint was deleted meanwhile.
            StoreError: the store failed.
        """
        needs, fetches, large = await self.root.threads.run(self._plan, needs)
        window = asyncio.Semaphore(self.root.concurrency)
        turn = asyncio.Semaphore(1)
        missing: dict[int, int] = {}  # of needs that take several requests: bytes that have not arrived yet

        async def one(fetch: Fetch) -> None:
            async with window, self.root.budget.hold(fetch.nbytes):
                await self._one(fetch, needs, missing, turn)

        async def encoded(need: Need) -> None:
            async with window, self.root.budget.hold(_held(need)):
                await self._encoded(need)

        await run_all(chain(map(one, fetches), map(encoded, large)))

    def _plan(self, needs: Sequence[Need]) -> tuple[Sequence[Need], Sequence[Fetch], Sequence[Need]]:
        """The requests, the needs that they serve, and others that are to be decoded and take several requests each."""
        most = self.root.store.capabilities.part_bytes
        large: list[Need] = []
        if self.source.foreign:
            large = [need for need in needs if isinstance(need.into, list) and need.stop - need.start > most]
            needs = [need for need in needs if not isinstance(need.into, list) or need.stop - need.start <= most]
        for need in needs:
            if need.start == need.stop:
                self._take(need, memoryview(b""))
        return needs, plan_fetches(needs, most), large

    async def _encoded(self, need: Need) -> None:
        """Read what is to be decoded in several requests. Its bytes have to be there together, and are let go when it is done."""
        data: Array = np.empty(need.stop - need.start, np.uint8)
        step = self.root.store.capabilities.part_bytes
        turns = asyncio.Semaphore(self.root.concurrency)

        async def part(first: int) -> None:
            piece = data[first : first + step]
            async with turns:
                await self._get(need.file, need.start + first, piece, [need])
            self.done(piece.nbytes)

        await run_all(part(first) for first in range(0, data.nbytes, step))
        await self.root.threads.run(self._take, need, data.data)

    async def _get(self, file: int, start: int, data: Array, needs: Iterable[Need]) -> None:
        path, stop = self.source.files[file].path, start + data.nbytes
        try:
            await self.root.store.get_into(path, [(start, stop)], [data.data])
        except (ObjectNotFoundError, ObjectTruncatedError) as error:
            names = sorted({name for need in needs for name in _tensors(need)})
            raise CheckpointCorruptError(
                f"{self.root.store.url}/{path}, bytes {start} to {stop}: {error}; in it: {shortened(names)}",
                path=path,
                tensors=names,
            ) from error

    async def _one(self, fetch: Fetch, needs: Sequence[Need], missing: dict[int, int], turn: asyncio.Semaphore) -> None:
        lone = needs[fetch.needs[0]]
        own = byte_view(lone.into) if fetch.direct and isinstance(lone.into, np.ndarray) else None
        first, last = fetch.start - lone.start, fetch.stop - lone.start
        data = np.empty(fetch.nbytes, np.uint8) if own is None else own[first:last]
        await self._get(fetch.file, fetch.start, data, (needs[position] for position in fetch.needs))
        if own is None:
            # Threads that hash and copy small tensors hold the GIL by turns: several get no further than one, and each makes
            # the loop wait longer for it.
            many = len(fetch.needs) * _SMALL > fetch.nbytes
            async with turn if many else contextlib.nullcontext():
                await self.root.threads.run(self._hand_out, fetch, data, needs)
        else:
            [position] = fetch.needs
            missing[position] = missing.get(position, lone.stop - lone.start) - fetch.nbytes
            if not missing[position] and lone.digest is not None:
                await self.root.threads.run(self._verify, lone, own.data)
        self.done(fetch.nbytes)

    def _hand_out(self, fetch: Fetch, data: Array, needs: Sequence[Need]) -> None:
        """Check needs that lie in a request whole, and put them where they belong. Blocking."""
        memory, first = data.data, fetch.start
        # Arrays that stay keep the whole request in memory, with the gaps in it: that may not be much more than they are.
        filled = sum([needs[position].stop - needs[position].start for position in fetch.needs])
        scattered = 5 * filled < 4 * fetch.nbytes
        for position in fetch.needs:
            need = needs[position]
            into, start = need.into, need.start - first
            if isinstance(into, list):
                self._take(need, memory[start : need.stop - first])
                continue
            self._verify(need, memory[start : need.stop - first])
            array: Array = np.ndarray(into.shape, into.dtype, data, start)
            if isinstance(into, np.ndarray):
                into[...] = array
            else:
                self.arrays[need.tensor] = array.copy() if scattered else array

    def _take(self, need: Need, data: memoryview) -> None:
        """Check all bytes of a need, and decode them if they are to be. Blocking."""
        self._verify(need, data)
        if isinstance(need.into, list):
            path = self.source.files[need.file].path
            for decoding in need.into:
                decoding.decode(data, f"{self.root.store.url}/{path}, bytes {need.start} to {need.stop}", path)

    def _verify(self, need: Need, data: bytes | memoryview) -> None:
        if need.digest is None or digest_of(data, need.digest) == need.digest:
            return
        path = self.source.files[need.file].path
        raise CheckpointCorruptError(
            f"{self.root.store.url}/{path}, bytes {need.start} to {need.stop}: the data of tensor {need.tensor!r} are not "
            f"those that were written ({kind_of(need.digest)} differs)",
            path=path,
            tensors=[need.tensor],
        )


def _held(need: Need) -> int:
    """What decoding takes in memory, besides the result."""
    chunks = [decoding.nbytes for decoding in need.into] if isinstance(need.into, list) else []
    return need.stop - need.start + max(chunks, default=0)


def _tensors(need: Need) -> Sequence[str]:
    return [decoding.tensor for decoding in need.into] if isinstance(need.into, list) else [need.tensor]
