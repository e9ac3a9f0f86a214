"""Verify: read a whole checkpoint and compare it with what its manifest says, without restoring anything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import google_crc32c
import numpy as np
import xxhash

from asyncsaver.aio.tasks import run_all
from asyncsaver.catalog.root import Root
from asyncsaver.errors import CheckpointCorruptError, ManifestError, ObjectNotFoundError, ObjectTruncatedError
from asyncsaver.model.checkpoint import Checkpoint, Progress
from asyncsaver.model.manifest import Chunk, FileEntry
from asyncsaver.model.parse import TensorNode, parse_tree
from asyncsaver.restore.source import Source


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """A checkpoint in which every byte is as it was written.

    Attributes:
        checkpoint: which one.
        files: how many were read.
        tensors: how many they hold.
        bytes: how many were read.
        seconds: how long it took.
        unverified: tensors of another library's checkpoint that have no checksum: they could be read, no more is known.
    """

    checkpoint: Checkpoint
    files: int
    tensors: int
    bytes: int
    seconds: float
    unverified: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing found wrong: the file, the tensor it touches (empty for the file as a whole), and what it is."""

    path: str
    tensor: str
    problem: str


async def verify_source(root: Root, source: Source) -> VerifyReport:
    """Check size and crc32c of every file, the xxh3_128 of every chunk, and that tree and tensors fit together.

    Raises:
        CheckpointCorruptError: lists everything that is wrong.
        CheckpointDeletedError: it was deleted meanwhile.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    checkpoint = source.checkpoint
    chunks: list[list[tuple[str, Chunk]]] = [[] for _ in source.files]
    for name, entry in source.tensors.items():
        for chunk in entry.chunks:
            chunks[chunk.file].append((name, chunk))
    at_once = asyncio.Semaphore(max(1, root.concurrency // 2))
    done = 0

    async def check(number: int, file: FileEntry) -> list[Damage]:
        nonlocal done
        async with at_once:
            size = source.sizes.get(file.path)
            if size != file.size:
                problem = "is missing" if size is None else f"has {size} bytes, its manifest says {file.size}"
                return [
                    Damage(file.path, "", problem),
                    *(Damage(file.path, name, problem) for name, _ in chunks[number]),
                ]
            checker = _FileChecker(file, chunks[number])
            step = root.store.capabilities.part_bytes
            for start in range(0, file.size, step):
                stop = min(start + step, file.size)
                async with root.budget.hold(stop - start):
                    buffer = np.empty(stop - start, np.uint8)
                    try:
                        await root.store.get_into(file.path, [(start, stop)], [buffer.data])
                    except (ObjectNotFoundError, ObjectTruncatedError) as error:
                        return [Damage(file.path, "", str(error))]
                    await root.threads.run(checker.feed, buffer)
                done += stop - start
                root.report(Progress("reading", checkpoint.step, done, checkpoint.total_bytes))
            return checker.finish()

    of_files = await run_all(check(n, file) for n, file in enumerate(source.files))
    damage = [*await root.threads.run(check_tree, source), *(one for of_file in of_files for one in of_file)]
    if damage:
        error = damage_error(checkpoint, damage)
        await source.explain(error)
        raise error
    return VerifyReport(checkpoint, len(source.files), len(source.tensors), checkpoint.total_bytes, loop.time() - began)


def check_tree(source: Source) -> list[Damage]:
    """What keeps the state from being put together from its tensors, however good those are. Blocking."""
    where, specs = source.where, source.specs()
    try:
        tree = parse_tree(source.tree, specs)
    except ManifestError as error:
        return [Damage(where, "", str(error))]
    named = {leaf.tensor for leaf in tree.leaves.values() if isinstance(leaf, TensorNode)} | {*source.repeated}
    return [Damage(where, name, "no leaf of the tree names this tensor") for name in specs if name not in named]


def damage_error(checkpoint: Checkpoint, damage: Sequence[Damage]) -> CheckpointCorruptError:
    """One error that tells of all damage found, of which there is some."""
    tensors = [one.tensor for one in damage if one.tensor]
    lines = [f"{one.path}: {one.tensor + ': ' if one.tensor else ''}{one.problem}" for one in damage[:20]]
    if len(damage) > 20:
        lines.append(f"… and {len(damage) - 20} more")
    return CheckpointCorruptError(
        f"{checkpoint.url} is damaged in {len(damage)} place{'s' * (len(damage) > 1)}:\n  " + "\n  ".join(lines),
        path=damage[0].path,
        tensors=tensors,
    )


class _FileChecker:
    """Hashes a file that passes in order, as a whole and chunk by chunk. Blocking."""

    def __init__(self, file: FileEntry, chunks: Sequence[tuple[str, Chunk]]) -> None:
        self._file = file
        self._chunks = sorted(chunks, key=lambda item: item[1].start)
        self._next = 0
        self._position = 0
        self._crc = 0
        self._digest = xxhash.xxh3_128()
        self._damage: list[Damage] = []

    def feed(self, data: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> None:
        data.flags.writeable = False  # google_crc32c takes read-only buffers
        self._crc = google_crc32c.extend(self._crc, data)
        end = self._position + data.size
        while self._next < len(self._chunks):
            name, chunk = self._chunks[self._next]
            start = max(chunk.start, self._position)
            if start >= end and chunk.stop > end:
                break
            stop = min(chunk.stop, end)
            self._digest.update(data[start - self._position : max(stop - self._position, start - self._position)].data)
            if chunk.stop > end:
                break
            self._compare(name, chunk)
        self._position = end

    def finish(self) -> list[Damage]:
        for name, chunk in self._chunks[self._next :]:
            self._compare(name, chunk)
        if f"{self._crc:08x}" != self._file.crc32c:
            self._damage.insert(0, Damage(self._file.path, "", "crc32c of the file differs"))
        return self._damage

    def _compare(self, name: str, chunk: Chunk) -> None:
        if self._digest.hexdigest() != chunk.xxh3_128:
            self._damage.append(
                Damage(
                    self._file.path,
                    name,
                    f"bytes {chunk.start} to {chunk.stop} differ from what was written (xxh3_128)",
                )
            )
        self._digest = xxhash.xxh3_128()
        self._next += 1
