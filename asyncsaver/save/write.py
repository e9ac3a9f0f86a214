"""Write: shards go to the store, concurrently, within the memory budget; then the part that lists them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from asyncsaver.aio.tasks import run_all
from asyncsaver.catalog.root import Root
from asyncsaver.formats.safetensors import encode_header
from asyncsaver.model.checkpoint import Progress
from asyncsaver.model.flatten import TensorLeaf
from asyncsaver.model.manifest import FileEntry, Part, TensorEntry
from asyncsaver.model.names import save_folder, shard_filename
from asyncsaver.model.shards import ShardPlan, plan_shards
from asyncsaver.model.written import header_rows, written_entries
from asyncsaver.save.contents import Contents, InMemory
from asyncsaver.save.stage import Staged
from asyncsaver.save.upload import Uploads


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
    """

    root: Root
    name: str
    step: int | None
    save_id: str
    shard_bytes: int
    report: Callable[[Progress], None]
    begun: asyncio.Event

    async def write(self, staged: Staged) -> Part:
        """Write all shards and return the part that lists them, with sizes and checksums as written.

        Raises:
            StoreError: a shard could not be written. Others may have been; they lie under the save id.
        """
        tensors = staged.tensors
        plans = await self.root.threads.run(plan_shards, tensors, self.shard_bytes)
        folder = save_folder(self.name, self.save_id)
        contents = staged.contents or InMemory(self.root.adapters)
        uploads = Uploads(self.root, self.step, staged.nbytes, self.report, self.begun)
        shards = await put_shards(
            uploads,
            contents,
            [(folder + shard_filename(number, len(plans)), plan) for number, plan in enumerate(plans, 1)],
            tensors,
            self.shard_bytes,
        )

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


async def put_shards(
    uploads: Uploads,
    contents: Contents,
    shards: Sequence[tuple[str, ShardPlan]],
    tensors: Sequence[TensorLeaf],
    shard_bytes: int,
) -> list[tuple[FileEntry, dict[str, TensorEntry]]]:
    """Write safetensors files; returns what is to be said of each and of the tensors in it.

    Args:
        uploads: to the store.
        contents: gives the tensors' bytes.
        shards: where each goes, and what is in it.
        tensors: all that were planned.
        shard_bytes: how large a shard was allowed to grow.

    Raises:
        StoreError: a shard could not be written. Others may have been.
    """
    threads = uploads.root.threads
    at_once = asyncio.Semaphore(1 if contents.one_by_one else uploads.at_once(shard_bytes))

    async def one(number: int, path: str, plan: ShardPlan) -> tuple[FileEntry, dict[str, TensorEntry]]:
        await at_once.acquire()
        with ExitStack() as turn:
            turn.callback(at_once.release)
            header, placed = await threads.run(_lay_out, plan, tensors)
            content = await uploads.put(path, lambda: contents.shard(header, placed), len(header), turn)
            entries = await threads.run(written_entries, plan, tensors, number, len(header), content.hashes)
            return FileEntry(path, content.size, content.crc32c), entries

    return await run_all(one(number, path, plan) for number, (path, plan) in enumerate(shards))


def _lay_out(plan: ShardPlan, tensors: Sequence[TensorLeaf]) -> tuple[bytes, list[TensorLeaf]]:
    """The header of a shard, and its tensors in file order."""
    return encode_header(header_rows(plan, tensors)), [tensors[item.index] for item in plan.tensors]
