"""A real store in whose way a script can stand: it records, refuses, loses replies, holds calls back or cancels callers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Protocol, TypeVar

from asyncsaver.errors import StoreError
from asyncsaver.store import NEVER, Blob, Buffer, Capabilities, Listing, ObjectInfo, Part, PutMode, Resend, Store

T = TypeVar("T")
Work = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Call:
    """One call on the store: the how-manieth, what, on which path (the first, where there are several)."""

    number: int
    operation: str
    path: str

    def __str__(self) -> str:
        return f"call {self.number}, {self.operation} {self.path}"


class Fault(Protocol):
    """What happens to a call in place of just being carried out."""

    async def around(self, work: Work) -> Any: ...


Script = Callable[[Call], Fault | None]


@dataclass(frozen=True, slots=True)
class Fail:
    """The call fails; with ``applied`` it was carried out, and only its reply is lost."""

    error: Exception
    applied: bool = False

    async def around(self, work: Work) -> Any:
        if self.applied:
            await work()
        raise self.error


@dataclass(slots=True)
class Late:
    """The call fails, and is carried out when the test says so: a request that a network has delayed."""

    error: Exception
    work: Work | None = None

    async def around(self, work: Work) -> Any:
        self.work = work
        raise self.error

    async def land(self) -> Any:
        assert self.work is not None, "the call has not been made"
        return await self.work()


@dataclass(slots=True)
class Hold:
    """The call waits until it is released, then is carried out; with ``applied`` it is carried out first."""

    applied: bool = False
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def around(self, work: Work) -> Any:
        result = await work() if self.applied else None
        self.reached.set()
        await self.release.wait()
        return result if self.applied else await work()


@dataclass(frozen=True, slots=True)
class Cancel:
    """The task is cancelled while the call is in flight; with ``applied`` the call was carried out."""

    task: Callable[[], asyncio.Task[Any]]
    applied: bool = False

    async def around(self, work: Work) -> Any:
        result = await work() if self.applied else None
        self.task().cancel()
        for _ in range(20):  # turns of the loop in which the cancellation gets here, unless the caller is shielded
            await asyncio.sleep(0)
        return result if self.applied else await work()


@dataclass(frozen=True, slots=True)
class Meanwhile:
    """Something else happens while the call is in flight."""

    what: Callable[[], Awaitable[Any]]

    async def around(self, work: Work) -> Any:
        await self.what()
        return await work()


def nothing(call: Call) -> Fault | None:
    """Let every call through."""
    return None


def at(operation: str, path: str, *faults: Fault) -> Script:
    """Faults, one after another, for the calls of an operation whose path contains a string."""
    left = list(faults)

    def script(call: Call) -> Fault | None:
        return left.pop(0) if left and call.operation == operation and path in call.path else None

    return script


def always(operation: str, path: str, fault: Fault) -> Script:
    """The same fault for all calls of an operation whose path contains a string."""
    return lambda call: fault if call.operation == operation and path in call.path else None


def nth(number: int, fault: Fault) -> Script:
    """A fault for one call, by number."""
    return lambda call: fault if call.number == number else None


def from_nth(number: int, error: Callable[[], StoreError]) -> Script:
    """Nothing answers any more from that call on: the process, or the network, is gone."""
    return lambda call: Fail(error()) if call.number >= number else None


class ScriptedStore(Store):
    """Any store, with a script in its way.

    Args:
        inner: what does the work.
        script: asked about every call.
        keeps_exclusive: whether ``create`` is passed on as such; a store that lies overwrites.
        etags: whether objects have them.
        capabilities: in place of the inner store's.
    """

    def __init__(
        self,
        inner: Store,
        script: Script = nothing,
        *,
        keeps_exclusive: bool = True,
        etags: bool = True,
        capabilities: Capabilities | None = None,
    ) -> None:
        self.url = inner.url
        self.capabilities = capabilities or inner.capabilities
        self.inner = inner
        self.script = script
        self.calls: list[Call] = []
        self._keeps_exclusive = keeps_exclusive
        self._etags = etags

    def count(self, operation: str, path: str = "") -> int:
        """How many calls of an operation there were on paths that contain a string."""
        return sum(call.operation == operation and path in call.path for call in self.calls)

    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        content = bytes(data)  # a delayed request still has the bytes it was sent with
        real: PutMode = mode if self._keeps_exclusive else "overwrite"
        operation = "create" if mode == "create" else "put"
        return self._info(await self._call(operation, path, lambda: self.inner.put(path, content, mode=real)))

    async def put_parts(self, path: str, parts: AsyncIterable[Part], *, size: int, resend: Resend = NEVER) -> None:
        await self._call("put_parts", path, lambda: self.inner.put_parts(path, parts, size=size, resend=resend))

    async def get(self, path: str) -> Blob:
        blob = await self._call("get", path, lambda: self.inner.get(path))
        return Blob(blob.data, self._info(blob.info))

    async def get_into(self, path: str, ranges: Sequence[tuple[int, int]], buffers: Sequence[memoryview]) -> None:
        await self._call("get_into", path, lambda: self.inner.get_into(path, ranges, buffers))

    async def head(self, path: str) -> ObjectInfo:
        return self._info(await self._call("head", path, lambda: self.inner.head(path)))

    async def list(self, prefix: str = "", *, delimiter: bool = False) -> Listing:
        listing = await self._call("list", prefix, lambda: self.inner.list(prefix, delimiter=delimiter))
        return Listing([self._info(item) for item in listing.objects], listing.prefixes)

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        return await self._call("delete", paths[0] if paths else "", lambda: self.inner.delete(paths))

    async def replace_if(self, path: str, data: Buffer, etag: str) -> ObjectInfo:
        return self._info(await self._call("replace_if", path, lambda: self.inner.replace_if(path, data, etag)))

    async def purge(
        self, older_than: timedelta, *, spare: Collection[str] = (), vacant: Callable[[str], bool] | None = None
    ) -> int:
        return await self._call("purge", "", lambda: self.inner.purge(older_than, spare=spare, vacant=vacant))

    async def close(self) -> None:
        """Leave the inner store open: requests that the network has delayed land even when their sender is gone."""

    async def _call(self, operation: str, path: str, work: Callable[[], Awaitable[T]]) -> T:
        call = Call(len(self.calls), operation, path)
        self.calls.append(call)
        fault = self.script(call)
        if fault is None:
            return await work()
        result: T = await fault.around(work)
        return result

    def _info(self, info: ObjectInfo) -> ObjectInfo:
        return info if self._etags else replace(info, etag=None)
