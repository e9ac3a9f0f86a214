"""`SimulatedStore` and its scheduler: a store, what it can be told to break, and schedules that replay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from asyncsaver import Saver, UnsupportedStoreError
from asyncsaver.errors import ObjectExistsError, ObjectNotFoundError, StoreError, StoreTimeoutError
from asyncsaver.testing import (
    Chooser,
    DeadlockError,
    Guarantees,
    InOrder,
    Option,
    Outcome,
    Replay,
    Scheduler,
    SimulatedBucket,
    SimulatedStore,
    StoreContract,
    all_schedules,
    explore,
    random_schedules,
)


class TestAsTheContractSays(StoreContract):
    """Without a scheduler and with all guarantees."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[SimulatedStore]:
        async with SimulatedBucket().client() as store:
            yield store


class Wanting:
    """Takes the option with a given outcome as soon as it is there, else runs in order."""

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)

    def choose(self, options: Sequence[Option]) -> int:
        for position, option in enumerate(options):
            if self.outcomes and option.outcome == self.outcomes[0] and option.kind == "fault":
                self.outcomes.pop(0)
                return position
        return InOrder().choose(options)


def run(bucket: SimulatedBucket, chooser: Chooser, **actors: Callable[[], Coroutine[Any, Any, Any]]) -> dict[str, Any]:
    bucket.scheduler = Scheduler(chooser)
    return bucket.scheduler.run(actors)


def all_outcomes(operation: str, path: str) -> Sequence[Outcome]:
    return ("done", "lost reply", "refused", "delayed", "duplicated", "crash before", "crash after")


async def test_a_store_without_exclusive_creation_says_so() -> None:
    assert not SimulatedBucket(Guarantees(exclusive_create="no")).client().capabilities.exclusive_create


async def test_a_store_that_lies_is_found_out_by_a_saver() -> None:
    bucket = SimulatedBucket(Guarantees(exclusive_create="ignored"))
    assert bucket.client().capabilities.exclusive_create
    async with Saver(bucket.client()) as saver:
        with pytest.raises(UnsupportedStoreError, match="single_writer"):
            await saver.save({"w": np.zeros(1)}, step=1)
    async with Saver(bucket.client(), single_writer=True) as saver:
        await saver.save({"w": np.zeros(1)}, step=1)


async def test_a_refusal_without_a_reason_is_no_conflict_for_sure() -> None:
    store = SimulatedBucket(Guarantees(clear_refusals=False)).client()
    await store.put("a", b"1", mode="create")
    with pytest.raises(StoreError, match="412") as caught:
        await store.put("a", b"2", mode="create")
    assert not isinstance(caught.value, ObjectExistsError)
    assert (await store.get("a")).data == b"1"


async def test_without_compare_and_swap_there_are_no_etags() -> None:
    store = SimulatedBucket(Guarantees(compare_and_swap=False)).client()
    assert (await store.put("a", b"1")).etag is None
    assert not store.capabilities.compare_and_swap


async def test_listings_lag_behind_what_others_write() -> None:
    bucket = SimulatedBucket(Guarantees(listing_delay=2))
    writer, reader = bucket.client("writer"), bucket.client("reader")

    async def listed(store: SimulatedStore) -> str:
        return "".join(item.path for item in (await store.list()).objects)

    for path in "abc":
        await writer.put(path, b"1")
    assert await listed(writer) == "abc"
    assert await listed(reader) == "a"
    await writer.delete(["a"])
    assert await listed(reader) == "ab"
    assert (await reader.get("c")).data == b"1"
    bucket.settle()
    assert await listed(reader) == "bc"


async def test_its_clock_goes_on_when_told() -> None:
    bucket = SimulatedBucket()
    store = bucket.client()
    first = (await store.put("a", b"1")).modified
    bucket.advance(timedelta(days=2))
    second = (await store.put("a", b"1")).modified
    assert first is not None
    assert second == first + timedelta(days=2)


def test_each_outcome_is_what_it_says() -> None:
    for outcome, written, error in [
        ("done", True, None),
        ("lost reply", True, StoreTimeoutError),
        ("refused", False, StoreError),
        ("delayed", False, StoreTimeoutError),
        ("duplicated", True, None),
    ]:
        bucket = SimulatedBucket(outcomes=all_outcomes)
        results = run(bucket, Wanting(outcome), one=lambda bucket=bucket: bucket.client("one").put("a", b"1"))
        assert ("a" in bucket.contents) == written, outcome
        assert isinstance(results["one"], error) if error else results["one"].path == "a"
        assert bucket.scheduler.late == (outcome in {"delayed", "duplicated"})


@pytest.mark.parametrize("written", [False, True])
def test_who_crashes_stops_for_good_and_leaves_the_others_alone(written: bool) -> None:
    bucket = SimulatedBucket(
        outcomes=lambda operation, path: all_outcomes(operation, path) if path == "a" else ("done",)
    )
    after: list[str] = []

    async def one() -> None:
        await bucket.client("one").put("a", b"1")
        after.append("one")

    async def other() -> str:
        await bucket.client("other").put("b", b"1")
        return "ended"

    assert run(bucket, Wanting("crash after" if written else "crash before"), one=one, other=other) == {
        "other": "ended"
    }
    assert after == []
    assert sorted(bucket.contents) == (["a", "b"] if written else ["b"])


