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


async def update_state(
    store: Store, reader: CatalogReader, threads: Threads, change: Callable[[StateFile], StateFile], rng: random.Random
) -> StateFile:
    """Apply a change to the state file.

    By compare-and-swap where the store has it, so that no other writer's change is lost; else by a plain write, whose losses
    the next reader repairs from the listing.

    Entries of other prefixes are kept as they stand: neither ``change`` nor the caller sees them, so that no retention
    but their own decides on them.

    Args:
        store: the root.
        reader: of the same root.
        threads: for encoding.
        rng: for the jitter between attempts.
        change: pure; called again on what another writer has made of the file meanwhile.

    Returns:
        The state as written, without entries of other prefixes.

    Raises:
        StoreError: it could not be written.
    """
    for attempt in range(_TRIES):
        if attempt:  # overtaken: wait a little, or two writers might keep in step
            await asyncio.sleep(full_jitter(attempt, rng=rng, base=0.01, cap=1.0))
        whole, etag = await reader.read_state()
        state = msgspec.structs.replace(whole, entries=[entry for entry in whole.entries if reader.owns(entry.name)])
        changed = change(state)
        if changed == state and etag is not None:
            return state
        others = [entry for entry in whole.entries if not reader.owns(entry.name)]
        data = await threads.run(native.encode, changed.with_entries(others))
        if not store.capabilities.compare_and_swap:
            await store.put(STATE_FILE, data)
            return changed
        try:
            if etag is None:
                await store.put(STATE_FILE, data, mode="create")
            else:
                await store.replace_if(STATE_FILE, data, etag)
        except (ObjectExistsError, PreconditionFailedError):
            log.debug("%s/%s was changed by another writer, trying again", store.url, STATE_FILE)
            continue
        except StoreError as error:
            if not error.retryable:
                raise
            continue  # a lost reply is harmless: the change is applied to whatever stands there now
        return changed
    raise StoreError(
        f"{store.url}/{STATE_FILE}: {_TRIES} attempts to update it were overtaken or failed",
        retryable=True,
        path=STATE_FILE,
    )
