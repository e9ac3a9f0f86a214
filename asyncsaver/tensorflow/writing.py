"""Writing the state file so that no other writer's change is lost, where the store can tell."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from asyncsaver.catalog.root import Root
from asyncsaver.errors import ObjectExistsError, ObjectNotFoundError, PreconditionFailedError, StoreError
from asyncsaver.store.contract import Blob, Store
from asyncsaver.store.retry import full_jitter

log = logging.getLogger("asyncsaver")
_TRIES = 20


async def change_object(root: Root, path: str, change: Callable[[bytes | None], bytes]) -> None:
    """Read an object, change it, and write it back: by compare-and-swap, or where the store has none by a plain write.

    Args:
        root: where it is.
        path: of the object.
        change: from its content, None if there is none, to the new one; called again when another writer was faster.

    Raises:
        StoreError: it could not be written.
    """
    store = root.store
    rng = random.Random(root.random_bits(64))  # noqa: S311 - spreads load, guards nothing
    for attempt in range(_TRIES):
        if attempt:  # overtaken: wait a little, or two writers might keep in step
            await asyncio.sleep(full_jitter(attempt, rng=rng, base=0.01, cap=1.0))
        found = await _read(store, path)
        data = await root.threads.run(change, None if found is None else found.data)
        if await _replaced(store, path, found, data):
            return
        log.debug("%s/%s was changed by another writer, trying again", store.url, path)
    raise StoreError(
        f"{store.url}/{path}: {_TRIES} attempts to update it were overtaken or failed", retryable=True, path=path
    )


async def _read(store: Store, path: str) -> Blob | None:
    try:
        return await store.get(path)
    except ObjectNotFoundError:
        return None


async def _replaced(store: Store, path: str, found: Blob | None, data: bytes) -> bool:
    """Write, unless the object is not the version that was found any more."""
    try:
        if not store.capabilities.compare_and_swap:
            await store.put(path, data)
        elif found is None or found.info.etag is None:
            await store.put(path, data, mode="create")
        else:
            await store.replace_if(path, data, found.info.etag)
    except (ObjectExistsError, PreconditionFailedError):
        return False
    except StoreError as error:
        if not error.retryable:
            raise
        return False  # a lost reply is harmless: the change is applied to whatever stands there now
    return True