def test_a_late_duplicate_may_land_after_a_deletion() -> None:
    found = set()

    def scenario(chooser: Chooser) -> None:
        bucket = SimulatedBucket(outcomes=lambda operation, path: ("done", "duplicated"))

        async def one() -> None:
            store = bucket.client("one")
            await store.put("a", b"1", mode="create")
            await store.delete(["a"])
            await store.head("b")

        results = run(bucket, chooser, one=one)
        assert isinstance(results["one"], ObjectNotFoundError)
        found.add("a" in bucket.contents)

    explore(scenario, all_schedules(1))
    assert found == {False, True}


def test_the_network_keeps_no_request_for_ever() -> None:
    found = set()

    def scenario(chooser: Chooser) -> None:
        bucket = SimulatedBucket(
            outcomes=lambda operation, path: ("done", "duplicated") if operation == "put" else ("done",)
        )

        async def one() -> None:
            store = bucket.client("one")
            await store.put("a", b"1")
            bucket.advance(timedelta(hours=13))
            await store.delete(["a"])
            await store.list()

        run(bucket, chooser, one=one)
        found.add("a" in bucket.contents)

    assert explore(scenario, all_schedules(1)) == 2
    assert found == {False}


def test_all_schedules_of_two_racers_are_found_once() -> None:
    traces: list[str] = []

    def scenario(chooser: Chooser) -> None:
        bucket = SimulatedBucket()

        async def racer(name: str) -> None:
            store = bucket.client(name)
            for _ in range(2):
                await store.put("a", name.encode())

        run(bucket, chooser, x=lambda: racer("x"), y=lambda: racer("y"))
        traces.append("".join(option.actor for option in bucket.scheduler.trace))

    assert explore(scenario, all_schedules(0)) == 2
    assert sorted(traces) == ["xxyy", "yyxx"]
    traces.clear()
    assert explore(scenario, all_schedules(4)) == 6  # 4 choose 2
    assert len(set(traces)) == 6


def test_the_explorer_finds_a_lost_update_and_says_how_to_replay_it() -> None:
    def scenario(chooser: Chooser) -> None:
        bucket = SimulatedBucket()
        bucket.put("a", b"0")

        async def increment(name: str) -> None:
            store = bucket.client(name)
            await store.put("a", str(int((await store.get("a")).data) + 1).encode())

        run(bucket, chooser, x=lambda: increment("x"), y=lambda: increment("y"))
        assert bucket.contents["a"] == b"2"

    explore(scenario, all_schedules(0))
    for choosers in (all_schedules(1), random_schedules(0, 100)):
        with pytest.raises(AssertionError) as caught:
            explore(scenario, choosers)
        (note,) = caught.value.__notes__
        positions = [int(one) for one in note.partition("[")[2].partition("]")[0].split(",")]
        with pytest.raises(AssertionError):
            scenario(Replay(positions))


def test_the_same_seed_gives_the_same_schedules() -> None:
    def traces(seed: str) -> list[str]:
        found: list[str] = []

        def scenario(chooser: Chooser) -> None:
            bucket = SimulatedBucket(outcomes=all_outcomes)

            async def racer(name: str) -> None:
                for path in "abc":
                    await bucket.client(name).put(path, b"1")

            run(bucket, chooser, x=lambda: racer("x"), y=lambda: racer("y"))
            found.append("; ".join(map(str, bucket.scheduler.trace)))

        assert explore(scenario, random_schedules(seed, 50)) == 50
        return found

    assert traces("one") == traces("one")
    assert traces("one") != traces("other")


def test_sleeping_takes_no_time_and_rings_in_order() -> None:
    order: list[float] = []

    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)
        order.append(seconds)

    scheduler = Scheduler(InOrder())
    scheduler.run({"long": lambda: sleep(1e6), "short": lambda: sleep(1e3)})
    assert order == [1e3, 1e6]
    assert scheduler.time == pytest.approx(1e6)


def test_waiting_for_nothing_is_an_error() -> None:
    async def wait() -> None:
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError, match="one"):
        Scheduler(InOrder()).run({"one": wait})


def test_what_the_check_raises_ends_the_run() -> None:
    bucket = SimulatedBucket()

    def check() -> None:
        assert "b" not in bucket.contents

    async def one() -> None:
        for path in "abc":
            await bucket.client("one").put(path, b"1")

    bucket.scheduler = Scheduler(InOrder(), check=check)
    with pytest.raises(AssertionError):
        bucket.scheduler.run({"one": one})
    assert sorted(bucket.contents) == ["a", "b"]


def test_exploring_stops_at_the_limit() -> None:
    assert explore(lambda chooser: None, random_schedules(0, 1000), limit=7) == 7
