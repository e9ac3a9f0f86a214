"""What a store must do for checkpoints to be safe in it.

A store is a flat map from paths to immutable objects. Paths are relative to the store's root, use ``/``, have no leading
slash and no ``.`` or ``..`` segment. Buffers are C-contiguous and read as plain bytes.

Rules that hold for every method:

* It is safe to have any number of calls in flight at once, from one event loop.
* Nothing blocks the event loop: what blocks runs in threads.
* Foreign errors are translated, once, into `asyncsaver.errors`, raised ``from`` the original, with the path in the message
  and no credential in it. `StoreError.retryable` says whether sending the same request again may help. A store sends each
  request once; retrying is the business of `RetryingStore`. The one exception are the requests of an upload in parts, which
  only the store can send again; `put_parts` is told whether it may.
* Cancelling a call leaves no task, thread, file descriptor, temporary file or unfinished multipart upload behind. Whether
  the object was written is then unknown, but it is never there in part.
* Reads follow writes: once a `put` has returned, `get`, `head` and `list` show it. (Commits also settle unclear answers
  by reading back, and never rely on a listing being complete while writers run.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Literal, Self

from asyncsaver.errors import StoreError
from asyncsaver.store.resend import NEVER, Resend

Buffer = bytes | bytearray | memoryview
PutMode = Literal["overwrite", "create"]


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can do, as data.

    Attributes:
        exclusive_create: ``put(mode="create")`` is refused when the object exists, even when two clients race.
        compare_and_swap: `Store.replace_if` works, and objects have etags.
        max_object_bytes: the largest object, in bytes.
        part_bytes: the size that `put_parts` wants its parts to have and that a large read is best split into, in bytes.
        concurrency: how many requests in flight this store gains from.
        sequential: `Store.put_parts` sends the parts of an object one after another: several objects are to be written at once.
        scattered: `Store.put_parts` enters parts by `pieces_of`, and `Store.put_pieces` takes pieces as they are, so that they
            need not be copied together.
        put_bytes: up to so many bytes an object is best written by one `put`, and many such objects side by side are there
            sooner than a few large ones in parts. 0 where that is not so (a disk syncs each file): then only what fits in one
            part is put.
    """

    exclusive_create: bool
    compare_and_swap: bool
    max_object_bytes: int = 5 * 2**40
    part_bytes: int = 16 * 2**20
    concurrency: int = 32
    sequential: bool = False
    scattered: bool = False
    put_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object: its path, its size in bytes, and what changes when it is replaced.

    Attributes:
        etag: opaque; differs between any two versions of one object. None where the store has none.
        modified: by the store's clock, UTC and aware. None where the store does not say.
    """

    path: str
    size: int
    etag: str | None = None
    modified: datetime | None = None


@dataclass(frozen=True, slots=True)
class Blob:
    """The whole content of an object, and which version of it this is."""

    data: bytes
    info: ObjectInfo


@dataclass(frozen=True, slots=True)
class Listing:
    """What `Store.list` found: objects, and with ``delimiter`` the common prefixes below (each ending in ``/``)."""

    objects: Sequence[ObjectInfo]
    prefixes: Sequence[str] = ()


Part = AbstractContextManager[memoryview]
"""One part of a large object: entering it gives its bytes, leaving it gives its memory back."""


class ScatteredPart(AbstractContextManager[memoryview]):
    """A part whose bytes lie in several places. Entered like any other, it is copied together."""

    @abstractmethod
    def pieces(self) -> AbstractContextManager[Sequence[memoryview]]:
        """What to enter instead, for the pieces as they lie in memory: flat bytes, in order."""


class Store(ABC):
    """A place for objects. Constructing does no I/O; the first call connects."""

    url: str
    """Where the root is, without credentials; used in messages and in `Checkpoint.url`."""

    capabilities: Capabilities

    @abstractmethod
    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        """Write one object in one request, atomically: readers see the old object or the new one, whole.

        Args:
            path: where; missing parents are made.
            data: the content; not modified, and not used after the call has returned or was cancelled.
            mode: ``create`` writes only if nothing is there, and is decided by the store, not by looking first.

        Returns:
            What was written; `ObjectInfo.etag` is set where the store has `compare_and_swap`.

        Raises:
            ObjectExistsError: ``create`` was refused since the object exists. Only when the store said just that.
            StoreError: anything else. After one with ``create``, the object may or may not have been written.
        """

    async def put_pieces(self, path: str, pieces: Sequence[memoryview]) -> ObjectInfo:
        """As `put` that overwrites, of bytes that lie in several places; meant for stores that are `Capabilities.scattered`.

        This default copies them together, while the event loop waits.

        Args:
            path: where.
            pieces: the content in order, each flat bytes; not modified, and not used after the call.
        """
        return await self.put(path, b"".join(pieces))

    @abstractmethod
    async def put_parts(self, path: str, parts: AsyncIterable[Part], *, size: int, resend: Resend = NEVER) -> None:
        """Write one large object from its parts, in order, replacing what is there; visible only when whole.

        The caller decides how many parts are in flight: the store starts on every part that it is given and asks for the
        next one at once (or when the last has landed, where the protocol of the store is sequential). It enters each part
        once (by `pieces_of` if it can take pieces), and leaves it as soon as the bytes are no longer needed.

        Args:
            path: where.
            parts: every part but the last has `Capabilities.part_bytes` bytes, none is empty.
            size: the sum of the parts, in bytes; at least 1, at most `Capabilities.max_object_bytes`.
            resend: asked after each request of the upload that failed whether to send it again, as long as that does no
                harm: a part, while it is entered, by itself; the request that begins the upload; the one that ends it.
                Other than `NEVER` it promises that nothing but this object is ever written at ``path``, so that a lost
                reply can be settled by looking there. A store that cannot send a single request again does not ask; one
                whose client does so unasked, lets it for `Resend.timeout` and tells `Resend.failing_for`.

        Raises:
            StoreError: nothing was written, or its reply was lost; also when the parts do not add up to ``size``.
                `StoreError.retryable` says whether the whole upload may be tried again. What ``parts`` itself raises
                passes through as it is (never inside an exception group).
        """

    @abstractmethod
    async def get(self, path: str) -> Blob:
        """Read a whole object, meant for small ones.

        Raises:
            ObjectNotFoundError: there is none.
        """

    @abstractmethod
    async def get_into(self, path: str, ranges: Sequence[tuple[int, int]], buffers: Sequence[memoryview]) -> None:
        """Read byte ranges straight into memory, one request a range, concurrently.

        Args:
            path: of the object.
            ranges: ``(start, stop)`` in bytes, ``start <= stop``; empty ranges cost no request.
            buffers: one writable buffer of ``stop - start`` bytes for each range.

        Raises:
            ObjectNotFoundError: there is no such object.
            ObjectTruncatedError: the object ends before a range does. The buffers' content is then undefined.
        """

    @abstractmethod
    async def head(self, path: str) -> ObjectInfo:
        """Describe an object without reading it.

        Raises:
            ObjectNotFoundError: there is none.
        """

    @abstractmethod
    async def list(self, prefix: str = "", *, delimiter: bool = False) -> Listing:
        """List all objects whose path starts with ``prefix``, in order of path; all pages.

        Without such objects the listing is empty. A bucket that does not exist is an error, a local folder that does not
        exist is empty. Temporary files of the store itself are not listed.

        Args:
            prefix: "" for everything, else it ends in ``/`` (a folder).
            delimiter: stop at the next ``/`` below the prefix, and give those prefixes instead of what is under them.
        """

    @abstractmethod
    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        """Delete objects. Missing ones are fine. Not atomic: some may be gone when it fails.

        Returns:
            What could not be deleted, and why; empty when all are gone. Folders that became empty go too, where folders exist.
        """

    @abstractmethod
    async def replace_if(self, path: str, data: Buffer, etag: str) -> ObjectInfo:
        """Replace an object only if it is still the version with that etag. Needs `compare_and_swap`.

        Raises:
            PreconditionFailedError: it is another version, or gone.
            StoreError: anything else; the object may or may not have been replaced.
        """

    async def purge(
        self,
        older_than: timedelta,  # noqa: ARG002 - for overriding
        *,
        spare: Collection[str] = (),  # noqa: ARG002
        vacant: Callable[[str], bool] | None = None,  # noqa: ARG002
    ) -> int:
        """Remove what clients that died have left and `list` does not show: temporary files, unfinished multipart uploads.

        Args:
            older_than: leave younger ones alone, by the store's clock.
            spare: leave those alone whose path begins with one of these.
            vacant: where a store has folders: whether one that is empty may go as well, by its path, which ends in ``/``. By
                default all stay, since nobody knows whose they are.

        Returns:
            How many were removed, folders not counted. This default has nothing to remove.
        """
        return 0

    @abstractmethod
    async def close(self) -> None:
        """Release connections and threads. Calling twice is fine; using the store afterwards is an error."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
