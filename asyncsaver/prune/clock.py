"""What the store's clock says: the only clock that decides when something may be removed."""

from __future__ import annotations

import contextlib
from datetime import datetime

from asyncsaver.catalog.root import Root
from asyncsaver.errors import ObjectNotFoundError, StoreError
from asyncsaver.store.probe import PROBE_FOLDER

_TRIES = 4


async def store_time(root: Root) -> datetime:
    """What the store's clock says now: when it says that a small object was written. Ours where it does not say.

    Raises:
        StoreError: the store failed, or sweeps kept removing the object before its time could be read.
    """
    for _ in range(_TRIES - 1):
        with contextlib.suppress(ObjectNotFoundError):  # a sweep by another process has just removed it
            return await _ask(root)
    return await _ask(root)


async def _ask(root: Root) -> datetime:
    path = f"{PROBE_FOLDER}time-{root.random_bits(64):016x}"
    await root.store.put(path, b"")
    try:
        return (await root.store.head(path)).modified or root.now()
    finally:
        # What stays behind goes with a later sweep, and must not hide what failed before.
        with contextlib.suppress(StoreError):
            await root.store.delete([path])
