"""Restore: find → read → verify → assemble, again where the checkpoint is deleted meanwhile, and the figures of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from asyncsaver.aio.meter import metered
from asyncsaver.catalog.root import Root
from asyncsaver.errors import CheckpointDeletedError
from asyncsaver.model.stats import RestoreStats
from asyncsaver.restore.reader import CheckpointReader
from asyncsaver.restore.release import release
from asyncsaver.restore.source import Source

log = logging.getLogger("asyncsaver")
T = TypeVar("T")
_TRIES = 5


async def restore_state(
    root: Root,
    find: Callable[[], Awaitable[Source]],
    restore: Callable[[CheckpointReader], Awaitable[T]],
    *,
    again: bool,
) -> T:
    """Find a checkpoint and restore it; raises as both do.

    Args:
        root: where it is.
        find: tells what to read.
        restore: reads it.
        again: whether, if it is deleted while it is being read, another one is to be found.
    """
    for attempt in range(1, _TRIES + 1):
        try:
            return await _restore_once(root, find, restore)
        except CheckpointDeletedError as error:
            # Of a step, the one that has replaced it while it was being read.
            if not again or attempt == _TRIES:
                raise
            log.warning("%s; restoring the next one", error)
    raise AssertionError("unreachable: the last attempt returns or raises")


async def _restore_once(
    root: Root, find: Callable[[], Awaitable[Source]], restore: Callable[[CheckpointReader], Awaitable[T]]
) -> T:
    clock = asyncio.get_running_loop().time
    with metered() as meter:
        began = clock()
        async with CheckpointReader(root, await find()) as reader:
            found = clock()
            state = await restore(reader)
            tensors = len(reader.tensors)
            await root.threads.run(release, reader.source.tensors, reader.source.tree)
    stats = RestoreStats(
        bytes_read=meter.bytes_read,
        tensors=tensors,
        seconds_finding=found - began,
        seconds_reading=clock() - found,
        seconds_blocked=meter.seconds_blocked,
        peak_memory_bytes=root.budget.peak,
        requests=dict(meter.requests),
        retries=meter.retries,
        saver=root.label,
    )
    root.tell(reader.checkpoint, stats)
    return state
