"""Write: shards go to the store, concurrently, within the memory budget; then the part that lists them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType

from asyncsaver.aio.tasks import run_all
from asyncsaver.catalog.root import Root
from asyncsaver.errors import StoreError
from asyncsaver.formats.safetensors import encode_header
from asyncsaver.model.checkpoint import Progress
from asyncsaver.model.dtypes import Array
from asyncsaver.model.flatten import TensorLeaf
from asyncsaver.model.manifest import FileEntry, Part, TensorEntry
from asyncsaver.model.names import save_folder, shard_filename
from asyncsaver.model.shards import ShardPlan, plan_shards
from asyncsaver.model.written import header_rows, written_entries
from asyncsaver.save.shard_bytes import ShardBytes, Sources
from asyncsaver.save.stage import Staged
from asyncsaver.store.contract import Part as PartOfObject
from asyncsaver.store.contract import ScatteredPart
from asyncsaver.store.resend import Resend


@dataclass(slots=True)
class ShardWriter:
    """Writes the shards of one save.

    Args:
        root: where to.
        name: of the checkpoint.
        step: for progress reports.
        save_id: of the attempt.
        shard_bytes: how large a shard may grow before the next one is begun.
        report: told as bytes land.
        begun: set once something may be put: what comes first is prepared, but not sent before.
        written: bytes that have reached the store, those of attempts that failed later included.
    """

    root: Root
    name: str
    step: int | None
    save_id: str
    shard_bytes: int
    report: Callable[[Progress], None]
    begun: asyncio.Event
    written: int = 0
    _total: int = 0
    _window: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        # How much is prepared at once; how much of that is in flight is up to the store's own window.
        self._window = asyncio.Semaphore(self.root.concurrency)

    async def write(self, staged: Staged) -> Part:
        """Write all shards and return the part that lists them, with sizes and checksums as written.

        Raises:
            StoreError: a shard could not be written. Others may have been; they lie under the save id.
        """
        tensors = staged.tensors
        plans = await self.root.threads.run(plan_shards, tensors, self.shard_bytes)
        self._total = staged.nbytes
        # A shard in several requests fills the window by itself; opening many at once would only leave more unfinished. But one
        # whose last part is on its way fills it no more: then the next one is begun.
        capabilities = self.root.store.capabilities
        requests = 1 if capabilities.sequential else -(-self.shard_bytes // capabilities.part_bytes)
        at_once = asyncio.Semaphore(-(-self.root.concurrency // requests) + 1)

        async def one(number: int, plan: ShardPlan) -> tuple[FileEntry, dict[str, TensorEntry]]:
            await at_once.acquire()
            with ExitStack() as turn:
                turn.callback(at_once.release)
                return await self._shard(number, len(plans), plan, tensors, turn)

        shards = await run_all(one(number, plan) for number, plan in enumerate(plans, 1))

        def part() -> Part:
            entries = {name: entry for _, shard in shards for name, entry in shard.items()}
            return Part(
                save_id=self.save_id,
                rank=0,
                world_size=1,
                files=[file for file, _ in shards],
                tensors={tensor.name: entries[tensor.name] for tensor in tensors},
            )

        return await self.root.threads.run(part)

    async def _shard(
        self, number: int, count: int, plan: ShardPlan, tensors: Sequence[TensorLeaf], turn: ExitStack
    ) -> tuple[FileEntry, dict[str, TensorEntry]]:
        path = save_folder(self.name, self.save_id) + shard_filename(number, count)

        def lay_out() -> tuple[bytes, list[int]]:
            return encode_header(header_rows(plan, tensors)), [item.stop - item.start for item in plan.tensors]

        def array(position: int) -> Array:
            return self._array(tensors[plan.tensors[position].index])

        header, sizes = await self.root.threads.run(lay_out)
        sources = Sources(sizes, array)
        content = await self._put_with_retries(path, header, sources, turn)
        entries = await self.root.threads.run(written_entries, plan, tensors, number - 1, len(header), content.hashes)
        return FileEntry(path, content.size, content.crc32c), entries

    async def _put_with_retries(self, path: str, header: bytes, sources: Sources, turn: ExitStack) -> ShardBytes:
        """Upload a shard. A request that fails is sent again beneath.

        For what is lost as a whole, all parts have to be made again: an upload that the store has forgotten, or cannot go on
        with. Both share one deadline, so that it is not met twice.
        """
        content = ShardBytes(header, sources)
        capabilities = self.root.store.capabilities
        if content.size <= max(capabilities.part_bytes, capabilities.put_bytes):
            await self._put_whole(path, content, len(header))
            return content
        await self.begun.wait()
        tries = self.root.retries.begin_upload(f"put {path}")
        while True:
            try:
                await self._put_in_parts(path, content, tries, turn)
            except StoreError as error:
                if not await tries.another(error):
                    raise
                content = ShardBytes(header, sources)
            else:
                return content

    async def _put_whole(self, path: str, content: ShardBytes, header_size: int) -> None:
        store, threads, scattered = self.root.store, self.root.threads, self.root.store.capabilities.scattered
        # A header that is not copied is there anyway. Counted, it would keep a full window just out of an even budget.
        size = content.size - (header_size if scattered else 0)
        await self._wait_for(size)
        try:
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
            if capabilities.scattered:
                pieces = await self.root.threads.run(content.take_pieces, size)
            else:
                pieces = [await self.root.threads.run(content.take, size)]
            yield _PartOfShard(pieces, partial(self._lend, size, start, unreturned))
        turn.close()

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
        done = min(self.written, self._total)  # headers are not counted
        self.report(Progress("writing", self.step, done, self._total))

    def _array(self, tensor: TensorLeaf) -> Array:
        adapter = self.root.adapters.by_kind(tensor.kind)
        if adapter is None:
            raise RuntimeError(f"{tensor.name}: the adapter for {tensor.kind!r} that described it is gone")
        return adapter.to_numpy(tensor.value)


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
        self._lent.__exit__(exc_type, exc, traceback)

    @contextmanager
    def pieces(self) -> Iterator[Sequence[memoryview]]:
        """See `ScatteredPart`."""
        with self._lent:
            yield self._pieces
