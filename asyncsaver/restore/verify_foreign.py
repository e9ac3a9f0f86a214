"""Verify another library's checkpoint: every tensor is read and decoded, and compared with what checksums there are."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from asyncsaver.aio.tasks import run_all
from asyncsaver.catalog.root import Root
from asyncsaver.errors import CheckpointCorruptError
from asyncsaver.model.digests import NO_DIGEST
from asyncsaver.model.dtypes import Array
from asyncsaver.restore.source import Source
from asyncsaver.restore.verify import Damage, VerifyReport, check_tree, damage_error

_AT_ONCE = 4
"""Tensors in memory at a time: each is held whole."""


async def verify_foreign(root: Root, source: Source, read: Callable[[str], Awaitable[Array]]) -> VerifyReport:
    """Read all tensors, and tell of all that fail.

    Args:
        root: whose threads are used.
        source: the checkpoint.
        read: reads and checks a tensor, by name.

    Raises:
        CheckpointCorruptError: lists everything that is wrong.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def check(name: str) -> Damage | None:
        async with at_once:
            try:
                await read(name)
            except CheckpointCorruptError as error:
                return Damage(error.path or source.where, name, str(error))
            return None

    found = await run_all(check(name) for name in source.tensors)
    damage = [*await root.threads.run(check_tree, source), *(one for one in found if one is not None)]
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


def _unverified(source: Source, name: str) -> bool:
    return any(
        chunk.xxh3_128 == NO_DIGEST and chunk.stop > chunk.start and not _checks_itself(source, name, number)
        for number, chunk in enumerate(source.tensors[name].chunks)
    )


def _checks_itself(source: Source, name: str, chunk: int) -> bool:
    encoding = source.encoding_of(name, chunk)
    return encoding is not None and encoding.checked
