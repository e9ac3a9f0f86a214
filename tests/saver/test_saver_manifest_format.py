"""Savers that write protobuf, and those that write JSON, on one root."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from asyncsaver import (
    CheckpointCorruptError,
    CheckpointDeletedError,
    ManifestError,
    checkpoint_exists,
    get_checkpoint_state,
    latest_checkpoint,
    open_checkpoint,
)
from asyncsaver.model.manifest import Aborted, Summary

from ..doubles.scripted import Fail, Hold, Meanwhile, at  # noqa: TID252 - no name to import by
from ..doubles.world import World, broken, closing, number_of, numbers_of, state_of, timed_out  # noqa: TID252
from .place import Place
from .states import bits

FORMATS = ("json", "proto")
FORMAT: dict[str, Any] = {"manifest_format": "proto"}


async def body_of(world: World, name: str, slot: int = 0) -> str:
    record = (await world.records(name))[slot]
    assert isinstance(record, Summary)
    return record.body.path


async def test_everything_works_wherever_it_is_saved(anywhere: Place) -> None:
    state = state_of(1) | {"text": "é", "bytes": b"\xff" * 3, "none": None, "tuple": (1, [2.5])}
    async with anywhere.saver(**FORMAT, max_to_keep=2) as saver:
        for step in (1, 2, 3):
            saved = await saver.save(state | {"number": step}, step=step, metrics={"loss": 1 / step}, metadata=[step])
        await saver.save(state, step=3, overwrite=True, metadata="again")
        assert bits(await saver.restore()) == bits(state)
        assert (await saver.verify()).tensors == 3
        assert [one.step for one in await saver.checkpoints()] == [2, 3]
        latest = await saver.latest()
        assert latest is not None
        assert (latest.metadata, latest.slot) == ("again", 1)
        assert saved.stats is not None
        assert saved.stats.state_file_error is None
    async with anywhere.saver() as saver:
        assert bits(await saver.restore(step=2)) == bits(state | {"number": 2})
        async with await saver.open(2) as reader:
            assert reader.metadata == [2]
        await saver.delete(2)
        with pytest.raises(CheckpointDeletedError):
            await saver.restore(step=2)
        assert not (await saver.sweep(0)).leftovers
    paths = [path for path in await anywhere.paths() if path.endswith(".pb")]
    assert [path.rpartition("/")[2] for path in paths] == ["manifest.pb"]


async def test_what_a_save_writes() -> None:
    world = World()
    async with world.saver(**FORMAT) as saver:
        saved = await saver.save(state_of(1), step=1, metrics={"loss": 0.5})
    assert saved.stats is not None
    [record] = (await world.records("ckpt-00000001")).values()
    assert isinstance(record, Summary)
    assert record.saver["manifest_format"] == "proto"
    assert record.body.path == f"ckpt-00000001/{saved.save_id}/manifest.pb"
    objects = await world.objects()
    assert len(objects[record.body.path]) == record.body.size
    assert {path for path in objects if "/" not in path} == {"checkpoint.pb"}
    of_save = [data for path, data in objects.items() if path.startswith("ckpt")]
    assert saved.stats.bytes_written == sum(map(len, of_save))
    await world.assert_nothing_unreferenced()


async def test_a_save_costs_one_request_more() -> None:
    world = World()
    store = world.store()
    async with world.saver(store, **FORMAT) as saver:
        await saver.save(state_of(1), step=1)
        store.calls.clear()
        await saver.save(state_of(2), step=2)
    assert Counter(call.operation for call in store.calls) == {"put": 6, "create": 1, "replace_if": 1, "list": 2}


async def test_pruning_costs_none() -> None:
    world = World()
    store = world.store()
    async with world.saver(store, max_to_keep=1, **FORMAT) as saver:
        await saver.save(state_of(1), step=1)
        store.calls.clear()
        await saver.save(state_of(2), step=2)
    counts = Counter(call.operation for call in store.calls)
    assert counts == {"put": 6, "create": 1, "replace_if": 3, "list": 4, "get": 1, "delete": 1}


@pytest.mark.parametrize("reader", FORMATS)
async def test_a_restore_costs_one_request_more_and_another_where_the_state_file_is_not_looked_for(reader: str) -> None:
    world = World()
    async with world.saver(**FORMAT) as saver:
        for step in range(1, 6):
            await saver.save(state_of(step), step=step)
    store = world.store()
    async with world.saver(store, manifest_format=reader) as saver:
        assert number_of(await saver.restore()) == 5
        counts = Counter(call.operation for call in store.calls)
        assert counts == {"get_into": 3, "list": 1, "get": 3 if reader == "proto" else 4}
        store.calls.clear()
        assert len(await saver.checkpoints()) == 5
    assert Counter(call.operation for call in store.calls) == {"list": 1, "get": 1 if reader == "proto" else 2}


async def test_the_first_save_of_a_root_looks_for_the_other_state_file_once() -> None:
    world = World()
    store = world.store()
    async with world.saver(store) as saver:
        for step in (1, 2, 3):
            await saver.save(state_of(step), step=step)
    assert store.count("head", "checkpoint.pb") == 1
    async with world.saver(store) as saver:
        await saver.save(state_of(4), step=4)
    assert store.count("head", "checkpoint.pb") == 1
    assert store.count("get", "checkpoint.pb") == 0


async def test_the_functions_read_it_without_being_told(nearby: Place) -> None:
    async with nearby.saver(**FORMAT, keep_checkpoint_every_n_hours=1) as saver:
        saved = await saver.save({"w": state_of(1)["weights"]}, step=1, metadata={"git": "4f2a9c1"})
    assert not [path for path in await nearby.paths() if path == "checkpoint.json"]
    latest = await latest_checkpoint(nearby.url)
    assert latest is not None
    assert (latest.save_id, latest.metadata) == (saved.save_id, {"git": "4f2a9c1"})
    state = await get_checkpoint_state(nearby.url)
    assert state is not None
    assert [one.step for one in state.checkpoints] == [1]
    assert state.last_preserved is not None
    assert await checkpoint_exists(f"{nearby.url}/ckpt-00000001")
    async with await open_checkpoint(f"{nearby.url}/ckpt-00000001") as reader:
        assert (await reader.read("w")).tolist() == state_of(1)["weights"].tolist()
        assert (await reader.verify()).tensors == 1


# --- damage ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "another's"])
async def test_a_damaged_body_is_named_and_nothing_else_suffers(damage: str) -> None:
    world = World()
    async with world.saver(**FORMAT) as saver:
        for step in (1, 2):
            await saver.save(state_of(step), step=step)
        body, other = await body_of(world, "ckpt-00000002"), await body_of(world, "ckpt-00000001")
        objects = await world.objects()
        whole = objects[body]
        await world.memory().put(
            body,
            {"flipped": whole[:-1] + b"\0", "cut": whole[:-1], "empty": b"", "another's": objects[other]}[damage],
        )
        for call in (saver.restore(), saver.restore(step=2), saver.open(2), saver.verify(), saver.latest()):
            with pytest.raises(ManifestError, match="damaged") as caught:
                await call
            assert caught.value.path == body
            assert f"{saver.url}/{body}: " in str(caught.value)
        assert number_of(await saver.restore(step=1)) == 1
        assert [one.step for one in await saver.checkpoints()] == [1, 2]
        await saver.save(state_of(20), step=2, overwrite=True)
        assert await numbers_of(saver) == {"ckpt-00000001": 1, "ckpt-00000002": 20}
        await saver.prune()
    await world.assert_nothing_unreferenced()


@pytest.mark.parametrize("manifest_format", FORMATS)
async def test_a_missing_body_is_corruption_and_the_checkpoint_can_be_deleted(manifest_format: str) -> None:
    world = World()
    async with world.saver(**FORMAT) as saver:
        for step in (1, 2, 3):
            await saver.save(state_of(step), step=step)
    for step in (1, 3):
        await world.memory().delete([await body_of(world, f"ckpt-0000000{step}")])
    async with world.saver(manifest_format=manifest_format, max_to_keep=2) as saver:
        for call in (saver.restore(), saver.restore(step=3), saver.verify(), saver.open(3)):
            with pytest.raises(CheckpointCorruptError, match=r"manifest\.pb: the manifest is missing") as caught:
                await call
            assert not isinstance(caught.value, ManifestError)
        report = await saver.prune()
        assert [one.step for one in report.deleted] == [1]
        assert not report.failed
        await saver.delete(3)
        assert number_of(await saver.restore()) == 2
        assert not (await saver.sweep(0)).leftovers
    await world.assert_nothing_unreferenced()


@pytest.mark.parametrize("restored", ["step", "checkpoint", "latest"])
async def test_a_checkpoint_whose_body_goes_while_it_is_found_was_deleted(restored: str) -> None:
    world = World()
    async with world.saver(**FORMAT) as saver:
        for step in (1, 2):
            await saver.save(state_of(step), step=step)
        latest = await saver.latest()

    async def delete() -> None:
        async with world.saver() as other:
            await other.delete(2)

    async with world.saver(world.store(at("get", "manifest.pb", Meanwhile(delete)))) as saver:
        if restored == "latest":
            assert number_of(await saver.restore()) == 1
            return
        arguments: Any = {"step": 2} if restored == "step" else {"checkpoint": latest}
        with pytest.raises(CheckpointDeletedError):
            await saver.restore(**arguments)


async def test_a_checkpoint_that_is_replaced_while_its_body_is_read_is_restored_anew() -> None:
    world = World()
    async with world.saver(**FORMAT) as saver:
        await saver.save(state_of(1), step=1)

    async def replace() -> None:
        async with world.saver(**FORMAT) as other:
            await other.save(state_of(2), step=1, overwrite=True)

    async with world.saver(world.store(at("get", "manifest.pb", Meanwhile(replace)))) as saver:
        assert number_of(await saver.restore(step=1)) == 2


# --- saves that fail -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fail(broken()), Fail(timed_out()), Fail(timed_out(), applied=True)])
async def test_a_body_that_cannot_be_written_fails_the_save(fault: Fail) -> None:
    world = World()
    store = world.store(at("put", "manifest.pb", fault))
    async with closing(world.saver(store, **FORMAT)) as saver:
        with pytest.raises(OSError, match=str(fault.error)):
            await saver.save(state_of(1), step=1)
        assert await world.objects() == {}
        await saver.save(state_of(1), step=1)
    assert await world.numbers() == {"ckpt-00000001": 1}


@pytest.mark.parametrize("first", FORMATS)
async def test_only_one_of_two_savers_with_different_formats_commits(first: str) -> None:
    world = World()
    second = next(other for other in FORMATS if other != first)
    hold = Hold()
    async with world.saver(world.store(at("create", "manifest.json", hold)), manifest_format=first) as slow:
        task = asyncio.create_task(slow.save(state_of(1), step=1))
        await hold.reached.wait()
        async with world.saver(manifest_format=second) as fast:
            await fast.save(state_of(2), step=1)
        hold.release.set()
        with pytest.raises(FileExistsError, match="was committed first"):
            await task
    assert await world.numbers() == {"ckpt-00000001": 2}
    await world.assert_nothing_unreferenced()


async def test_past_a_fence_for_others_it_commits_at_the_next_slot_with_the_body_it_has() -> None:
    world = World()

    async def fence() -> None:
        condemned = ["20300101T000000Z-0000000000000000"]
        await world.put_record(
            Aborted(name="ckpt-00000001", step=1, slot=0, created=world.time, writer="x", condemned=condemned)
        )

    async with world.saver(
        world.store(at("create", "ckpt-00000001/manifest.json", Meanwhile(fence))), **FORMAT
    ) as saver:
        assert (await saver.save(state_of(1), step=1)).slot == 1
        assert number_of(await saver.restore()) == 1
        assert (await saver.verify()).checkpoint.slot == 1


async def test_a_lost_reply_to_the_commit_is_settled_without_the_body() -> None:
    world = World()
    store = world.store(at("create", "ckpt-00000001/manifest.json", Fail(timed_out(), applied=True)))
    async with world.saver(store, **FORMAT) as saver:
        await saver.save(state_of(1), step=1)
    assert store.count("get", "manifest.pb") == 0
    assert await world.numbers() == {"ckpt-00000001": 1}
