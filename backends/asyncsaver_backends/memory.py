"""Objects in this process's memory: for tests, examples, and checkpoints that need not outlive the process."""

from __future__ import annotations

import asyncio
import itertools
import threading
from bisect import bisect_left, insort
from collections.abc import AsyncIterable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from fsspec import AbstractFileSystem

from asyncsaver.errors import (
    ObjectExistsError,
    ObjectNotFoundError,
    ObjectTruncatedError,
    PreconditionFailedError,
    StoreError,
)
from asyncsaver.store import NEVER, Blob, Buffer, Capabilities, Listing, ObjectInfo, Part, PutMode, Resend, Store
from asyncsaver.store.buffers import plain_bytes
from asyncsaver.store.paths import check_path, check_prefix

_CAPABILITIES = Capabilities(
    exclusive_create=True,
    compare_and_swap=True,
    max_object_bytes=2**62,
    part_bytes=4 * 2**20,  # copied in about a millisecond: the loop need not be spared by threads
    concurrency=8,
)

Clock = Callable[[], datetime]


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Object:
    """One version of an object."""

    content: bytes | bytearray
    etag: str
    modified: datetime

    def info(self, path: str) -> ObjectInfo:
        return ObjectInfo(path, len(self.content), self.etag, self.modified)


@dataclass(slots=True)
class _Bucket:
    """The objects of one ``memory://name``, by full path; several loops in several threads may use it.

    Attributes:
        objects: changed by `keep` and `drop` only.
        keys: theirs, sorted, so that a listing looks at nothing but what it returns.
        lock: held by whoever looks or changes.
        versions: numbers for etags.
    """

    objects: dict[str, _Object] = field(default_factory=dict)
    keys: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    versions: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def keep(self, key: str, version: _Object) -> None:
        """Make this the current version."""
        if key not in self.objects:
            insort(self.keys, key)
        self.objects[key] = version

    def drop(self, key: str) -> None:
        """Forget an object, if it is there."""
        if self.objects.pop(key, None) is not None:
            del self.keys[bisect_left(self.keys, key)]

    def find(self, start: str, *, delimiter: bool) -> tuple[list[tuple[str, _Object]], list[str]]:
        """Return the objects whose keys begin so; with ``delimiter``, of those in folders below only the folders' keys."""
        objects: list[tuple[str, _Object]] = []
        folders: list[str] = []
        position = bisect_left(self.keys, start)
        while position < len(self.keys) and (key := self.keys[position]).startswith(start):
            end = key.find("/", len(start)) if delimiter else -1
            if end < 0:
                objects.append((key, self.objects[key]))
                position += 1
            else:
                folders.append(key[: end + 1])
                # What lies in the folder stands together, and ends where its name with the character after the slash would stand.
                position = bisect_left(self.keys, key[:end] + chr(ord("/") + 1), position)
        return objects, folders


# The one module-level state: what makes two stores on the same URL see the same objects, as any other URL does.
_buckets: dict[str, _Bucket] = {}
_buckets_lock = threading.Lock()


def open_store(
    url: str, *, storage_options: Mapping[str, object], filesystem: AbstractFileSystem | None = None
) -> Store:
    """Open ``memory://name`` or a folder in it, ``memory://name/folder``.

    Raises:
        ValueError: there are storage options or a filesystem; this store takes neither.
    """
    if storage_options:
        raise ValueError(f"memory:// takes no storage options, but was given {', '.join(sorted(storage_options))}")
    if filesystem is not None:
        raise ValueError("memory:// takes no filesystem object")
    return MemoryStore(url)


