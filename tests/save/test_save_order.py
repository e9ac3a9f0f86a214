"""Saves of one saver: they write side by side, commit in the order of their calls, and one that ends early harms no other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from asyncsaver.errors import CheckpointExistsError, StoreError
from asyncsaver.save.line import Ticket

from ..doubles.scripted import Call, Fail, Fault, Hold, at  # noqa: TID252 - test folders are not packages with a name
from ..doubles.world import World, broken, number_of, state_of  # noqa: TID252


def held(**holds: Hold) -> Any:
    """Hold back a shard of each of these steps (``s1=…``)."""

    def script(call: Call) -> Fault | None:
        if call.operation == "put" and "model-00001" in call.path:
            return holds.get(f"s{int(call.path.split('/')[0].rpartition('-')[2])}")
        return None

    return script


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - nothing tells when; the test's time limit ends a wait in vain
        await asyncio.sleep(0)


async def test_a_later_save_that_is_faster_commits_later() -> None:
    world = World()
    slow = Hold()
    store = world.store(held(s1=slow))
    async with world.saver(store) as saver:
        first = asyncio.create_task(saver.save(state_of(1), step=1))
        await slow.reached.wait()
        second = asyncio.create_task(saver.save(state_of(2), step=2))
        await until(lambda: store.count("put", "ckpt-00000002/") > 0)
        assert store.count("create", "manifest") == 0
        slow.release.set()
        await asyncio.gather(first, second)
        assert [one.step for one in await saver.checkpoints()] == [1, 2]
    manifests = [call.path for call in store.calls if call.operation == "create" and "manifest" in call.path]
    assert manifests == ["ckpt-00000001/manifest.json", "ckpt-00000002/manifest.json"]


@pytest.mark.parametrize("ends", ["fails", "cancelled"])
async def test_one_that_ends_out_of_turn_does_not_let_later_ones_overtake(ends: str) -> None:
    world = World()
    slow, middle = Hold(), Hold()

    class HoldThenFail:
        async def around(self, work: Any) -> Any:
            await middle.around(work)
            raise broken()

    store = world.store(held(s1=slow, s2=HoldThenFail() if ends == "fails" else middle))  # type: ignore[arg-type]
    async with world.saver(store) as saver:
        first = asyncio.create_task(saver.save(state_of(1), step=1))
        await slow.reached.wait()
        second = asyncio.create_task(saver.save(state_of(2), step=2))
        await middle.reached.wait()
        third = asyncio.create_task(saver.save(state_of(3), step=3))
        if ends == "cancelled":
            second.cancel()
        middle.release.set()
        with pytest.raises(asyncio.CancelledError if ends == "cancelled" else StoreError):
            await second
        await until(lambda: store.count("put", "ckpt-00000003/") > 0)
        assert not third.done()
        assert store.count("create", "manifest") == 0
        slow.release.set()
        await asyncio.gather(first, third)
    manifests = [call.path for call in store.calls if call.operation == "create" and "manifest" in call.path]
    assert manifests == ["ckpt-00000001/manifest.json", "ckpt-00000003/manifest.json"]


async def test_tickets_wait_for_all_before_them() -> None:
    first = Ticket("a", None, None)
    second = Ticket("b", first, None)
    third = Ticket("c", second, None)
    turn = asyncio.create_task(third.wait_for_turn())
    second.leave()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not turn.done()
    first.leave()
    await turn


async def test_tickets_of_one_name_wait_for_all_of_that_name() -> None:
    first = Ticket("a", None, None)
    second = Ticket("a", first, first)
    third = Ticket("a", second, second)
    turn = asyncio.create_task(third.wait_for_same_name())
    second.leave()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not turn.done()
    first.leave()
    await turn


async def test_saves_of_one_name_replace_each_other_in_order() -> None:
    world = World()
    async with world.saver() as saver:
        checkpoints = await asyncio.gather(*(saver.save(state_of(number)) for number in range(1, 5)))
        assert [one.slot for one in checkpoints] == [0, 1, 2, 3]
        assert number_of(await saver.restore()) == 4
    assert await world.numbers() == {"ckpt": 4}


async def test_a_cancelled_save_of_one_name_does_not_let_the_next_one_start_before_the_last() -> None:
    world = World()
    slow = Hold()
    async with world.saver(world.store(at("put", "part-00000", slow))) as saver:
        first = asyncio.create_task(saver.save(state_of(1)))
        await slow.reached.wait()
        second = asyncio.create_task(saver.save(state_of(2)))
        third = asyncio.create_task(saver.save(state_of(3)))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        for _ in range(20):
            await asyncio.sleep(0)
        slow.release.set()
        assert (await first).slot == 0
        assert (await third).slot == 1
    assert await world.numbers() == {"ckpt": 3}


async def test_the_same_step_twice_without_overwrite_fails_the_second() -> None:
    world = World()
    async with world.saver() as saver:
        results = await asyncio.gather(
            saver.save(state_of(1), step=5), saver.save(state_of(2), step=5), return_exceptions=True
        )
    assert isinstance(results[1], CheckpointExistsError)
    assert await world.numbers() == {"ckpt-00000005": 1}
    await world.assert_nothing_unreferenced()


async def test_two_savers_racing_on_one_step_have_one_winner() -> None:
    world = World()
    savers = [world.saver() for _ in range(4)]
    try:
        results = await asyncio.gather(
            *(saver.save(state_of(number), step=5) for number, saver in enumerate(savers, 1)), return_exceptions=True
        )
    finally:
        for saver in savers:
            await saver.close()
    winners = [number for number, result in enumerate(results, 1) if not isinstance(result, BaseException)]
    assert len(winners) == 1
    assert sum(isinstance(result, CheckpointExistsError) for result in results) == 3
    assert await world.numbers() == {"ckpt-00000005": winners[0]}
    await world.assert_nothing_unreferenced()


async def test_a_background_save_cancelled_at_once_holds_up_nothing() -> None:
    world = World()
    async with world.saver(memory_budget=100) as saver:
        pending = await saver.save_in_background(state_of(1), step=1)
        pending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pending
        async with asyncio.timeout(10):
            await saver.save(state_of(2), step=2)
            await (await saver.save_in_background(state_of(3), step=3))
    assert await world.numbers() == {"ckpt-00000002": 2, "ckpt-00000003": 3}
    await world.assert_nothing_unreferenced()


class Slow:
    """An object whose state takes its time."""

    def __init__(self, number: int, gate: threading.Event) -> None:
        self._number = number
        self._gate = gate

    def state_dict(self) -> dict[str, Any]:
        self._gate.wait(0.5)
        return state_of(self._number)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise NotImplementedError


async def test_a_later_background_save_does_not_take_the_memory_that_an_earlier_one_waits_for() -> None:
    world = World()
    gate = threading.Event()

    def script(call: Call) -> Fault | None:
        if call.path.startswith("ckpt-00000002/"):
            gate.set()  # step 2 is staged, which here is the whole budget, and step 1 is not
        return None

    async with world.saver(world.store(script), memory_budget=100) as saver:
        async with asyncio.timeout(20):
            first, second = await asyncio.gather(
                saver.save_in_background(Slow(1, gate), step=1), saver.save_in_background(state_of(2), step=2)
            )
            await first
            await second
        assert [one.step for one in await saver.checkpoints()] == [1, 2]


async def test_a_background_failure_that_nobody_awaited_is_raised_by_the_next_save_and_only_once() -> None:
    world = World()
    async with world.saver(world.store(at("put", "part-00000", Fail(broken())))) as saver:
        pending = await saver.save_in_background(state_of(1), step=1)
        await until(pending.done)
        await asyncio.sleep(0)
        with pytest.raises(StoreError, match="broken"):
            await saver.save(state_of(2), step=2)
        await saver.save(state_of(2), step=2)
    assert await world.numbers() == {"ckpt-00000002": 2}


async def test_close_waits_for_background_saves_and_raises_what_nobody_has_seen() -> None:
    world = World()
    saver = world.saver(world.store(at("put", "ckpt-00000002/", Fail(broken()))))
    await saver.save_in_background(state_of(1), step=1)
    await saver.save_in_background(state_of(2), step=2)
    with pytest.raises(StoreError, match="broken"):
        await saver.close()
    assert await world.numbers() == {"ckpt-00000001": 1}
    await world.assert_nothing_unreferenced()
