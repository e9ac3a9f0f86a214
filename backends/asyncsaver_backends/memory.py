"""Objects in this process's memory: for tests, examples, and checkpoints that need not outlive the process."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping, Sequence
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
    """The objects of one ``memory://name``, by full path; several loops in several threads may use it."""

    objects: dict[str, _Object] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)
    versions: Iterator[int] = field(default_factory=lambda: itertools.count(1))


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
            found = [(key, version) for key, version in self._bucket.objects.items() if key.startswith(start)]
        infos = (version.info(key.removeprefix(self._prefix)) for key, version in sorted(found, key=lambda kv: kv[0]))
        return _folded(infos, prefix) if delimiter else Listing(tuple(infos))

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        """As the contract says."""
        keys = [self._key(path) for path in paths]
        self._check_open()
        with self._bucket.lock:
            for key in keys:
                self._bucket.objects.pop(key, None)
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
        self._bucket.objects[key] = version
        return version

    def _find(self, path: str) -> _Object:
        key = self._key(path)
        with self._bucket.lock:
            found = self._bucket.objects.get(key)
        if found is None:
            raise ObjectNotFoundError(f"there is no {path} in {self.url}", path=path)
        return found


def _folded(infos: Iterable[ObjectInfo], prefix: str) -> Listing:
    """Fold what lies in folders below the prefix into the folders' names."""
    objects: list[ObjectInfo] = []
    prefixes: dict[str, None] = {}
    for info in infos:
        folder, slash, _ = info.path.removeprefix(prefix).partition("/")
        if slash:
            prefixes[f"{prefix}{folder}/"] = None
        else:
            objects.append(info)
    return Listing(tuple(objects), tuple(sorted(prefixes)))