class MemoryStore(Store):
    """One store per name and process: every `MemoryStore` on the same name sees the same objects.

    Args:
        url: ``memory://name`` or ``memory://name/folder``.
        clock: where `ObjectInfo.modified` comes from; UTC and aware.
    """

    def __init__(self, url: str, *, clock: Clock = _now) -> None:
        name, _, folder = url.removeprefix("memory://").strip("/").partition("/")
        self.url = f"memory://{name}/{folder}".rstrip("/") if name else "memory://"
        self.capabilities = _CAPABILITIES
        self._prefix = f"{check_path(folder)}/" if folder else ""
        self._clock = clock
        self._closed = False
        with _buckets_lock:
            self._bucket = _buckets.setdefault(name, _Bucket())

    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        """As the contract says."""
        key = self._key(path)
        content = bytes(plain_bytes(data))
        with self._bucket.lock:
            if mode == "create" and key in self._bucket.objects:
                raise ObjectExistsError(f"{path} exists in {self.url}", path=path)
            return self._set(key, content).info(path)

    async def put_parts(
        self,
        path: str,
        parts: AsyncIterable[Part],
        *,
        size: int,
        resend: Resend = NEVER,  # noqa: ARG002 - nothing is sent
    ) -> None:
        """As the contract says; sequential."""
        key = self._key(path)
        content = bytearray(size)
        offset = 0
        async for part in parts:
            with part as view:
                flat = plain_bytes(view)
                if offset + len(flat) > size:
                    raise StoreError(f"the parts of {path} have more than {size} bytes", path=path)
                content[offset : offset + len(flat)] = flat
                offset += len(flat)
            await asyncio.sleep(0)  # the parts may all be ready, and each copy takes its time
        if offset != size:
            raise StoreError(f"the parts of {path} have {offset} bytes, not {size}", path=path)
        self._key(path)  # may have been closed meanwhile
        with self._bucket.lock:
            self._set(key, content)

    async def get(self, path: str) -> Blob:
        """As the contract says."""
        found = self._find(path)
        return Blob(bytes(found.content), found.info(path))

    async def get_into(self, path: str, ranges: Sequence[tuple[int, int]], buffers: Sequence[memoryview]) -> None:
        """As the contract says."""
        content = memoryview(self._find(path).content)
        for (start, stop), buffer in zip(ranges, buffers, strict=True):
            if start == stop:
                continue
            if stop > len(content):
                raise ObjectTruncatedError(f"{path} ends at byte {len(content)}, before {stop}", path=path)
            plain_bytes(buffer)[:] = content[start:stop]
            await asyncio.sleep(0)

    async def head(self, path: str) -> ObjectInfo:
        """As the contract says."""
        return self._find(path).info(path)

    async def list(self, prefix: str = "", *, delimiter: bool = False) -> Listing:
        """As the contract says."""
        self._check_open()
        start = self._prefix + check_prefix(prefix)
        with self._bucket.lock:
            objects, folders = self._bucket.find(start, delimiter=delimiter)
        cut = len(self._prefix)
        return Listing(
            tuple(version.info(key[cut:]) for key, version in objects), tuple(folder[cut:] for folder in folders)
        )

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        """As the contract says."""
        keys = [self._key(path) for path in paths]
        self._check_open()
        with self._bucket.lock:
            for key in keys:
                self._bucket.drop(key)
        return {}

    async def replace_if(self, path: str, data: Buffer, etag: str) -> ObjectInfo:
        """As the contract says."""
        key = self._key(path)
        content = bytes(plain_bytes(data))
        with self._bucket.lock:
            found = self._bucket.objects.get(key)
            if found is None or found.etag != etag:
                state = "gone" if found is None else "another version"
                raise PreconditionFailedError(f"{path} in {self.url} is {state}", path=path)
            return self._set(key, content).info(path)

    async def close(self) -> None:
        """Close this store; the objects stay for others on the same URL."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"the store {self.url} is closed")

    def _key(self, path: str) -> str:
        self._check_open()
        return self._prefix + check_path(path)

    def _set(self, key: str, content: bytes | bytearray) -> _Object:
        """Make this the current version; the bucket's lock is held."""
        version = _Object(content, str(next(self._bucket.versions)), self._clock())
        self._bucket.keep(key, version)
        return version

    def _find(self, path: str) -> _Object:
        key = self._key(path)
        with self._bucket.lock:
            found = self._bucket.objects.get(key)
        if found is None:
            raise ObjectNotFoundError(f"there is no {path} in {self.url}", path=path)
        return found
