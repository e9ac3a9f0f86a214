from __future__ import annotations

import asyncio

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncsaver.aio.budget import ByteBudget, Quota


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_what_fits_does_not_wait() -> None:
    budget = ByteBudget(10)
    await budget.acquire(4)
    assert not budget.would_wait(6)
    await budget.acquire(6)
    assert budget.would_wait(1)
    assert (budget.used, budget.peak) == (10, 10)
    budget.release(10)
    assert (budget.used, budget.peak) == (0, 10)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_budget_needs_a_byte(limit: int) -> None:
    with pytest.raises(ValueError, match="at least one byte"):
        ByteBudget(limit)


async def test_first_come_first_served_even_where_a_later_one_would_fit() -> None:
    budget = ByteBudget(10)
    order: list[str] = []

    async def take(name: str, size: int) -> None:
        await budget.acquire(size)
        order.append(name)

    await budget.acquire(6)
    large = asyncio.create_task(take("large", 8))
    await turns()
    small = asyncio.create_task(take("small", 2))
    await turns()
    assert order == []
    assert budget.would_wait(1)
    budget.release(6)
    await asyncio.gather(large, small)
    assert order == ["large", "small"]


async def test_what_is_larger_than_the_budget_runs_alone() -> None:
    budget = ByteBudget(10)
    await budget.acquire(1)
    huge = asyncio.create_task(budget.acquire(25))
    after = asyncio.create_task(budget.acquire(1))
    await turns()
    assert not huge.done()
    budget.release(1)
    await huge
    await turns()
    assert not after.done()
    assert (budget.used, budget.peak) == (25, 25)
    budget.release(25)
    await after
    assert budget.used == 1


async def test_cancelled_while_waiting_it_holds_nothing_and_lets_those_behind_pass() -> None:
    budget = ByteBudget(10)
    await budget.acquire(5)
    large = asyncio.create_task(budget.acquire(8))
    small = asyncio.create_task(budget.acquire(5))
    await turns()
    large.cancel()
    with pytest.raises(asyncio.CancelledError):
        await large
    await small
    assert budget.used == 10


@pytest.mark.parametrize("cancel_first", [True, False])
async def test_cancelled_in_the_turn_in_which_it_is_granted(cancel_first: bool) -> None:
    budget = ByteBudget(10)
    await budget.acquire(10)
    waiting = asyncio.create_task(budget.acquire(10))
    behind = asyncio.create_task(budget.acquire(4))
    await turns()
    if cancel_first:
        waiting.cancel()
        budget.release(10)
    else:
        budget.release(10)
        waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await behind
    assert budget.used == 4


async def test_a_block_gives_back_what_it_held_when_it_fails() -> None:
    budget = ByteBudget(10)

    async def use() -> None:
        async with budget.hold(7):
            assert budget.used == 7
            raise KeyError

    with pytest.raises(KeyError):
        await use()
    assert budget.used == 0


@given(
    limit=st.integers(1, 20),
    items=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 4), st.booleans()), max_size=12),
)
@example(limit=1, items=[(2, 0, False), (0, 0, False), (2, 0, False)])
def test_whatever_is_cancelled_whenever_nothing_is_lost(limit: int, items: list[tuple[int, int, bool]]) -> None:
    """Items of random sizes begin at random turns of the loop, and some are cancelled one turn later."""

    async def main() -> None:
        budget = ByteBudget(limit)
        holding: list[int] = []
        oversized = {size for size, _, _ in items if size > limit}

        async def use(size: int) -> None:
            async with budget.hold(size):
                holding.append(size)
                assert sum(holding) <= budget.used <= budget.peak  # what is granted may not have woken up yet
                assert budget.used <= limit or budget.used in oversized  # alone, but for those of no bytes
                try:
                    await turns(2)
                finally:
                    holding.remove(size)

        tasks: list[asyncio.Task[None]] = []
        for size, pause, cancelled in items:
            tasks.append(asyncio.create_task(use(size)))
            await turns(pause)
            if cancelled:
                tasks[-1].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert budget.used == 0
        assert not budget.would_wait(limit + 1)
        for result, (_, _, cancelled) in zip(results, items, strict=True):
            assert result is None or (cancelled and isinstance(result, asyncio.CancelledError))

    asyncio.run(main())


async def test_a_lower_limit_takes_nothing_away_and_a_higher_one_lets_those_in_who_wait() -> None:
    quota = Quota(4)
    await quota.acquire(4)
    quota.resize(2)
    waiting = [asyncio.create_task(quota.acquire(1)) for _ in range(3)]
    quota.release(2)
    await turns()
    assert [task.done() for task in waiting] == [False] * 3
    quota.resize(4)
    await turns()
    assert [task.done() for task in waiting] == [True, True, False]
    quota.release(1)
    await asyncio.gather(*waiting)
    assert quota.used == 4


def test_a_quota_needs_room() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        Quota(0)
