"""What the store's clock says: the only clock that decides when something may be removed."""

from __future__ import annotations

from datetime import datetime

from asyncsaver.catalog.root import Root
from asyncsaver.store.probe import PROBE_FOLDER


async def store_time(root: Root) -> datetime:
    """What the store's clock says now: when it says that a small object was written. Ours where it does not say."""
    path = f"{PROBE_FOLDER}time-{root.random_bits(64):016x}"
    await root.store.put(path, b"")
    try:
        return (await root.store.head(path)).modified or root.now()
    finally:
        await root.store.delete([path])
