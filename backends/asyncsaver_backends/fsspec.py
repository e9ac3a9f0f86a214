"""Objects in any filesystem that fsspec knows, or in a ready filesystem object."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import fsspec
from fsspec.core import url_to_fs
from fsspec.implementations.memory import MemoryFileSystem

from asyncsaver.aio.completion import to_completion
from asyncsaver.aio.tasks import run_all
from asyncsaver.aio.threads import Threads
from asyncsaver.errors import (
    ObjectExistsError,
    ObjectNotFoundError,
    ObjectTruncatedError,
    StoreError,
    UnsupportedStoreError,
)
from asyncsaver.store import NEVER, Blob, Buffer, Capabilities, Listing, ObjectInfo, Part, PutMode, Resend, Store
from asyncsaver.store.buffers import plain_bytes
from asyncsaver.store.paths import check_path, check_prefix, redact
from asyncsaver_backends._fsspec_calls import Filesystem, WriteStream, modified_of, move, translate

T = TypeVar("T")

_CONCURRENCY = 16
_DRAFT_PREFIX = ".asyncsaver-tmp-"
# fsspec's memory filesystem is one per process, whoever made the object that leads to it; so this lock is, too.
_memory_lock = threading.Lock()


def open_store(
    url: str, *, storage_options: Mapping[str, object], filesystem: fsspec.AbstractFileSystem | None = None
) -> Store:
    """Open a URL through fsspec, or a path in a ready filesystem object.

    Raises:
        ImportError: the package of the scheme's filesystem is not installed.
    """
    if filesystem is not None:
        return FsspecStore(filesystem, url)
    scheme = url.partition("://")[0].partition("::")[0]
    fsspec.get_filesystem_class(scheme)  # imports it now: the filesystem itself may connect when it is made

    def connect() -> tuple[fsspec.AbstractFileSystem, str]:
        made, root = url_to_fs(url, skip_instance_cache=True, **storage_options)
        # Of our own, so not only emptied before each use, as that of a filesystem which others use as well.
        if hasattr(made, "dircache"):
            made.dircache.use_listings_cache = False
        return made, root

    return FsspecStore(connect, url)


class FsspecStore(Store):
    """A folder in an fsspec filesystem.

    What fsspec does not promise, this store does not either: no compare-and-swap, and ``create`` looks first and then
    writes, so it is not exclusive (but for fsspec's own memory filesystem, within the process). Overwriting is as
    atomic as the filesystem makes it: whole on object stores, not over SFTP. Folders that a delete empties stay, since
    the removal of folders is recursive in some filesystems; empty folders are not listed.

    Asynchronous filesystems are driven on the caller's loop: a given one that was made with ``asynchronous=True`` as
    it is, any other through an asynchronous twin with the same options. Synchronous ones are driven in threads.

    Args:
        source: a ready filesystem, or what makes one (in a thread, by the first call) and says where its root is.
        url: the root: a path in the ready filesystem, with or without its scheme; or for messages only.
    """

    def __init__(
        self,
        source: fsspec.AbstractFileSystem | Callable[[], tuple[fsspec.AbstractFileSystem, str]],
        url: str,
    ) -> None:
        self._memory = isinstance(source, MemoryFileSystem)
        if isinstance(source, fsspec.AbstractFileSystem):
            root = str(source._strip_protocol(url))  # noqa: SLF001 - fsspec has no public name for it
            self.url = redact(source.unstrip_protocol(root))
            self._connect: Callable[[], tuple[fsspec.AbstractFileSystem, str]] = lambda: (source, root)
        else:
            self.url = redact(url)
            self._connect = source
        self.capabilities = Capabilities(
            exclusive_create=self._memory, compare_and_swap=False, concurrency=_CONCURRENCY, sequential=True
        )
        self._threads = Threads("asyncsaver-fsspec", _CONCURRENCY)
        self._connecting = asyncio.Lock()
        self._connected: Filesystem | None = None
        self._closed = False

    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        """As the contract says, within the limits above."""
        check_path(path)
        files = await self._filesystem()
        full = files.full(path)
        content = bytes(plain_bytes(data))  # many filesystems take nothing else
        if self._memory:
            await self._translated(path, self._threads.run(_pipe_in_memory, files, full, content, path, mode))
        else:
            if mode == "create" and await self._translated(path, files.call("exists", full)):
                raise ObjectExistsError(f"{path} exists in {self.url}", path=path)
            await self._translated(path, files.make_parents_if_missing(full, lambda: files.pipe(full, content)))
        return ObjectInfo(path, len(content))

    async def put_parts(
        self,
        path: str,
        parts: AsyncIterable[Part],
        *,
        size: int,
        resend: Resend = NEVER,  # noqa: ARG002 - a stream cannot be wound back
    ) -> None:
        """As the contract says; sequential.

        The parts are streamed, except into a filesystem that can only be written whole: fsspec's memory filesystem,
        ready ones made with ``asynchronous=True``, and those that cannot open files.
        """
        check_path(path)
        files = await self._filesystem()
        if self._memory or files.streams is None:
            content = bytearray()
            async with contextlib.aclosing(_checked(parts, path, size)) as views:
                async for flat in views:
                    content += flat
            await self.put(path, content)
            return
        full = files.full(path)
        # What stands there must outlive a failure, and most filesystems begin by emptying it.
        existed = bool(await self._translated(path, files.call("exists", full)))
        draft = f"{full.rpartition('/')[0]}/{_DRAFT_PREFIX}{secrets.token_hex(16)}" if existed else full
        stream = WriteStream(files.streams, draft)
        written = False
        try:
            await self._translated(path, files.make_parents_if_missing(full, lambda: self._threads.run(stream.open)))
            async with contextlib.aclosing(_checked(parts, path, size)) as views:
                async for flat in views:
                    await self._translated(path, self._threads.run(stream.write, flat))
            await self._translated(path, self._threads.run(stream.finish))
            landed = await self._translated(path, files.fresh("info", draft))
            if landed["size"] != size:
                raise StoreError(f"{path} in {self.url} has {landed['size']} bytes, not the {size} written", path=path)
            if existed:
                await self._translated(path, self._threads.run(move, files.streams, draft, full))
            written = True
        finally:
            if not written:
                await to_completion(self._abandon(files, path, stream, draft))

    async def _abandon(self, files: Filesystem, path: str, stream: WriteStream, draft: str) -> None:
        # What failed the write is what the caller needs to know, not what fails here.
        with contextlib.suppress(StoreError, UnsupportedStoreError):
            await self._translated(path, self._threads.run(stream.abandon))
        with contextlib.suppress(StoreError, UnsupportedStoreError):
            await self._translated(path, files.call("rm_file", draft))

    async def get(self, path: str) -> Blob:
        """As the contract says."""
        check_path(path)
        files = await self._filesystem()
        data = bytes(await self._translated(path, files.call("cat_file", files.full(path))))
        return Blob(data, ObjectInfo(path, len(data)))

    async def get_into(self, path: str, ranges: Sequence[tuple[int, int]], buffers: Sequence[memoryview]) -> None:
        """As the contract says."""
        check_path(path)
        files = await self._filesystem()
        free = asyncio.Semaphore(_CONCURRENCY)

        async def read(start: int, stop: int, buffer: memoryview) -> None:
            async with free:
                data = await self._translated(path, files.call("cat_file", files.full(path), start=start, end=stop))
            if len(data) != stop - start:
                raise ObjectTruncatedError(f"{path} ends at byte {start + len(data)}, before {stop}", path=path)
            plain_bytes(buffer)[:] = data

        await run_all(
            read(start, stop, buffer) for (start, stop), buffer in zip(ranges, buffers, strict=True) if start < stop
        )

    async def head(self, path: str) -> ObjectInfo:
        """As the contract says."""
        check_path(path)
        files = await self._filesystem()
        info = await self._translated(path, files.fresh("info", files.full(path)))
        if info["type"] != "file":
            raise ObjectNotFoundError(f"there is no {path} in {self.url}", path=path)
        return _described(path, info)

    async def list(self, prefix: str = "", *, delimiter: bool = False) -> Listing:
        """As the contract says."""
        check_prefix(prefix)
        files = await self._filesystem()
        if delimiter:
            return await self._list_folder(files, prefix)
        found = await self._translated(prefix, files.fresh("find", files.folder(prefix), detail=True))
        infos = [_described(files.relative(name), info) for name, info in found.items() if _is_object(info)]
        return Listing(tuple(sorted((info for info in infos if info.path.startswith(prefix)), key=_by_path)))

    async def _list_folder(self, files: Filesystem, prefix: str) -> Listing:
        try:
            entries = await self._translated(prefix, files.fresh("ls", files.folder(prefix), detail=True))
        except ObjectNotFoundError:
            return Listing(())
        objects: list[ObjectInfo] = []
        folders: list[str] = []
        for entry in entries:
            path = files.relative(entry["name"].rstrip("/"))
            if not path.startswith(prefix) or path == prefix.rstrip("/"):
                continue  # a file of that name, or the folder itself
            if entry["type"] == "directory":
                folders.append(path + "/")
            elif _is_object(entry):
                objects.append(_described(path, entry))
        free = asyncio.Semaphore(_CONCURRENCY)

        async def filled(folder: str) -> bool:
            async with free:
                return await self._holds_objects(files, folder)

        full = await run_all(filled(folder) for folder in folders)
        prefixes = sorted(folder for folder, kept in zip(folders, full, strict=True) if kept)
        return Listing(tuple(sorted(objects, key=_by_path)), tuple(prefixes))

    async def _holds_objects(self, files: Filesystem, folder: str) -> bool:
        try:
            entries = await self._translated(folder, files.call("ls", files.folder(folder), detail=True))
        except ObjectNotFoundError:
            return False
        if any(_is_object(entry) for entry in entries):
            return True
        below = [files.relative(entry["name"].rstrip("/")) + "/" for entry in entries if entry["type"] == "directory"]
        for name in below:
            if name != folder and await self._holds_objects(files, name):
                return True
        return False

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        """As the contract says, but folders stay."""
        files = await self._filesystem()
        free = asyncio.Semaphore(_CONCURRENCY)
        failed: dict[str, StoreError] = {}

        async def remove(path: str) -> None:
            try:
                check_path(path)
                async with free:
                    await self._translated(path, files.call("rm_file", files.full(path)))
            except ObjectNotFoundError:
                return
            except StoreError as error:
                failed[path] = error

        await run_all(remove(path) for path in paths)
        return failed

    async def replace_if(self, path: str, data: Buffer, etag: str) -> ObjectInfo:
        """Not possible: fsspec has no compare-and-swap.

        Raises:
            UnsupportedStoreError: always.
        """
        del data, etag
        raise UnsupportedStoreError(f"{self.url} has no compare-and-swap, so {path} cannot be replaced so")

    async def close(self) -> None:
        """Let the threads end, and the connections of filesystems that were made here."""
        self._closed = True
        files, self._connected = self._connected, None
        if files is not None:
            await files.close()
        self._threads.close()

    async def _filesystem(self) -> Filesystem:
        if self._closed:
            raise StoreError(f"the store {self.url} is closed")
        if self._connected is None:
            async with self._connecting:
                if self._connected is None:
                    made, root = await self._translated("", self._threads.run(self._connect))
                    self._connected = Filesystem(made, root, self._threads)
        return self._connected

    async def _translated(self, path: str, call: Awaitable[T]) -> T:
        try:
            return await call
        except (StoreError, UnsupportedStoreError):
            raise
        except Exception as exc:
            raise translate(exc, path, self.url) from exc


def _pipe_in_memory(files: Filesystem, full: str, content: bytes, path: str, mode: PutMode) -> None:
    with _memory_lock:
        if mode == "create" and files.sync.isfile(full):
            raise ObjectExistsError(f"{path} exists", path=path)
        files.sync.pipe_file(full, content)


async def _checked(parts: AsyncIterable[Part], path: str, size: int) -> AsyncGenerator[memoryview, None]:
    """Yield the bytes of each part while it is entered, and see that they add up."""
    total = 0
    async for part in parts:
        with part as view:
            flat = plain_bytes(view)
            total += len(flat)
            if total > size:
                break
            yield flat
    if total != size:
        raise StoreError(f"the parts of {path} do not have {size} bytes", path=path)


def _is_object(info: Mapping[str, Any]) -> bool:
    return info["type"] == "file" and not info["name"].rpartition("/")[2].startswith(_DRAFT_PREFIX)


def _described(path: str, info: Mapping[str, Any]) -> ObjectInfo:
    return ObjectInfo(path, int(info["size"] or 0), None, modified_of(info))


def _by_path(info: ObjectInfo) -> str:
    return info.path
