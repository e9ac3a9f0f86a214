"""What the stores of the three clouds share: paths under a prefix, connecting and closing, one place for errors."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from asyncsaver.aio.completion import to_completion
from asyncsaver.aio.tasks import run_all
from asyncsaver.aio.threads import Threads
from asyncsaver.errors import (
    AccessDeniedError,
    InvalidRootError,
    ObjectExistsError,
    ObjectNotFoundError,
    ObjectTruncatedError,
    PreconditionFailedError,
    StoreError,
)
from asyncsaver.store.buffers import pieces_of, plain_bytes
from asyncsaver.store.contract import Blob, Buffer, Capabilities, Listing, ObjectInfo, Part, PutMode, Store
from asyncsaver.store.paths import check_path
from asyncsaver.store.resend import NEVER, Resend, until_sent


@dataclass(frozen=True, slots=True)
class Root:
    """Where a store's objects are.

    Attributes:
        bucket: the bucket or container.
        prefix: of all keys; empty, or ending in ``/``.
        account: what stood after ``@`` in the URL, else empty.
    """

    bucket: str
    prefix: str
    account: str = ""


def parse_root(url: str, *, account_allowed: bool = False) -> Root:
    """Take ``scheme://bucket/prefix`` apart.

    Raises:
        InvalidRootError: there is no bucket, or something that looks like credentials. The message does not repeat the
            URL, which may hold them.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise InvalidRootError("the URL has no scheme")
    if "?" in rest or "#" in rest:
        raise InvalidRootError(f"a {scheme}:// URL has no query; credentials go into storage_options")
    netloc = urlsplit(url).netloc
    bucket, _, account = netloc.partition("@")
    if not bucket or ":" in bucket or (account and not account_allowed):
        raise InvalidRootError(f"{scheme}:// must be followed by a bucket name; credentials go into storage_options")
    prefix = rest[len(netloc) :].strip("/")
    segments = prefix.split("/") if prefix else []
    if not all(segment not in {"", ".", ".."} for segment in segments):
        raise InvalidRootError(f"the root's path has an empty, '.' or '..' segment: {prefix!r}")
    return Root(bucket, f"{prefix}/" if prefix else "", account)


@dataclass(frozen=True, slots=True)
class Condition:
    """When a write may happen: only where nothing is, or only over the version with that etag."""

    absent: bool = False
    etag: str | None = None


ALWAYS = Condition()

Pieces = Sequence[memoryview]
"""The content of an object or of a part as it lies in memory: flat bytes in order, in at least one piece."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a listing; keys and prefixes as the cloud has them, with the root's prefix."""

    objects: Sequence[ObjectInfo]
    prefixes: Sequence[str] = ()


class UploadGoneError(Exception):
    """The store does not have an upload as it was sent: it was aborted, or is complete already. It can only be begun anew."""


