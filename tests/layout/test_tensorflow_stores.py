"""TensorFlow's files on stores of every kind, and two savers at once on them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from asyncsaver import Saver
from asyncsaver.errors import (
    CheckpointCorruptError,
    CheckpointDeletedError,
    CheckpointExistsError,
    CommitUnknownError,
    UnsupportedStoreError,
)
from asyncsaver.layout import tensorflow_publish
from asyncsaver.tensorflow import get_checkpoint_state, latest_checkpoint

from ..doubles.scripted import Fail, Hold, Meanwhile, ScriptedStore, always, at  # noqa: TID252 - test folders have no name
from ..doubles.world import World, closing, number_of, state_of, timed_out  # noqa: TID252
from .tensorflow_eyes import in_memory, numbers_seen, unretried


@pytest.mark.parametrize(
    "kind",
    [
        "memory",
        "local",
        pytest.param("s3", marks=pytest.mark.server),
        pytest.param("gcs", marks=pytest.mark.server),
        pytest.param("azure", marks=pytest.mark.server),
    ],
)
async def test_the_whole_life_of_checkpoints_in_every_store(request: pytest.FixtureRequest, kind: str) -> None:
    root = request.getfixturevalue(f"{kind}_root")
    options: dict[str, Any] = {"storage_options": root.storage_options or None}
    async with Saver(root.url, **options, format="tensorflow", max_to_keep=2, shard_bytes=1) as saver:
        for number in (1, 2, 3):
            await saver.save(state_of(number), step=number)
        with pytest.raises(CheckpointExistsError):
            await saver.save(state_of(4), step=3)
        await saver.save(state_of(4), step=3, overwrite=True, write_meta=b"meta")
        assert [one.step for one in await saver.checkpoints()] == [2, 3]
        assert number_of(await saver.restore()) == 4
        await saver.verify(3)
        await saver.pin(2)
        await saver.save(state_of(5), step=5)
        await saver.save(state_of(6), step=6)
        assert [one.step for one in await saver.checkpoints()] == [2, 5, 6]
        assert not (await saver.sweep(0)).leftovers
    state = await get_checkpoint_state(root.url, **options)
    assert state is not None
    assert [path.rpartition("-")[2] for path in state.paths] == ["00000002", "00000005", "00000006"]
    assert await latest_checkpoint(root.url, **options) == state.latest


async def test_a_store_that_creates_nothing_exclusively_takes_one_writer() -> None:
    world = World()
    memory = world.memory()
    plain = replace(memory.capabilities, exclusive_create=False, compare_and_swap=False)
    store = ScriptedStore(memory, etags=False, keeps_exclusive=False, capabilities=plain)
    async with Saver(store, format="tensorflow") as saver:
        with pytest.raises(UnsupportedStoreError, match="single_writer"):
            await saver.save(state_of(1), step=1)
    async with Saver(store, format="tensorflow", single_writer=True, max_to_keep=1) as saver:
        await saver.save(state_of(1), step=1)
        await saver.save(state_of(2), step=1, overwrite=True)
        await saver.save(state_of(3), step=3)
        assert [one.step for one in await saver.checkpoints()] == [3]
        assert number_of(await saver.restore()) == 3
        await saver.sweep(0)
    assert {path for path in in_memory(world.url) if not path.startswith(".asyncsaver/")} == {
        "checkpoint",
        "ckpt-00000003.data-00000-of-00001",
        "ckpt-00000003.index",
    }


async def test_one_of_two_savers_wins_and_nothing_of_it_is_touched() -> None:
    world = World()
    hold = Hold()
    slow = unretried(Saver(world.url, format="tensorflow"), world.store(at("create", "ckpt-00000001/manifest", hold)))
    async with closing(slow), Saver(world.url, format="tensorflow") as fast:
        losing = asyncio.create_task(slow.save(state_of(1), step=1))
        await hold.reached.wait()
        await fast.save(state_of(2), step=1)
        before = {path: data for path, data in in_memory(world.url).items() if not path.startswith(".asyncsaver/")}
        assert "ckpt-00000001.data-00000-of-00002" in before, "each has names of its own"
        hold.release.set()
        with pytest.raises(CheckpointExistsError):
            await losing
        after = {path: data for path, data in in_memory(world.url).items() if not path.startswith(".asyncsaver/")}
    assert after == {path: data for path, data in before.items() if path != "ckpt-00000001.data-00000-of-00001"}
    assert numbers_seen(after) == {"ckpt-00000001": 2}


async def test_a_commit_that_could_not_be_published_does_not_fail_the_save_and_is_published_by_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tensorflow_publish, "_TRIES", 4)  # all of them take some seconds
    world = World()
    store = world.store(always("create", ".index", Fail(timed_out())))
    saver = unretried(Saver(world.url, format="tensorflow"), store)
    saved = await saver.save(state_of(1), step=1)
    assert saved.stats is not None
    assert "attempts to write it" in (saved.stats.state_file_error or "")
    assert not numbers_seen(in_memory(world.url))
    assert number_of(await saver.restore()) == 1, "ours is there already"
    store.script = lambda call: None
    await saver.close()
    assert numbers_seen(in_memory(world.url)) == {"ckpt-00000001": 1}
    assert await latest_checkpoint(world.url) == f"{world.url}/ckpt-00000001"


async def test_a_publishing_that_fails_for_good_is_raised_by_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tensorflow_publish, "_TRIES", 4)  # as above
    world = World()
    store = world.store(always("create", ".index", Fail(timed_out())))
    saver = unretried(Saver(world.url, format="tensorflow"), store)
    await saver.save(state_of(1), step=1)
    with pytest.raises(Exception, match="attempts to write it"):
        await saver.close()
    async with Saver(world.url, format="tensorflow") as other:
        await other.save(state_of(2), step=2)
    assert numbers_seen(in_memory(world.url)) == {"ckpt-00000001": 1, "ckpt-00000002": 2}


async def test_a_commit_that_may_have_gone_through_keeps_its_data() -> None:
    world = World()
    store = world.store(lambda call: Fail(timed_out(), applied=True) if "manifest.json" in call.path else None)
    saver = unretried(Saver(world.url, format="tensorflow", commit_timeout=0.5), store)
    async with closing(saver):
        with pytest.raises(CommitUnknownError):
            await saver.save(state_of(1), step=1)
    async with Saver(world.url, format="tensorflow") as other:
        assert number_of(await other.restore()) == 1
        await other.prune()
    assert numbers_seen(in_memory(world.url)) == {"ckpt-00000001": 1}


async def test_restoring_goes_on_with_the_next_one_when_it_is_deleted_meanwhile() -> None:
    world = World()
    async with Saver(world.url, format="tensorflow") as saver:
        for number in (1, 2):
            await saver.save(state_of(number), step=number)

        async def delete() -> None:
            await saver.delete(2)

        store = world.store(at("get_into", "ckpt-00000002.data", Meanwhile(delete)))
        async with closing(unretried(Saver(world.url, format="tensorflow"), store)) as reader:
            assert number_of(await reader.restore()) == 1
            with pytest.raises(CheckpointDeletedError):
                await reader.restore(step=2)


async def test_damage_is_named_and_is_no_deletion() -> None:
    world = World()
    async with Saver(world.url, format="tensorflow", shard_bytes=1) as saver:
        await saver.save(state_of(1), step=1)
        path = "ckpt-00000001.data-00000-of-00004"
        data = (await world.memory().get(path)).data
        await world.memory().put(path, data[:-1])
        with pytest.raises(CheckpointCorruptError, match=f"{path} has 47 bytes, its manifest says 48; in it: weights"):
            await saver.restore()
        await world.memory().delete([path])
        with pytest.raises(CheckpointCorruptError, match=f"{path} is missing"):
            await saver.restore(step=1)
        assert (await saver.restore(select="bias"))["bias"].tolist() == [1] * 5
        await world.memory().put(path, bytes(len(data)))
        with pytest.raises(CheckpointCorruptError, match="weights"):
            await saver.verify(1)


async def test_a_save_makes_few_requests() -> None:
    world = World()
    store = world.store()
    async with unretried(Saver(world.url, format="tensorflow", single_writer=True), store) as saver:
        await saver.save({"w": np.ones(3)}, step=1)
        before = len(store.calls)
        await saver.save({"w": np.ones(3)}, step=2)
        assert len(store.calls) - before <= 18


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff garbage"], ids=["empty", "another", "garbage"])
async def test_damage_beside_one_record_hinders_no_other_checkpoint(content: bytes) -> None:
    template = World()
    async with Saver(template.url, format="tensorflow") as saver:
        for number in (1, 2):
            await saver.save(state_of(number), step=number, write_meta=b"meta")
    beside = [path for path in in_memory(template.url) if path.startswith(".asyncsaver/ckpt-00000002/")]
    assert len(beside) == 6
    for path in beside:
        if path.endswith("manifest.json"):
            continue  # a record of ours, whose damage is looked at elsewhere
        world = template.copy()
        await world.memory().put(path, content)
        async with Saver(world.url, format="tensorflow", max_to_keep=2) as saver:
            assert number_of(await saver.restore()) == 2, f"{path}: P.index says all that is needed"
            await saver.prune()
            await saver.save(state_of(20), step=2, overwrite=True)
            await saver.save(state_of(3), step=3)
            await saver.save(state_of(4), step=4)
            await saver.sweep(0)
            assert [one.step for one in await saver.checkpoints()] == [3, 4]
        assert numbers_seen(in_memory(world.url)).items() >= {"ckpt-00000003": 3, "ckpt-00000004": 4}.items()


@pytest.mark.parametrize("where", [0, 20, -60, -1])
async def test_a_damaged_index_is_read_from_its_copy_and_healed(where: int) -> None:
    world = World()
    async with Saver(world.url, format="tensorflow") as saver:
        await saver.save(state_of(1), step=1)
        index = bytearray((await world.memory().get("ckpt-00000001.index")).data)
        index[where] ^= 1
        await world.memory().put("ckpt-00000001.index", bytes(index))
        assert number_of(await saver.restore()) == 1
        await saver.verify(1)
