"""Uploads: objects made piece by piece go to the store, within the memory budget, and are made again where need be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType

from asyncsaver.catalog.root import Root
from asyncsaver.errors import StoreError
from asyncsaver.model.checkpoint import Progress
from asyncsaver.save.shard_bytes import ShardBytes
from asyncsaver.store.contract import Part as PartOfObject
from asyncsaver.store.contract import ScatteredPart
from asyncsaver.store.resend import Resend


def _at_once() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(slots=True)
class Uploads:
    """Uploads the shards of one save.

    Args:
        root: where to.
        step: for progress reports.
        total: bytes of all tensors, likewise.
        report: told as bytes land.
        begun: set once something may be put, by default at once: what comes first is prepared, but not sent before.
        written: bytes that have reached the store, those of attempts that failed later included.
    """

    root: Root
    step: int | None
    total: int
    report: Callable[[Progress], None]
    begun: asyncio.Event = field(default_factory=_at_once)
    written: int = 0
    _window: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        # How much is prepared at once; how much of that is in flight is up to the store's own window.
        self._window = asyncio.Semaphore(self.root.concurrency)

    def at_once(self, shard_bytes: int) -> int:
        """How many shards of that size are best written side by side.

        A shard in several requests fills the window by itself; opening many at once would only leave more unfinished. But one
        whose last part is on its way fills it no more: then the next one is begun.
        """
        capabilities = self.root.store.capabilities
        requests = 1 if capabilities.sequential else -(-shard_bytes // capabilities.part_bytes)
        return -(-self.root.concurrency // requests) + 1

    async def put(self, path: str, make: Callable[[], ShardBytes], header_size: int, turn: ExitStack) -> ShardBytes:
        """Upload a shard. A request that fails is sent again beneath.

        For what is lost as a whole, all parts have to be made again: an upload that the store has forgotten, or cannot go on
        with. Both share one deadline, so that it is not met twice.

        Args:
            path: where to.
            make: makes its bytes, from the beginning. Blocking.
            header_size: how many of them are in memory anyway.
            turn: closed when its last part is on its way: then another one may begin.

        Returns:
            Its bytes, all of which have passed.
        """
        content = await self.root.threads.run(make)
        capabilities = self.root.store.capabilities
        if content.size <= max(capabilities.part_bytes, capabilities.put_bytes):
            await self._put_whole(path, content, header_size)
            return content
        await self.begun.wait()
        tries = self.root.retries.begin_upload(f"put {path}")
        while True:
            try:
                await self._put_in_parts(path, content, tries, turn)
            except StoreError as error:
                if not await tries.another(error):
                    raise
                content = await self.root.threads.run(make)
            else:
                return content

    async def _put_whole(self, path: str, content: ShardBytes, header_size: int) -> None:
        store, threads, scattered = self.root.store, self.root.threads, self.root.store.capabilities.scattered
        # A header that is not copied is there anyway. Counted, it would keep a full window just out of an even budget.
        size = content.size - (header_size if scattered else 0)
        await self._wait_for(size)
        try:
            await content.load(content.size)
            if scattered:
                pieces = await threads.run(content.take_pieces, content.size)
                await self.begun.wait()
                await store.put_pieces(path, pieces)
            else:
                data = await threads.run(content.take, content.size)
                await self.begun.wait()
                await store.put(path, data)
            self._landed(content.size)
        finally:
            self._window.release()
            self.root.budget.release(size)

    async def _put_in_parts(self, path: str, content: ShardBytes, resend: Resend, turn: ExitStack) -> None:
        store, size = self.root.store, content.size
        unreturned: set[int] = set()
        try:
            await store.put_parts(path, self._parts(content, unreturned, turn), size=size, resend=resend)
        finally:
            for part_size in [min(store.capabilities.part_bytes, size - start) for start in unreturned]:
                self._window.release()
                self.root.budget.release(part_size)

    async def _parts(self, content: ShardBytes, unreturned: set[int], turn: ExitStack) -> AsyncIterator[PartOfObject]:
        capabilities = self.root.store.capabilities
        for start in range(0, content.size, capabilities.part_bytes):
            size = min(capabilities.part_bytes, content.size - start)
            await self._wait_for(size)
            unreturned.add(start)
            await content.load(size)
            # No name for the pieces here: it would keep their memory while the next part is being made.
            yield _PartOfShard(await self._pieces(content, size), partial(self._lend, size, start, unreturned))
        turn.close()

    async def _pieces(self, content: ShardBytes, size: int) -> Sequence[memoryview]:
        if self.root.store.capabilities.scattered:
            return await self.root.threads.run(content.take_pieces, size)
        return [await self.root.threads.run(content.take, size)]

    @contextmanager
    def _lend(self, size: int, start: int, unreturned: set[int]) -> Iterator[None]:
        try:
            yield
            self._landed(size)
        finally:
            unreturned.discard(start)
            self._window.release()
            self.root.budget.release(size)

    async def _wait_for(self, size: int) -> None:
        await self._window.acquire()
        try:
            await self.root.budget.acquire(size)
        except BaseException:
            self._window.release()
            raise

    def _landed(self, size: int) -> None:
        self.written += size
        done = min(self.written, self.total)  # headers are not counted
        self.report(Progress("writing", self.step, done, self.total))


class _PartOfShard(ScatteredPart):
    """One part, whose memory is given back when it is left.

    Args:
        pieces: its bytes.
        lend: makes what is entered and left with it.
    """

    def __init__(self, pieces: Sequence[memoryview], lend: Callable[[], AbstractContextManager[None]]) -> None:
        self._pieces = pieces
        self._lent = lend()

    def __enter__(self) -> memoryview:
        data = self._pieces[0] if len(self._pieces) == 1 else memoryview(b"".join(self._pieces))
        self._lent.__enter__()
        return data

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._pieces = ()
        self._lent.__exit__(exc_type, exc, traceback)

    @contextmanager
    def pieces(self) -> Iterator[Sequence[memoryview]]:
        """See `ScatteredPart`."""
        with self._lent:
            try:
                yield self._pieces
            finally:
                self._pieces = ()  # a store may keep the part itself for longer
