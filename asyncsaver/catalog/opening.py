"""From a URL to a root: the store behind it, with retries, and what works on it."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from asyncsaver.aio.budget import ByteBudget
from asyncsaver.aio.threads import Threads
from asyncsaver.aio.window import RequestWindow
from asyncsaver.catalog.root import OnStats, Root
from asyncsaver.formats import encodings
from asyncsaver.model.checkpoint import Progress
from asyncsaver.model.config import DEFAULT_MEMORY_BUDGET
from asyncsaver.model.leaves import Adapters
from asyncsaver.model.manifest import ManifestFormat
from asyncsaver.model.names import Naming
from asyncsaver.store.contract import Store
from asyncsaver.store.paced import PacedStore
from asyncsaver.store.registry import open_store
from asyncsaver.store.retry import DEFAULT_RETRY_TIMEOUT, Retries, RetryingStore

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


def open_root(
    url: str | os.PathLike[str] | Store,
    naming: Naming,
    *,
    storage_options: Mapping[str, Any] | None = None,
    filesystem: AbstractFileSystem | None = None,
    engine: str = "auto",
    manifest_format: ManifestFormat = "json",
    memory_budget: int = DEFAULT_MEMORY_BUDGET,
    concurrency: int | None = None,
    retry_timeout: float = DEFAULT_RETRY_TIMEOUT,
    clock: Callable[[], float] | None = None,
    progress: Callable[[Progress], None] | None = None,
    on_stats: OnStats | None = None,
    label: str | None = None,
) -> Root:
    """Make a root. Does no I/O; to be closed with `Root.close`.

    Args:
        url: of the root, or a ready store, which is then closed with the root.
        naming: how checkpoints are called.
        storage_options: see `Saver`.
        filesystem: see `Saver`.
        engine: see `Saver`.
        manifest_format: see `Saver`.
        memory_budget: in bytes.
        concurrency: requests in flight at most; None for what the store gains from.
        retry_timeout: see `Saver`.
        clock: seconds since the epoch; `time.time` by default.
        progress: called as work advances.
        on_stats: called with the figures of every save and restore.
        label: see `Root`.
    """
    encodings.require(manifest_format)
    if isinstance(url, Store):
        if storage_options or filesystem is not None:
            raise ValueError("a ready store takes no storage_options and no filesystem")
        store = url
    else:
        store = open_store(url, storage_options=storage_options, filesystem=filesystem, engine=engine)
    retries = Retries(retry_timeout)
    most = concurrency or store.capabilities.concurrency
    return Root(
        store=RetryingStore(PacedStore(store, RequestWindow(most), retries), retries),
        retries=retries,
        naming=naming,
        threads=Threads("asyncsaver", min(8, (os.cpu_count() or 2) + 2)),
        budget=ByteBudget(memory_budget),
        concurrency=most,
        clock=clock or time.time,
        random_bits=secrets.randbits,
        adapters=Adapters.discover(),
        progress=progress,
        on_stats=on_stats,
        label=label,
        manifest_format=manifest_format,
    )
