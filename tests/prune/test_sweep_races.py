"""Sweeps against writers that are paused, healthy, or dead, and against other sweeps."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from asyncsaver import Checkpoint, Saver
from asyncsaver.errors import CheckpointExistsError, ManifestError, RanksMissingError, SaveAbortedError, StoreError
from asyncsaver.model.manifest import Aborted, Deleted, Manifest
from asyncsaver.prune.sweep import fence
from asyncsaver.store import Capabilities

from ..doubles.scripted import Call, Fail, Fault, Hold, ScriptedStore, always, at  # noqa: TID252 - no name to import by
from ..doubles.world import DAY, World, broken, number_of, state_of, timed_out  # noqa: TID252

NAME = "ckpt-00000005"
DEAD = "20200101T000000Z-0123456789abcdef"


async def leave_behind(world: World, save_id: str = DEAD, name: str = NAME) -> None:
    await world.memory().put(f"{name}/{save_id}/part-00000.json", b"dead")


def paused(world: World, hold: Hold, path: str = f"{NAME}/manifest") -> ScriptedStore:
    return world.store(at("create", path, hold))


async def start(saver: Saver, hold: Hold, number: int = 50, **options: Any) -> asyncio.Task[Any]:
    task = asyncio.create_task(saver.save(state_of(number), step=5, **options))
    await hold.reached.wait()
    return task


async def test_a_paused_writer_that_wakes_up_finds_itself_condemned() -> None:
    world, hold = World(), Hold()
    async with world.saver(paused(world, hold)) as writer, world.saver() as sweeper:
        task = await start(writer, hold)
        report = await sweeper.sweep(0)
        assert [one.name for one in report.leftovers] == [NAME]
        assert report.freed_bytes > 0
        hold.release.set()
        with pytest.raises(SaveAbortedError):
            await task
        assert await sweeper.checkpoints() == []
        assert await sweeper.latest() is None
        assert not (await sweeper.sweep(0)).leftovers
    await world.assert_nothing_unreferenced()


@pytest.mark.parametrize(
    ("operation", "path"), [("put", "model-00002"), ("put", "part-0"), ("list", f"{NAME}/2"), ("put", "index")]
)
async def test_a_writer_that_is_swept_while_it_writes_never_commits(operation: str, path: str) -> None:
    world, hold = World(), Hold()

    def script(call: Call) -> Fault | None:
        return hold if call.operation == operation and path in call.path and not hold.reached.is_set() else None

    async with world.saver(world.store(script)) as writer, world.saver() as sweeper:
        task = await start(writer, hold)
        await sweeper.sweep(0)
        hold.release.set()
        with pytest.raises((SaveAbortedError, RanksMissingError, ManifestError)):
            await task
        assert await world.numbers() == {}
        await sweeper.sweep(0)
    await world.assert_nothing_unreferenced()


async def test_racing_sweeps_against_a_paused_writer() -> None:
    world, hold = World(), Hold()
    sweepers = [world.saver() for _ in range(4)]
    async with world.saver(paused(world, hold)) as writer:
        task = await start(writer, hold)
        await asyncio.gather(*(sweeper.sweep(0) for sweeper in sweepers))
        hold.release.set()
        with pytest.raises(SaveAbortedError):
            await task
        await sweepers[0].sweep(0)
        for sweeper in sweepers:
            await sweeper.close()
    assert await world.numbers() == {}
    await world.assert_nothing_unreferenced()


async def test_racing_sweeps_against_a_writer_that_is_about_to_commit() -> None:
    for turns in range(12):
        world, hold = World(), Hold()
        async with world.saver(paused(world, hold)) as writer, world.saver() as one, world.saver() as other:
            task = await start(writer, hold)
            sweeps = [asyncio.create_task(sweeper.sweep(0)) for sweeper in (one, other)]
            for _ in range(turns):
                await asyncio.sleep(0)
            hold.release.set()
            (result,) = await asyncio.gather(task, return_exceptions=True)
            await asyncio.gather(*sweeps)
            expected = {} if isinstance(result, SaveAbortedError) else {NAME: 50}
            assert isinstance(result, (SaveAbortedError, Checkpoint))
            await one.sweep(0)
        assert await world.numbers() == expected
        await world.assert_nothing_unreferenced()


async def test_a_healthy_writer_that_the_fence_does_not_name_moves_on() -> None:
    world, hold = World(), Hold()
    await leave_behind(world)
    async with world.saver(paused(world, hold)) as writer, world.saver() as sweeper:
        task = await start(writer, hold)
        world.time += timedelta(hours=1)
        folder = (await sweeper._root.reader.folder(NAME)).folder
        assert await fence(sweeper._root, folder, [DEAD], writer="test") == [DEAD]
        hold.release.set()
        assert (await task).slot == 1
    records = await world.records(NAME)
    assert isinstance(records[0], Aborted)
    assert isinstance(records[1], Manifest)
    assert await world.numbers() == {NAME: 50}


async def test_young_attempts_are_left_alone_by_the_stores_clock() -> None:
    world = World()
    await leave_behind(world, DEAD)
    world.time += timedelta(hours=20)
    await leave_behind(world, "20200101T000000Z-00000000000000aa")
    world.time += timedelta(hours=5)
    async with world.saver(clock=lambda: 4e9) as sweeper:
        dry = await sweeper.sweep(dry_run=True)
        assert len(await world.data_folders()) == 2
        report = await sweeper.sweep()
    assert dry.dry_run
    assert [one.save_id for one in report.leftovers] == [DEAD]
    assert report.young == ["20200101T000000Z-00000000000000aa"]
    assert list(await world.data_folders()) == ["20200101T000000Z-00000000000000aa"]


async def test_own_attempts_are_left_alone() -> None:
    world, hold = World(), Hold()
    async with world.saver(paused(world, hold)) as saver:
        task = await start(saver, hold)
        assert not (await saver.sweep(0)).leftovers
        hold.release.set()
        await task
    assert await world.numbers() == {NAME: 50}


async def test_objects_that_are_not_ours_are_never_touched() -> None:
    world = World()
    others = {
        "notes.txt": b"1",
        "ckpt-5/notes/part-00000.json": b"2",
        f"{NAME}/tensorboard/events": b"3",
        f"{NAME}/20200101T000000Z-0123/part-00000.json": b"4",
        "other-00000005/20200101T000000Z-0123456789abcdef/part-00000.json": b"5",
    }
    for path, data in others.items():
        await world.memory().put(path, data)
    await leave_behind(world)
    async with world.saver() as sweeper:
        await sweeper.sweep(0)
        await sweeper.prune()
    objects = await world.objects()
    assert {path: objects[path] for path in others} == others
    assert await world.data_folders() == {DEAD: ["other-00000005/20200101T000000Z-0123456789abcdef/part-00000.json"]}


async def gappy(world: World) -> None:
    """A checkpoint committed at slots 0, 1, 2, of which the tombstones of 0 and 1 have expired."""
    async with world.saver() as saver:
        for number in (1, 2, 3):
            await saver.save(state_of(number), step=5, overwrite=True)
        for step in (1, 2):
            world.time += 2 * DAY
            await saver.save(state_of(step), step=step)
            await saver.delete(step)
    assert set(await world.records(NAME)) == {2}


async def test_all_gaps_are_fenced() -> None:
    world = World()
    await gappy(world)
    await leave_behind(world)
    async with world.saver() as sweeper:
        await sweeper.sweep(0)
    records = await world.records(NAME)
    assert {slot: type(record) for slot, record in records.items()} == {0: Aborted, 1: Aborted, 2: Manifest, 3: Aborted}
    assert await world.numbers() == {NAME: 3}


@pytest.mark.parametrize("taken", [0, 1, 2])
async def test_fences_of_an_interrupted_sweep_are_completed_before_anything_is_deleted(taken: int) -> None:
    world, hold = World(), Hold()
    await gappy(world)
    paths = [f"{NAME}/manifest.json", f"{NAME}/manifest-0001.json", f"{NAME}/manifest-0003.json"]
    async with world.saver(paused(world, hold)) as writer:
        task = await start(writer, hold, overwrite=True)
        async with world.saver(world.store(always("create", paths[taken], Fail(broken())))) as sweeper:
            with pytest.raises(StoreError):
                await sweeper.sweep(0)
        assert len(await world.data_folders()) == 2
        async with world.saver() as sweeper:
            await sweeper.sweep(0)
        hold.release.set()
        with pytest.raises(SaveAbortedError):
            await task
    assert await world.numbers() == {NAME: 3}
    await world.assert_nothing_unreferenced()


async def test_a_fence_holds_though_tombstones_that_stood_when_the_writer_began_have_expired() -> None:
    world, hold = World(), Hold()
    async with world.saver() as saver:
        await saver.save(state_of(1), step=5)
        await saver.delete(5)
        async with world.saver(paused(world, hold)) as writer:
            task = await start(writer, hold)  # targets slot 1
            for step in (6, 7):
                world.time += 3 * DAY
                await saver.save(state_of(step), step=step)
                await saver.prune()
            await saver.sweep()
            hold.release.set()
            with pytest.raises(SaveAbortedError):
                await task
        assert number_of(await saver.restore()) == 7
    assert await world.numbers() == {"ckpt-00000006": 6, "ckpt-00000007": 7}
    await world.assert_nothing_unreferenced()


async def test_a_sweep_whose_fence_got_no_reply_goes_on() -> None:
    world = World()
    await leave_behind(world)
    script = at("create", NAME, Fail(timed_out(), applied=True))
    async with world.saver(world.store(script)) as sweeper:
        assert len((await sweeper.sweep(0)).leftovers) == 1
    assert await world.data_folders() == {}


async def test_repeated_sweeps_of_what_cannot_be_deleted_do_not_pile_up_fences() -> None:
    world = World()
    await leave_behind(world)
    async with world.saver(world.store(always("delete", DEAD, Fail(broken())))) as sweeper:
        for _ in range(3):
            report = await sweeper.sweep(0)
            assert [one.error for one in report.leftovers] == ["broken"]
    assert set(await world.records(NAME)) == {0}


async def test_where_nothing_can_be_fenced_a_sweep_never_writes_over_a_commit() -> None:
    world = World()
    await leave_behind(world)
    weak = Capabilities(exclusive_create=False, compare_and_swap=False)
    gate = Hold(applied=True)
    store = world.store(at("list", NAME, gate), keeps_exclusive=False, capabilities=weak)
    async with world.saver(store, single_writer=True) as saver:
        sweep = asyncio.create_task(saver.sweep(0))
        await gate.reached.wait()
        await saver.save(state_of(50), step=5)
        gate.release.set()
        await sweep
        assert number_of(await saver.restore(step=5)) == 50
    assert await world.numbers() == {NAME: 50}
    await world.assert_nothing_unreferenced()


async def test_an_overwriting_save_is_not_confused_with_a_condemned_one() -> None:
    world = World()
    async with world.saver() as saver:
        await saver.save(state_of(1), step=5)
        await leave_behind(world)
        await saver.sweep(0)
        with pytest.raises(CheckpointExistsError):
            await saver.save(state_of(2), step=5)
        assert (await saver.save(state_of(2), step=5, overwrite=True)).slot == 2
        records = await world.records(NAME)
        assert {slot: type(record) for slot, record in records.items()} == {0: Deleted, 1: Aborted, 2: Manifest}
    assert await world.numbers() == {NAME: 2}


async def test_a_forecast_goes_by_the_stores_clock_as_far_as_it_is_known() -> None:
    """Our clock is half a year behind: by that alone nothing would be old enough."""
    world = World()
    await leave_behind(world)
    world.time += 2 * DAY
    async with world.saver() as saver:
        await saver.save(state_of(2), step=2)
    async with world.saver() as saver:
        forecast = await saver.sweep(dry_run=True)
        assert [one.save_id for one in forecast.leftovers] == [DEAD]
        assert (await saver.sweep()).leftovers == forecast.leftovers
