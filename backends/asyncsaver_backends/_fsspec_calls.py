"""How fsspec's filesystems, synchronous and asynchronous, are called, and what their answers and errors mean."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractBufferedFile

from asyncsaver.aio.threads import Threads
from asyncsaver.errors import (
    AccessDeniedError,
    ObjectNotFoundError,
    StoreError,
    StoreTimeoutError,
    UnsupportedStoreError,
)

T = TypeVar("T")

# Told by name: the packages that these come from need not be installed.
_PASSING = frozenset(
    {
        "ClientConnectionError",
        "ClientConnectorError",
        "ClientOSError",
        "ClientPayloadError",
        "ConnectTimeoutError",
        "ConnectionClosedError",
        "EndpointConnectionError",
        "FSTimeoutError",
        "IncompleteRead",
        "ProtocolError",
        "ReadTimeoutError",
        "SSLEOFError",
        "SSLZeroReturnError",
        "ServerDisconnectedError",
        "ServerTimeoutError",
    }
)
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})


class Filesystem:
    """One fsspec filesystem, called with ``await`` whatever its kind.

    Args:
        given: the filesystem.
        root: the path in it below which all objects lie.
        threads: where the calls of a synchronous one run.

    Attributes:
        sync: the filesystem as it was given.
        streams: where files can be opened for writing, in threads; None if nothing there can.
    """

    def __init__(self, given: fsspec.AbstractFileSystem, root: str, threads: Threads) -> None:
        self.sync = given
        self._base = root if not root or root.endswith("/") else f"{root}/"
        self._threads = threads
        self._twin: fsspec.AbstractFileSystem | None = None
        self._native: fsspec.AbstractFileSystem | None = None
        self.streams: fsspec.AbstractFileSystem | None = given if _can_stream(given) else None
        if isinstance(given, AsyncFileSystem) and given.asynchronous:
            self._native = given
            self.streams = None
        elif isinstance(given, AsyncFileSystem):
            # Some cannot be made so, for instance those that wrap a synchronous one: threads will do.
            with contextlib.suppress(TypeError, ValueError):
                options = {**given.storage_options, "asynchronous": True, "skip_instance_cache": True}
                self._native = self._twin = type(given)(*given.storage_args, **options)

    def full(self, path: str) -> str:
        """Return the path in the filesystem of a path below the root."""
        return self._base + path

    def folder(self, prefix: str) -> str:
        """Return the path in the filesystem of a folder below the root, without a slash at its end."""
        return self.full(prefix).rstrip("/") or self._base

    def relative(self, name: str) -> str:
        """Return the path below the root of a name in a listing; some of those begin with a slash, some do not."""
        return name.lstrip("/").removeprefix(self._base.lstrip("/"))

    async def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method of the filesystem."""
        if self._native is not None:
            return await getattr(self._native, f"_{method}")(*args, **kwargs)
        return await self._threads.run(getattr(self.sync, method), *args, **kwargs)

    async def fresh(self, method: str, *args: Any, **kwargs: Any) -> Any:
        """Call a method that could answer from a cache of listings, after emptying that."""
        (self._native or self.sync).invalidate_cache()
        return await self.call(method, *args, **kwargs)

    async def pipe(self, full: str, content: bytes) -> None:
        """Write a whole file."""
        await self.call("pipe_file", full, content)

    async def make_parents_if_missing(self, full: str, write: Callable[[], Awaitable[T]]) -> T:
        """Write; if a folder is missing, make it and write again. Not before: most stores have none, some list them."""
        try:
            return await write()
        except FileNotFoundError:
            await self.call("makedirs", full.rpartition("/")[0], exist_ok=True)
        return await write()

    async def close(self) -> None:
        """Close the session of a twin; a filesystem that was given belongs to somebody else."""
        session = getattr(self._twin, "_session", None)
        if session is not None and hasattr(session, "close"):
            closing = session.close()
            if isinstance(closing, Awaitable):
                await closing


def _can_stream(filesystem: fsspec.AbstractFileSystem) -> bool:
    """Say whether files can be opened for writing: fsspec's own default for that takes all bytes and drops them."""
    kind, base = type(filesystem), fsspec.AbstractFileSystem
    return kind.open is not base.open or kind._open is not base._open  # noqa: SLF001 - it is what filesystems override


class WriteStream:
    """A file that is being written from front to back, in threads."""

    def __init__(self, filesystem: fsspec.AbstractFileSystem, full: str) -> None:
        self._filesystem = filesystem
        self._full = full
        self._file: Any = None

    def open(self) -> None:
        """Open the file."""
        self._file = self._filesystem.open(self._full, "wb")

    def write(self, data: memoryview) -> None:
        """Append bytes."""
        self._file.write(bytes(data))  # many filesystems take nothing else

    def finish(self) -> None:
        """Complete the file."""
        self._file.close()
        self._file = None

    def abandon(self) -> None:
        """Drop the file; what of it shows already stays."""
        file, self._file = self._file, None
        if isinstance(file, AbstractBufferedFile):
            file.closed = True  # or its finalizer would complete the upload
            file.discard()
        elif file is not None:
            file.close()


def move(filesystem: fsspec.AbstractFileSystem, source: str, target: str) -> None:
    """Move one file over another; by the filesystem's own rename if it has one."""
    if type(filesystem).mv is fsspec.AbstractFileSystem.mv:
        filesystem.cp_file(source, target)
        filesystem.rm_file(source)
        return
    try:
        filesystem.mv(source, target)
    except OSError:
        if not filesystem.exists(source):
            raise
        filesystem.rm_file(target)  # SFTP, for one, does not rename over a file
        filesystem.mv(source, target)


def modified_of(info: Mapping[str, Any]) -> datetime | None:
    """Return when an entry of a listing was last modified, in UTC; each filesystem has its own word for it."""
    for key in ("LastModified", "last_modified", "mtime", "modified", "updated"):
        value = info.get(key)
        if isinstance(value, datetime):
            return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        if isinstance(value, int | float):
            return datetime.fromtimestamp(value, UTC)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                return datetime.fromisoformat(value).astimezone(UTC)
    return None


def _status(error: Exception) -> int:
    for key in ("status", "status_code", "code"):
        value = getattr(error, key, None)
        if isinstance(value, int):
            return value
    return 0


def translate(error: Exception, path: str, url: str) -> StoreError | UnsupportedStoreError:
    """Return what an error of a filesystem, or of what it stands on, means.

    Its text is left out, since it may quote a signed URL; it stays reachable as the cause.
    """
    name = type(error).__name__
    status = _status(error)
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError) or status == 404:
        return ObjectNotFoundError(f"there is no {path} in {url}", path=path)
    message = f"{path or 'the root'} in {url}: {getattr(error, 'strerror', None) or name}"
    if isinstance(error, PermissionError) or status in {401, 403}:
        return AccessDeniedError(message, path=path)
    if isinstance(error, TimeoutError):
        return StoreTimeoutError(message, retryable=True, path=path)
    if isinstance(error, NotImplementedError):
        return UnsupportedStoreError(f"{message}: the filesystem cannot do this")
    names = {base.__name__ for base in type(error).__mro__}
    passing = isinstance(error, ConnectionError) or status in _PASSING_STATUS or not names.isdisjoint(_PASSING)
    return StoreError(message, retryable=passing, path=path)
