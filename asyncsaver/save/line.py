"""The line of saves: they write side by side, and commit in the order in which they were called."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec

from asyncsaver.aio.meter import current_meter
from asyncsaver.catalog.root import Root
from asyncsaver.errors import StoreError, UnsupportedStoreError
from asyncsaver.model.catalog import Catalog
from asyncsaver.model.checkpoint import Checkpoint, Progress, checkpoint_of
from asyncsaver.model.manifest import Json
from asyncsaver.model.rotation import Rotation
from asyncsaver.model.statefile import StateFile, entry_of
from asyncsaver.model.stats import SaveStats
from asyncsaver.prune.prune import prune_entries, prune_root
from asyncsaver.save.attempt import Attempt, Request
from asyncsaver.save.commit import Committed
from asyncsaver.save.stage import Staged
from asyncsaver.store.probe import probe_exclusive_create

log = logging.getLogger("asyncsaver")


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveSettings:
    """What stays the same over all saves of a saver.

    Attributes:
        shard_bytes: how large a shard may grow.
        commit_timeout: seconds for an unclear commit.
        single_writer: the caller promises that nobody else saves here.
        policy: which checkpoints stay.
        began: when the saver was made, by its clock; `KeepEveryHours` counts from here on a new root.
        saver: goes into manifests.
        writer: name and version of this software.
    """

    shard_bytes: int
    commit_timeout: float
    single_writer: bool
    policy: Rotation
    began: float
    saver: Mapping[str, Json]
    writer: str


class Ticket:
    """A place in the line, taken when `save` is called, and left when that save has ended, well or not.

    Attributes:
        name: of the checkpoint.
        before: the place before this one, whatever the checkpoint; None when everything before has ended.
        same_name: the place before this one of the same checkpoint; None likewise.
        ended: set when this save has ended.
    """

    def __init__(self, name: str, before: Ticket | None, same_name: Ticket | None) -> None:
        self.name = name
        self.before = before
        self.same_name = same_name
        self.ended = asyncio.Event()

    async def wait_for_same_name(self) -> None:
        """Until every earlier save of this checkpoint has ended: only then is it known which slot is free."""
        while self.same_name is not None:
            await self.same_name.ended.wait()
            self.same_name = self.same_name.same_name

    async def wait_for_turn(self) -> None:
        """Until every earlier save has ended; one that failed out of turn does not let this one past those before it."""
        while self.before is not None:
            await self.before.ended.wait()
            self.before = self.before.before

    def leave(self) -> None:
        """Let those behind move up."""
        while self.before is not None and self.before.ended.is_set():
            self.before = self.before.before
        while self.same_name is not None and self.same_name.ended.is_set():
            self.same_name = self.same_name.same_name
        self.ended.set()


@dataclass(slots=True)
class SaveLine:
    """Runs the saves of one saver.

    Args:
        root: where to.
        settings: of the saver.
        attempt: makes an attempt to save; takes what `Attempt` takes.

    Attributes:
        state_error: why the state file could not be written after the latest commit; None once it could.
        staying: names of the checkpoints about which retention decides again, as of the latest save, or of the list that was set.
    """

    root: Root
    settings: SaveSettings
    attempt: Callable[..., Attempt] = Attempt
    state_error: Exception | None = None
    staying: Sequence[str] = ()
    _last: Ticket | None = None
    _last_by_name: dict[str, Ticket] = field(default_factory=dict)
    _sequence: int = 0
    _found: Catalog | None = None
    _caught_up: bool = False  # whether the state file is known to list, and to go on listing, what there is
    _may_save: bool = False
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def take_place(self, name: str) -> Ticket:
        """Take a place at the end of the line; give it back with `leave_place`."""
        ticket = Ticket(name, self._last, self._last_by_name.get(name))
        self._last = self._last_by_name[name] = ticket
        return ticket

    def leave_place(self, ticket: Ticket) -> None:
        """Give a place back, whatever became of the save."""
        ticket.leave()
        if self._last_by_name.get(ticket.name) is ticket:
            del self._last_by_name[ticket.name]

    async def run(self, ticket: Ticket, request: Request, staged: Staged, seconds_staging: float) -> Checkpoint:
        """Save: returns once the checkpoint is committed, listed, and older ones are pruned.

        When it fails or is cancelled before the commit, what was written is deleted again.
        """
        loop = asyncio.get_running_loop()
        started = loop.time()
        await ticket.wait_for_same_name()
        begun = loop.time()
        await self._check_store()
        attempt = self.attempt(
            root=self.root,
            request=request,
            staged=staged,
            shard_bytes=self.settings.shard_bytes,
            commit_timeout=self.settings.commit_timeout,
            saver=self.settings.saver,
            writer=self.settings.writer,
        )
        self.root.own_saves[attempt.save_id] = request.name
        try:
            write_began = loop.time()
            part = await attempt.write()
            write_ended = loop.time()
            await ticket.wait_for_turn()
            turn_came = loop.time()
            manifest = await attempt.merge(part, await self._next_sequence())
            committed = await attempt.commit(manifest)
        except BaseException:
            if attempt.outcome != "not committed":
                self._caught_up = False
            await attempt.tidy()
            raise
        finally:
            del self.root.own_saves[attempt.save_id]
        commit_ended = loop.time()
        if request.recorded:
            state_error, prune_error = await self._after_commit(
                committed, pinned=attempt.pinned, preserved=attempt.preserved
            )
        else:
            self._caught_up = False
            state_error, prune_error = await self._publish(request.name, self._found), None
        meter = current_meter()
        stats = SaveStats(
            bytes_written=attempt.bytes_written,
            files=len(part.files),
            tensors=len(staged.tensors),
            seconds_staging=seconds_staging,
            seconds_waiting=begun - started + turn_came - write_ended,
            seconds_writing=write_ended - write_began,
            seconds_committing=write_began - begun + commit_ended - turn_came,
            seconds_pruning=loop.time() - commit_ended,
            seconds_blocked=meter.seconds_blocked,
            peak_memory_bytes=self.root.budget.peak,
            requests=dict(meter.requests),
            retries=meter.retries,
            state_file_error=None if state_error is None else str(state_error),
            prune_error=prune_error,
            saver=self.root.label,
        )
        request.report(Progress("committed", request.step, staged.nbytes, staged.nbytes))
        checkpoint = checkpoint_of(
            committed.manifest, self.root.url, pinned=attempt.pinned, stats=stats, path=attempt.path
        )
        self.root.tell(checkpoint, stats)
        return checkpoint

    async def repair_state(self) -> None:
        """Write the state file anew from what the root holds, after a save could not.

        Raises:
            StoreError: it still cannot be written.
        """
        began = datetime.fromtimestamp(self.settings.began, UTC)
        if self.root.companions is not None:  # they are to know of it, too
            await prune_root(self.root, self.settings.policy, began=began, writer=self.settings.writer)
        else:
            found = await self.root.load()
            late = self.root.store_time or self.root.now()
            await self.root.update_state(
                lambda state: state.reconciled(found.entries, late=late, began=began, seen=found.seen)
            )
        self.state_error = None

    async def _check_store(self) -> None:
        """Probe the store, once a root, before anything is written.

        Raises:
            UnsupportedStoreError: it does not create exclusively.
        """
        async with self._looking:
            if self._may_save or self.settings.single_writer:
                return
            token = f"{self.root.random_bits(64):016x}"
            if not await probe_exclusive_create(self.root.store, token=token, retries=self.root.retries):
                raise UnsupportedStoreError(
                    f"{self.root.store.url}: this store does not create objects exclusively, so two savers could overwrite "
                    "each other's checkpoints unseen. If nobody else saves here, pass single_writer=True."
                )
            self._may_save = True

    async def _next_sequence(self) -> int:
        """The number of the next commit. Called by one save at a time, in its turn."""
        if not self._caught_up:
            self._found = await self.root.load()
            newest = self._found.newest
            self._sequence = max(self._sequence, newest.sequence if newest else 0)
        self._sequence += 1
        return self._sequence

    async def _publish(self, name: str, found: Catalog | None) -> Exception | None:
        """Let the companions of a checkpoint, and of those found that lack them, show what was committed.

        Returns:
            What went wrong.
        """
        if self.root.companions is None:
            return None
        try:
            await self.root.companions.publish(name)
            if found is not None:
                await self.root.companions.recover(found)
        except StoreError as error:
            log.warning("%s/%s is committed, but could not be published: %s", self.root.store.url, name, error)
            self.state_error = error
            return error
        return None

    async def _after_commit(
        self, committed: Committed, *, pinned: bool, preserved: bool
    ) -> tuple[Exception | None, str | None]:
        """Write the state file and prune. Neither can fail the save; returns what went wrong."""
        entry = msgspec.structs.replace(
            entry_of(committed.manifest, committed.etag), pinned=pinned, preserved=preserved
        )
        found = None if self._caught_up else self._found
        self._caught_up = False

        def change(state: StateFile) -> StateFile:
            # What earlier saves, here or elsewhere, that did not get through this have left unlisted, or listed though gone.
            standing, seen = (state.entries, None) if found is None else (found.entries, found.seen)
            late = self.root.store_time or self.root.now()
            began = datetime.fromtimestamp(self.settings.began, UTC)
            # While this save was writing, the prune of an earlier one may have decided to keep what it replaces for good.
            kept = any(other.preserved for other in standing if other.name == entry.name and other.state == "committed")
            new = msgspec.structs.replace(entry, preserved=preserved or kept)
            return state.reconciled([*standing, new], late=late, began=began, seen=seen)

        unpublished = await self._publish(entry.name, found)
        if unpublished is not None:
            return unpublished, None
        try:
            state = await self.root.update_state(change)
        except StoreError as error:
            log.warning("%s: the state file could not be written: %s", self.root.store.url, error)
            self.state_error = error
            return error, None
        self.state_error = None
        self._sequence = max([self._sequence, *(other.sequence for other in state.entries)])
        self.settings.policy.saved(entry.name, entry.created)
        try:
            report = await prune_entries(
                self.root, self.settings.policy, state, writer=self.settings.writer, saved=entry.name
            )
        except StoreError as error:
            log.warning("%s: pruning failed: %s", self.root.store.url, error)
            return None, str(error)
        # Without compare-and-swap, what another saver writes into the state file may be lost, or bring back what is gone.
        self.staying = report.last_checkpoints
        self._caught_up = self.root.store.capabilities.compare_and_swap or self.settings.single_writer
        return None, report.first_error
