from __future__ import annotations

import asyncio
import threading

import pytest

from asyncsaver_backends._obstore_lending import AbandonedError, Feed, Loan
from asyncsaver_backends._obstore_parts import Deadline


async def test_a_loan_is_settled_when_the_last_view_dies() -> None:
    memory, loan = bytearray(b"content"), Loan()
    lent = loan.lend(memoryview(memory))
    assert lent == b"content"
    settling = asyncio.create_task(loan.settle())
    await asyncio.sleep(0)
    assert not settling.done()
    del lent
    await settling


async def test_a_view_may_die_in_any_thread() -> None:
    loan = Loan()
    held = [loan.lend(memoryview(b"content"))]
    thread = threading.Thread(target=held.clear)
    thread.start()
    await loan.returned()
    thread.join()


async def test_a_view_may_die_after_the_loop() -> None:
    held: list[memoryview] = []

    async def lend() -> None:
        held.append(Loan().lend(memoryview(b"content")))

    await asyncio.to_thread(asyncio.run, lend())
    held.clear()  # an error here would be an unraisable one, which fails a test
    assert not held


async def test_settling_outlives_a_cancellation() -> None:
    loan = Loan()
    lent = loan.lend(memoryview(b"content"))
    settling = asyncio.create_task(loan.settle())
    await asyncio.sleep(0)
    settling.cancel()
    await asyncio.sleep(0)
    assert not settling.done()
    del lent
    with pytest.raises(asyncio.CancelledError):
        await settling


async def test_memory_that_a_dead_request_keeps_is_given_up_in_the_end() -> None:
    loan = Loan(return_seconds=0.01)
    lent = loan.lend(memoryview(b"content"))
    await loan.settle()
    assert lent == b"content"


async def test_a_feed_gives_parts_in_order_and_ends() -> None:
    feed = Feed()
    given = asyncio.create_task(_all(feed))
    feed.put(memoryview(b"a"))
    feed.put(memoryview(b"b"))
    await feed.begun.wait()
    feed.put(memoryview(b"c"))
    feed.end()
    assert await given == [b"a", b"b", b"c"]


@pytest.mark.parametrize("waiting", [True, False])
async def test_an_abandoned_feed_fails_and_keeps_nothing(waiting: bool) -> None:
    feed, loan = Feed(), Loan()
    given = asyncio.create_task(_all(feed)) if waiting else None
    if given is not None:
        await feed.begun.wait()
    else:
        feed.put(loan.lend(memoryview(b"not taken")))
        feed.end()
    feed.abandon()
    feed.put(memoryview(b"too late"))
    with pytest.raises(AbandonedError):
        await (given or _all(feed))
    if not waiting:
        await loan.returned()


async def _all(feed: Feed) -> list[bytes]:
    return [bytes(part) async for part in feed]


async def test_a_deadline_moves_with_what_is_sent_and_rests_while_nothing_is_to_do() -> None:
    limit = asyncio.timeout(None)
    async with limit:
        deadline = Deadline(limit, lambda size: 1000.0 + size)
        now = asyncio.get_running_loop().time()
        deadline.await_store(awaiting=True)
        assert 1000 <= (limit.when() or 0) - now < 2000
        deadline.await_store(awaiting=False)
        assert limit.when() is None
        deadline.fly(50_000)
        assert 51_000 <= (limit.when() or 0) - now < 52_000
        deadline.fly(-50_000)
        assert limit.when() is None
