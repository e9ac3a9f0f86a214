"""Writing the state file: read, change, write back if nobody else did meanwhile."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

import msgspec

from asyncsaver.aio.threads import Threads
from asyncsaver.catalog.reader import CatalogReader
from asyncsaver.errors import ObjectExistsError, PreconditionFailedError, StoreError
from asyncsaver.formats import native
from asyncsaver.model.names import STATE_FILE
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

    async def update(self, change: Callable[[StateFile], StateFile]) -> StateFile:
        """Apply a change.

        Args:
            change: pure; called again on what another writer has made of the file meanwhile.

        Returns:
            The state as written, without entries of other prefixes.

        Raises:
            StoreError: it could not be written.
        """
        written, self._written = self._written, None
        if written is not None and (state := await self._write(change, *written, believed=True)) is not None:
            return state
        for attempt in range(_TRIES):
            if attempt:  # overtaken: wait a little, or two writers might keep in step
                await asyncio.sleep(full_jitter(attempt, rng=self._rng, base=0.01, cap=1.0))
            if (state := await self._write(change, *await self._reader.read_state())) is not None:
                return state
        raise StoreError(
            f"{self._store.url}/{STATE_FILE}: {_TRIES} attempts to update it were overtaken or failed",
            retryable=True,
            path=STATE_FILE,
        )

    async def _write(
        self, change: Callable[[StateFile], StateFile], whole: StateFile, etag: str | None, *, believed: bool = False
    ) -> StateFile | None:
        """Write the changed state, unless it is not the version with that etag any more: then None.

        Args:
            change: what to do.
            whole: with entries of other prefixes.
            etag: None where there is no file.
            believed: it was not read just now, so that it cannot be said that nothing needs to be written.
        """
        mine = [entry for entry in whole.entries if self._reader.owns(entry.name)]
        others = [entry for entry in whole.entries if not self._reader.owns(entry.name)]
        state = msgspec.structs.replace(whole, entries=mine)
        changed = change(state)
        if changed == state and etag is not None:
            return None if believed else state
        new = changed.with_entries(others)
        data = await self._threads.run(native.encode, new)
        store = self._store
        if not store.capabilities.compare_and_swap:
            await store.put(STATE_FILE, data)
            return changed
        try:
            if etag is None:
                info = await store.put(STATE_FILE, data, mode="create")
            else:
                info = await store.replace_if(STATE_FILE, data, etag)
        except (ObjectExistsError, PreconditionFailedError):
            log.debug("%s/%s was changed by another writer, trying again", store.url, STATE_FILE)
            return None
        except StoreError as error:
            if not error.retryable:
                raise
            return None  # a lost reply is harmless: the change is applied to whatever stands there now
        if info.etag is not None:
            self._written = new, info.etag
        return changed
