"""The parts of many ranks, written, read and merged, in one process. Prints what each step takes as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TypeVar

from asyncsaver.formats import native
from asyncsaver.model.manifest import Chunk, FileEntry, Part, TensorEntry
from asyncsaver.model.merge import merge_parts
from asyncsaver.model.names import part_path, save_folder, shard_filename
from measure import Sample, measured

T = TypeVar("T")
NAME, SAVE_ID = "ckpt-00000001", "20260101T000000Z-0000000000000001"
TENSOR_BYTES, CHECKSUM = 64, "0" * 32


@dataclass(frozen=True, slots=True)
class Job:
    """What to merge.

    Attributes:
        ranks: how many parts.
        tensors: in each of them.
        sliced: whether all ranks hold slices of the same tensors, rather than each tensors of its own.
    """

    ranks: int
    tensors: int
    sliced: bool

    def as_json(self) -> str:
        """For the command line."""
        return json.dumps(asdict(self))

    def part(self, rank: int) -> Part:
        """What a rank would list."""
        path = save_folder(NAME, SAVE_ID) + shard_filename(rank + 1, self.ranks)
        return Part(
            save_id=SAVE_ID,
            rank=rank,
            world_size=self.ranks,
            files=[FileEntry(path, self.tensors * TENSOR_BYTES, "00000000")],
            tensors=dict(self._tensor(rank, index) for index in range(self.tensors)),
        )

    def _tensor(self, rank: int, index: int) -> tuple[str, TensorEntry]:
        start, stop = index * TENSOR_BYTES, (index + 1) * TENSOR_BYTES
        if self.sliced:
            chunk = Chunk((rank, 0), (1, 16), 0, start, stop, CHECKSUM)
            return f"layer.{index}", TensorEntry("float32", (self.ranks, 16), (chunk,))
        chunk = Chunk((0,), (16,), 0, start, stop, CHECKSUM)
        return f"layer.{rank}.{index}", TensorEntry("float32", (16,), (chunk,))


async def work(job: Job) -> dict[str, dict[str, float]]:
    """Go through all parts, in a thread as a save does. Returns what each step took."""
    encoding, documents = await _encoded([job.part(rank) for rank in range(job.ranks)])
    paths = [part_path(NAME, SAVE_ID, rank) for rank in range(job.ranks)]
    decoding, parts = await _in_a_thread(lambda: [*map(native.decode_part, documents, paths)])
    merging, (files, tensors) = await _in_a_thread(lambda: merge_parts(parts, save_id=SAVE_ID, world_size=job.ranks))
    if len(files) != job.ranks or len(tensors) != job.tensors * (1 if job.sliced else job.ranks):
        raise ValueError(f"{len(tensors)} tensors in {len(files)} files came out of the merge")
    return {"encode": asdict(encoding), "decode": asdict(decoding), "merge": asdict(merging)}


async def _encoded(parts: list[Part]) -> tuple[Sample, list[bytes]]:
    return await _in_a_thread(lambda: [*map(native.encode, parts)])


async def _in_a_thread(call: Callable[[], T]) -> tuple[Sample, T]:
    return await measured(lambda: asyncio.to_thread(call))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(work(Job(**json.loads(sys.argv[1]))))))
