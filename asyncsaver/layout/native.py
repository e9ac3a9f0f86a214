"""Our own layout: a folder for each checkpoint, with its records at slots."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from asyncsaver.catalog.root import Root
from asyncsaver.layout.contract import Layout
from asyncsaver.model.checkpoint import Checkpoint, checkpoint_of
from asyncsaver.prune.delete import delete_checkpoint, set_pin
from asyncsaver.prune.prune import prune_root
from asyncsaver.prune.report import PruneReport, SweepReport
from asyncsaver.prune.sweep import sweep_root
from asyncsaver.restore.find import find, find_latest, find_step
from asyncsaver.restore.source import Source, own_source
from asyncsaver.save.line import SaveLine, SaveSettings
from asyncsaver.save.stage import stage


class NativeLayout(Layout):
    """See `Layout`.

    Args:
        root: where.
        settings: for its saves.
    """

    def __init__(self, root: Root, settings: SaveSettings) -> None:
        self.root = root
        self.line = SaveLine(root, settings)
        self.describe = stage

    async def source(self, step: int | None, checkpoint: Checkpoint | None = None) -> Source:
        """See `Layout`."""
        return own_source(self.root, await find(self.root, step, checkpoint))

    async def latest(self) -> Checkpoint | None:
        """See `Layout`."""
        found = await find_latest(self.root)
        return None if found is None else checkpoint_of(found.manifest, self.root.store.url, pinned=found.pinned)

    async def checkpoints(self) -> Sequence[Checkpoint]:
        """See `Layout`."""
        catalog = await self.root.reader.load()
        return [checkpoint_of(entry, self.root.store.url, pinned=entry.pinned) for entry in catalog.checkpoints]

    async def delete(self, step: int | None) -> None:
        """See `Layout`."""
        names = self.root.naming.names(step)
        if not await delete_checkpoint(self.root, names, writer=self.line.settings.writer):
            await find_step(self.root, step)  # raises: there is none

    async def set_pin(self, step: int | None, *, pinned: bool) -> None:
        """See `Layout`."""
        found = await find_step(self.root, step)
        await set_pin(self.root, found.manifest, pinned=pinned)

    async def prune(self, *, dry_run: bool) -> PruneReport:
        """See `Layout`."""
        settings = self.line.settings
        began = datetime.fromtimestamp(settings.began, UTC)
        return await prune_root(self.root, settings.policy, began=began, writer=settings.writer, dry_run=dry_run)

    async def sweep(self, grace: timedelta, *, dry_run: bool) -> SweepReport:
        """See `Layout`."""
        return await sweep_root(self.root, grace=grace, writer=self.line.settings.writer, dry_run=dry_run)

    async def close(self) -> None:
        """See `Layout`."""
        await self.root.close()
