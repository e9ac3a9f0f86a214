from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from asyncsaver.aio.threads import Threads


@pytest.fixture
def threads() -> Iterator[Threads]:
    pool = Threads("test", 1)
    yield pool
    pool.close()


async def test_runs_elsewhere_and_returns_and_raises_what_the_call_does(threads: Threads) -> None:
    assert await threads.run(threading.get_ident) != threading.get_ident()
    assert await threads.run(int, "ff", base=16) == 255
    with pytest.raises(ValueError, match="invalid literal"):
        await threads.run(int, "x")


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancelled_caller_waits_for_the_thread(threads: Threads, fails: bool) -> None:
    loop = asyncio.get_running_loop()
    started, go_on = asyncio.Event(), threading.Event()
    ended: list[bool] = []

    def work() -> None:
        loop.call_soon_threadsafe(started.set)
        go_on.wait(20)
        ended.append(True)
        if fails:
            raise KeyError

    task = asyncio.create_task(threads.run(work))
    await started.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended == [True]


async def test_a_call_that_has_not_started_is_dropped(threads: Threads) -> None:
    loop = asyncio.get_running_loop()
    started, go_on = asyncio.Event(), threading.Event()
    calls: list[str] = []

    def block() -> None:
        loop.call_soon_threadsafe(started.set)
        go_on.wait(20)

    blocking = asyncio.create_task(threads.run(block))
    await started.wait()
    queued = asyncio.create_task(threads.run(calls.append, "queued"))
    await asyncio.sleep(0)
    queued.cancel()
    with pytest.raises(asyncio.CancelledError):
        await queued
    go_on.set()
    await blocking
    await threads.run(calls.append, "later")
    assert calls == ["later"]


async def test_what_a_failed_call_held_is_freed_at_once(threads: Threads) -> None:
    """Without waiting for the garbage collector: it may have been all of the memory there is."""
    held: list[weakref.ref[object]] = []

    class Buffer:
        pass

    def fail() -> None:
        buffer = Buffer()
        held.append(weakref.ref(buffer))
        raise ValueError("no")

    gc.disable()
    try:
        with contextlib.suppress(ValueError):
            await threads.run(fail)
        await threads.run(int)  # the thread itself lets go of a call when the next one comes
        assert [one() for one in held] == [None]
    finally:
        gc.enable()


async def test_threads_end_after_close() -> None:
    pool = Threads("ends", 2)
    thread = await pool.run(threading.current_thread)
    assert thread.name.startswith("ends")
    pool.close()
    pool.close()
    await asyncio.to_thread(thread.join, 20)
    assert not thread.is_alive()
