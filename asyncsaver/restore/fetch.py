"""Read and verify: byte ranges of shards go to where they belong, and every chunk is checked while it is hot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

from asyncsaver.aio.tasks import run_all
from asyncsaver.catalog.root import Root
from asyncsaver.errors import (
    CheckpointCorruptError,
    ObjectNotFoundError,
    ObjectTruncatedError,
)
from asyncsaver.model.dtypes import Array
from asyncsaver.model.manifest import Manifest
from asyncsaver.model.ranges import Fetch, plan_fetches


@dataclass(frozen=True, slots=True)
class Need:
    """A run of bytes of a chunk that is to be read.

    Attributes:
        tensor: it belongs to, for messages.
        file: position in the manifest's files.
        start: first byte in that file.
        stop: one past the last byte.
        into: memory of that length.
        digest: the xxh3_128 that it must have; None where it is only a part of a chunk, or is not to be verified.
    """

    tensor: str
    file: int
    start: int
    stop: int
    into: memoryview
    digest: str | None


def byte_view(array: Array) -> memoryview:
    """The memory of a C-contiguous array as plain bytes."""
    return array.reshape(-1).view(np.uint8).data if array.size else memoryview(bytearray())


def check_listed(manifest: Manifest, sizes: Mapping[str, int], url: str, wanted: Collection[int]) -> None:
    """Find missing and truncated files before anything is read or assigned.

    Args:
        manifest: of the checkpoint.
        sizes: path → size in bytes, as listed.
        url: of the root, for messages.
        wanted: positions of the files that matter.

    Raises:
        CheckpointCorruptError: naming the first such file and the tensors in it.
    """
    for number, file in enumerate(manifest.files):
        size = sizes.get(file.path)
        if size == file.size or number not in wanted:
            continue
        names = [
            name for name, entry in manifest.tensors.items() if any(chunk.file == number for chunk in entry.chunks)
        ]
        problem = "is missing" if size is None else f"has {size} bytes, its manifest says {file.size}"
        raise CheckpointCorruptError(
            f"{url}/{file.path} {problem}; in it: {shortened(names)}", path=file.path, tensors=names
        )


def shortened(names: Sequence[str]) -> str:
    """A list of names that fits in a message."""
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more tensors" if len(names) > 5 else shown or "no tensors"


@dataclass(slots=True)
class Fetcher:
    """Reads the needs of one restore.

    Args:
        root: where from.
        manifest: of the checkpoint.
        done: called with the bytes of every request that has arrived.
    """

    root: Root
    manifest: Manifest
    done: Callable[[int], None]

    async def fetch(self, needs: Sequence[Need]) -> None:
        """Fill all needs, concurrently, within the memory budget and the window of requests.

        Raises:
            CheckpointCorruptError: a chunk is not what was written, or its file is gone though the checkpoint still stands.
            CheckpointDeletedError: the checkpoint was deleted meanwhile.
            StoreError: the store failed.
        """
        capabilities = self.root.store.capabilities
        fetches = await self.root.threads.run(
            plan_fetches, [(need.file, need.start, need.stop) for need in needs], capabilities.part_bytes
        )
        window = asyncio.Semaphore(self.root.concurrency)
        missing = [
            need.stop - need.start for need in needs
        ]  # bytes; a need is verified when nothing is missing any more

        async def one(fetch: Fetch) -> None:
            async with window, self.root.budget.hold(fetch.nbytes):
                await self._one(fetch, needs, missing)

        for need in needs:
            if need.start == need.stop:
                self._verify(need)
        await run_all(one(fetch) for fetch in fetches)

    async def _one(self, fetch: Fetch, needs: Sequence[Need], missing: list[int]) -> None:
        path = self.manifest.files[fetch.file].path
        if fetch.direct:
            piece = fetch.pieces[0]
            buffer = needs[piece.need].into[piece.offset : piece.offset + fetch.nbytes]
        else:
            buffer = np.empty(fetch.nbytes, np.uint8).data
        try:
            await self.root.store.get_into(path, [(fetch.start, fetch.stop)], [buffer])
        except (ObjectNotFoundError, ObjectTruncatedError) as error:
            names = sorted({needs[piece.need].tensor for piece in fetch.pieces})
            raise CheckpointCorruptError(
                f"{self.root.store.url}/{path}, bytes {fetch.start} to {fetch.stop}: {error}; in it: {shortened(names)}",
                path=path,
                tensors=names,
            ) from error
        complete = []
        for piece in fetch.pieces:
            missing[piece.need] -= piece.stop - piece.start
            if not missing[piece.need]:
                complete.append(needs[piece.need])
        if not fetch.direct or any(need.digest for need in complete):
            await self.root.threads.run(self._settle, fetch, buffer, needs, complete)
        self.done(fetch.nbytes)

    def _settle(self, fetch: Fetch, buffer: memoryview, needs: Sequence[Need], complete: Sequence[Need]) -> None:
        if not fetch.direct:
            for piece in fetch.pieces:
                start = piece.start - fetch.start
                size = piece.stop - piece.start
                needs[piece.need].into[piece.offset : piece.offset + size] = buffer[start : start + size]
        for need in complete:
            self._verify(need)

    def _verify(self, need: Need) -> None:
        if need.digest is None or xxhash.xxh3_128_hexdigest(need.into) == need.digest:
            return
        path = self.manifest.files[need.file].path
        raise CheckpointCorruptError(
            f"{self.root.store.url}/{path}, bytes {need.start} to {need.stop}: the data of tensor {need.tensor!r} are not "
            "those that were written (xxh3_128 differs)",
            path=path,
            tensors=[need.tensor],
        )
