"""Counting for one operation, while others run."""

from __future__ import annotations

import asyncio

from asyncsaver.aio.budget import ByteBudget
from asyncsaver.aio.meter import current_meter, metered


async def count(kind: str, times: int) -> None:
    for _ in range(times):
        await asyncio.sleep(0)
        current_meter().requests[kind] += 1


async def test_operations_side_by_side_are_counted_apart_with_their_tasks() -> None:
    async def operation(kind: str, times: int) -> dict[str, int]:
        with metered() as meter:
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(count(kind, times))
        return meter.requests

    one, other = await asyncio.gather(operation("put", 5), operation("get", 7))
    assert one == {"put": 15}
    assert other == {"get": 21}


async def test_a_task_goes_on_counting_when_the_block_is_left() -> None:
    with metered() as meter:
        task = asyncio.create_task(count("put", 3))
    current_meter().requests["put"] += 100
    await task
    assert meter.requests == {"put": 3}


class Clock:
    """Stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_waiting_for_memory_side_by_side_counts_once() -> None:
    budget, clock = ByteBudget(10), Clock()
    await budget.acquire(10)
    with metered(clock) as meter:
        first = asyncio.create_task(budget.acquire(5))
        await turns()
        clock.now += 1
        second = asyncio.create_task(budget.acquire(5))
        await turns()
        clock.now += 2
        budget.release(5)
        await first
        clock.now += 4
        budget.release(5)
        await second
        clock.now += 8
        assert meter.seconds_blocked == 7
        third = asyncio.create_task(budget.acquire(5))
        await turns()
        clock.now += 16
        budget.release(5)
        await third
    assert meter.seconds_blocked == 23


async def test_memory_that_is_there_costs_no_time() -> None:
    budget, clock = ByteBudget(10), Clock()
    with metered(clock) as meter:
        async with budget.hold(10):
            clock.now += 1
    assert meter.seconds_blocked == 0


async def test_a_wait_that_is_cancelled_counts_until_then() -> None:
    budget, clock = ByteBudget(10), Clock()
    await budget.acquire(10)
    with metered(clock) as meter:
        waiting = asyncio.create_task(budget.acquire(5))
        await turns()
        clock.now += 1
        waiting.cancel()
        await asyncio.wait([waiting])
        clock.now += 2
    assert meter.seconds_blocked == 1
