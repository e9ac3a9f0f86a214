"""Read and verify: byte ranges of shards go to where they belong, and every chunk is checked while it is hot."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

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
            memory of the request, which then is the only one.
        digest: what `digest_of` must find it to be; None where it is only a part of a chunk, or is not to be verified.
    """

    tensor: str
    file: int
    start: int
    stop: int
    into: Array | TensorRead
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
        fetches = await self.root.threads.run(self._plan, needs)
        window = asyncio.Semaphore(self.root.concurrency)
        turn = asyncio.Semaphore(1)
        missing: dict[int, int] = {}  # of needs that take several requests: bytes that have not arrived yet

        async def one(fetch: Fetch) -> None:
            async with window, self.root.budget.hold(fetch.nbytes):
                await self._one(fetch, needs, missing, turn)

        await run_all(one(fetch) for fetch in fetches)

    def _plan(self, needs: Sequence[Need]) -> list[Fetch]:
        for need in needs:
            if need.start == need.stop:
                self._verify(need, b"")
        return plan_fetches(needs, self.root.store.capabilities.part_bytes)

    async def _one(self, fetch: Fetch, needs: Sequence[Need], missing: dict[int, int], turn: asyncio.Semaphore) -> None:
        path = self.source.files[fetch.file].path
        lone = needs[fetch.needs[0]]
        own = byte_view(lone.into) if fetch.direct and isinstance(lone.into, np.ndarray) else None
        first, last = fetch.start - lone.start, fetch.stop - lone.start
        data = np.empty(fetch.nbytes, np.uint8) if own is None else own[first:last]
        try:
            await self.root.store.get_into(path, [(fetch.start, fetch.stop)], [data.data])
        except (ObjectNotFoundError, ObjectTruncatedError) as error:
            names = sorted({needs[need].tensor for need in fetch.needs})
            raise CheckpointCorruptError(
                f"{self.root.store.url}/{path}, bytes {fetch.start} to {fetch.stop}: {error}; in it: {shortened(names)}",
                path=path,
                tensors=names,
            ) from error
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
            self._verify(need, memory[start : need.stop - first])
            array: Array = np.ndarray(into.shape, into.dtype, data, start)
            if isinstance(into, np.ndarray):
                into[...] = array
            else:
                self.arrays[need.tensor] = array.copy() if scattered else array

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
