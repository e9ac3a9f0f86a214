"""Writing the state file: read, change, write back if nobody else did meanwhile."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

import msgspec

from asyncsaver.aio.threads import Threads
from asyncsaver.catalog.reader import CatalogReader
from asyncsaver.errors import ObjectExistsError, ObjectNotFoundError, PreconditionFailedError, StoreError
from asyncsaver.formats.encodings import encode_state
from asyncsaver.model.catalog import Catalog
from asyncsaver.model.statefile import StateFile
from asyncsaver.store.contract import Store
from asyncsaver.store.retry import full_jitter

log = logging.getLogger("asyncsaver")
_TRIES = 20


class StateWriter:
    """Changes the state file.

    By compare-and-swap where the store has it, so that no other writer's change is lost; else by a plain write, whose losses
    the next reader repairs from the listing.

    Entries of other prefixes are kept as they stand: neither a change nor its caller sees them, so that no retention
    but their own decides on them.

    Savers with another ``manifest_format`` keep a state file of another name, and no store swaps two objects at once. So:

    - Who finds theirs takes over: it makes its own from what stands under the root (neither file is believed without a listing),
      and removes theirs. They then find their own gone, and take over in turn: each sees what the others have done.
    - Theirs is looked for in every listing of the root, and whenever ours is created: two who create theirs at the same time
      look afterwards, and one of them at least sees both.
    - Between reading theirs and removing it, they may write it. So who has removed it lists the root once more, and adds what is
      missing: their records stood before they wrote of them. What they have written of `last_preserved` may be lost: then
      the next checkpoint is preserved sooner, and none is deleted for that.
    - Two who take over from each other at once may both remove what the other has made; both then see that when they list again.
    - Who dies before removing theirs leaves two. Readers take from either what has the etags that they list, and the next saver
      of its kind takes over again.

    Args:
        store: the root.
        reader: of the same root.
        threads: for encoding.
        rng: for the jitter between attempts.
    """

    def __init__(self, store: Store, reader: CatalogReader, threads: Threads, rng: random.Random) -> None:
        self._store = store
        self._reader = reader
        self._threads = threads
        self._rng = rng
        # What was written last, and its etag. Mostly nobody else writes, and it need not be read again: the swap tells.
        self._written: tuple[StateFile, str] | None = None
        self._created = False  # since it was last looked whether the other kind stands, too

    async def update(self, change: Callable[[StateFile], StateFile]) -> StateFile:
        """Apply a change.

        Args:
            change: pure; called again on what another writer has made of the file meanwhile.

        Returns:
            The state as written, without entries of other prefixes.

        Raises:
            StoreError: it could not be written.
        """
        state = None if self._reader.sees_other else await self._update(change)
        if state is None or (self._created and await self._other_stands()):
            state = await self._take_over(change)
        return state

    async def _update(self, change: Callable[[StateFile], StateFile]) -> StateFile | None:
        """Change what the state file says; None where savers of the other kind have removed it."""
        written, self._written = self._written, None
        if written is not None and (state := await self._write(change, *written, believed=True)) is not None:
            return state
        for attempt in range(_TRIES):
            await self._pause(attempt)
            whole, etag = await self._reader.read_state()
            if written is not None and etag is None and await self._other_stands():
                return None
            if (state := await self._write(change, whole, etag)) is not None:
                return state
        raise self._overtaken()

    async def _take_over(self, change: Callable[[StateFile], StateFile]) -> StateFile:
        """Change what stands under the root, whatever a state file says of it; and remove the other kind's, if it is there."""
        state = None
        for attempt in range(_TRIES):
            if state is None:
                await self._pause(attempt)
            catalog = await self._reader.load()
            written, etag = await self._reader.read_state()
            if state is not None and (self._reader.sees_other or _lists_all(written, catalog)):
                return state  # or else they take over in turn
            # What it says otherwise than when the root was listed, savers of our own kind have written meanwhile.
            newer = [entry for entry in written.entries if catalog.seen.get(entry.path) != entry]
            others = [entry for entry in written.entries if not self._reader.owns(entry.name)]
            marks = [mark for mark in (catalog.last_preserved, written.last_preserved) if mark is not None]
            found = StateFile(last_preserved=max(marks, default=None))
            found = found.with_entries([*others, *catalog.entries, *newer])
            if (state := await self._write(change, found, etag, unchanged=False)) is not None:
                if not self._reader.sees_other:
                    return state
                for error in (await self._store.delete([self._reader.other_state_file])).values():
                    raise error
                self._created = False
        raise self._overtaken()

    async def _other_stands(self) -> bool:
        try:
            await self._store.head(self._reader.other_state_file)
        except ObjectNotFoundError:
            self._created = False
            return False
        return True

    async def _pause(self, attempt: int) -> None:
        if attempt:  # overtaken: wait a little, or two writers might keep in step
            await asyncio.sleep(full_jitter(attempt, rng=self._rng, base=0.01, cap=1.0))

    def _overtaken(self) -> StoreError:
        path = self._reader.state_file
        return StoreError(
            f"{self._store.url}/{path}: {_TRIES} attempts to update it were overtaken or failed",
            retryable=True,
            path=path,
        )

    async def _write(
        self,
        change: Callable[[StateFile], StateFile],
        whole: StateFile,
        etag: str | None,
        *,
        unchanged: bool = True,
        believed: bool = False,
    ) -> StateFile | None:
        """Write the changed state, unless it is not the version with that etag any more: then None.

        Args:
            change: what to do.
            whole: with entries of other prefixes.
            etag: None where there is no file.
            unchanged: it says just that now, so that it need not be written if there is nothing to change.
            believed: it was not read just now, so that it cannot be said that nothing needs to be written.
        """
        mine = [entry for entry in whole.entries if self._reader.owns(entry.name)]
        others = [entry for entry in whole.entries if not self._reader.owns(entry.name)]
        state = msgspec.structs.replace(whole, entries=mine)
        changed = change(state)
        if changed == state and etag is not None and unchanged:
            return None if believed else state
        new = changed.with_entries(others)
        path, store = self._reader.state_file, self._store
        data = await self._threads.run(encode_state, new, path)
        if not store.capabilities.compare_and_swap:
            await store.put(path, data)
            return changed
        try:
            if etag is None:
                self._created = True
                info = await store.put(path, data, mode="create")
            else:
                info = await store.replace_if(path, data, etag)
        except (ObjectExistsError, PreconditionFailedError):
            log.debug("%s/%s was changed by another writer, trying again", store.url, path)
            return None
        except StoreError as error:
            if not error.retryable:
                raise
            return None  # a lost reply is harmless: the change is applied to whatever stands there now
        if info.etag is not None:
            self._written = new, info.etag
        return changed


def _lists_all(state: StateFile, catalog: Catalog) -> bool:
    listed = state.by_path()
    return all(entry.path in listed and listed[entry.path].etag == entry.etag for entry in catalog.entries)
