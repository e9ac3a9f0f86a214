"""How long tombstones and fences stand, and what a prune that was interrupted leaves to the next one."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

import msgspec
import pytest

from asyncsaver import Saver
from asyncsaver.errors import CheckpointDeletedError, CheckpointNotFoundError, ManifestError, StoreError
from asyncsaver.formats import native
from asyncsaver.model.manifest import Aborted, Deleted, Manifest

from ..doubles.scripted import Call, Fail, Fault, Hold, always, at  # noqa: TID252 - no name to import by
from ..doubles.world import DAY, World, broken, closing, number_of, state_of, timed_out  # noqa: TID252

NAME = "ckpt-00000001"
DEAD = "20200101T000000Z-0123456789abcdef"


async def with_steps(world: World, *steps: int) -> None:
    async with world.saver() as saver:
        for step in steps:
            await saver.save(state_of(step), step=step)


@pytest.mark.parametrize("clock", [0.0, 4e9], ids=["our clock is far behind", "our clock is far ahead"])
async def test_tombstones_stand_for_a_day_of_the_stores_clock(clock: float) -> None:
    world = World()
    await with_steps(world, 1, 2)
    world.time += timedelta(days=3)  # the saver below has last seen the store's clock before it prunes
    async with world.saver(clock=lambda: clock) as saver:
        await saver.save(state_of(3), step=3)
        world.time += timedelta(days=3)
        await saver.save(state_of(11), step=1, overwrite=True)
        for _ in range(3):
            await saver.prune()
            assert isinstance((await world.records(NAME))[0], Deleted)
        world.time += DAY - timedelta(minutes=1)
        await saver.save(state_of(4), step=4)
        await saver.prune()
        assert isinstance((await world.records(NAME))[0], Deleted)
        world.time += timedelta(minutes=2)
        await saver.save(state_of(5), step=5)
        await saver.prune()
        assert {slot: type(one) for slot, one in (await world.records(NAME)).items()} == {1: Manifest}


async def test_the_highest_record_of_a_name_stands_for_good() -> None:
    """Were it removed, that removal, sent twice or late, could meet a checkpoint saved at the same slot in between."""
    world = World()
    await with_steps(world, 1, 2)
    async with world.saver() as saver:
        await saver.delete(1)
        for step in (3, 4, 5):
            world.time += 100 * DAY
            await saver.save(state_of(step), step=step)
            await saver.prune()
            assert {slot: type(one) for slot, one in (await world.records(NAME)).items()} == {0: Deleted}
        assert (await saver.save(state_of(6), step=1)).slot == 1


async def test_fences_stand_for_a_month_and_keep_tombstones_below_them() -> None:
    world = World()
    await with_steps(world, 1, 2)
    async with world.saver() as saver:
        await saver.delete(1)
        await world.memory().put(f"{NAME}/{DEAD}/part-00000.json", b"dead")
        await saver.sweep(0)
        await saver.save(state_of(1), step=1, pin=True)
        standing = {0: Deleted, 1: Aborted, 2: Manifest}
        for days in (0, 2, 28):
            world.time += days * DAY
            await saver.save(state_of(100 + days), step=100 + days)
            assert {slot: type(one) for slot, one in (await world.records(NAME)).items()} == standing
        world.time += 2 * DAY
        await saver.save(state_of(200), step=200)
        await saver.save(state_of(201), step=201)
        assert {slot: type(one) for slot, one in (await world.records(NAME)).items()} == {2: Manifest}


async def test_a_prune_interrupted_between_tombstone_and_data_is_finished_by_the_next_one() -> None:
    world = World()
    await with_steps(world, 1, 2)
    async with closing(world.saver(world.store(always("delete", NAME, Fail(broken()))), max_to_keep=1)) as saver:
        report = await saver.prune()
    assert [one.name for one in report.failed] == [NAME]
    assert "broken" in str(report.first_error)
    assert isinstance((await world.records(NAME))[0], Deleted)
    assert len(await world.data_folders()) == 2
    world.time += 100 * DAY
    async with world.saver(max_to_keep=1) as saver:
        assert [one.step for one in await saver.checkpoints()] == [2]
        with pytest.raises(CheckpointDeletedError):
            await saver.restore(step=1)
        await saver.prune()
        assert isinstance((await world.records(NAME))[0], Deleted)  # its day has only begun
    assert len(await world.data_folders()) == 1
    await world.assert_nothing_unreferenced()


async def test_the_prune_after_the_next_save_finishes_it_too() -> None:
    world = World()
    await with_steps(world, 1, 2)
    async with world.saver(world.store(at("delete", NAME, Fail(broken()))), max_to_keep=2) as saver:
        checkpoint = await saver.save(state_of(3), step=3)
        assert checkpoint.stats is not None
        assert checkpoint.stats.prune_error is not None
        assert "broken" in checkpoint.stats.prune_error
        checkpoint = await saver.save(state_of(4), step=4)
        assert checkpoint.stats is not None
        assert checkpoint.stats.prune_error is None
    await world.assert_nothing_unreferenced()
    assert await world.numbers() == {"ckpt-00000003": 3, "ckpt-00000004": 4}


async def test_what_is_still_listed_after_its_deletion_is_reported() -> None:
    world = World()
    await with_steps(world, 1, 2)

    class Pretend:
        async def around(self, work: object) -> object:
            return {}

    async with world.saver(world.store(always("delete", NAME, Pretend())), max_to_keep=1) as saver:
        report = await saver.prune()
    assert "still listed" in str(report.first_error)


async def overwritten(world: World, times: int = 3) -> None:
    """Step 1 in several committed slots, since no prune got through."""
    store = world.store(lambda call: Fail(broken()) if call.operation == "replace_if" else None)
    async with closing(world.saver(store)) as saver:
        for number in range(1, times + 1):
            await saver.save(state_of(number), step=1, overwrite=True)
    assert {type(record) for record in (await world.records(NAME)).values()} == {Manifest}


async def assert_never_old(saver: Saver) -> None:
    try:
        assert number_of(await saver.restore(step=1)) == 3
    except CheckpointNotFoundError:
        assert "ckpt-00000001" not in {one.name for one in await saver.checkpoints()}


async def test_replaced_slots_never_come_back_to_light() -> None:
    template = World()
    await overwritten(template)
    number = 0
    while True:
        for applied in (False, True):
            world = template.copy()

            def script(call: Call, number: int = number, *, applied: bool = applied) -> Fault | None:
                if call.number == number:
                    return Fail(timed_out(), applied=applied)
                return Fail(timed_out()) if call.number > number else None

            store = world.store(script)
            async with closing(world.saver(store)) as saver:
                with contextlib.suppress(StoreError):
                    await saver.delete(1)
            async with world.saver() as saver:
                await assert_never_old(saver)
        if len(store.calls) <= number:
            break
        number += 1
    assert number > 8


async def test_a_damaged_manifest_hides_what_it_replaced_until_that_is_deleted() -> None:
    world = World()
    await overwritten(world, times=2)
    await world.memory().put(f"{NAME}/manifest-0001.json", b"{")
    async with world.saver(world.store(always("delete", NAME, Fail(broken())))) as saver:
        with pytest.raises(StoreError):
            await saver.delete(1)
    async with world.saver() as saver:
        with pytest.raises((ManifestError, CheckpointDeletedError)):
            await saver.restore(step=1)
        await saver.delete(1)
        with pytest.raises(CheckpointDeletedError):
            await saver.restore(step=1)
        await saver.prune()
        await saver.sweep(0)
    await world.assert_nothing_unreferenced()


async def test_a_replaced_slot_that_the_state_file_has_lost_goes_before_the_one_above_it() -> None:
    world = World()
    async with world.saver(world.store(at("replace_if", NAME, Fail(broken()))), max_to_keep=2) as saver:
        await saver.save(state_of(1), step=1)
        await saver.save(state_of(2), step=1, overwrite=True)  # slot 0 stays
        path = "checkpoint.json"
        state = native.decode_state((await world.objects())[path], path)
        lossy = msgspec.structs.replace(state, entries=[entry for entry in state.entries if entry.slot])
        await world.memory().put(path, native.encode(lossy))
        for step in (8, 9):
            await saver.save(state_of(step), step=step)
        assert await world.numbers() == {"ckpt-00000008": 8, "ckpt-00000009": 9}
    await world.assert_nothing_unreferenced()


async def test_a_tombstone_is_not_written_over_what_another_saver_has_put_there() -> None:
    world, hold = World(), Hold()
    await with_steps(world, 1, 2)
    async with (
        world.saver(world.store(at("replace_if", f"{NAME}/", hold)), max_to_keep=1) as slow,
        world.saver(max_to_keep=1) as fast,
    ):
        pruning = asyncio.create_task(slow.prune())
        await hold.reached.wait()
        await fast.prune()
        hold.release.set()
        assert not (await pruning).failed
    assert await world.numbers() == {"ckpt-00000002": 2}
    await world.assert_nothing_unreferenced()


async def test_racing_prunes_delete_the_same() -> None:
    world = World()
    await with_steps(world, 1, 2, 3, 4)
    savers = [world.saver(max_to_keep=2) for _ in range(3)]
    reports = await asyncio.gather(*(saver.prune() for saver in savers))
    for saver in savers:
        await saver.close()
    assert all(len(report.kept) == 2 for report in reports)
    assert await world.numbers() == {"ckpt-00000003": 3, "ckpt-00000004": 4}
    async with world.saver(max_to_keep=2) as saver:
        await saver.prune()
    await world.assert_nothing_unreferenced()


async def test_a_pin_that_the_state_file_has_lost_still_counts() -> None:
    world = World()
    async with world.saver(max_to_keep=1) as trainer:
        await trainer.save(state_of(1), step=1)
        async with closing(world.saver(world.store(always("replace_if", "checkpoint.json", Fail(broken()))))) as other:
            with pytest.raises(StoreError):
                await other.pin(1)
        await trainer.save(state_of(2), step=2)
        await trainer.save(state_of(3), step=3)
        assert await world.numbers() == {NAME: 1, "ckpt-00000003": 3}
        await trainer.unpin(1)
        await trainer.save(state_of(4), step=4)
    assert await world.numbers() == {"ckpt-00000004": 4}


async def test_a_checkpoint_that_is_being_read_here_stays() -> None:
    world = World()
    await with_steps(world, 1, 2)
    async with world.saver(max_to_keep=1) as saver:
        async with await saver.open(1) as reader:
            report = await saver.prune()
            assert [one.reason for one in report.kept if one.name == NAME] == ["being restored"]
            np_array = await reader.read("bias")
            assert np_array.tolist() == [1] * 5
        await saver.prune()
    assert await world.numbers() == {"ckpt-00000002": 2}


async def test_a_dry_run_deletes_nothing_and_says_what_would_go() -> None:
    world = World()
    await with_steps(world, 1, 2, 3)
    before = await world.objects()
    async with world.saver(max_to_keep=1) as saver:
        report = await saver.prune(dry_run=True)
    assert report.dry_run
    assert [one.name for one in report.deleted] == [NAME, "ckpt-00000002"]
    assert await world.objects() == before
