"""What prune and sweep did, or would do. Frozen data for users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pruned:
    """What happened to one checkpoint.

    Attributes:
        name: of the checkpoint.
        step: None where it has none.
        kept: whether it stays.
        reason: why.
        bytes: it holds, or held.
        error: why it could not be deleted (it is tried again by the next prune); None otherwise.
    """

    name: str
    step: int | None
    kept: bool
    reason: str
    bytes: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class PruneReport:
    """Every checkpoint, kept or deleted, with the reason; oldest first.

    Attributes:
        checkpoints: one for each checkpoint, replaced ones included.
        dry_run: nothing was deleted, this is what would be.
        last_checkpoints: names of those that the next prune decides about again: what stays for good is not among them.
    """

    checkpoints: Sequence[Pruned]
    dry_run: bool = False
    last_checkpoints: Sequence[str] = ()

    @property
    def kept(self) -> list[Pruned]:
        """Those that stay."""
        return [item for item in self.checkpoints if item.kept]

    @property
    def deleted(self) -> list[Pruned]:
        """Those that are gone, or would be."""
        return [item for item in self.checkpoints if not item.kept and item.error is None]

    @property
    def failed(self) -> list[Pruned]:
        """Those that were to go and could not be deleted."""
        return [item for item in self.checkpoints if item.error is not None]

    @property
    def freed_bytes(self) -> int:
        """The sum over `deleted`."""
        return sum(item.bytes for item in self.deleted)

    @property
    def first_error(self) -> str | None:
        """The first failure, for a log line."""
        return next((f"{item.name}: {item.error}" for item in self.failed), None)


@dataclass(frozen=True, slots=True)
class Swept:
    """Leftovers of one attempt to save that never became a checkpoint.

    Attributes:
        name: of the checkpoint it was to be.
        save_id: of the attempt.
        objects: how many it had written.
        bytes: in them.
        error: why they could not be deleted; None otherwise.
    """

    name: str
    save_id: str
    objects: int
    bytes: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep removed.

    Attributes:
        leftovers: one for each dead attempt.
        young: save ids of attempts that are younger than the grace, and were left alone.
        dry_run: nothing was deleted, this is what would be.
    """

    leftovers: Sequence[Swept]
    young: Sequence[str] = ()
    dry_run: bool = False

    @property
    def freed_bytes(self) -> int:
        """The sum over what could be deleted."""
        return sum(item.bytes for item in self.leftovers if item.error is None)
