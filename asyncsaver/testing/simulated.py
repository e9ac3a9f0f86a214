"""A store in memory that shows on purpose what real stores do now and then."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeVar

from asyncsaver.errors import (
    ObjectExistsError,
    ObjectNotFoundError,
    ObjectTruncatedError,
    PreconditionFailedError,
    StoreError,
    StoreTimeoutError,
)
from asyncsaver.store.buffers import plain_bytes
from asyncsaver.store.contract import Blob, Buffer, Capabilities, Listing, ObjectInfo, Part, PutMode, Store
from asyncsaver.store.paths import check_path, check_prefix
from asyncsaver.store.resend import NEVER, Resend
from asyncsaver.testing.scheduler import Outcome, Scheduler

T = TypeVar("T")
Change = Callable[[str, bytes | None, bytes | None], None]
Outcomes = Callable[[str, str], Sequence[Outcome]]


def always_done(operation: str, path: str) -> Sequence[Outcome]:  # noqa: ARG001 - the signature of `Outcomes`
    """Every operation ends well."""
    return ("done",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarantees:
    """What a simulated store promises, and what it keeps.

    Attributes:
        exclusive_create: "yes"; "no", and it says so; or "ignored": it claims to and overwrites, as ``rclone serve s3`` does.
        compare_and_swap: whether objects have etags and `Store.replace_if` works.
        clear_refusals: whether a refused create says that the object exists. Otherwise it is an error that may mean anything,
            such as a 412 without a reason.
        listing_delay: how many of the latest changes `Store.list` does not show to other clients than the one that made them,
            until `SimulatedBucket.settle`.
    """

    exclusive_create: Literal["yes", "no", "ignored"] = "yes"
    compare_and_swap: bool = True
    clear_refusals: bool = True
    listing_delay: int = 0


@dataclass(frozen=True, slots=True)
class _Object:
    content: bytes
    etag: str
    modified: datetime


@dataclass(slots=True)
class SimulatedBucket:
    """The objects that all clients of a simulated store see.

    Attributes:
        guarantees: what the store promises, and keeps.
        start: what its clock says at first.
        scheduler: who decides on the order of operations; None to carry each out at once.
        outcomes: (operation, path) → how it may end, the usual way first; asked only where there is a scheduler. The operation
            is "create" for a put that creates, else the name of the method.
        changed: called after each change with the path, and the content before and after.
        longest_delay: by its clock; a request that the network has kept for longer never arrives.
        ahead: how far its clock was put forward.
    """

    guarantees: Guarantees = field(default_factory=Guarantees)
    start: datetime = datetime(2030, 1, 1, tzinfo=UTC)
    scheduler: Scheduler | None = None
    outcomes: Outcomes = always_done
    changed: Change | None = None
    longest_delay: timedelta = timedelta(hours=12)
    ahead: timedelta = timedelta(0)
    _objects: dict[str, _Object] = field(default_factory=dict)
    _versions: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _unlisted: list[tuple[str, str, _Object | None]] = field(default_factory=list)

    def client(self, name: str = "client") -> SimulatedStore:
        """A store as one process has it. The operations of clients with one name are never reordered among themselves."""
        return SimulatedStore(self, name)

    def copy(self) -> SimulatedBucket:
        """A bucket of its own with the same objects in the same versions, without scheduler and observer."""
        other = SimulatedBucket(self.guarantees, self.now, longest_delay=self.longest_delay)
        other._objects = dict(self._objects)
        other._versions = itertools.count(next(self._versions))
        return other

    @property
    def now(self) -> datetime:
        """What its clock says; it stands still but for `ahead` and the scheduler's time."""
        passed = 0.0 if self.scheduler is None else self.scheduler.time
        return self.start + self.ahead + timedelta(seconds=passed)

    def advance(self, by: timedelta) -> None:
        """Put its clock forward."""
        self.ahead += by

    def settle(self) -> None:
        """Let listings show everything that was changed so far."""
        self._unlisted.clear()

    @property
    def contents(self) -> dict[str, bytes]:
        """Path → content of everything that is there."""
        return {path: found.content for path, found in self._objects.items()}

    def size(self, path: str) -> int | None:
        """Of an object in bytes; None where there is none."""
        found = self._objects.get(path)
        return None if found is None else len(found.content)

    def info(self, path: str, found: _Object) -> ObjectInfo:
        """Describe an object as the store would."""
        etag = found.etag if self.guarantees.compare_and_swap else None
        return ObjectInfo(path, len(found.content), etag, found.modified)

    def find(self, path: str) -> _Object:
        """The object at a path, or `ObjectNotFoundError`."""
        found = self._objects.get(check_path(path))
        if found is None:
            raise ObjectNotFoundError(f"there is no {path}", path=path)
        return found

    def put(self, path: str, content: bytes, *, create: bool = False, by: str = "") -> ObjectInfo:
        """Write at once, as the store does when the request of a client arrives."""
        if create and self.guarantees.exclusive_create != "ignored" and path in self._objects:
            if self.guarantees.clear_refusals:
                raise ObjectExistsError(f"{path} exists", path=path)
            raise StoreError(f"{path}: 412, without a reason", path=path)
        new = _Object(content, f"v{next(self._versions)}", self.now)
        self._set(path, new, by)
        return self.info(path, new)

    def replace(self, path: str, content: bytes, etag: str, *, by: str = "") -> ObjectInfo:
        """Replace at once if it is still that version."""
        found = self._objects.get(path)
        if found is None or found.etag != etag:
            raise PreconditionFailedError(f"{path} is another version, or gone", path=path)
        return self.put(path, content, by=by)

    def delete(self, paths: Sequence[str], *, by: str = "") -> Mapping[str, StoreError]:
        """Delete at once."""
        for path in paths:
            if path in self._objects:
                self._set(path, None, by)
        return {}

    def list(self, prefix: str, *, to: str = "") -> list[ObjectInfo]:
        """List what a listing shows a client now."""
        shown: dict[str, _Object | None] = dict(self._objects)
        own: set[str] = set()
        for path, client, old in reversed(self._unlisted):
            if client == to:
                own.add(path)
            elif path not in own:
                shown[path] = old
        return [self.info(path, found) for path, found in sorted(shown.items()) if found and path.startswith(prefix)]

    def _set(self, path: str, new: _Object | None, by: str) -> None:
        old = self._objects.get(path)
        if new is None:
            del self._objects[path]
        else:
            self._objects[path] = new
        if self.guarantees.listing_delay:
            self._unlisted.append((path, by, old))
            del self._unlisted[: -self.guarantees.listing_delay]
        if self.changed is not None:
            self.changed(path, None if old is None else old.content, None if new is None else new.content)


