"""Plans of requests: everything is fetched once, in requests of the right size."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver.model.ranges import Fetch, plan_fetches

GAP = 64 * 1024


class Span(NamedTuple):
    file: int
    start: int
    stop: int


spans = st.tuples(st.integers(0, 2), st.integers(0, 300), st.integers(0, 60)).map(
    lambda s: Span(s[0], s[1], s[1] + s[2])
)
far_spans = st.tuples(st.integers(0, 1), st.integers(0, 20), st.integers(0, 3 * GAP)).map(
    lambda s: Span(s[0], s[1] * GAP // 2, s[1] * GAP // 2 + s[2])
)


@given(
    st.tuples(st.lists(spans, max_size=12), st.integers(1, 120))
    | st.tuples(st.lists(far_spans, max_size=8), st.integers(GAP, 10 * GAP))
)
def test_every_byte_of_every_need_is_fetched_once(case: tuple[list[Span], int]) -> None:
    needs, request_bytes = case
    fetches = plan_fetches(needs, request_bytes)
    covered: dict[int, list[tuple[int, int]]] = {}
    for fetch in fetches:
        assert 0 < fetch.nbytes <= request_bytes
        served = [needs[need] for need in fetch.needs]
        assert {need.file for need in served} == {fetch.file}
        if len(served) > 1:
            assert min(need.start for need in served) == fetch.start
            assert max(need.stop for need in served) == fetch.stop
        for position, need in zip(fetch.needs, served, strict=True):
            part = max(need.start, fetch.start), min(need.stop, fetch.stop)
            assert part == ((need.start, need.stop) if len(served) > 1 else (fetch.start, fetch.stop))
            covered.setdefault(position, []).append(part)
    for need, (_, start, stop) in enumerate(needs):
        at = start
        for low, high in sorted(covered.pop(need, [])):
            assert low == at
            at = high
        assert at == stop
    assert not covered


@given(st.lists(far_spans, max_size=10))
def test_requests_stand_in_order_and_read_no_wide_gap(needs: list[Span]) -> None:
    fetches = plan_fetches(needs, 4 * GAP)
    assert [(fetch.file, fetch.start) for fetch in fetches] == sorted((fetch.file, fetch.start) for fetch in fetches)
    for fetch in fetches:
        end = fetch.start
        for position in fetch.needs:
            assert needs[position].start - end <= GAP
            end = max(end, needs[position].stop)


def test_many_neighbours_take_few_requests() -> None:
    needs = [Span(0, at * 100, at * 100 + 90) for at in range(10_000)]
    assert len(plan_fetches(needs, 2**20)) == 1
    assert Counter(fetch.file for fetch in plan_fetches(needs, 100_000)) == {0: 10}


def test_a_large_need_is_cut_and_read_in_place() -> None:
    fetches = plan_fetches([Span(3, 10, 35)], 10)
    assert fetches == [Fetch(3, 10, 20, (0,)), Fetch(3, 20, 30, (0,)), Fetch(3, 30, 35, (0,))]
    assert all(fetch.direct for fetch in fetches)


def test_only_a_lone_need_is_read_in_place() -> None:
    [lone] = plan_fetches([Span(0, 5, 9)], 100)
    [joined] = plan_fetches([Span(0, 5, 9), Span(0, 9, 12)], 100)
    [twice] = plan_fetches([Span(0, 5, 9), Span(0, 5, 9)], 100)
    assert (lone.direct, joined.direct, twice.direct) == (True, False, False)


@pytest.mark.parametrize(("gap", "requests"), [(GAP, 1), (GAP + 1, 2)])
def test_how_wide_a_gap_is_bridged(gap: int, requests: int) -> None:
    assert len(plan_fetches([Span(0, 0, 10), Span(0, 10 + gap, 20 + gap)], 2**30)) == requests


def test_files_are_never_joined() -> None:
    assert [fetch.file for fetch in plan_fetches([Span(1, 0, 5), Span(0, 5, 9), Span(0, 0, 5)], 100)] == [0, 1]


def test_empty_needs_take_no_request() -> None:
    assert plan_fetches([Span(0, 5, 5), Span(1, 0, 0)], 10) == []
    assert plan_fetches([], 10) == []
