"""Staging for one saver: background saves take their turns, and their snapshots share a budget."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import Any

from asyncsaver.aio.budget import ByteBudget
from asyncsaver.catalog.root import Root
from asyncsaver.model.checkpoint import Progress
from asyncsaver.save.arena import Arena
from asyncsaver.save.snapshot import snapshot
from asyncsaver.save.stage import Stage, Staged, check_fits, stage

log = logging.getLogger("asyncsaver")


class Staging:
    """Stages states, and bounds the memory of snapshots, which later ones use again.

    Args:
        root: whose threads and adapters do it.
        limit: bytes of all snapshots together; a larger one is alone.
        describe: a state, for the format that is written; see `stage`.
    """

    def __init__(self, root: Root, limit: int, describe: Stage = stage) -> None:
        self._root = root
        self._describe = describe
        self._snapshots = ByteBudget(limit)
        self._arena = Arena()
        self._turn = asyncio.Lock()

    async def stage(self, state: Any, step: int | None) -> tuple[Staged, float]:
        """Describe a state without copying it. Returns it, and how long that took, in seconds.

        Raises:
            InvalidStateError: it cannot be saved, or not in this store.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        staged = await self._root.threads.run(self._describe, state, self._root.adapters)
        await self._root.threads.run(check_fits, staged, self._root.store)
        self._root.report(Progress("staging", step, staged.nbytes, staged.nbytes))
        return staged, loop.time() - began

    async def snapshot(self, state: Any, step: int | None, name: str) -> tuple[Staged, float, int]:
        """Stage a state and copy it.

        One at a time, in the order of the calls: a later save must not take memory that an earlier one waits for, since
        it gives it back only after its commit, which in turn waits for the earlier one.

        Returns:
            The snapshot, how long it took in seconds, and the bytes to `give_back` once it is saved.
        """
        async with self._turn:
            staged, seconds = await self.stage(state, step)
            nbytes = staged.nbytes
            waits = self._snapshots.would_wait(nbytes)
            if waits:
                log.info("%s: waiting for an earlier background save before %s is staged", self._root.store.url, name)
            await self._snapshots.acquire(nbytes)
            try:
                if waits:
                    staged, seconds = await self.stage(state, step)  # it may have changed while this waited
                began = asyncio.get_running_loop().time()
                # What earlier snapshots have left counts as well, except that the system may take it.
                take = partial(self._arena.take, keep=self._snapshots.limit - self._snapshots.used)
                staged = await snapshot(staged, self._root.adapters, self._root.threads, take)
            except BaseException:
                self._snapshots.release(nbytes)
                raise
            return staged, seconds + asyncio.get_running_loop().time() - began, nbytes

    def give_back(self, nbytes: int) -> None:
        """A snapshot is not needed any more: another may be taken.

        Its memory is used again when nobody reads it any more, which may be later.
        """
        self._snapshots.release(nbytes)

    def close(self) -> None:
        """Release the memory that snapshots have left."""
        self._arena.close()
