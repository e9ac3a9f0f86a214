"""The state file is a cache: whatever happens to it, what is listed, restored and pruned is what stands on the store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from asyncsaver.errors import AccessDeniedError, ObjectNotFoundError, PreconditionFailedError, StoreError
from asyncsaver.formats import native
from asyncsaver.model.statefile import StateFile
from asyncsaver.store import Capabilities

from ..doubles.scripted import Fail, Hold, Meanwhile, always, at  # noqa: TID252 - no name to import by
from ..doubles.world import World, broken, closing, number_of, numbers_of, state_of, timed_out  # noqa: TID252

STATE = "checkpoint.json"
PLAIN = Capabilities(exclusive_create=True, compare_and_swap=False)


async def with_steps(world: World, *steps: int, **options: Any) -> None:
    async with world.saver(**options) as saver:
        for step in steps:
            await saver.save(state_of(step), step=step)


async def state(world: World) -> StateFile:
    return native.decode_state((await world.objects())[STATE], STATE)


def steps(file: StateFile) -> list[int | None]:
    return [entry.step for entry in file.entries if entry.state == "committed"]


async def assert_healthy(world: World, expected: dict[str, int]) -> None:
    """A fresh saver lists what stands, saves, prunes, and leaves a state file that is right."""
    async with world.saver() as saver:
        assert await numbers_of(saver) == expected
        await saver.save(state_of(99), step=99)
    assert sorted(step or 0 for step in steps(await state(world))) == sorted([*expected.values(), 99])


async def missing(world: World) -> None:
    await world.memory().delete([STATE])


async def damaged(world: World) -> None:
    await world.memory().put(STATE, b'{"format": "asyncsaver-state", "version": 1, "entries": [')


async def from_the_future(world: World) -> None:
    await world.memory().put(STATE, b'{"format": "asyncsaver-state", "version": 2}')


async def empty(world: World) -> None:
    await world.memory().put(STATE, b"")


async def foreign(world: World) -> None:
    """Another root's state file was copied here."""
    other = World()
    for _ in range(100):  # etags of stores in memory are counted, those of others never meet
        await other.memory().put("notes.txt", b"")
    await with_steps(other, 1, 2, 7, 8)
    await world.memory().put(STATE, (await other.objects())[STATE])


async def stale(world: World) -> None:
    """It is from before step 2, and lists a step that is gone, and one at a slot that another save has taken since."""
    file = await state(world)
    first = next(entry for entry in file.entries if entry.step == 1)
    gone = msgspec.structs.replace(first, name="ckpt-00000009", step=9)
    await world.memory().put(STATE, native.encode(msgspec.structs.replace(file, entries=[first, gone])))
    async with world.saver() as saver:
        await world.memory().delete(["ckpt-00000001/manifest.json"])
        await saver.save(state_of(1), step=1)
    await world.memory().put(STATE, native.encode(msgspec.structs.replace(file, entries=[first, gone])))
    await world.memory().delete([path for path in await world.objects() if first.save_id in path])


@pytest.mark.parametrize("damage", [missing, damaged, from_the_future, empty, foreign, stale])
async def test_it_is_rebuilt_from_what_stands(damage: Callable[[World], Awaitable[None]]) -> None:
    world = World()
    await with_steps(world, 1, 2)
    await damage(world)
    await assert_healthy(world, {"ckpt-00000001": 1, "ckpt-00000002": 2})


@pytest.mark.parametrize("damage", [missing, damaged, foreign, stale])
async def test_prune_looks_at_the_root_itself(damage: Callable[[World], Awaitable[None]]) -> None:
    world = World()
    await with_steps(world, 1, 2, 3)
    await damage(world)
    async with world.saver(max_to_keep=1) as saver:
        report = await saver.prune()
        assert len(report.kept) == 1
        assert len(await saver.checkpoints()) == 1
        await saver.sweep(0)
    assert len(steps(await state(world))) == 1
    await world.assert_nothing_unreferenced()


async def test_no_saver_overwrites_what_another_has_listed() -> None:
    world = World()
    savers = [world.saver() for _ in range(4)]
    await asyncio.gather(*(saver.save(state_of(number), step=number) for number, saver in enumerate(savers, 1)))
    await asyncio.gather(*(saver.save(state_of(number), step=number) for number, saver in enumerate(savers, 11)))
    for saver in savers:
        await saver.close()
    assert sorted(step or 0 for step in steps(await state(world))) == [1, 2, 3, 4, 11, 12, 13, 14]
    assert len(await world.numbers()) == 8


@pytest.mark.parametrize("answer", ["conflict", "lost request", "lost reply"])
async def test_an_update_that_was_overtaken_or_lost_is_made_again(answer: str) -> None:
    world = World()
    await with_steps(world, 1)

    async def other() -> None:
        async with world.saver() as saver:
            await saver.save(state_of(2), step=2)

    fault = {
        "conflict": Meanwhile(other),
        "lost request": Fail(timed_out()),
        "lost reply": Fail(timed_out(), applied=True),
    }[answer]
    async with world.saver(world.store(at("replace_if", STATE, fault))) as saver:
        checkpoint = await saver.save(state_of(3), step=3)
    assert checkpoint.stats is not None
    assert checkpoint.stats.state_file_error is None
    assert set(steps(await state(world))) == ({1, 2, 3} if answer == "conflict" else {1, 3})


