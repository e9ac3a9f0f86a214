"""Verify another library's checkpoint: every tensor is read and decoded, and compared with what checksums there are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence

from asyncsaver.aio.tasks import run_all
from asyncsaver.catalog.root import Root
from asyncsaver.errors import CheckpointCorruptError
from asyncsaver.model.digests import NO_DIGEST
from asyncsaver.restore.source import Source
from asyncsaver.restore.verify import Damage, VerifyReport, check_tree, damage_error

_AT_ONCE = 4
"""Batches in memory at a time: together they take half of the memory budget, or a tensor each."""


async def verify_foreign(root: Root, source: Source, read: Callable[[Sequence[str]], Awaitable[None]]) -> VerifyReport:
    """Read all tensors, and tell of all that fail.

    Args:
        root: whose threads and budget are used.
        source: the checkpoint.
        read: reads and checks tensors, by name, all together.

    Raises:
        CheckpointCorruptError: lists everything that is wrong.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def check(names: Sequence[str]) -> list[Damage]:
        try:
            await read(names)
        except CheckpointCorruptError as error:
            if len(names) == 1:
                return [Damage(error.path or source.where, names[0], str(error))]
            half = len(names) // 2  # who of them it was
            return await check(names[:half]) + await check(names[half:])
        return []

    async def batch(names: Sequence[str]) -> list[Damage]:
        async with at_once:
            return await check(names)

    batches = await root.threads.run(lambda: list(_batches(source, root.budget.limit // (2 * _AT_ONCE))))
    found = await run_all(map(batch, batches))
    damage = [
        *await root.threads.run(check_tree, source),
        *(Damage(source.where, name, why) for name, why in source.unreadable.items()),
        *(one for several in found for one in several),
    ]
    if damage:
        raise damage_error(source.checkpoint, damage)
    return VerifyReport(
        source.checkpoint,
        len(source.files),
        len(source.tensors),
        source.checkpoint.total_bytes,
        loop.time() - began,
        [name for name in source.tensors if _unverified(source, name)],
    )


def _batches(source: Source, most: int) -> Iterator[Sequence[str]]:
    """The readable tensors in order, cut where more would be so many bytes."""
    names: list[str] = []
    total = 0
    for name, entry in source.tensors.items():
        if name in source.unreadable:
            continue
        size = max(source.spec(name).nbytes, sum([chunk.stop - chunk.start for chunk in entry.chunks]))
        if names and total + size > most:
            yield names
            names, total = [], 0
        names.append(name)
        total += size
    if names:
        yield names


def _unverified(source: Source, name: str) -> bool:
    return any(
        chunk.xxh3_128 == NO_DIGEST and chunk.stop > chunk.start and not _checks_itself(source, name, number)
        for number, chunk in enumerate(source.tensors[name].chunks)
    )


def _checks_itself(source: Source, name: str, chunk: int) -> bool:
    encoding = source.encoding_of(name, chunk)
    return encoding is not None and encoding.checked
