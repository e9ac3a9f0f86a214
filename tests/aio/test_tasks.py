from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asyncsaver.aio.tasks import run_all, run_both


async def fails(error: BaseException, after: asyncio.Event | None = None) -> Any:
    if after is not None:
        await after.wait()
    raise error


async def waits(events: list[str], *, error: BaseException | None = None) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        events.append("ended")
        if error is not None:
            raise error


async def test_results_come_in_order() -> None:
    later = asyncio.Event()

    async def first() -> int:
        await later.wait()
        return 1

    async def second() -> int:
        later.set()
        return 2

    assert await run_all([first(), second()]) == [1, 2]
    assert await run_all([]) == []
    later.clear()
    assert await run_both(first(), second()) == (1, 2)


async def test_the_plain_error_is_raised_and_the_others_are_cancelled_and_waited_for() -> None:
    events: list[str] = []
    with pytest.raises(KeyError):
        await run_all([waits(events), fails(KeyError("x")), waits(events)])
    assert events == ["ended", "ended"]
    with pytest.raises(KeyError):
        await run_both(waits(events), fails(KeyError("x")))
    assert events == ["ended"] * 3


async def test_further_errors_are_notes_on_the_first() -> None:
    first = KeyError("first")
    with pytest.raises(KeyError) as caught:
        await run_all([waits([], error=ValueError("second")), fails(first)])
    assert caught.value is first
    assert caught.value.__notes__ == ["also: ValueError: second"]


async def test_errors_of_nested_groups_come_out_plain_with_their_own_cause() -> None:
    async def nested() -> None:
        raise KeyError("inner") from OSError("cause")

    async def group() -> None:
        raise ExceptionGroup("group", [ExceptionGroup("deeper", [ValueError("a")]), KeyError("b")])

    with pytest.raises(KeyError) as caught:
        await run_all([run_all([nested()]), waits([])])
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(ValueError, match="a") as value:
        await run_all([group()])
    assert value.value.__notes__ == ["also: KeyError: 'b'"]


async def test_when_cancelled_all_are_cancelled_and_waited_for() -> None:
    events: list[str] = []
    task = asyncio.create_task(run_all([waits(events), waits(events)]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert events == ["ended", "ended"]
