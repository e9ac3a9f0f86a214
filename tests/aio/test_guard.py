from __future__ import annotations

import asyncio
import os

import pytest

from asyncsaver.aio.guard import LoopGuard, guarded
from asyncsaver.errors import SaverClosedError, WrongLoopError


class Guarded:
    def __init__(self) -> None:
        self._guard = LoopGuard("the thing")
        self.go_on = asyncio.Event()

    @guarded
    async def work(self) -> str:
        await self.go_on.wait()
        return "done"


async def test_the_loop_that_uses_it_first_may_go_on_using_it() -> None:
    guard = LoopGuard("the thing")
    guard.check()
    guard.check()


def test_another_loop_may_not() -> None:
    guard = LoopGuard("the thing")

    async def use() -> None:
        guard.check()

    asyncio.run(use())
    with pytest.raises(WrongLoopError, match=r"the thing.*asyncsaver\.blocking\.Saver"):
        asyncio.run(use())


def test_a_fork_may_not() -> None:
    guard = LoopGuard("the thing")
    loop = asyncio.new_event_loop()

    async def use() -> None:
        guard.check()

    loop.run_until_complete(use())
    guard._pid = os.getpid() + 1  # as the child of the process that used it first would find it
    with pytest.raises(WrongLoopError, match="fork"):
        loop.run_until_complete(use())
    loop.close()


async def test_nobody_may_once_it_is_closed() -> None:
    guard = LoopGuard("the thing")
    guard.closed = True
    with pytest.raises(SaverClosedError, match="the thing is closed"):
        guard.check()


async def test_closing_waits_for_calls_in_flight_and_begins_no_more() -> None:
    thing = Guarded()
    call = asyncio.create_task(thing.work())
    await asyncio.sleep(0)
    thing._guard.closed = True
    waiting = asyncio.create_task(thing._guard.wait_unused())
    await asyncio.sleep(0)
    with pytest.raises(SaverClosedError):
        await thing.work()
    assert not waiting.done()
    thing.go_on.set()
    assert await call == "done"
    await waiting


async def test_a_call_that_fails_or_is_cancelled_ends_its_use() -> None:
    thing = Guarded()
    call = asyncio.create_task(thing.work())
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await thing._guard.wait_unused()
