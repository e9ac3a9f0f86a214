"""Companions: files that belong to checkpoints but lie outside of their folders, under names that another library has fixed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from asyncsaver.model.catalog import Catalog
from asyncsaver.model.statefile import Entry


class Companions(Protocol):
    """What a root with such files is told of. All of it can be repeated, by whoever comes next, after an interruption."""

    async def publish(self, name: str) -> None:
        """A checkpoint of that name was committed, or deleted: let its companions show what stands there now.

        Raises:
            StoreError: they do not yet.
        """
        ...

    async def recover(self, catalog: Catalog, *, dry_run: bool = False) -> Collection[str]:
        """Publish what was committed and never published, as far as that is known of what was just listed.

        Args:
            catalog: of the root.
            dry_run: only look.

        Returns:
            Names of checkpoints whose companions somebody else has deleted, so that there is nothing left of them.

        Raises:
            StoreError: some is not published yet.
        """
        ...

    async def announce(
        self,
        staying: Sequence[Entry],
        leaving: Collection[str],
        gone: Collection[str],
        last_preserved: datetime | None,
    ) -> None:
        """Let others know which checkpoints there are, before those that do not stay are deleted.

        Args:
            staying: all that retention goes on deciding about, oldest first, and the newest at the end.
            leaving: names of all others that are committed: kept for good, or about to be deleted.
            gone: names of those that were deleted.
            last_preserved: when the last one was kept for good.

        Raises:
            StoreError: they do not know yet.
        """
        ...

    async def remove(self, name: str, save_id: str) -> None:
        """An attempt can never commit any more, or what it has committed has a tombstone: delete what it has written outside.

        Raises:
            StoreError: something is still there.
        """
        ...

    async def purge(self, grace: timedelta) -> None:
        """Remove what dead clients have left outside, and has been quiet for longer; see `Store.purge`."""
        ...
