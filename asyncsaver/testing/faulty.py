"""Any store, with faults: for tests of how a trainer, or a store's caller, bears them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypeVar

from asyncsaver.errors import StoreError
from asyncsaver.store.contract import Blob, Buffer, Listing, ObjectInfo, Part, PutMode, Store
from asyncsaver.store.resend import NEVER, Resend, until_sent
from asyncsaver.testing.faults import Fault, Operation

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault that has struck, and what."""

    fault: Fault
    operation: Operation


class FaultyStore(Store):
    """A store whose operations fail, hang, lose replies or return damaged bytes as told.

    Give it to a `Saver` in place of a URL. Several faults may strike one operation: the first in ``faults`` is the outermost, so
    ``[Delay(...), LoseReply(...)]`` delays, then carries out, then loses the reply.

    Args:
        store: what does the work; closed together with this one.
        faults: see `asyncsaver.testing.faults`; may be changed while the store is in use.

    Attributes:
        faults: as given.
        operations: every operation so far.
        injected: every fault that has struck, in order.
    """

    def __init__(self, store: Store, faults: Iterable[Fault] = ()) -> None:
        self.url = store.url
        self.capabilities = store.capabilities
        self.faults: list[Fault] = list(faults)
        self.operations: list[Operation] = []
        self.injected: list[Injected] = []
        self._store = store
        self._counts = itertools.count(1)

    async def put(self, path: str, data: Buffer, *, mode: PutMode = "overwrite") -> ObjectInfo:
        """As the contract says, but for the faults."""
        name = "create" if mode == "create" else "put"
        return await self._do(name, path, lambda: self._store.put(path, data, mode=mode))

    async def put_parts(self, path: str, parts: AsyncIterable[Part], *, size: int, resend: Resend = NEVER) -> None:
        """As the contract says, but for the faults.

        The upload is one operation, and each part of it another, called "part", which comes before the store has the part. What
        strikes there, a lost reply too, makes the caller send the part again; what strikes the upload is not sent again.
        """

        async def put() -> None:
            async with aclosing(self._struck(path, parts, resend)) as given:
                await self._store.put_parts(path, given, size=size, resend=resend)

        await self._do("put_parts", path, put)

    async def _struck(self, path: str, parts: AsyncIterable[Part], resend: Resend) -> AsyncGenerator[Part, None]:
        async def pass_on() -> None:
            """The store sends it."""

        number = 0
        async for part in parts:
            number += 1
            await until_sent(resend.part(number), lambda: self._do("part", path, pass_on))
            yield part

    async def get(self, path: str) -> Blob:
        """As the contract says, but for the faults."""
        return await self._do("get", path, lambda: self._store.get(path))

    async def get_into(self, path: str, ranges: Sequence[tuple[int, int]], buffers: Sequence[memoryview]) -> None:
        """As the contract says, but for the faults; one operation, however many ranges."""
        await self._do(
            "get_into", path, lambda: self._store.get_into(path, ranges, buffers), ranges=ranges, buffers=buffers
        )

    async def head(self, path: str) -> ObjectInfo:
        """As the contract says, but for the faults."""
        return await self._do("head", path, lambda: self._store.head(path))

    async def list(self, prefix: str = "", *, delimiter: bool = False) -> Listing:
        """As the contract says, but for the faults."""
        return await self._do("list", prefix, lambda: self._store.list(prefix, delimiter=delimiter))

    async def delete(self, paths: Sequence[str]) -> Mapping[str, StoreError]:
        """As the contract says, but for the faults."""
        return await self._do("delete", paths[0] if paths else "", lambda: self._store.delete(paths))

    async def replace_if(self, path: str, data: Buffer, etag: str) -> ObjectInfo:
        """As the contract says, but for the faults."""
        return await self._do("replace_if", path, lambda: self._store.replace_if(path, data, etag))

    async def purge(
        self, older_than: timedelta, *, spare: Collection[str] = (), vacant: Callable[[str], bool] | None = None
    ) -> int:
        """As the contract says, but for the faults."""
        return await self._do("purge", "", lambda: self._store.purge(older_than, spare=spare, vacant=vacant))

    async def close(self) -> None:
        """Close the store beneath; without faults."""
        await self._store.close()

    async def _do(
        self,
        name: str,
        path: str,
        work: Callable[[], Awaitable[T]],
        *,
        ranges: Sequence[tuple[int, int]] = (),
        buffers: Sequence[memoryview] = (),
    ) -> T:
        operation = Operation(name, path, next(self._counts), ranges, buffers)
        # Not the buffers: they belong to the caller, and are large.
        noted = Operation(name, path, operation.count, ranges)
        self.operations.append(noted)
        striking = [fault for fault in self.faults if fault.strikes(operation)]
        self.injected.extend(Injected(fault, noted) for fault in striking)
        for fault in reversed(striking):
            work = partial(fault.around, operation, work)
        return await work()
