"""A root and what every stage needs to work on it."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from asyncsaver.aio.budget import ByteBudget
from asyncsaver.aio.threads import Threads
from asyncsaver.catalog.companions import Companions
from asyncsaver.catalog.reader import CatalogReader
from asyncsaver.catalog.state import StateWriter
from asyncsaver.model.catalog import Catalog
from asyncsaver.model.checkpoint import Checkpoint, Progress
from asyncsaver.model.leaves import Adapters
from asyncsaver.model.manifest import ManifestFormat
from asyncsaver.model.names import Naming
from asyncsaver.model.statefile import StateFile
from asyncsaver.model.stats import RestoreStats, SaveStats
from asyncsaver.store.contract import Store
from asyncsaver.store.retry import Retries

log = logging.getLogger("asyncsaver")

OnStats = Callable[[Checkpoint, SaveStats | RestoreStats], None]
"""What `Saver` takes as ``on_stats``."""


@dataclass(slots=True, kw_only=True)
class Root:
    """Collaborators of one saver or reader.

    Attributes:
        store: the root itself.
        naming: how checkpoints are called.
        threads: for everything that would block the loop.
        budget: bytes of tensors in memory.
        concurrency: requests in flight at once.
        clock: seconds since the epoch; stamps checkpoints, decides nothing about safety.
        random_bits: n → n random bits, for save ids.
        adapters: which leaves are arrays.
        progress: called on the loop as work advances.
        on_stats: called on the loop with the figures of every save and restore.
        retries: for what the store cannot send again by itself.
        in_use: names of checkpoints that are being read, with how many readers.
        own_saves: save id → checkpoint's name of attempts in flight here, which a sweep leaves alone.
        manifest_format: of what is written here; either is read.
        store_time: the latest time seen on the store's clock, UTC; None until something was listed.
        label: what the user calls the saver, for logs and figures.
        companions: of the checkpoints; None where all of a checkpoint lies in its folder.
        home: where users find the checkpoints, if that is not where their records are.
    """

    store: Store
    naming: Naming
    threads: Threads
    budget: ByteBudget
    concurrency: int
    clock: Callable[[], float]
    random_bits: Callable[[int], int]
    adapters: Adapters
    progress: Callable[[Progress], None] | None = None
    on_stats: OnStats | None = None
    retries: Retries = field(default_factory=Retries)
    in_use: Counter[str] = field(default_factory=Counter)
    own_saves: dict[str, str] = field(default_factory=dict)
    manifest_format: ManifestFormat = "json"
    store_time: datetime | None = None
    label: str | None = None
    companions: Companions | None = None
    home: str | None = None
    reader: CatalogReader = field(init=False)
    _state: StateWriter = field(init=False)

    def __post_init__(self) -> None:
        rng = random.Random(self.random_bits(64))  # noqa: S311 - spreads load, guards nothing
        self.reader = CatalogReader(self.store, self.naming, self.threads, self.manifest_format)
        self._state = StateWriter(self.store, self.reader, self.threads, rng)

    @property
    def url(self) -> str:
        """What the URLs of its checkpoints begin with."""
        return self.home or self.store.url

    def now(self) -> datetime:
        """The time by `clock`, UTC."""
        return datetime.fromtimestamp(self.clock(), UTC)

    def saw_store_time(self, times: Iterable[datetime | None]) -> None:
        """Learn from what was just listed how late it is on the store's clock."""
        known = [time for time in (self.store_time, *times) if time is not None]
        self.store_time = max(known, default=None)

    async def load(self) -> Catalog:
        """Everything that the root holds, as `CatalogReader.load` finds it; also learns the store's time from it."""
        catalog = await self.reader.load()
        self.saw_store_time(item.modified for folder in catalog.folders.values() for item in folder.slots.values())
        return catalog

    def report(self, progress: Progress) -> None:
        """Tell the callback, if there is one. What it raises is logged, and harms no save."""
        if self.progress is not None:
            try:
                self.progress(progress)
            except Exception:
                log.exception("the progress callback failed")

    def tell(self, checkpoint: Checkpoint, stats: SaveStats | RestoreStats) -> None:
        """Give the figures of a save or a restore that has ended well to the log, and to the callback, if there is one."""
        done = "saved" if isinstance(stats, SaveStats) else "restored"
        log.info("%s%s: %s %s", f"{self.label}: " if self.label else "", checkpoint.url, done, stats)
        if self.on_stats is not None:
            try:
                self.on_stats(checkpoint, stats)
            except Exception:
                log.exception("the on_stats callback failed")

    async def update_state(self, change: Callable[[StateFile], StateFile]) -> StateFile:
        """Change the state file; see `catalog.state.StateWriter`."""
        return await self._state.update(change)

    async def close(self) -> None:
        """Release connections and threads."""
        self.threads.close()
        await self.store.close()