class CloudStore(Store):
    """A store in a bucket. A subclass sends the requests and names the errors; keys have the root's prefix on them.

    Args:
        url: the root.
        root: the same, taken apart.
        capabilities: what the cloud can do.

    Attributes:
        foreign_errors: what the cloud's client raises, to be given to `_translate`.
    """

    foreign_errors: tuple[type[Exception], ...] = ()

    def __init__(self, url: str, root: Root, capabilities: Capabilities) -> None:
        self.url = url.rstrip("/")
        self.capabilities = capabilities
        self._root = root
        self._threads = Threads("asyncsaver-cloud", 2)
        self._connecting = asyncio.Lock()
        self._connected = False
        self._closed = False

    # --- what a cloud does its own way -------------------------------------------------------------------

    @abstractmethod
    async def _connect(self) -> None:
        """Make the client, on the running loop. Called once, before anything else."""

    @abstractmethod
    async def _disconnect(self) -> None:
        """Close what `_connect` made; called only after it has been called."""

    @abstractmethod
    def _endpoint(self) -> str:
        """The URL that requests go to; empty as long as it is not known."""

    @abstractmethod
    def _translate(self, error: Exception, path: str) -> StoreError:
        """Name a foreign error. A write that was refused for its condition is a `PreconditionFailedError`."""

    @abstractmethod
    async def _write(self, key: str, pieces: Pieces, condition: Condition) -> str | None:
        """Write one object, given as the flat bytes of its pieces, in one request and give its etag."""

    @abstractmethod
    async def _write_parts(self, path: str, key: str, parts: AsyncIterable[Part], size: int, resend: Resend) -> None:
        """Write an object of more than one part. Translates its own errors, but nothing that the parts raise."""

    @abstractmethod
    async def _read(self, key: str) -> tuple[bytes, ObjectInfo]:
        """Read a whole object; the info's path is the key."""

    @abstractmethod
    async def _read_range(self, path: str, key: str, start: int, buffer: memoryview) -> None:
        """Fill the buffer, which is flat and not empty, from ``start`` on."""

    @abstractmethod
    async def _describe(self, key: str) -> ObjectInfo:
        """Look at an object; the info's path is the key."""

    @abstractmethod
    def _pages(self, prefix: str, delimiter: str) -> AsyncIterator[Page]:
        """List the keys under a prefix; ``delimiter`` may be empty."""

    @abstractmethod
    async def _remove(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        """Delete objects, at least one, and give what could not be deleted."""

    # --- the contract ------------------------------------------------------------------------------------

    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        key = await self._ready(path)
        try:
            with self._translated(path):
                etag = await self._write(key, [plain_bytes(data)], Condition(absent=mode == "create"))
        except PreconditionFailedError as refused:
            if mode != "create":
                raise
            raise ObjectExistsError(f"{self._name(path)} exists already", path=path) from refused.__cause__
        return ObjectInfo(path, memoryview(data).nbytes, etag)

    async def put_pieces(self, path: str, pieces: Pieces) -> ObjectInfo:
        key = await self._ready(path)
        with self._translated(path):
            etag = await self._write(key, pieces, ALWAYS)
        return ObjectInfo(path, sum(map(len, pieces)), etag)

    async def replace_if(self, path: str, data: Buffer, etag: str) -> ObjectInfo:
        key = await self._ready(path)
        try:
            with self._translated(path):
                new_etag = await self._write(key, [plain_bytes(data)], Condition(etag=etag))
        except ObjectNotFoundError as gone:
            raise PreconditionFailedError(f"{self._name(path)} is gone", path=path) from gone.__cause__
        return ObjectInfo(path, memoryview(data).nbytes, new_etag)

    async def put_parts(self, path: str, parts: AsyncIterable[Part], *, size: int, resend: Resend = NEVER) -> None:
        key = await self._ready(path)
        if size > self.capabilities.part_bytes:
            await self._write_parts(path, key, parts, size, resend)
            return
        given = [part async for part in parts]
        if len(given) != 1:
            raise self._not_adding_up(path)
        with pieces_of(given[0]) as pieces:
            if sum(map(len, pieces)) != size:
                raise self._not_adding_up(path)

            async def write() -> None:
                with self._translated(path):
                    await self._write(key, pieces, ALWAYS)

            await until_sent(resend.part(1), write)

    async def get(self, path: str) -> Blob:
        key = await self._ready(path)
        with self._translated(path):
            data, info = await self._read(key)
        return Blob(data, replace(info, path=path))

    async def get_into(self, path: str, ranges: Sequence[tuple[int, int]], buffers: Sequence[memoryview]) -> None:
        key = await self._ready(path)

        async def read(start: int, buffer: memoryview) -> None:
            with self._translated(path):
                await self._read_range(path, key, start, buffer)

        await run_all(
            read(start, buffer.cast("B")) for (start, stop), buffer in zip(ranges, buffers, strict=True) if stop > start
        )

    async def head(self, path: str) -> ObjectInfo:
        key = await self._ready(path)
        with self._translated(path):
            info = await self._describe(key)
        return replace(info, path=path)

    async def list(self, prefix: str = "", *, delimiter: bool = False) -> Listing:
        await self._ready()
        objects: list[ObjectInfo] = []
        prefixes: set[str] = set()
        cut = len(self._root.prefix)
        with self._translated(prefix):
            async for page in self._pages(self._root.prefix + prefix, "/" if delimiter else ""):
                # A key that ends in a slash is a folder marker, which consoles make; it is no object of ours.
                objects += [replace(info, path=info.path[cut:]) for info in page.objects if info.path[-1] != "/"]
                prefixes.update(found[cut:] for found in page.prefixes)
        return Listing(sorted(objects, key=lambda info: info.path), sorted(prefixes))

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        await self._ready(*paths)
        if not paths:
            return {}
        with self._translated(""):
            return await self._remove(paths)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await to_completion(self._close())

    async def _close(self) -> None:
        async with self._connecting:
            try:
                if self._connected:
                    await self._disconnect()
            finally:
                self._threads.close()

    # --- for the subclasses ------------------------------------------------------------------------------

    @property
    def _address(self) -> str:
        """Host and port that requests go to, for messages about connections; nothing else of the URL, which may be secret."""
        return urlsplit(self._endpoint()).netloc.rpartition("@")[2] or "the store"

    def _key(self, path: str) -> str:
        return self._root.prefix + path

    def _name(self, path: str) -> str:
        return f"{self.url}/{path}" if path else self.url

    async def _ready(self, *paths: str) -> str:
        """Check the paths, connect on first use, and give the key of the first path."""
        for path in paths:
            check_path(path)
        if not self._connected:
            async with self._connecting:
                if not self._connected and not self._closed:
                    with self._translated(""):
                        await self._connect()
                    self._connected = True
        if self._closed:
            raise StoreError(f"{self.url} was closed", path=paths[0] if paths else "")
        return self._key(paths[0]) if paths else ""

    @contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        try:
            yield
        except StoreError:  # many foreign errors are OSErrors, as ours are
            raise
        except self.foreign_errors as error:
            translated = self._translate(error, path)
            if isinstance(translated, AccessDeniedError):
                # What a cloud says about refused credentials may repeat them, and tracebacks print causes.
                raise translated from None
            raise translated from error

    def _not_adding_up(self, path: str) -> StoreError:
        return StoreError(f"the parts of {self._name(path)} do not add up to its size", path=path)

    def _forgotten(self, path: str) -> StoreError:
        return StoreError(f"{self._name(path)}: the store has the unfinished upload no more", retryable=True, path=path)

    async def _has_landed(self, path: str, key: str, size: int) -> bool:
        """Whether an upload is complete whose replies say nothing, at a path where nothing else is ever written."""
        try:
            with self._translated(path):
                return (await self._describe(key)).size == size
        except ObjectNotFoundError:
            return False

    def _truncated(self, path: str, start: int, size: int) -> ObjectTruncatedError:
        return ObjectTruncatedError(f"{self._name(path)} ends before byte {start + size}", path=path)

    def _cut_off(self, path: str) -> StoreError:
        return StoreError(f"the connection ended in the middle of {self._name(path)}", retryable=True, path=path)


def merged(defaults: Mapping[str, Any], given: object) -> dict[str, Any]:
    """Our defaults under what the user gave, if anything."""
    return {**defaults, **(given if isinstance(given, Mapping) else {})}