async def test_two_first_savers_both_end_up_listed() -> None:
    world = World()

    async def other() -> None:
        async with world.saver() as saver:
            await saver.save(state_of(2), step=2)

    store = world.store(at("create", STATE, Meanwhile(other)))
    async with world.saver(store) as saver:
        await saver.save(state_of(3), step=3)
    assert store.count("create", STATE) == 1
    assert set(steps(await state(world))) == {2, 3}


async def test_a_failure_to_write_it_never_fails_the_save_and_never_goes_unseen() -> None:
    world = World()
    saver = world.saver(world.store(always("create", STATE, Fail(AccessDeniedError("no")))), max_to_keep=1)
    for step in (1, 2):
        checkpoint = await saver.save(state_of(step), step=step)
        assert checkpoint.stats is not None
        assert checkpoint.stats.state_file_error == "no"
    with pytest.raises(AccessDeniedError):
        await saver.close()
    assert await world.numbers() == {"ckpt-00000001": 1, "ckpt-00000002": 2}


async def test_close_writes_it_at_last() -> None:
    world = World()
    async with world.saver(world.store(at("create", STATE, Fail(broken())))) as saver:
        await saver.save(state_of(1), step=1)
        assert STATE not in await world.objects()
    assert steps(await state(world)) == [1]


async def test_a_checkpoint_that_could_not_be_listed_is_pruned_when_its_time_comes() -> None:
    world = World()
    async with world.saver(world.store(at("create", STATE, Fail(broken()))), max_to_keep=1) as saver:
        await saver.save(state_of(1), step=1)
        await saver.save(state_of(2), step=2)
        await saver.save(state_of(3), step=3)
        assert await world.numbers() == {"ckpt-00000003": 3}
    assert steps(await state(world)) == [3]


async def test_conflicts_without_end_are_an_error_of_the_state_file_only() -> None:
    world = World()
    await with_steps(world, 1)
    store = world.store(always("replace_if", STATE, Fail(PreconditionFailedError("another"))))
    async with closing(world.saver(store)) as saver:
        checkpoint = await saver.save(state_of(2), step=2)
        assert checkpoint.stats is not None
        assert "overtaken" in str(checkpoint.stats.state_file_error)
        assert number_of(await saver.restore()) == 2


async def test_a_saver_that_failed_before_its_commit_does_not_write_what_it_saw_then() -> None:
    world = World()
    async with world.saver(world.store(at("create", "ckpt-00000001/manifest", *[Fail(broken())] * 3))) as saver:
        with pytest.raises(StoreError):
            await saver.save(state_of(1), step=1)
        await with_steps(world, 2, 3)
        await saver.save(state_of(4), step=4)
    assert steps(await state(world)) == [2, 3, 4]


@pytest.mark.parametrize("etags", [True, False])
async def test_stores_without_compare_and_swap(etags: bool) -> None:
    world = World()

    def store() -> Any:
        return world.store(etags=etags, capabilities=PLAIN)

    async with world.saver(store(), max_to_keep=2) as saver:
        for step in (1, 2, 3):
            await saver.save(state_of(step), step=step)
        await saver.save(state_of(30), step=3, overwrite=True)
        assert await numbers_of(saver) == {"ckpt-00000002": 2, "ckpt-00000003": 30}
        await saver.pin(2)
        await saver.save(state_of(4), step=4)
        await saver.delete(3)
        await saver.save(state_of(5), step=5)
        assert (await saver.prune()).first_error is None
    async with world.saver(store()) as saver:
        assert await numbers_of(saver) == {"ckpt-00000002": 2, "ckpt-00000004": 4, "ckpt-00000005": 5}
        await saver.sweep(0)
    await world.assert_nothing_unreferenced()


async def test_a_lost_update_is_repaired_by_the_next_reader() -> None:
    world = World()
    await with_steps(world, 1)
    hold = Hold()
    store = world.store(at("put", STATE, hold), capabilities=PLAIN)
    async with world.saver(store) as slow, world.saver(world.store(capabilities=PLAIN)) as fast:
        task = asyncio.create_task(slow.save(state_of(2), step=2))
        await hold.reached.wait()
        await fast.save(state_of(3), step=3)
        hold.release.set()
        await task
        assert steps(await state(world)) == [1, 2]
        assert [one.step for one in await slow.checkpoints()] == [1, 2, 3]
    await assert_healthy(world, {f"ckpt-0000000{step}": step for step in (1, 2, 3)})


async def test_the_newest_is_the_one_committed_last_not_the_one_with_the_latest_clock() -> None:
    world = World()
    async with world.saver(clock=lambda: 4e9) as ahead, world.saver(clock=lambda: 0.0) as behind:
        await ahead.save(state_of(10), step=10)
        await behind.save(state_of(2), step=2)
        latest = await ahead.latest()
        assert latest is not None
        assert latest.step == 2
        assert number_of(await ahead.restore()) == 2


async def test_an_empty_root_has_none() -> None:
    world = World()
    async with world.saver() as saver:
        assert await saver.latest() is None
        assert await saver.checkpoints() == []
        with pytest.raises(FileNotFoundError):
            await saver.restore()
    with pytest.raises(ObjectNotFoundError):
        await world.memory().get(STATE)
