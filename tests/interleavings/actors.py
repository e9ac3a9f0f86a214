"""Savers, pruners, sweepers and readers, each with its own client of one simulated store; no threads, no real time."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ParamSpec, TypeVar

import numpy as np

from asyncsaver.aio.budget import ByteBudget
from asyncsaver.aio.threads import Threads
from asyncsaver.catalog.root import Root
from asyncsaver.errors import (
    AsyncSaverError,
    CheckpointDeletedError,
    CommitUnknownError,
    ObjectNotFoundError,
    StoreError,
    UnsupportedStoreError,
)
from asyncsaver.model.checkpoint import Checkpoint
from asyncsaver.model.leaves import Adapters
from asyncsaver.model.manifest import ManifestFormat
from asyncsaver.model.names import Naming, is_save_id
from asyncsaver.model.retention import KeepAll, KeepLast, KeepPinned, RetentionPolicy
from asyncsaver.model.rotation import Rotation
from asyncsaver.prune.delete import delete_checkpoint, set_pin
from asyncsaver.prune.prune import prune_root
from asyncsaver.prune.report import PruneReport, SweepReport
from asyncsaver.prune.sweep import sweep_root
from asyncsaver.restore.find import find, find_latest, find_step
from asyncsaver.restore.reader import CheckpointReader
from asyncsaver.restore.source import own_source
from asyncsaver.save.attempt import Request
from asyncsaver.save.line import SaveLine, SaveSettings
from asyncsaver.save.stage import stage
from asyncsaver.store import Store
from asyncsaver.store.retry import Retries, RetryingStore
from asyncsaver.testing import Chooser, InOrder, Scheduler, SimulatedBucket, SimulatedStore, always_done

from .ends import end_of
from .oracle import Oracle, ViolationError

P = ParamSpec("P")
T = TypeVar("T")

DAY = timedelta(days=1)
BEGAN = datetime(2029, 12, 31, tzinfo=UTC)
_TRIES = 5
_ADAPTERS = Adapters()
_NAMING = Naming()


class InlineThreads(Threads):
    """Runs what would block on the spot: it is little, and the order of things must not depend on threads."""

    def __init__(self) -> None:
        super().__init__("inline", 1)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)


@dataclass(slots=True)
class Place:
    """One root in one schedule: its bucket, who schedules, and who watches.

    Attributes:
        client: makes a client of the bucket; another one in tests of what happens without a safeguard.
    """

    bucket: SimulatedBucket
    scheduler: Scheduler
    oracle: Oracle
    client: Callable[[SimulatedBucket, str], Store] = SimulatedStore
    _roots: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _acts: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def root(self, client: str, manifest_format: ManifestFormat = "json") -> Root:
        """A process of its own."""
        # Not hash(): it differs from process to process, and a schedule must replay.
        rng = random.Random(f"{client} {next(self._roots)}")
        store = RetryingStore(self.client(self.bucket, client), Retries(0.2, rng=rng))
        return Root(
            store=store,
            naming=_NAMING,
            threads=InlineThreads(),
            budget=ByteBudget(2**20),
            concurrency=1,
            clock=BEGAN.timestamp,
            random_bits=rng.getrandbits,
            adapters=_ADAPTERS,
            manifest_format=manifest_format,
        )

    def line(self, root: Root, client: str, *, keep: int | None = None, probe: bool = False) -> SaveLine:
        """The saves of a process, of which the later ones know what the earlier ones have seen."""
        policy: RetentionPolicy = KeepAll() if keep is None else KeepPinned() | KeepLast(keep)
        return SaveLine(root, _settings(policy, probe=probe, writer=self.writer(client)))

    async def save(
        self,
        client: str,
        step: int,
        number: int,
        *,
        overwrite: bool = False,
        keep: int | None = None,
        pin: bool = False,
        probe: bool = False,
        root: Root | None = None,
        line: SaveLine | None = None,
    ) -> Checkpoint | None:
        """Save a state as `Saver.save` does. None where it failed, as it may."""
        line = line or self.line(root or self.root(client), client, keep=keep, probe=probe)
        root = line.root
        name = root.naming.name(step)
        request = Request(
            name=name, step=step, metrics={}, metadata=None, overwrite=overwrite, pin=pin, report=root.report
        )
        watching = _SaveIds(root)
        root.own_saves = watching
        ticket = line.take_place(name)
        try:
            checkpoint = await line.run(ticket, request, stage(state_of(number), root.adapters), 0.0)
        except UnsupportedStoreError as error:
            raise ViolationError(f"a store that creates exclusively was refused: {error}") from error
        except (CommitUnknownError, CheckpointDeletedError):
            return None  # it may be there, or it was
        except AsyncSaverError:
            self.oracle.failed.update(watching.all)
            return None
        finally:
            line.leave_place(ticket)
        if checkpoint.save_id not in self.oracle.committed:
            raise ViolationError(f"{checkpoint.name} was reported as committed, and never was")
        if pin:
            self.oracle.pin(checkpoint.name)
        return checkpoint

    async def prune(self, client: str, *, keep: int) -> PruneReport | None:
        """Prune as `Saver.prune` does."""
        policy = KeepPinned() | KeepLast(keep)
        try:
            report = await prune_root(self.root(client), policy, began=BEGAN, writer=self.writer(client))
        except AsyncSaverError as error:
            _believable(error)
            return None
        self._really_gone(item.name for item in report.deleted)
        return report

    async def sweep(self, client: str, grace: timedelta = DAY) -> SweepReport | None:
        """Sweep as `Saver.sweep` does."""
        try:
            return await sweep_root(self.root(client), grace=grace, writer=self.writer(client))
        except AsyncSaverError as error:
            _believable(error)
            return None

    async def delete(self, client: str, step: int) -> None:
        """Delete by hand."""
        root = self.root(client)
        names = root.naming.names(step)
        self.oracle.unwanted.update(names)
        for name in names:
            self.oracle.unpin(name)
        try:
            await delete_checkpoint(root, names, writer=self.writer(client))
        except AsyncSaverError as error:
            _believable(error)
            return
        self._really_gone(names)

    async def pin(self, client: str, step: int, *, pinned: bool = True) -> bool:
        """Pin or unpin as `Saver.pin` and `Saver.unpin` do; returns whether it is done."""
        root = self.root(client)
        name = root.naming.name(step)
        if not pinned:
            self.oracle.unpin(name)
        try:
            found = await find_step(root, step)
            await set_pin(root, found.manifest, pinned=pinned)
        except AsyncSaverError as error:
            _believable(error)
            return False
        if pinned:
            self.oracle.pin(name)
        return True

    async def restore(self, client: str, step: int | None = None, *, into: bool = False) -> int | None:
        """Restore as `Saver.restore` does; returns the number of the state, None where there is none.

        Args:
            client: who.
            step: which; None for the latest.
            into: a target, which must be filled whole, or left as it was.
        """
        root = self.root(client)
        target = state_of(-1) if into else None
        for attempt in range(1, _TRIES + 1):
            try:
                found = await find_latest(root) if step is None else await find(root, step)
                if found is None:
                    return None
                async with CheckpointReader(root, own_source(root, found)) as reader:
                    restored = await reader.restore(target)
                    if target is not None and restored["weights"] is not target["weights"]:
                        raise ViolationError("restored beside the target")
                    return number_of(restored)
            except CheckpointDeletedError:
                if target is not None:
                    number_of(target)
                if attempt == _TRIES:
                    raise
            except StoreError as error:
                if target is not None:
                    number_of(target)
                if not error.retryable:
                    raise
                return None  # the store did not answer, however often it was asked
        raise AssertionError("unreachable")

    def writer(self, client: str) -> str:
        """A name for one act of a client, which goes into the tombstones that it writes."""
        writer = f"{client} {next(self._acts)}"
        self.oracle.begins(writer)
        return writer

    def _really_gone(self, names: Iterable[str]) -> None:
        """Whoever reports that something is deleted must not have left any of it; what lands late nobody can know of."""
        if self.scheduler.late or any(option.kind == "land" for option in self.scheduler.trace):
            return
        left = [path for name in names for path in self.oracle.remains(name)]
        if left:
            raise ViolationError(f"reported as deleted, but there are still {left}")

    async def pass_time(self, by: timedelta) -> None:
        """Let time pass for all at some point: who is paused then finds its deadlines over when it goes on."""
        await self.scheduler.point("clock", f"{by} pass")
        self.scheduler.time += by.total_seconds()

    def aftermath(self, seen: set[Hashable] | None = None) -> None:
        """When all is over: what is listed restores, saving and pruning work, and a sweep leaves nothing behind.

        Args:
            seen: ends that need not be looked at again, by the same code; this one is added.
        """
        self.scheduler.forget_late()
        self.bucket.settle()
        self.bucket.advance(2 * DAY)
        self.bucket.outcomes = always_done
        if seen is not None:
            end = end_of(self.bucket, self.oracle)
            if end in seen:
                return
            seen.add(end)
        results = self.scheduler.run({"aftermath": self._aftermath}, chooser=InOrder())
        if isinstance(results["aftermath"], Exception):
            raise results["aftermath"]

    async def _aftermath(self) -> None:
        root = self.root("aftermath")
        await sweep_root(root, grace=DAY, writer="test")
        expected = self.oracle.visible()
        if await self.save("aftermath", 99, 99, root=root, keep=3) is None:
            raise ViolationError("the next save failed")
        await prune_root(root, KeepLast(3), began=BEGAN, writer="test")
        catalog = await root.load()
        self.oracle.pins_are_listed((await root.reader.read_state())[0].entries)
        listed = {entry.name: entry.save_id for entry in catalog.checkpoints}
        standing = {name: manifest.save_id for name, manifest in self.oracle.visible().items()}
        if listed != standing or not listed.keys() - {"ckpt-00000099"} <= expected.keys():
            raise ViolationError(f"listed are {listed}, standing {standing}")
        for entry in catalog.checkpoints:
            async with CheckpointReader(root, own_source(root, await find(root, entry.step))) as reader:
                number_of(await reader.restore())
        if await self.restore("aftermath") != 99:
            raise ViolationError("the newest is not the one saved last")
        self.oracle.nothing_left_over()


class _SaveIds(dict[str, str]):
    """Save ids in flight, which also remembers those that have ended."""

    def __init__(self, root: Root) -> None:
        super().__init__(root.own_saves)
        self.all: set[str] = set()

    def __setitem__(self, save_id: str, name: str) -> None:
        assert is_save_id(save_id)
        self.all.add(save_id)
        super().__setitem__(save_id, name)


def _believable(error: AsyncSaverError) -> None:
    """That a probe is gone is nothing that a prune or a sweep may stumble over: it belongs to nobody else."""
    if isinstance(error, ObjectNotFoundError):
        raise ViolationError(f"not found: {error}") from error


def _settings(policy: RetentionPolicy, *, probe: bool, writer: str) -> SaveSettings:
    return SaveSettings(
        shard_bytes=2**20,
        commit_timeout=600.0,
        single_writer=not probe,  # only to spare the probe
        policy=Rotation(policy),
        began=BEGAN.timestamp(),
        saver={},
        writer=writer,
    )


def state_of(number: int) -> dict[str, Any]:
    """A small state, which no other number has."""
    return {"weights": np.full(4, number, dtype=np.int64), "number": number}


def number_of(state: dict[str, Any]) -> int:
    """The number of a state, which must be whole."""
    number: int = state["number"]
    if state["weights"].tolist() != [number] * 4:
        raise ViolationError(f"restored {state}")
    return number


def place_of(bucket: SimulatedBucket, chooser: Chooser) -> Place:
    """A copy of a bucket, to run one schedule on."""
    mine = bucket.copy()
    oracle = Oracle(mine)
    oracle.watch()
    scheduler = Scheduler(chooser, check=oracle.check)
    mine.scheduler = scheduler
    return Place(mine, scheduler, oracle)
