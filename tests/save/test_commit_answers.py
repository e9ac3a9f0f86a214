"""Whatever the store answers to the commit, the save tells what became of it, and keeps or deletes its data accordingly."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from asyncsaver import Saver
from asyncsaver.errors import (
    AccessDeniedError,
    CheckpointCorruptError,
    CheckpointDeletedError,
    CheckpointExistsError,
    CommitUnknownError,
    ObjectExistsError,
    SaveAbortedError,
    StoreError,
)
from asyncsaver.formats import native
from asyncsaver.model.manifest import Aborted, Deleted, Manifest

from ..doubles.scripted import Call, Fail, Fault, Hold, Late, Meanwhile, always, at  # noqa: TID252 - no name to import by
from ..doubles.world import World, broken, number_of, state_of, timed_out  # noqa: TID252

NAME = "ckpt-00000005"
SLOT = f"{NAME}/manifest.json"
NEXT = f"{NAME}/manifest-0001.json"


def conflict() -> ObjectExistsError:
    return ObjectExistsError("there is one", path=SLOT)


def aborted(*condemned: str, slot: int = 0) -> Aborted:
    return Aborted(
        name=NAME, step=5, slot=slot, created=datetime(2030, 1, 1, tzinfo=UTC), writer="test", condemned=list(condemned)
    )


def deleted(save_id: str, slot: int = 0) -> Deleted:
    return Deleted(
        name=NAME, step=5, slot=slot, created=datetime(2030, 1, 1, tzinfo=UTC), writer="test", save_id=save_id, files=[]
    )


async def save(saver: Saver, **options: Any) -> Any:
    return await saver.save(state_of(50), step=5, **options)


async def own_save_id(world: World) -> str:
    (save_id,) = await world.data_folders()
    return save_id


async def test_a_clear_success() -> None:
    world = World()
    store = world.store()
    async with world.saver(store) as saver:
        checkpoint = await save(saver)
    assert (checkpoint.slot, checkpoint.step) == (0, 5)
    assert store.count("create", SLOT) == 1
    assert store.count("get", SLOT) == 0
    assert await world.numbers() == {NAME: 50}


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param([Fail(timed_out(), applied=True)], id="reply lost"),
        pytest.param([Fail(broken(), applied=True)], id="unclear error after it was applied"),
        pytest.param([Fail(conflict(), applied=True)], id="conflict with ourselves"),
        pytest.param([Fail(timed_out())], id="request lost"),
        pytest.param([Fail(timed_out()), Fail(timed_out(), applied=True)], id="request lost, then reply lost"),
        pytest.param([Fail(broken()), Fail(broken())], id="refused twice by mistake"),
        pytest.param([Fail(StoreError("412 of an unclear kind"))], id="unclear refusal with nothing there"),
        pytest.param([Fail(conflict())], id="conflict with nothing"),
    ],
)
async def test_unclear_answers_are_settled_by_reading_back(answers: list[Fault]) -> None:
    world = World()
    async with world.saver(world.store(at("create", SLOT, *answers))) as saver:
        checkpoint = await save(saver)
    assert checkpoint.slot == 0
    assert await world.numbers() == {NAME: 50}
    await world.assert_nothing_unreferenced()


async def test_a_delayed_request_that_lands_before_the_retry_is_our_own_commit() -> None:
    world = World()
    late = Late(timed_out())
    retry = Meanwhile(late.land)
    async with world.saver(world.store(at("create", SLOT, late, retry))) as saver:
        checkpoint = await save(saver)
    assert checkpoint.slot == 0
    assert await world.numbers() == {NAME: 50}


async def test_reading_back_may_fail_several_times() -> None:
    world = World()
    answers = [at("create", SLOT, Fail(timed_out(), applied=True)), at("get", SLOT, *[Fail(timed_out())] * 3)]
    store = world.store(lambda call: next((fault for script in answers if (fault := script(call))), None))
    async with world.saver(store) as saver:
        await save(saver)
    assert store.count("get", SLOT) == 4
    assert await world.numbers() == {NAME: 50}


@pytest.mark.parametrize("error", [timed_out(), conflict()], ids=["timeout", "conflict"])
async def test_another_save_that_came_first_keeps_its_checkpoint(error: StoreError) -> None:
    world = World()

    async def other() -> None:
        async with world.saver() as saver:
            await saver.save(state_of(7), step=5)

    class OtherFirst:
        async def around(self, work: Any) -> Any:
            await other()
            raise error

    async with world.saver(world.store(at("create", SLOT, OtherFirst()))) as saver:
        with pytest.raises(CheckpointExistsError, match="overwrite=True"):
            await save(saver)
    assert await world.numbers() == {NAME: 7}
    await world.assert_nothing_unreferenced()


async def test_a_fence_that_names_us_aborts_the_save() -> None:
    world = World()

    async def condemn() -> None:
        await world.put_record(aborted(await own_save_id(world)))

    async with world.saver(world.store(at("create", SLOT, Meanwhile(condemn)))) as saver:
        with pytest.raises(SaveAbortedError, match="Save again"):
            await save(saver)
        assert await world.data_folders() == {}
        assert (await save(saver)).slot == 1
    assert await world.numbers() == {NAME: 50}


async def test_fences_that_name_others_are_passed() -> None:
    world = World()

    async def condemn() -> None:
        await world.put_record(aborted("20200101T000000Z-0123456789abcdef"))
        await world.put_record(aborted("20200101T000000Z-0123456789abcdef", slot=1))

    async with world.saver(world.store(at("create", SLOT, Meanwhile(condemn)))) as saver:
        checkpoint = await save(saver)
    assert checkpoint.slot == 2
    records = await world.records(NAME)
    assert isinstance(records[2], Manifest)
    assert records[2].slot == 2
    assert await world.numbers() == {NAME: 50}


async def test_beyond_a_fence_for_others_one_for_us_still_counts() -> None:
    world = World()

    async def condemn() -> None:
        await world.put_record(aborted("20200101T000000Z-0123456789abcdef"))
        await world.put_record(aborted(await own_save_id(world), slot=1))

    async with world.saver(world.store(at("create", SLOT, Meanwhile(condemn)))) as saver:
        with pytest.raises(SaveAbortedError):
            await save(saver)
    assert await world.numbers() == {}
    assert await world.data_folders() == {}


async def test_committed_and_deleted_before_we_knew() -> None:
    world = World()

    class AppliedThenDeleted:
        async def around(self, work: Any) -> Any:
            await work()
            await world.put_record(deleted(await own_save_id(world)))
            raise timed_out()

    async with world.saver(world.store(at("create", SLOT, AppliedThenDeleted()))) as saver:
        with pytest.raises(CheckpointDeletedError):
            await save(saver)
    assert await world.numbers() == {}


async def test_the_tombstone_of_another_save_is_in_the_way() -> None:
    world = World()

    async def other() -> None:
        await world.put_record(deleted("20200101T000000Z-0123456789abcdef"))

    async with world.saver(world.store(at("create", SLOT, Meanwhile(other)))) as saver:
        with pytest.raises(CheckpointExistsError):
            await save(saver)
        assert (await save(saver)).slot == 1


async def test_what_cannot_be_read_is_in_the_way() -> None:
    world = World()

    async def other() -> None:
        await world.memory().put(SLOT, b"{")

    async with world.saver(world.store(at("create", SLOT, Meanwhile(other)))) as saver:
        with pytest.raises(CheckpointExistsError, match="cannot be read"):
            await save(saver)
    assert await world.data_folders() == {}


@pytest.mark.parametrize(
    "error", [broken(), AccessDeniedError("no"), conflict()], ids=lambda error: type(error).__name__
)
async def test_a_refusal_for_good_fails_the_save_and_leaves_nothing(error: StoreError) -> None:
    world = World()
    async with world.saver(world.store(always("create", SLOT, Fail(error)))) as saver:
        with pytest.raises(type(error)):
            await save(saver)
    assert await world.data_folders() == {}
    assert await world.numbers() == {}


@pytest.mark.parametrize("error", [broken(), AccessDeniedError("no")], ids=lambda error: type(error).__name__)
async def test_a_refusal_does_not_settle_an_earlier_request_that_may_still_land(error: StoreError) -> None:
    world = World()
    late = Late(timed_out())
    async with world.saver(world.store(at("create", SLOT, late, *[Fail(error)] * 5))) as saver:
        with pytest.raises(CommitUnknownError):
            await save(saver)
        await late.land()
    assert await world.numbers() == {NAME: 50}


@pytest.mark.parametrize("lands", [True, False])
async def test_a_commit_that_nobody_answers_is_unknown_and_keeps_its_data(lands: bool) -> None:
    world = World()
    late = Late(timed_out())

    def script(call: Call) -> Fault | None:
        if call.operation == "create" and call.path == SLOT:
            return late
        return Fail(timed_out()) if call.operation == "get" and call.path == SLOT else None

    async with world.saver(world.store(script), commit_timeout=0.1) as saver:
        with pytest.raises(CommitUnknownError, match=r"not settled within 0\.1 s") as caught:
            await save(saver)
    assert caught.value.retryable
    assert len(await world.data_folders()) == 1
    if lands:
        await late.land()
    async with world.saver() as saver:
        assert [one.step for one in await saver.checkpoints()] == ([5] if lands else [])
        report = await saver.sweep(0)
        assert len(report.leftovers) == (0 if lands else 1)
    if not lands:
        with pytest.raises(ObjectExistsError):
            await late.land()  # condemned
    assert await world.numbers() == ({NAME: 50} if lands else {})
    await world.assert_nothing_unreferenced()


async def test_a_store_that_hangs_is_unknown_after_the_limit() -> None:
    world = World()
    async with world.saver(world.store(at("create", SLOT, Hold())), commit_timeout=0.05) as saver:
        with pytest.raises(CommitUnknownError, match="no answer"):
            await save(saver)
    assert len(await world.data_folders()) == 1


@pytest.mark.parametrize("applied", [False, True])
async def test_cancellation_during_the_commit_finishes_it(applied: bool) -> None:
    world = World()
    hold = Hold(applied=applied)
    async with world.saver(world.store(at("create", SLOT, hold))) as saver:
        task = asyncio.create_task(save(saver))
        await hold.reached.wait()
        for _ in range(3):
            task.cancel()
            await asyncio.sleep(0)
        assert not task.done()
        hold.release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert number_of(await saver.restore(step=5)) == 50
    assert await world.numbers() == {NAME: 50}
    await world.assert_nothing_unreferenced()


async def test_a_save_cancelled_during_its_commit_is_listed_and_pruned_by_later_ones() -> None:
    world = World()
    hold = Hold()
    async with world.saver(world.store(at("create", "ckpt-00000002/manifest", hold)), max_to_keep=1) as saver:
        await saver.save(state_of(1), step=1)
        task = asyncio.create_task(saver.save(state_of(2), step=2))
        await hold.reached.wait()
        task.cancel()
        hold.release.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        await saver.save(state_of(3), step=3)
    assert await world.numbers() == {"ckpt-00000003": 3}


@pytest.mark.parametrize("ends", ["fails", "cancelled"])
@pytest.mark.parametrize("path", ["model-00002", "part-00000", "index.json"])
async def test_what_ends_before_the_commit_deletes_exactly_what_it_wrote(path: str, ends: str) -> None:
    world = World()
    async with world.saver() as saver:
        await saver.save(state_of(1), step=5)
    before = await world.objects()
    hold = Hold(applied=True)
    store = world.store(at("put", path, hold if ends == "cancelled" else Fail(broken(), applied=True)))
    async with world.saver(store) as saver:
        task = asyncio.create_task(saver.save(state_of(2), step=5, overwrite=True))
        if ends == "cancelled":
            await hold.reached.wait()
            task.cancel()
        with pytest.raises(asyncio.CancelledError if ends == "cancelled" else StoreError):
            await task
    assert await world.objects() == before


async def test_leftovers_that_cannot_be_deleted_are_logged_and_the_first_error_is_raised(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World()

    def script(call: Call) -> Fault | None:
        if call.operation == "put" and "part-00000" in call.path:
            return Fail(broken())
        return Fail(StoreError("also broken")) if call.operation == "delete" and NAME in call.path else None

    async with world.saver(world.store(script)) as saver:
        with pytest.raises(StoreError, match=r"^broken$"):
            await save(saver)
    assert "leftovers of a failed save stay for a sweep: also broken" in caplog.text
    async with world.saver() as saver:
        await saver.sweep(0)
    await world.assert_nothing_unreferenced()


async def test_the_manifest_that_lands_is_the_one_that_is_returned() -> None:
    world = World()
    async with world.saver() as saver:
        checkpoint = await save(saver, metrics={"loss": 0.5}, metadata={"git": "abc"})
        data = (await world.objects())[SLOT]
        manifest = native.decode_record(data, name=NAME, slot=0)
        assert isinstance(manifest, Manifest)
        assert (manifest.save_id, manifest.total_bytes) == (checkpoint.save_id, checkpoint.total_bytes)
        (listed,) = await saver.checkpoints()
        assert (listed.metrics, listed.metadata) == ({"loss": 0.5}, {"git": "abc"})


@pytest.mark.parametrize("damage", [b"garbage", b"", None])
async def test_a_part_that_is_damaged_before_the_commit_harms_nothing(damage: bytes | None) -> None:
    """What this process has written it need not be told by the store."""
    world = World()

    async def spoil() -> None:
        [part] = [path for path in await world.objects() if "/part-" in path]
        if damage is None:
            await world.memory().delete([part])
        else:
            await world.memory().put(part, damage)

    async with world.saver(world.store(at("create", SLOT, Meanwhile(spoil))), max_to_keep=1) as saver:
        checkpoint = await save(saver)
        assert (await saver.verify()).checkpoint.save_id == checkpoint.save_id
        assert number_of(await saver.restore()) == 50
        await saver.save(state_of(2), step=6)
        assert await world.numbers() == {"ckpt-00000006": 2}
    await world.assert_nothing_unreferenced()


@pytest.mark.parametrize("damage", [b"", None])
async def test_a_shard_that_is_damaged_before_it_is_listed_is_not_committed(damage: bytes | None) -> None:
    world = World()

    async def spoil() -> None:
        shard = next(path for path in await world.objects() if path.endswith("-00003.safetensors"))
        if damage is None:
            await world.memory().delete([shard])
        else:
            await world.memory().put(shard, damage)

    async with world.saver(world.store(at("list", f"{NAME}/2", Meanwhile(spoil)))) as saver:
        with pytest.raises(CheckpointCorruptError, match=r"model-0000\d-of-00003\.safetensors"):
            await save(saver)
        assert await saver.latest() is None
    assert await world.objects() == {}
