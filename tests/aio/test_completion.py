from __future__ import annotations

import asyncio

import pytest

from asyncsaver.aio.completion import to_completion


async def test_returns_and_raises_what_the_work_does() -> None:
    async def broken() -> None:
        raise KeyError("x")

    assert await to_completion(asyncio.sleep(0, "done")) == "done"
    with pytest.raises(KeyError):
        await to_completion(broken())


@pytest.mark.parametrize("fails", [False, True])
async def test_a_cancelled_caller_waits_for_the_work(fails: bool) -> None:
    started, release = asyncio.Event(), asyncio.Event()
    finished: list[str] = []

    async def work() -> None:
        started.set()
        await release.wait()
        finished.append("work")
        if fails:
            raise KeyError("x")

    task = asyncio.create_task(to_completion(work()))
    await started.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert finished == ["work"]
