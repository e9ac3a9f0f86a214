"""Savers, pruners, sweepers and readers of TensorFlow's files, in every order of their requests; no threads, no real time."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np

from asyncsaver.aio.budget import ByteBudget
from asyncsaver.catalog.root import Root
from asyncsaver.errors import AsyncSaverError, CheckpointDeletedError, CheckpointNotFoundError, StoreError
from asyncsaver.layout.tensorflow import TensorFlowLayout
from asyncsaver.model.leaves import Adapters
from asyncsaver.model.names import Naming
from asyncsaver.model.retention import KeepAll, KeepLast
from asyncsaver.model.rotation import Rotation
from asyncsaver.model.tensorflow_config import TensorFlowConfig
from asyncsaver.restore.reader import CheckpointReader
from asyncsaver.save.attempt import Request
from asyncsaver.save.line import SaveSettings
from asyncsaver.store.retry import Retries, RetryingStore
from asyncsaver.testing import Chooser, Guarantees, InOrder, Outcome, Scheduler, SimulatedBucket, SimulatedStore

from ..interleavings.actors import InlineThreads  # noqa: TID252 - test folders have no name
from .tensorflow_eyes import TornError, seen

DAY = timedelta(days=1)
BEGAN = datetime(2029, 12, 31, tzinfo=UTC)
Actor = Callable[[], Coroutine[Any, Any, Any]]
Outcomes = Callable[[str, str], Sequence[Outcome]]
_ADAPTERS = Adapters()
_WRITES = {"create", "put", "replace_if", "delete"}


def faults(operation: str, path: str) -> Sequence[Outcome]:
    """Everything that can happen to the writing of anything that is not data; these can only lose their writer."""
    if operation not in _WRITES:
        return ("done",)
    if ".data-" in path and operation != "delete":
        return ("done", "crash after")
    return ("done", "lost reply", "refused", "delayed", "duplicated", "crash before", "crash after")


def crashes(operation: str, path: str) -> Sequence[Outcome]:
    """Any write may be the last."""
    return ("done", "crash before", "crash after") if operation in _WRITES else ("done",)


def numbers(objects: Mapping[str, bytes]) -> dict[str, int]:
    """Prefix → number of the state, of every checkpoint that TensorFlow finds; each must be whole, and of one save."""
    found: dict[str, int] = {}
    for prefix, tensors in seen(objects).items():
        number = found[prefix] = int(tensors["number"])
        if tensors["weights"].tolist() != [number] * 4:
            raise TornError(f"{prefix} has tensors of different saves")
    return found


@dataclass(slots=True)
class Place:
    """One folder in one schedule."""

    bucket: SimulatedBucket
    scheduler: Scheduler
    _processes: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    _changed: bool = True

    def watch(self) -> None:
        """From now on TensorFlow looks into the folder after every change."""

        def changed(path: str, old: bytes | None, new: bytes | None) -> None:
            self._changed = self._changed or not path.startswith(".asyncsaver/")

        self.bucket.changed = changed

    def look(self) -> None:
        """What TensorFlow finds is whole. Only the creation of an index that the network carries out twice may bring one back."""
        if self._changed and not any(
            option.kind == "land" and option.what.startswith("create m-") for option in self.scheduler.trace
        ):
            self._changed = False
            numbers(self.bucket.contents)

    def layout(self, client: str, keep: int | None = None) -> TensorFlowLayout:
        """A process of its own."""
        rng = random.Random(f"{client} {next(self._processes)}")
        root = Root(
            store=RetryingStore(SimulatedStore(self.bucket, client), Retries(0.2, rng=rng)),
            naming=Naming("m", pad=False),
            threads=InlineThreads(),
            budget=ByteBudget(2**20),
            concurrency=1,
            clock=BEGAN.timestamp,
            random_bits=rng.getrandbits,
            adapters=_ADAPTERS,
        )
        settings = SaveSettings(
            shard_bytes=2**20,
            commit_timeout=600.0,
            single_writer=True,  # only to spare the probe
            policy=Rotation(KeepAll() if keep is None else KeepLast(keep)),
            began=BEGAN.timestamp(),
            saver={},
            writer=client,
        )
        return TensorFlowLayout(root, settings, TensorFlowConfig(), "simulated://bucket")

    async def save(
        self, client: str, step: int, number: int, *, overwrite: bool = False, keep: int | None = None
    ) -> bool:
        """Save a state as `Saver.save` does; whether it is committed for sure."""
        layout = self.layout(client, keep)
        name = layout.root.naming.name(step)
        request = Request(
            name=name, step=step, metrics={}, metadata=None, overwrite=overwrite, pin=False, report=layout.root.report
        )
        ticket = layout.line.take_place(name)
        state = {"weights": np.full(4, number, dtype=np.int64), "number": number}
        try:
            await layout.line.run(ticket, request, layout.describe(state, _ADAPTERS), 0.0)
        except AsyncSaverError:
            return False
        finally:
            layout.line.leave_place(ticket)
        return True

    async def prune(self, client: str, keep: int) -> None:
        """Prune as `Saver.prune` does."""
        await self._try(self.layout(client, keep).prune(dry_run=False))

    async def sweep(self, client: str, grace: timedelta = DAY) -> None:
        """Sweep as `Saver.sweep` does."""
        await self._try(self.layout(client).sweep(grace, dry_run=False))

    async def delete(self, client: str, step: int) -> None:
        """Delete by hand."""
        await self._try(self.layout(client).delete(step))

    async def restore(self, client: str, step: int | None = None) -> int | None:
        """Restore as `Saver.restore` does; returns the number of the state, None where there is none."""
        layout = self.layout(client)
        for _ in range(5):
            try:
                async with CheckpointReader(layout.root, await layout.source(step)) as reader:
                    state = await reader.restore()
            except CheckpointDeletedError:
                continue
            except CheckpointNotFoundError:
                return None
            except StoreError as error:
                if not error.retryable:
                    raise
                return None
            number: int = state["number"]
            assert state["weights"].tolist() == [number] * 4, state
            return number
        return None

    async def pass_time(self, by: timedelta) -> None:
        """Let time pass at some point."""
        await self.scheduler.point("clock", f"{by} pass")
        self.scheduler.time += by.total_seconds()

    async def _try(self, work: Coroutine[Any, Any, object]) -> None:
        with contextlib.suppress(AsyncSaverError):
            await work

    def aftermath(self) -> None:
        """When all is over: what is committed is published, and a month later nothing is left behind."""
        self.scheduler.forget_late()
        self.bucket.settle()
        self.bucket.outcomes = lambda operation, path: ("done",)
        self.bucket.advance(2 * DAY)
        results = self.scheduler.run({"aftermath": self._aftermath}, chooser=InOrder())
        if isinstance(results["aftermath"], Exception):
            raise results["aftermath"]

    async def _aftermath(self) -> None:
        layout = self.layout("aftermath")
        await layout.sweep(DAY, dry_run=False)
        await layout.prune(dry_run=False)
        listed = {found.name for found in await layout.checkpoints()}
        assert numbers(self.bucket.contents).keys() == listed, "published is what is committed"
        assert await self.save("aftermath", 99, 99)
        assert await self.restore("aftermath") == 99
        for days in (1, 40, 40, 40):
            self.bucket.advance(days * DAY)
            await layout.prune(dry_run=False)
            await layout.sweep(DAY, dry_run=False)
        found = numbers(self.bucket.contents)
        assert found.keys() == listed | {"m-99"}
        for name, number in found.items():
            assert await self.restore("aftermath", int(name[2:])) == number, f"{name}: TensorFlow reads {number}"
        loose = {path.partition(".")[0] for path in self.bucket.contents if "/" not in path} - found.keys()
        assert loose == {"checkpoint"}, f"left over: {loose}"


@dataclass(frozen=True, slots=True)
class Scenario:
    """Actors that work at once on one folder.

    Attributes:
        actors: given a place, name → what it does.
        before: what is there at first: steps that have been saved.
        outcomes: what may happen to an operation.
        guarantees: of the store.
    """

    actors: Callable[[Place], Mapping[str, Actor]]
    before: tuple[int, ...] = ()
    outcomes: Outcomes = faults
    guarantees: Guarantees = field(default_factory=Guarantees)

    def run(self, chooser: Chooser, *, ends: set[Hashable] | None = None) -> Place:
        """Run one schedule and check everything, also what comes after, once for each end."""
        place = _place_of(_start(self.before, self.guarantees), chooser)
        place.bucket.outcomes = self.outcomes
        for result in place.scheduler.run(self.actors(place)).values():
            if isinstance(result, Exception):
                raise result
        if ends is not None:
            end = frozenset(place.bucket.contents.items())
            if end in ends:
                return place
            ends.add(end)
        place.aftermath()
        return place


def _place_of(bucket: SimulatedBucket, chooser: Chooser) -> Place:
    mine = bucket.copy()
    place = Place(mine, Scheduler(chooser))
    place.scheduler._check = place.look
    place.watch()
    mine.scheduler = place.scheduler
    return place


@cache
def _start(before: tuple[int, ...], guarantees: Guarantees) -> SimulatedBucket:
    place = _place_of(SimulatedBucket(guarantees), InOrder())

    async def save() -> None:
        for step in before:
            assert await place.save("before", step, step)

    assert place.scheduler.run({"before": save}) == {"before": None}
    place.bucket.settle()
    return place.bucket