class SimulatedStore(Store):
    """One client's view of a `SimulatedBucket`; made by `SimulatedBucket.client`.

    With a scheduler every operation is a scheduling point. Without, each is carried out at once.
    """

    def __init__(self, bucket: SimulatedBucket, name: str) -> None:
        kept = bucket.guarantees
        self.url = "simulated://bucket"
        self.capabilities = Capabilities(kept.exclusive_create != "no", kept.compare_and_swap, concurrency=8)
        self.name = name
        self.bucket = bucket
        self._closed = False

    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        """As the contract says."""
        content, create = bytes(plain_bytes(data)), mode == "create"
        check_path(path)
        return await self._do(
            "create" if create else "put", path, lambda: self.bucket.put(path, content, create=create, by=self.name)
        )

    async def put_parts(
        self,
        path: str,
        parts: AsyncIterable[Part],
        *,
        size: int,
        resend: Resend = NEVER,  # noqa: ARG002 - one operation, whatever its parts
    ) -> None:
        """As the contract says; one operation, once all parts are there."""
        if self._closed:
            raise StoreError(f"this client of {self.url} is closed")
        content = bytearray()
        async for part in parts:
            with part as view:
                content += plain_bytes(view)
        if len(content) != size:
            raise StoreError(f"the parts of {path} have {len(content)} bytes, not {size}", path=path)
        await self._do("put_parts", check_path(path), lambda: self.bucket.put(path, bytes(content), by=self.name))

    async def get(self, path: str) -> Blob:
        """As the contract says."""

        def read() -> Blob:
            found = self.bucket.find(path)
            return Blob(found.content, self.bucket.info(path, found))

        return await self._do("get", path, read)

    async def get_into(self, path: str, ranges: Sequence[tuple[int, int]], buffers: Sequence[memoryview]) -> None:
        """As the contract says; one operation."""

        def read() -> None:
            content = self.bucket.find(path).content
            for (start, stop), buffer in zip(ranges, buffers, strict=True):
                if start == stop:
                    continue
                if stop > len(content):
                    raise ObjectTruncatedError(f"{path} ends at byte {len(content)}, before {stop}", path=path)
                plain_bytes(buffer)[:] = content[start:stop]

        await self._do("get_into", path, read)

    async def head(self, path: str) -> ObjectInfo:
        """As the contract says."""
        return await self._do("head", path, lambda: self.bucket.info(path, self.bucket.find(path)))

    async def list(self, prefix: str = "", *, delimiter: bool = False) -> Listing:
        """As the contract says, but for `Guarantees.listing_delay`."""
        infos = await self._do("list", prefix, lambda: self.bucket.list(check_prefix(prefix), to=self.name))
        if not delimiter:
            return Listing(infos)
        below = [(info, info.path.removeprefix(prefix).partition("/")) for info in infos]
        folders = dict.fromkeys(f"{prefix}{first}/" for _, (first, slash, _) in below if slash)
        return Listing([info for info, (_, slash, _) in below if not slash], list(folders))

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        """As the contract says; one operation."""
        doomed = [check_path(path) for path in paths]
        what = f"{doomed[0]} and {len(doomed) - 1} more" if len(doomed) > 1 else "".join(doomed)
        half = len(doomed) // 2

        def in_part() -> Mapping[str, StoreError]:
            self.bucket.delete(doomed[:half], by=self.name)
            return {path: StoreError(f"{path}: could not be deleted", path=path) for path in doomed[half:]}

        return await self._do("delete", what, lambda: self.bucket.delete(doomed, by=self.name), in_part=in_part)

    async def replace_if(self, path: str, data: Buffer, etag: str) -> ObjectInfo:
        """As the contract says."""
        content = bytes(plain_bytes(data))
        return await self._do(
            "replace_if", check_path(path), lambda: self.bucket.replace(path, content, etag, by=self.name)
        )

    async def close(self) -> None:
        """Close this client; the bucket stays for others."""
        self._closed = True

    async def _do(
        self, operation: str, path: str, work: Callable[[], T], *, in_part: Callable[[], T] | None = None
    ) -> T:
        if self._closed:
            raise StoreError(f"this client of {self.url} is closed")
        scheduler = self.bucket.scheduler
        if scheduler is None:
            await asyncio.sleep(0)
            return work()
        what = f"{operation} {path}"

        def land() -> None:
            with contextlib.suppress(StoreError):  # nobody is there to be told
                work()

        def land_later() -> None:
            expires = self.bucket.now + self.bucket.longest_delay
            scheduler.land_later(self.name, what, land, alive=lambda: self.bucket.now <= expires)

        try:
            outcome = await scheduler.point(self.name, what, self.bucket.outcomes(operation, path))
        except asyncio.CancelledError:
            if scheduler.cancelling == "cancelled after":
                land()
            elif scheduler.cancelling == "cancelled, delayed":
                land_later()
            raise
        if outcome == "refused":
            raise StoreError(f"{what}: 503", retryable=True, path=path)
        if outcome == "in part":
            if in_part is None:
                raise ValueError(f"{what} is carried out or is not; only a deletion can end in part")
            return in_part()
        if outcome == "delayed":
            land_later()
        elif outcome in {"lost reply", "crash after"}:
            land()
        if outcome == "crash after":
            await scheduler.crash(self.name)
        if outcome in {"delayed", "lost reply"}:
            raise StoreTimeoutError(f"{what}: no answer", retryable=True, path=path)
        result = work()
        if outcome == "duplicated":
            land_later()
        return result
