"""What a `Saver` stands on, whatever format it writes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from datetime import timedelta

from asyncsaver.catalog.root import Root
from asyncsaver.model.checkpoint import Checkpoint
from asyncsaver.prune.report import PruneReport, SweepReport
from asyncsaver.restore.source import Source
from asyncsaver.save.line import SaveLine
from asyncsaver.save.stage import Stage


class Layout(ABC):
    """Finds, lists, saves, deletes and prunes checkpoints under one root.

    Attributes:
        root: where tensors are read and written.
        line: of the saves that are on their way.
        describe: says what is to be written of a state.
    """

    root: Root
    line: SaveLine
    describe: Stage

    @abstractmethod
    async def source(self, step: int | None, checkpoint: Checkpoint | None = None) -> Source:
        """What to read of a checkpoint found earlier, that of a step, or else the latest.

        Raises:
            CheckpointNotFoundError: there is none.
            CheckpointDeletedError: it does not stand any more.
            ManifestError: what describes it is damaged.
        """

    @abstractmethod
    async def latest(self) -> Checkpoint | None:
        """The checkpoint committed last, or None under an empty root."""

    @abstractmethod
    async def checkpoints(self) -> Sequence[Checkpoint]:
        """All committed checkpoints, oldest first. What is damaged is left out, and logged."""

    @abstractmethod
    async def delete(self, step: int | None) -> None:
        """Delete the checkpoint of a step, pinned or not; see `Saver.delete`."""

    @abstractmethod
    async def set_pin(self, step: int | None, *, pinned: bool) -> None:
        """Exempt the checkpoint of a step from retention, or leave it to it again."""

    @abstractmethod
    async def prune(self, *, dry_run: bool) -> PruneReport:
        """See `Saver.prune`."""

    @abstractmethod
    async def sweep(self, grace: timedelta, *, dry_run: bool) -> SweepReport:
        """See `Saver.sweep`."""

    @abstractmethod
    async def close(self) -> None:
        """Release what `root` holds."""
