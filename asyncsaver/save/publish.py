"""Publish: files whose names another library has fixed become a checkpoint with the one that is written last.

Our own layout gives every attempt a folder of its own. Here attempts share a few names, so an attempt first takes those that
it is going to write: it creates the first of its data files exclusively, with a token in it. Whoever is refused takes other
names, or gives up. What an attempt has taken nobody else writes, and it may be deleted when the attempt fails.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from asyncsaver.aio.completion import to_completion
from asyncsaver.catalog.root import Root
from asyncsaver.errors import (
    AccessDeniedError,
    AsyncSaverError,
    CheckpointCorruptError,
    CheckpointExistsError,
    CommitUnknownError,
    ObjectNotFoundError,
    StoreError,
)
from asyncsaver.save.exclusive import create_own, read_if_there
from asyncsaver.store.contract import ObjectInfo, Store
from asyncsaver.store.retry import full_jitter

log = logging.getLogger("asyncsaver")
_TIDY_SECONDS = 30.0
_REFUSALS = 3  # how often a refusal that is not worth a retry is believed to be a mistake


async def check_written(store: Store, folder: str, sizes: Mapping[str, int]) -> Sequence[ObjectInfo]:
    """Look whether every file stands in a folder as it was written; one LIST.

    Args:
        store: where.
        folder: that they are in, with a slash at its end; "" for the root.
        sizes: path → size in bytes.

    Returns:
        All that stands in the folder.

    Raises:
        CheckpointCorruptError: naming the first file that does not.
    """
    listing = await store.list(folder, delimiter=True)
    found = {item.path: item.size for item in listing.objects}
    for path, size in sizes.items():
        if found.get(path) != size:
            there = "is missing" if path not in found else f"has {found[path]} bytes"
            raise CheckpointCorruptError(
                f"{store.url}/{path} {there}, though {size} were written; nothing was committed", path=path
            )
    return listing.objects


@dataclass(slots=True, kw_only=True)
class Publication:
    """One attempt to write a checkpoint under names that are fixed.

    Attributes:
        root: where to.
        where: URL of the checkpoint, for messages.
        limit: seconds for a request that the store leaves unclear.
        taken: paths that are this attempt's.
        outcome: whether it has become a checkpoint.
    """

    root: Root
    where: str
    limit: float
    taken: list[str] = field(default_factory=list)
    outcome: Literal["not committed", "unknown", "committed"] = "not committed"
    _claim: tuple[str, bytes] | None = None  # what is being taken, and may be ours already

    async def take(self, paths: Sequence[str]) -> bool:
        """Take paths, of which none was there when last looked; False if somebody else has.

        Args:
            paths: all that the attempt is going to write, but for the last file. Who takes the first takes them all.

        Raises:
            StoreError: the store failed.
        """
        if self.root.store.capabilities.exclusive_create:
            self._claim = paths[0], b"%016x" % self.root.random_bits(64)
            if not await create_own(self.root, *self._claim):
                self._claim = None
                return False
        self.taken, self._claim = list(paths), None
        return True

    async def publish(self, path: str, data: bytes, standing: ObjectInfo | None) -> None:
        """Write the last file: from then on it is a checkpoint. Runs to its end even when cancelled.

        Args:
            path: of the file.
            data: its content, which names files that were taken, and so is like no other attempt's.
            standing: what is to be replaced; None where nothing was there.

        Raises:
            CheckpointExistsError: somebody else was first.
            CommitUnknownError: the store left it unclear for too long.
            StoreError: the store refuses to write it, for sure.
        """

        async def settle() -> None:
            self.outcome = "unknown"
            try:
                await self._settle(path, data, standing)
            except CommitUnknownError:
                raise
            except AsyncSaverError:
                self.outcome = "not committed"
                raise
            self.outcome = "committed"

        await to_completion(settle())

    async def _settle(self, path: str, data: bytes, standing: ObjectInfo | None) -> None:
        rng = random.Random(self.root.random_bits(64))  # noqa: S311 - spreads load, guards nothing
        attempt, may_land = 0, False
        unclear: StoreError | None = None
        try:
            async with asyncio.timeout(self.limit):
                while True:
                    attempt += 1
                    unclear = await self._try(path, data, standing)
                    if unclear is None or await self._stands(path, data, standing, rng):
                        return
                    if isinstance(unclear, AccessDeniedError) or (not unclear.retryable and attempt >= _REFUSALS):
                        raise (
                            self._unknown(path, f"refused after an unanswered request: {unclear}")
                            if may_land
                            else unclear
                        )
                    may_land = may_land or unclear.retryable
                    await asyncio.sleep(full_jitter(attempt, rng=rng))
        except TimeoutError as error:
            if isinstance(error, AsyncSaverError):
                raise
            raise self._unknown(path, f"not settled within {self.limit:g} s: {unclear or 'no answer'}") from unclear

    async def _try(self, path: str, data: bytes, standing: ObjectInfo | None) -> StoreError | None:
        """Write it once; returns why that may have failed."""
        try:
            await self._write(path, data, standing)
        except StoreError as error:
            return error
        return None

    async def _write(self, path: str, data: bytes, standing: ObjectInfo | None) -> None:
        store = self.root.store
        if standing is None and store.capabilities.exclusive_create:
            await store.put(path, data, mode="create")
        elif standing is not None and standing.etag is not None and store.capabilities.compare_and_swap:
            await store.replace_if(path, data, standing.etag)
        else:
            await store.put(path, data)

    async def _stands(self, path: str, data: bytes, standing: ObjectInfo | None, rng: random.Random) -> bool:
        """Whether it was written after all; raises `CheckpointExistsError` if somebody else's stands there."""
        attempt = 0
        while True:
            attempt += 1
            try:
                found = await self.root.store.get(path)
            except ObjectNotFoundError:
                if standing is None:
                    return False
                raise CheckpointExistsError(
                    f"{self.where} was deleted by somebody else while it was being replaced"
                ) from None
            except StoreError as error:
                log.info("%s: the commit is unclear and cannot be read back yet: %s", self.where, error)
                await asyncio.sleep(full_jitter(attempt, rng=rng))
                continue
            if found.data == data:
                return True
            if standing is not None and (standing.etag is None or found.info.etag == standing.etag):
                return False
            raise CheckpointExistsError(
                f"{self.where} was written by somebody else at the same time; overwrite=True replaces it"
            )

    def _unknown(self, path: str, why: str) -> CommitUnknownError:
        return CommitUnknownError(
            f"{self.where}: whether the commit went through is not known ({why}). What was written stays; if it went through "
            "after all, the checkpoint is there.",
            retryable=True,
            path=path,
        )

    async def tidy(self) -> None:
        """Delete what a failed attempt has written, unless it was, or may have been, published."""
        if self.outcome != "not committed":
            return

        async def tidy() -> None:
            if self._claim is not None and await self._holds_for_sure(*self._claim):
                self.taken = [self._claim[0]]
            await self.delete(self.taken, "leftovers of a failed save")

        await to_completion(tidy())

    async def _holds_for_sure(self, path: str, token: bytes) -> bool:
        try:
            async with asyncio.timeout(_TIDY_SECONDS):
                there = await read_if_there(self.root, path)
                return there is not None and there.data == token
        except (AsyncSaverError, TimeoutError):
            return False

    async def delete(self, paths: Sequence[str], what: str) -> None:
        """Delete files. What cannot be deleted within a time limit stays, which the log says.

        Args:
            paths: of the files.
            what: they are, for the log.
        """
        if not paths:
            return

        async def delete() -> None:
            reason: object = None
            try:
                async with asyncio.timeout(_TIDY_SECONDS):
                    failed = await self.root.store.delete(paths)
                reason = next(iter(failed.values()), None)
            except (AsyncSaverError, TimeoutError) as problem:
                reason = problem
            if reason is not None:
                log.warning("%s: %s stay: %s", self.where, what, reason)

        await to_completion(delete())
