"""Which checkpoints stay, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver.model.retention import (
    AnyOf,
    KeepAll,
    KeepBest,
    KeepEveryHours,
    KeepEverySteps,
    KeepLast,
    KeepPinned,
    RetentionPolicy,
    decide,
    policy_from_arguments,
)
from asyncsaver.model.statefile import Entry

START = datetime(2026, 1, 1, tzinfo=UTC)


def entry(step: int, *, hours: float = 0, **fields: Any) -> Entry:
    sequence = fields.pop("sequence", step)
    return Entry(
        state="committed", name=f"ckpt-{step:08d}", step=step, slot=0, etag=None, sequence=sequence,
        created=START + timedelta(hours=hours), **fields,
    )  # fmt: skip


def kept(entries: Sequence[Entry], policy: RetentionPolicy, **options: Any) -> list[int | None]:
    verdict = decide(entries, policy, **{"last_preserved": START, **options})
    return [decision.entry.step for decision in verdict.decisions if decision.keep]


TEN = [entry(step) for step in range(1, 11)]
LOSSES = [entry(1, metrics={"loss": 3.0}), entry(2, metrics={"loss": 1}), entry(3, metrics={"loss": 1.0}),
          entry(4, metrics={"loss": "nan"}), entry(5), entry(6, metrics={"loss": "inf"}),
          entry(7, metrics={"loss": "-inf"}), entry(8, metrics={"other": 0.0}), entry(9, metrics={"loss": 2})]  # fmt: skip


@pytest.mark.parametrize(
    ("entries", "policy", "expected"),
    [
        (TEN, KeepAll(), list(range(1, 11))),
        (TEN, KeepLast(3), [8, 9, 10]),
        (TEN, KeepLast(1), [10]),
        (TEN, KeepLast(99), list(range(1, 11))),
        (TEN, KeepEverySteps(4), [4, 8, 10]),
        (TEN, KeepPinned(), [10]),
        (TEN, KeepEveryHours(1), [10]),
        (TEN, KeepLast(2) | KeepEverySteps(5), [5, 9, 10]),
        (LOSSES, KeepBest("loss"), [7, 9]),
        (LOSSES, KeepBest("loss", 2), [3, 7, 9]),
        (LOSSES, KeepBest("loss", 3), [2, 3, 7, 9]),
        (LOSSES, KeepBest("loss", 2, "max"), [1, 6, 9]),
        (LOSSES, KeepBest("loss", 99), [1, 2, 3, 6, 7, 9]),
        (LOSSES, KeepBest("absent"), [9]),
        (LOSSES, KeepBest("other") | KeepPinned(), [8, 9]),
        ([], KeepLast(1), []),
        ([entry(0, sequence=1), entry(7, sequence=2)], KeepEverySteps(1000), [0, 7]),
    ],
)
def test_policies(entries: list[Entry], policy: RetentionPolicy, expected: list[int]) -> None:
    assert kept(entries, policy) == expected
    assert kept(entries[::-1], policy) == expected


def test_the_newest_is_the_one_committed_last_whatever_its_step_and_clock() -> None:
    entries = [entry(100, sequence=1, hours=9), entry(5, sequence=2, hours=1)]
    assert kept(entries, KeepLast(1)) == [5]


def test_reasons() -> None:
    entries = [entry(step, pinned=step == 2, preserved=step == 3) for step in range(1, 7)]
    verdict = decide(
        entries, KeepLast(2) | KeepEverySteps(2) | KeepPinned(), last_preserved=START, in_use={"ckpt-00000001"}
    )
    assert [(decision.keep, decision.reason) for decision in verdict.decisions] == [
        (True, "being restored"),
        (True, "pinned, step is a multiple of 2; pinned"),
        (True, "preserved earlier, for good"),
        (True, "step is a multiple of 2"),
        (True, "one of the last 2"),
        (True, "the newest, one of the last 2; step is a multiple of 2"),
    ]


@pytest.mark.parametrize(("n", "reason"), [(1, "the lowest loss"), (2, "one of the 2 with the lowest loss")])
def test_the_reason_for_the_best(n: int, reason: str) -> None:
    assert KeepBest("loss", n).keep(LOSSES)["ckpt-00000007"] == reason


def test_the_reason_to_go_names_the_policy() -> None:
    [first, _] = decide([entry(1), entry(2)], KeepLast(1), last_preserved=None).decisions
    assert (first.keep, first.reason) == (False, "not kept by KeepLast(n=1)")


def test_those_preserved_for_good_do_not_count_among_the_last() -> None:
    entries = [entry(step, preserved=step in {8, 9}) for step in range(1, 11)]
    assert kept(entries, KeepLast(2)) == [7, 8, 9, 10]


def test_or_is_flat() -> None:
    both = (KeepLast(1) | KeepPinned()) | (KeepEverySteps(2) | KeepAll())
    assert both == AnyOf((KeepLast(1), KeepPinned(), KeepEverySteps(2), KeepAll()))


# --- KeepEveryHours is TensorFlow's keep_checkpoint_every_n_hours -----------------------------------------------


class TensorFlowSaver:
    """The bookkeeping of ``tf.train.Saver``: one deletion a save, and the mark advances by whole intervals."""

    def __init__(self, max_to_keep: int, hours: float) -> None:
        self.max_to_keep = max_to_keep
        self.interval = timedelta(hours=hours)
        self.next_time = START + self.interval
        self.last: list[Entry] = []
        self.on_disk: set[int | None] = set()

    def save(self, new: Entry) -> None:
        self.last.append(new)
        self.on_disk.add(new.step)
        if len(self.last) > self.max_to_keep:
            popped = self.last.pop(0)
            if popped.created > self.next_time:
                self.next_time += self.interval
            else:
                self.on_disk.remove(popped.step)


@given(
    st.integers(1, 4),
    st.sampled_from([0.5, 1, 2, 7]),
    st.lists(st.sampled_from([0, 0.25, 0.5, 1, 1.5, 3, 10]), max_size=25),
)
def test_every_hours_as_tensorflow_has_it(max_to_keep: int, hours: float, pauses: list[float]) -> None:
    tensorflow = TensorFlowSaver(max_to_keep, hours)
    policy = policy_from_arguments(max_to_keep, hours)
    standing: list[Entry] = []
    mark: datetime | None = START
    now = 0.0
    for step, pause in enumerate(pauses):
        now += pause
        tensorflow.save(entry(step, hours=now, sequence=step + 1))
        verdict = decide([*standing, entry(step, hours=now, sequence=step + 1)], policy, last_preserved=mark)
        mark = verdict.last_preserved
        standing = [
            msgspec.structs.replace(one.entry, preserved=one.entry.preserved or one.entry.name in verdict.preserved)
            for one in verdict.decisions
            if one.keep
        ]
        assert {one.step for one in standing} == tensorflow.on_disk
        assert mark is not None
        assert mark + tensorflow.interval == tensorflow.next_time


def test_the_mark_advances_by_the_interval_not_to_the_time() -> None:
    verdict = decide([entry(1, hours=2.5), entry(2, hours=3.2), entry(3, hours=9)],
                     policy_from_arguments(1, 1), last_preserved=START)  # fmt: skip
    assert verdict.preserved == {"ckpt-00000001", "ckpt-00000002"}
    assert verdict.last_preserved == START + timedelta(hours=2)


def test_exactly_at_the_interval_is_too_early() -> None:
    at = [entry(1, hours=1), entry(2, hours=5)]
    after = [entry(1, hours=1 + 1e-6), entry(2, hours=5)]
    assert kept(at, policy_from_arguments(1, 1)) == [2]
    assert kept(after, policy_from_arguments(1, 1)) == [1, 2]


def test_what_something_else_keeps_does_not_move_the_mark() -> None:
    entries = [entry(1, hours=2, pinned=True), entry(2, hours=3), entry(3, hours=9)]
    verdict = decide(entries, policy_from_arguments(2, 1), last_preserved=START)
    assert verdict.preserved == set()
    assert verdict.last_preserved == START


def test_before_anything_is_recorded_nothing_is_preserved() -> None:
    assert kept([entry(1, hours=99), entry(2, hours=100)], policy_from_arguments(1, 1), last_preserved=None) == [2]


def test_of_two_intervals_the_shorter_counts() -> None:
    assert (KeepEveryHours(3) | KeepLast(1) | KeepEveryHours(2)).every() == timedelta(hours=2)
    assert (KeepLast(1) | KeepPinned()).every() is None


@pytest.mark.parametrize("hours", [1e7, 1e8, 1e9, 2e10, 1e12, 1e300, math.inf])
def test_intervals_longer_than_the_calendar_never_preserve(hours: float) -> None:
    entries = [entry(1, hours=1), entry(2, hours=2)]
    assert kept(entries, KeepLast(1) | KeepEveryHours(hours)) == [2]


# --- for all policies ------------------------------------------------------------------------------------------

stateless = st.one_of(
    st.just(KeepAll()),
    st.just(KeepPinned()),
    st.builds(KeepLast, st.integers(1, 5)),
    st.builds(KeepEverySteps, st.integers(1, 5)),
    st.builds(KeepBest, st.sampled_from(["a", "b"]), st.integers(1, 3), st.sampled_from(["min", "max"])),
)
stateless_combined = st.lists(stateless, min_size=1, max_size=3).map(lambda some: AnyOf(tuple(some)))
any_policy = stateless_combined | st.tuples(stateless_combined, st.sampled_from([0.5, 3.0])).map(
    lambda pair: pair[0] | KeepEveryHours(pair[1])
)
metrics = st.dictionaries(st.sampled_from(["a", "b"]), st.floats(-3, 3) | st.sampled_from(["nan", "inf", "-inf", 0, 1]))
histories = st.lists(
    st.tuples(st.integers(0, 9), st.floats(0, 20), st.booleans(), st.booleans(), metrics),
    max_size=8,
    unique_by=lambda row: row[0],
).map(
    lambda rows: [
        entry(step, hours=hours, pinned=pinned, preserved=preserved, metrics=values, sequence=number)
        for number, (step, hours, pinned, preserved, values) in enumerate(rows)
    ]
)


@given(histories, any_policy, st.sets(st.integers(0, 9).map("ckpt-{:08d}".format)), st.randoms())
def test_what_always_holds(entries: list[Entry], policy: RetentionPolicy, in_use: set[str], random: Any) -> None:
    verdict = decide(entries, policy, last_preserved=START, in_use=in_use)
    assert [decision.entry for decision in verdict.decisions] == entries
    shuffled = random.sample(entries, len(entries))
    assert decide(shuffled, policy, last_preserved=START, in_use=in_use) == verdict
    for decision in verdict.decisions:
        one = decision.entry
        assert decision.reason
        if one is entries[-1] or one.pinned or one.preserved or one.name in in_use:
            assert decision.keep
        if one.name in verdict.preserved:
            assert decision.keep
            assert not one.preserved
    if policy.every() is None:
        assert not verdict.preserved
        assert verdict.last_preserved == START


@given(histories, stateless_combined)
def test_pruning_again_deletes_nothing_more(entries: list[Entry], policy: RetentionPolicy) -> None:
    first = decide(entries, policy, last_preserved=START)
    left = [decision.entry for decision in first.decisions if decision.keep]
    again = decide(left, policy, last_preserved=START)
    assert [decision.keep for decision in again.decisions] == [True] * len(left)


@given(histories, stateless_combined, stateless_combined)
def test_a_combination_keeps_what_either_keeps(
    entries: list[Entry], one: RetentionPolicy, other: RetentionPolicy
) -> None:
    assert {*kept(entries, one | other)} == {*kept(entries, one), *kept(entries, other)}


# --- arguments -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("max_to_keep", "hours", "expected"),
    [
        (None, None, KeepAll()), (0, None, KeepAll()), (0, 2, KeepAll()), (5, None, KeepLast(5)), (5, 0, KeepLast(5)),
        (5, math.inf, KeepLast(5)), (5, 2, KeepLast(5) | KeepEveryHours(2)), (1, 10_000.0, KeepLast(1) | KeepEveryHours(1e4)),
    ],
)  # fmt: skip
def test_policies_from_arguments(max_to_keep: int | None, hours: float | None, expected: RetentionPolicy) -> None:
    assert policy_from_arguments(max_to_keep, hours) == expected


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda: KeepLast(0), ValueError), (lambda: KeepLast(-1), ValueError), (lambda: KeepLast(True), TypeError),
        (lambda: KeepLast(1.0), TypeError), (lambda: KeepEverySteps(0), ValueError),  # type: ignore[arg-type]
        (lambda: KeepEverySteps("1"), TypeError), (lambda: KeepBest(1), TypeError),  # type: ignore[arg-type]
        (lambda: KeepBest("a", 0), ValueError), (lambda: KeepBest("a", 1, "avg"), ValueError),  # type: ignore[arg-type]
        (lambda: KeepEveryHours(0), ValueError), (lambda: KeepEveryHours(-1), ValueError),
        (lambda: KeepEveryHours(math.nan), ValueError), (lambda: KeepEveryHours("1"), TypeError),  # type: ignore[arg-type]
        (lambda: KeepEveryHours(True), TypeError), (lambda: policy_from_arguments(-1, None), ValueError),
        (lambda: policy_from_arguments(1.0, None), TypeError), (lambda: policy_from_arguments(1, -1), ValueError),  # type: ignore[arg-type]
        (lambda: policy_from_arguments(1, math.nan), ValueError), (lambda: policy_from_arguments(True, None), TypeError),
        (lambda: policy_from_arguments(1, "2"), TypeError), (lambda: policy_from_arguments(1, True), TypeError),  # type: ignore[arg-type]
    ],
)  # fmt: skip
def test_wrong_arguments_raise_at_once(make: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"must be|must not"):
        make()
