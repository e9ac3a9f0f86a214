"""Operations that end in part, and actors that are cancelled, as a `Scheduler` and a `SimulatedStore` have them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from asyncsaver.aio.completion import to_completion
from asyncsaver.testing import InOrder, Option, Outcome, Scheduler, SimulatedBucket

Actor = Callable[[], Coroutine[Any, Any, Any]]


class Once:
    """Takes the first option with a given outcome, then runs in order, and lets what is late land as soon as it can."""

    def __init__(self, outcome: Outcome) -> None:
        self.wanted: Outcome | None = outcome

    def choose(self, options: Sequence[Option]) -> int:
        for position, option in enumerate(options):
            if option.outcome == self.wanted:
                self.wanted = None
                return position
            if option.kind == "land":
                return position
        return InOrder().choose(options)


def run(outcome: Outcome, of: str, actor: Callable[[SimulatedBucket], Coroutine[Any, Any, Any]]) -> tuple[Any, Any]:
    """Run one actor, of whose operations of a kind the first ends in this way; returns its result and the bucket."""
    bucket = SimulatedBucket()
    for path in ("a", "b", "c"):
        bucket.put(path, b"old")
    bucket.scheduler = Scheduler(Once(outcome))
    bucket.outcomes = lambda operation, _: ("done", outcome) if operation == of else ("done",)
    return bucket.scheduler.run({"actor": lambda: actor(bucket)})["actor"], bucket


def test_a_deletion_in_part_names_what_is_left() -> None:
    failed, bucket = run("in part", "delete", lambda bucket: bucket.client("actor").delete(["a", "b", "c"]))
    assert sorted(failed) == ["b", "c"]
    assert not failed["b"].retryable
    assert sorted(bucket.contents) == ["b", "c"]


def test_only_a_deletion_can_end_in_part() -> None:
    error, bucket = run("in part", "put", lambda bucket: bucket.client("actor").put("a", b"new"))
    assert isinstance(error, ValueError)
    assert bucket.contents["a"] == b"old"


@pytest.mark.parametrize(
    ("outcome", "content"), [("cancelled", b"old"), ("cancelled after", b"new"), ("cancelled, delayed", b"new")]
)
def test_a_cancelled_operation_was_carried_out_or_not(outcome: Outcome, content: bytes) -> None:
    async def put(bucket: SimulatedBucket) -> str:
        store = bucket.client("actor")
        try:
            await store.put("a", b"new")
        except asyncio.CancelledError:
            await store.put("b", b"tidied")
            return "cancelled"
        return "done"

    result, bucket = run(outcome, "put", put)
    assert result == "cancelled"
    assert bucket.contents["a"] == content
    assert bucket.contents["b"] == b"tidied"


def test_who_is_cancelled_and_does_not_mind_is_reported_so() -> None:
    result, _ = run("cancelled", "get", lambda bucket: bucket.client("actor").get("a"))
    assert isinstance(result, asyncio.CancelledError)


def test_what_is_shielded_goes_on() -> None:
    result, bucket = run("cancelled", "put", lambda bucket: to_completion(bucket.client("actor").put("a", b"new")))
    assert isinstance(result, asyncio.CancelledError)
    assert bucket.contents["a"] == b"new"
