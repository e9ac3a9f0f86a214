"""Who meets whom: what stands at first, who does what at the same time, and what the network may do to them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from asyncsaver.model.manifest import ManifestFormat
from asyncsaver.testing import Chooser, Guarantees, InOrder, Outcome, SimulatedBucket

from .actors import DAY, Place, place_of
from .oracle import ViolationError

Actor = Callable[[], Coroutine[Any, Any, Any]]
_DEAD = "ckpt-00000002/20200101T000000Z-0123456789abcdef/"
_WRITES = {"create", "put", "replace_if", "delete"}


def faults_of_records(operation: str, path: str) -> Sequence[Outcome]:
    """Everything that can happen to the writing of records and of the state file; data can only lose their writer."""
    if operation not in _WRITES:
        return ("done",)
    if path.endswith((".json", ".pb")) and "/2" not in path:
        return ("done", "lost reply", "refused", "delayed", "duplicated", "crash before", "crash after")
    return ("done", "crash after")


def crashes(operation: str, path: str) -> Sequence[Outcome]:
    """Any write may be the last."""
    return ("done", "crash before", "crash after") if operation in _WRITES else ("done",)


def all_faults(operation: str, path: str) -> Sequence[Outcome]:
    """Anything may happen to anything."""
    if operation == "delete":
        return ("done", "lost reply", "refused", "in part", "delayed", "duplicated", "crash before", "crash after")
    if operation in _WRITES:
        return ("done", "lost reply", "refused", "delayed", "duplicated", "crash before", "crash after")
    return ("done", "refused", "crash before")


def deletions_fail(operation: str, path: str) -> Sequence[Outcome]:
    """Of what is to be deleted some stays, and any write may be the last."""
    if operation == "delete":
        return ("done", "in part", "lost reply", "crash before", "crash after")
    return ("done", "crash after") if operation in _WRITES else ("done",)


def cancellations(operation: str, path: str) -> Sequence[Outcome]:
    """Whoever it is may be cancelled, and what it has asked for may still come about."""
    if operation in _WRITES:
        return ("done", "cancelled", "cancelled after", "cancelled, delayed")
    return ("done", "cancelled")


async def _nothing(place: Place) -> None:
    """An empty root."""


async def _one(place: Place) -> None:
    await place.save("before", 1, 1)


async def _three(place: Place) -> None:
    root = place.root("before")
    for step in (1, 2, 3):
        await place.save("before", step, step, root=root)


async def _three_as_protobuf(place: Place) -> None:
    root = place.root("before", "proto")
    for step in (1, 2, 3):
        await place.save("before", step, step, root=root)


async def _replaced(place: Place) -> None:
    await place.save("before", 1, 1)
    await place.save("before", 1, 2, overwrite=True)


async def _deleted(place: Place) -> None:
    await place.save("before", 1, 1)
    await place.save("before", 5, 5)
    await place.delete("before", 5)
    await place.save("before", 2, 2)  # from now on counts the life of the tombstone


async def _pinned(place: Place) -> None:
    await _three(place)
    await place.pin("before", 1)


async def _dead_attempt_with_a_pin(place: Place) -> None:
    await _dead_attempt(place)
    await place.bucket.client("dead").put("ckpt-00000002/pinned.json", b"{}")


async def _dead_attempt(place: Place) -> None:
    await place.save("before", 1, 1)
    for file in ("model-00001-of-00001.safetensors", "part-00000.json"):
        await place.bucket.client("dead").put(f"{_DEAD}{file}", b"dead")
    place.bucket.advance(2 * DAY)


@dataclass(frozen=True, slots=True)
class Scenario:
    """Actors that work at once on one root.

    Attributes:
        actors: given a place, name → what it does.
        before: what is there at first.
        outcomes: what may happen to an operation.
        guarantees: of the store.
    """

    actors: Callable[[Place], Mapping[str, Actor]]
    before: Callable[[Place], Coroutine[Any, Any, None]] = _nothing
    outcomes: Callable[[str, str], Sequence[Outcome]] = faults_of_records
    guarantees: Guarantees = field(default_factory=Guarantees)

    def run(
        self, chooser: Chooser, *, seen: set[Hashable] | None = None, change: Callable[[Place], None] | None = None
    ) -> Place:
        """Run one schedule and check everything, also what comes after.

        Args:
            chooser: of the schedule.
            seen: see `Place.aftermath`.
            change: what a test wants to be different.
        """
        place = place_of(_start(self.before, self.guarantees), chooser)
        place.bucket.outcomes = self.outcomes
        if change is not None:
            change(place)
        for result in place.scheduler.run(self.actors(place)).values():
            if isinstance(result, Exception):
                raise result
        place.aftermath(seen)
        return place


@cache
def _start(before: Callable[[Place], Coroutine[Any, Any, None]], guarantees: Guarantees) -> SimulatedBucket:
    place = place_of(SimulatedBucket(guarantees), InOrder())
    results = place.scheduler.run({"before": lambda: before(place)})
    assert results == {"before": None}
    place.bucket.settle()
    return place.bucket


_NO_SWAP = Guarantees(compare_and_swap=False)
_UNCLEAR = Guarantees(clear_refusals=False)
_LAGGING = Guarantees(listing_delay=3)


def _two_savers(place: Place) -> Mapping[str, Actor]:
    return {"one": lambda: place.save("one", 5, 1), "other": lambda: place.save("other", 5, 2)}


def _two_overwriters(place: Place) -> Mapping[str, Actor]:
    return {
        "one": lambda: place.save("one", 1, 11, overwrite=True, keep=1),
        "other": lambda: place.save("other", 1, 12, overwrite=True, keep=1),
    }


def _two_steps(place: Place) -> Mapping[str, Actor]:
    return {"one": lambda: place.save("one", 4, 4, keep=1), "other": lambda: place.save("other", 5, 5, keep=1)}


def _saver_and_sweep(place: Place) -> Mapping[str, Actor]:
    return {
        "saver": lambda: place.save("saver", 2, 2),
        "clock": lambda: place.pass_time(2 * DAY),
        "sweeper": lambda: place.sweep("sweeper"),
    }


def _saver_and_two_sweeps(place: Place) -> Mapping[str, Actor]:
    return {
        "saver": lambda: place.save("saver", 1, 2, overwrite=True),
        "one": lambda: place.sweep("one", 0 * DAY),
        "other": lambda: place.sweep("other", 0 * DAY),
    }


def _expiring_tombstone(place: Place) -> Mapping[str, Actor]:
    async def tidy() -> None:
        await place.pass_time(2 * DAY)
        await place.prune("tidy", keep=9)
        await place.sweep("tidy")

    return {"saver": lambda: place.save("saver", 5, 55), "tidy": tidy}


def _tombstone_below_a_fence(place: Place) -> Mapping[str, Actor]:
    async def other() -> None:
        await place.save("other", 5, 6)
        await place.delete("other", 5)
        await place.prune("other", keep=9)
        await place.pass_time(2 * DAY)
        await place.sweep("other")
        await place.prune("other", keep=9)

    return {"saver": lambda: place.save("saver", 5, 55), "other": other}


def _overwrite_and_prune(place: Place) -> Mapping[str, Actor]:
    return {
        "saver": lambda: place.save("saver", 3, 33, overwrite=True),
        "pruner": lambda: place.prune("pruner", keep=1),
    }


def _overwrite_delete_sweep(place: Place) -> Mapping[str, Actor]:
    return {
        "saver": lambda: place.save("saver", 1, 11, overwrite=True),
        "deleter": lambda: place.delete("deleter", 1),
        "sweeper": lambda: place.sweep("sweeper", 0 * DAY),
    }


def _restore_and_prune(place: Place) -> Mapping[str, Actor]:
    async def restore() -> None:
        found = await place.restore("reader")
        assert found == 3, f"restored {found}, though 3 is the latest all the time"

    return {"reader": restore, "pruner": lambda: place.prune("pruner", keep=1)}


def _restore_and_save(place: Place) -> Mapping[str, Actor]:
    async def restore() -> None:
        found = await place.restore("reader")
        assert found in {3, 4}, f"restored {found}, though 3 or 4 is the latest all the time"

    return {"reader": restore, "saver": lambda: place.save("saver", 4, 4, keep=1)}


def _restore_and_overwrite(place: Place) -> Mapping[str, Actor]:
    async def restore() -> None:
        found = await place.restore("reader", 3)
        assert found in {3, 33}, f"restored {found}"

    return {"reader": restore, "saver": lambda: place.save("saver", 3, 33, overwrite=True, keep=3)}


def _two_pruners(place: Place) -> Mapping[str, Actor]:
    return {"one": lambda: place.prune("one", keep=1), "other": lambda: place.prune("other", keep=2)}


def _late_request(place: Place) -> Mapping[str, Actor]:
    async def prune() -> None:
        await place.save("pruner", 6, 6)
        await place.prune("pruner", keep=1)

    return {"saver": lambda: place.save("saver", 5, 5), "pruner": prune}


def _two_probes(place: Place) -> Mapping[str, Actor]:
    return {
        "one": lambda: place.save("one", 5, 1, probe=True),
        "other": lambda: place.save("other", 5, 2, probe=True),
    }


def _probe_and_sweep(place: Place) -> Mapping[str, Actor]:
    return {
        "saver": lambda: place.save("saver", 5, 1, probe=True),
        "sweeper": lambda: place.sweep("sweeper", 0 * DAY),
    }


def _two_clocks(place: Place) -> Mapping[str, Actor]:
    return {
        "pruner": lambda: place.prune("pruner", keep=1),
        "sweeper": lambda: place.sweep("sweeper", 0 * DAY),
    }


def _prune_and_delete(place: Place) -> Mapping[str, Actor]:
    return {"pruner": lambda: place.prune("pruner", keep=1), "deleter": lambda: place.delete("deleter", 1)}


def _sweep_in_part(place: Place) -> Mapping[str, Actor]:
    async def sweep() -> None:
        report = await place.sweep("sweeper")
        left = [path for path in place.bucket.contents if path.startswith(_DEAD)]
        if left and report is not None and all(item.error is None for item in report.leftovers):
            raise ViolationError(f"swept, it is said, but there are still {left}")

    return {"sweeper": sweep, "other": lambda: place.sweep("other", 0 * DAY)}


def _restore_into(place: Place) -> Mapping[str, Actor]:
    async def restore() -> None:
        found = await place.restore("reader", 3, into=True)
        assert found in {3, 33}, f"restored {found}"

    return {
        "reader": restore,
        "saver": lambda: place.save("saver", 3, 33, overwrite=True, keep=1),
        "sweeper": lambda: place.sweep("sweeper", 0 * DAY),
    }


def _pin_and_prune(place: Place) -> Mapping[str, Actor]:
    async def pin() -> None:
        await place.pin("pinner", 2)
        await place.prune("pinner", keep=1)

    return {"pinner": pin, "saver": lambda: place.save("saver", 4, 4, keep=1)}


def _unpin_and_prune(place: Place) -> Mapping[str, Actor]:
    return {
        "unpinner": lambda: place.pin("unpinner", 1, pinned=False),
        "pinner": lambda: place.pin("pinner", 2),
        "pruner": lambda: place.prune("pruner", keep=1),
    }


def _pinned_save_and_sweep(place: Place) -> Mapping[str, Actor]:
    async def save() -> None:
        await place.save("saver", 2, 2, pin=True)
        await place.save("saver", 3, 3, keep=1)

    return {"saver": save, "sweeper": lambda: place.sweep("sweeper")}


def _two_pinned_savers(place: Place) -> Mapping[str, Actor]:
    return {
        "one": lambda: place.save("one", 5, 1, pin=True),
        "other": lambda: place.save("other", 5, 2, pin=True),
    }


def _cancelled_save_and_sweep(place: Place) -> Mapping[str, Actor]:
    async def save() -> None:
        try:
            await place.save("saver", 2, 2, pin=True)
        except asyncio.CancelledError:
            _task().uncancel()
        await place.save("saver", 3, 3, keep=1)

    return {"saver": save, "sweeper": lambda: place.sweep("sweeper", 0 * DAY)}


def _task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


def _cancelled_overwrite_and_prune(place: Place) -> Mapping[str, Actor]:
    return {
        "saver": lambda: place.save("saver", 3, 33, overwrite=True, keep=2),
        "pruner": lambda: place.prune("pruner", keep=1),
    }


def _two_encodings(place: Place) -> Mapping[str, Actor]:
    """Each saves twice: the state file in which it believes the second time, the other may have removed."""

    async def save(client: str, manifest_format: ManifestFormat, *steps: int) -> None:
        line = place.line(place.root(client, manifest_format), client, keep=2)
        for step in steps:
            await place.save(client, step, step, line=line)

    return {"json": lambda: save("json", "json", 4, 6), "proto": lambda: save("proto", "proto", 5, 7)}


def _two_encodings_at_one_step(place: Place) -> Mapping[str, Actor]:
    return {
        "json": lambda: place.save("json", 3, 33, overwrite=True, keep=1),
        "proto": lambda: place.save("proto", 3, 34, overwrite=True, keep=1, root=place.root("proto", "proto")),
    }


def _protobuf_and_sweep(place: Place) -> Mapping[str, Actor]:
    return {
        "saver": lambda: place.save("saver", 2, 2, root=place.root("saver", "proto")),
        "clock": lambda: place.pass_time(2 * DAY),
        "sweeper": lambda: place.sweep("sweeper"),
    }


def _crowd(place: Place) -> Mapping[str, Actor]:
    return {
        "one": lambda: place.save("one", 3, 33, overwrite=True, keep=2),
        "other": lambda: place.save("other", 4, 4, keep=2),
        "pruner": lambda: place.prune("pruner", keep=1),
        "sweeper": lambda: place.sweep("sweeper", 0 * DAY),
        "reader": lambda: place.restore("reader"),
    }


SCENARIOS: Mapping[str, Scenario] = {
    "two savers at one step": Scenario(_two_savers),
    "two savers at one step, refusals without a reason": Scenario(_two_savers, guarantees=_UNCLEAR),
    "two savers at one step, listings that lag": Scenario(_two_savers, guarantees=_LAGGING),
    "two savers at one step, no compare-and-swap": Scenario(_two_savers, guarantees=_NO_SWAP),
    "two savers replace one checkpoint": Scenario(_two_overwriters, _one),
    "two savers at two steps": Scenario(_two_steps, _three),
    "a saver that sleeps past the grace, and a sweep": Scenario(_saver_and_sweep, _one),
    "the same, refusals without a reason": Scenario(_saver_and_sweep, _one, guarantees=_UNCLEAR),
    "the same, listings that lag": Scenario(_saver_and_sweep, _one, guarantees=_LAGGING),
    "the same, beside a dead attempt": Scenario(_saver_and_sweep, _dead_attempt),
    "a saver and two sweeps without grace": Scenario(_saver_and_two_sweeps, _one),
    "a saver that replaces, and a prune": Scenario(_overwrite_and_prune, _three),
    "the same, no compare-and-swap": Scenario(_overwrite_and_prune, _three, guarantees=_NO_SWAP),
    "a saver that replaces, a deletion and a sweep": Scenario(_overwrite_delete_sweep, _replaced),
    "a saver past a tombstone that expires": Scenario(_expiring_tombstone, _deleted, faults_of_records),
    "a saver below a fence, at a tombstone that expires": Scenario(_tombstone_below_a_fence, _one, faults_of_records),
    "restore and prune": Scenario(_restore_and_prune, _three, crashes),
    "restore and save": Scenario(_restore_and_save, _three, crashes),
    "restore and overwrite": Scenario(_restore_and_overwrite, _three, crashes),
    "two pruners": Scenario(_two_pruners, _three),
    "two pruners, no compare-and-swap": Scenario(_two_pruners, _three, guarantees=_NO_SWAP),
    "a late request and a prune": Scenario(_late_request, _one),
    "two savers probe the store": Scenario(_two_probes),
    "two savers probe the store, refusals without a reason": Scenario(_two_probes, guarantees=_UNCLEAR),
    "a saver probes the store, and a sweep": Scenario(_probe_and_sweep, _one),
    "a prune and a sweep ask for the time": Scenario(_two_clocks, _dead_attempt),
    "two pruners, deletions fail in part": Scenario(_two_pruners, _three, deletions_fail),
    "prune and deletion fail in part": Scenario(_prune_and_delete, _pinned, deletions_fail),
    "two sweeps fail in part": Scenario(_sweep_in_part, _dead_attempt_with_a_pin, deletions_fail),
    "a saver that replaces, deletion and sweep fail in part": Scenario(
        _overwrite_delete_sweep, _replaced, deletions_fail
    ),
    "two savers at one step, tidying fails in part": Scenario(_two_savers, outcomes=deletions_fail),
    "a tombstone that expires, deletions fail in part": Scenario(_expiring_tombstone, _deleted, deletions_fail),
    "restore into a target, overwrite and sweep": Scenario(_restore_into, _three, crashes),
    "pin and prune": Scenario(_pin_and_prune, _three),
    "unpin, pin and prune": Scenario(_unpin_and_prune, _pinned, crashes),
    "a save with a pin, and a sweep": Scenario(_pinned_save_and_sweep, _dead_attempt),
    "two saves with a pin at one step": Scenario(_two_pinned_savers),
    "a save that is cancelled, and a sweep": Scenario(_cancelled_save_and_sweep, _one, cancellations),
    "a save that replaces is cancelled, and a prune": Scenario(_cancelled_overwrite_and_prune, _three, cancellations),
    "JSON and protobuf on an empty root": Scenario(_two_encodings),
    "JSON and protobuf at two steps": Scenario(_two_encodings, _three),
    "JSON and protobuf replace one checkpoint": Scenario(_two_encodings_at_one_step, _three_as_protobuf),
    "JSON and protobuf replace one checkpoint, no compare-and-swap": Scenario(
        _two_encodings_at_one_step, _three, guarantees=_NO_SWAP
    ),
    "protobuf past the grace, and a sweep": Scenario(_protobuf_and_sweep, _dead_attempt),
    "restore and prune of protobuf": Scenario(_restore_and_prune, _three_as_protobuf, crashes),
    "restore and overwrite of protobuf": Scenario(_restore_and_overwrite, _three_as_protobuf, crashes),
    "JSON and protobuf, and everything may fail": Scenario(_two_encodings, _three_as_protobuf, all_faults),
    "everybody": Scenario(_crowd, _three),
    "everybody, and everything may fail": Scenario(_crowd, _three, all_faults),
    "two savers at one step, and everything may fail": Scenario(_two_savers, _one, all_faults),
    "sleeper and sweep, and everything may fail": Scenario(_saver_and_sweep, _dead_attempt, all_faults),
    "replacing, deletion, sweep, and everything may fail": Scenario(_overwrite_delete_sweep, _replaced, all_faults),
    "no compare-and-swap, and everything may fail": Scenario(_overwrite_and_prune, _three, all_faults, _NO_SWAP),
    "listings lag, and everything may fail": Scenario(_crowd, _three, all_faults, _LAGGING),
    "probing, and everything may fail": Scenario(_probe_and_sweep, _one, all_faults),
    "pins, and everything may fail": Scenario(_unpin_and_prune, _pinned, all_faults),
}
