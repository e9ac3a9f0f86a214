"""Objects as files on a local disk, or on anything mounted like one.

Not through fsspec's LocalFileSystem, whose exclusive creation is a look followed by a write, and which never syncs.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterable, Callable, Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import ParamSpec, TypeVar

import aiofiles
from fsspec import AbstractFileSystem

from asyncsaver.aio.completion import to_completion
from asyncsaver.aio.tasks import raise_first, run_all
from asyncsaver.aio.threads import Threads
from asyncsaver.errors import (
    AccessDeniedError,
    ObjectNotFoundError,
    StoreError,
    StoreTimeoutError,
)
from asyncsaver.store import (
    NEVER,
    Blob,
    Buffer,
    Capabilities,
    Listing,
    ObjectInfo,
    Part,
    PutMode,
    Resend,
    Store,
    pieces_of,
)
from asyncsaver.store.buffers import plain_bytes
from asyncsaver_backends import _posix
from asyncsaver_backends._direct import BLOCK_BYTES, DirectWriting
from asyncsaver_backends._posix_draft import Draft

P = ParamSpec("P")
T = TypeVar("T")

_CAPABILITIES = Capabilities(
    exclusive_create=True,
    compare_and_swap=True,
    max_object_bytes=2**63 - 1,
    part_bytes=4 * 2**20,  # the smaller, the fewer parts lie across tensors and have to be put together in new memory
    concurrency=8,
    scattered=True,
)
_DELETED_AT_ONCE = 256
_LARGE = BLOCK_BYTES  # what is smaller gains nothing
_RETRYABLE = frozenset({errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT})
# What fsspec's local filesystem takes and this store does anyway.
_KNOWN_OPTIONS = frozenset({"auto_mkdir"})


def open_store(
    url: str, *, storage_options: Mapping[str, object], filesystem: AbstractFileSystem | None = None
) -> Store:
    """Open a folder: a plain path, ``~/path``, or ``file://path``.

    Args:
        url: where; need not exist yet.
        storage_options: only ``auto_mkdir``, which changes nothing: folders are always made.
        filesystem: a ready LocalFileSystem; changes nothing either.

    Raises:
        ValueError: an unknown storage option.
    """
    del filesystem
    if unknown := sorted(set(storage_options) - _KNOWN_OPTIONS):
        raise ValueError(f"local paths take no storage option {', '.join(unknown)}")
    scheme, separator, path = url.partition("://")
    return LocalStore(path if separator and scheme.lower() in {"file", "local"} else url)


class LocalStore(Store):
    """A folder on a local disk.

    An object is written to a temporary file beside its place, synced, moved there by a rename (or a hard link, where
    it must not replace anything), and the folder synced: whole or not there, power cut or not. Objects are regular
    files; symbolic links are not listed, and those that lead out of the root are refused.

    Large objects are written past the page cache (O_DIRECT) where the filesystem can do that, since they are synced at the
    end anyway, and the cache would only hold them up. What is read straight after comes from the disk, not from memory. The
    store keeps up to 16 MiB of aligned memory for it.

    Cancelled calls wait for their threads, which nothing can interrupt. `replace_if` excludes other calls of itself,
    but not a plain overwrite of the same object.

    Args:
        root: the folder; made by the first write.
        lock_timeout: how long `replace_if` waits for another process that is at it, in seconds.
        direct: whether to write past the page cache where that is possible; by default, wherever the platform has it.
    """

    def __init__(self, root: str | os.PathLike[str], *, lock_timeout: float = 30.0, direct: bool | None = None) -> None:
        self.url = str(Path(root).expanduser().absolute())
        self.capabilities = _CAPABILITIES
        self._lock_timeout = lock_timeout
        self._replacing = asyncio.Lock()
        self._threads = Threads("asyncsaver-local", _CAPABILITIES.concurrency)
        self._direct = DirectWriting() if direct is not False and hasattr(os, "O_DIRECT") else None
        self._closed = False

    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        """As the contract says.

        Raises:
            UnsupportedStoreError: ``create`` on a filesystem without hard links.
        """
        self._check_open()
        return await to_completion(self._put(path, plain_bytes(data), mode))

    async def _put(self, path: str, data: memoryview, mode: PutMode) -> ObjectInfo:
        draft = Draft(self.url, path)
        try:
            info = await self._write(draft, path, data)
            await self._change(path, draft.publish_new if mode == "create" else draft.publish)
        finally:
            await self._run(path, draft.discard)
        return info

    async def _write(self, draft: Draft, path: str, data: memoryview) -> ObjectInfo:
        await self._change(path, draft.open)
        if len(data) >= _LARGE:
            await self._go_direct(draft, path, len(data))
            full = self.capabilities.part_bytes
            await run_all(
                self._run(path, draft.write_at, data[start : start + full], start)
                for start in range(0, len(data), full)
            )
        else:
            with self._translated(path):
                async with aiofiles.open(draft.fd, "wb", closefd=False) as file:
                    await file.write(data)
        return await self._change(path, draft.settle)

    async def _go_direct(self, draft: Draft, path: str, size: int) -> None:
        if self._direct is not None:
            await self._change(path, draft.go_direct, self._direct, size)

    async def put_pieces(self, path: str, pieces: Sequence[memoryview]) -> ObjectInfo:
        """As the contract says; what is put is small, and copied together."""
        self._check_open()
        return await self.put(path, await self._threads.run(b"".join, pieces))

    async def put_parts(
        self,
        path: str,
        parts: AsyncIterable[Part],
        *,
        size: int,
        resend: Resend = NEVER,  # noqa: ARG002 - nothing is sent
    ) -> None:
        """As the contract says; the parts are written side by side, each at its place in one file."""
        self._check_open()
        draft = Draft(self.url, path)
        try:
            await self._change(path, draft.open)
            await self._go_direct(draft, path, size)
            await self._write_parts(draft, path, parts, size)
            await self._change(path, draft.settle)
            await self._change(path, draft.publish)
        finally:
            await to_completion(self._run(path, draft.discard))

    async def _write_parts(self, draft: Draft, path: str, parts: AsyncIterable[Part], size: int) -> None:
        full = self.capabilities.part_bytes
        tasks: list[asyncio.Task[int]] = []

        async def write(part: Part, offset: int) -> int:
            with pieces_of(part) as pieces:
                await self._run(path, draft.write_pieces, pieces, offset)
                return sum(len(piece) for piece in pieces)

        try:
            async with asyncio.TaskGroup() as group:
                async for part in parts:
                    tasks.append(group.create_task(write(part, len(tasks) * full)))
        except BaseExceptionGroup as errors:
            raise_first(errors)
        sizes = [task.result() for task in tasks]
        if sum(sizes) != size or any(length != full for length in sizes[:-1]):
            raise StoreError(f"the parts of {path} have {sum(sizes)} bytes, not {size} in parts of {full}", path=path)

    async def get(self, path: str) -> Blob:
        """As the contract says."""
        self._check_open()
        return await to_completion(self._get(path))

    async def _get(self, path: str) -> Blob:
        target = await self._run(path, _posix.locate, self.url, path)
        with self._translated(path):
            async with aiofiles.open(target, "rb", opener=_posix.open_regular) as file:
                status = await self._threads.run(os.fstat, file.fileno())
                return Blob(await file.read(), _posix.info_of(path, status))

    async def get_into(self, path: str, ranges: Sequence[tuple[int, int]], buffers: Sequence[memoryview]) -> None:
        """As the contract says."""
        self._check_open()
        reads = [(start, buffer) for (start, stop), buffer in zip(ranges, buffers, strict=True) if start < stop]
        if not reads:
            return
        reading = _posix.Reading(self.url, path)
        try:
            await self._run(path, reading.open)
            async with asyncio.TaskGroup() as group:
                for start, buffer in reads:
                    group.create_task(self._run(path, reading.read_into, plain_bytes(buffer), start))
        except BaseExceptionGroup as errors:
            raise_first(errors)
        finally:
            reading.close()

    async def head(self, path: str) -> ObjectInfo:
        """As the contract says."""
        self._check_open()
        return await self._run(path, _posix.head, self.url, path)

    async def list(self, prefix: str = "", *, delimiter: bool = False) -> Listing:
        """As the contract says."""
        self._check_open()
        return await self._run(prefix, _posix.list_objects, self.url, prefix, delimiter=delimiter)

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        """As the contract says; a deletion may be undone by a power cut."""
        self._check_open()
        failed: dict[str, StoreError] = {}
        for start in range(0, len(paths), _DELETED_AT_ONCE):
            errors = await self._run("", _posix.delete, self.url, paths[start : start + _DELETED_AT_ONCE])
            failed |= {path: self._translate(error, path) for path, error in errors.items()}
        return failed

    async def replace_if(self, path: str, data: Buffer, etag: str) -> ObjectInfo:
        """As the contract says, among all who use it.

        Raises:
            StoreTimeoutError: another process kept the lock for too long; nothing was replaced.
        """
        self._check_open()
        draft = Draft(self.url, path)
        flat = plain_bytes(data)
        try:
            info = await to_completion(self._write(draft, path, flat))
            async with self._replacing:
                await self._publish_if(draft, path, etag)
        finally:
            await to_completion(self._run(path, draft.discard))
        return info

    async def _publish_if(self, draft: Draft, path: str, etag: str) -> None:
        # Asked for again and again, rather than waited for in a thread that nothing could interrupt.
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._lock_timeout
        pause = 0.001
        while not await self._change(path, draft.publish_if, etag):
            if clock() + pause > deadline:
                raise StoreTimeoutError(f"the lock of {self.url} is held by another process", retryable=True, path=path)
            await asyncio.sleep(pause)
            pause = min(2 * pause, 0.1)

    async def purge(
        self, older_than: timedelta, *, spare: Collection[str] = (), vacant: Callable[[str], bool] | None = None
    ) -> int:
        """As the contract says: temporary files of writers that were killed, and empty folders."""
        self._check_open()
        return await self._run(
            "", _posix.purge, self.url, older_than.total_seconds(), tuple(spare), vacant or _no_folder
        )

    async def close(self) -> None:
        """Let the threads end."""
        self._closed = True
        self._threads.close()
        if self._direct is not None:
            self._direct.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"the store {self.url} is closed")

    async def _run(self, path: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        with self._translated(path):
            return await self._threads.run(function, *args, **kwargs)

    async def _change(self, path: str, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run one step of a write: what it misses is its folder, not the object."""
        try:
            return await self._run(path, function, *args, **kwargs)
        except ObjectNotFoundError as exc:
            raise StoreError(f"the folder of {path} in {self.url} was removed", retryable=True, path=path) from exc

    @contextlib.contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except OSError as exc:
            raise self._translate(exc, path) from exc

    def _translate(self, error: OSError, path: str) -> StoreError:
        """Return the error that says what a handler needs to know."""
        if isinstance(error, StoreError):
            return error
        reason = error.strerror or str(error)
        message = f"{path or 'the root'} in {self.url}: {reason}"
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return ObjectNotFoundError(f"there is no {path} in {self.url}", path=path)
        if isinstance(error, PermissionError):
            return AccessDeniedError(message, path=path)
        if isinstance(error, TimeoutError):
            return StoreTimeoutError(message, retryable=True, path=path)
        return StoreError(message, retryable=error.errno in _RETRYABLE, path=path)


def _no_folder(path: str) -> bool:
    del path
    return False
