"""Companions: files that belong to checkpoints but lie outside of their folders, under names that another library has fixed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Protocol

from asyncsaver.model.statefile import Entry


class Companions(Protocol):
    """What a root with such files is told of. All of it can be repeated, by whoever comes next, after an interruption."""

    async def publish(self, name: str) -> None:
        """A checkpoint of that name was committed, or deleted: let its companions show what stands there now.

        Raises:
            StoreError: they do not yet.
        """
        ...

    async def announce(self, staying: Sequence[Entry], last_preserved: datetime | None) -> None:
        """Let others know which checkpoints there are, before those that do not stay are deleted.

        Args:
            staying: all that retention goes on deciding about, oldest first, and the newest at the end.
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
        """Abort uploads outside that have been quiet for longer; see `Store.purge`."""
        ...
