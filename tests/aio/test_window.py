"""The window of requests: how it narrows, how it widens, and who is let in next."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsaver.aio.window import RequestWindow


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def full(window: RequestWindow) -> None:
    for _ in range(window.limit):
        await window.acquire()


def test_a_window_needs_a_slot() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        RequestWindow(0)


def test_it_begins_wide_open() -> None:
    assert RequestWindow(32).limit == 32


def test_requests_that_were_refused_together_halve_it_once() -> None:
    window = RequestWindow(32)
    sent = window.era
    for _ in range(28):
        window.refused(sent)
    assert window.limit == 16


def test_it_is_halved_again_once_something_has_succeeded_and_never_below_one() -> None:
    window = RequestWindow(8)
    limits = []
    for _ in range(5):
        window.refused(window.era)
        window.succeeded(window.era)
        limits.append(window.limit)
    assert limits == [4, 2, 1, 1, 1]


def test_an_outage_halves_it_once_however_long_it_lasts() -> None:
    window = RequestWindow(32)
    for _ in range(100):
        window.refused(window.era)
    assert window.limit == 16


async def test_a_full_window_of_successes_widens_it_by_one_up_to_the_most() -> None:
    window = RequestWindow(9)
    window.refused(window.era)
    await full(window)
    needed = []
    while window.limit < 8:
        before, successes = window.limit, 0
        while window.limit == before:
            window.succeeded(window.era)
            successes += 1
        await window.acquire()
        needed.append(successes)
    assert needed == [4, 5, 6, 7]
    for _ in range(16 * 8 - 1):
        window.succeeded(window.era)
    assert window.limit == 8, "what was refused is tried again late"
    for _ in range(100):
        window.succeeded(window.era)
    assert window.limit == 9, "and this is the most"


async def test_beyond_the_width_that_was_refused_it_widens_as_before() -> None:
    window = RequestWindow(16)
    for _ in range(2):
        window.refused(window.era)
        window.succeeded(window.era)
    assert window.limit == 4  # refused at 16, and then at 8
    needed = []
    await full(window)
    while window.limit < 10:
        before, successes = window.limit, 0
        while window.limit == before:
            window.succeeded(window.era)
            successes += 1
        await window.acquire()
        needed.append(successes)
    assert needed == [4, 5, 6, 16 * 7, 8, 9]


async def test_successes_of_a_window_that_is_not_full_prove_nothing() -> None:
    window = RequestWindow(8)
    window.refused(window.era)
    for _ in range(3):
        await window.acquire()
    for _ in range(100):
        window.succeeded(window.era)
    assert window.limit == 4


async def test_what_was_sent_before_the_refusal_does_not_widen_it() -> None:
    window = RequestWindow(4)
    sent = window.era
    window.refused(sent)
    await full(window)
    for _ in range(100):
        window.succeeded(sent)
    assert window.limit == 2


async def test_what_is_in_flight_beyond_a_narrower_window_ends_before_others_are_let_in() -> None:
    window = RequestWindow(4)
    await full(window)
    window.refused(window.era)
    waiting = asyncio.create_task(window.acquire())
    for _ in range(2):
        window.release()
        await turns()
        assert not waiting.done()
    window.release()
    await waiting


async def test_widening_lets_the_next_one_in() -> None:
    window = RequestWindow(4)
    window.refused(window.era)
    await full(window)
    waiting = asyncio.create_task(window.acquire())
    for _ in range(2):
        await turns()
        assert not waiting.done()
        window.succeeded(window.era)
    await waiting


async def test_first_come_first_served_and_a_cancelled_one_takes_no_slot() -> None:
    window = RequestWindow(1)
    order: list[int] = []

    async def one(number: int) -> None:
        await window.acquire()
        order.append(number)

    await window.acquire()
    tasks = [asyncio.create_task(one(number)) for number in range(4)]
    await turns()
    tasks[1].cancel()
    for _ in range(3):
        window.release()
        await turns()
    await asyncio.wait(tasks)
    assert order == [0, 2, 3]
    assert tasks[1].cancelled()
    window.release()
    await asyncio.wait_for(window.acquire(), 10)


async def test_more_slots_than_there_are_come_when_nothing_else_is_in_flight() -> None:
    window = RequestWindow(2)
    await window.acquire()
    many = asyncio.create_task(window.acquire(5))
    await turns()
    assert not many.done()
    window.release()
    await many
    window.release(5)


@given(st.integers(1, 40), st.lists(st.tuples(st.booleans(), st.integers(0, 3)), max_size=200))
def test_it_stays_between_one_and_the_most(most: int, outcomes: list[tuple[bool, int]]) -> None:
    window = RequestWindow(most)
    for good, age in outcomes:
        before = window.limit
        (window.succeeded if good else window.refused)(max(0, window.era - age))
        assert 1 <= window.limit <= most
        assert window.limit in ({before, before + 1} if good else {before, max(1, before // 2)})
