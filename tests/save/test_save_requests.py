"""What a save and a restore cost in requests, and what a store has to promise before anything is saved."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from asyncsaver.errors import StoreTimeoutError, UnsupportedStoreError
from asyncsaver.store import Capabilities

from ..doubles.scripted import Fail, Hold, always, at  # noqa: TID252 - no name to import by
from ..doubles.world import World, number_of, state_of, timed_out  # noqa: TID252

WEAK = Capabilities(exclusive_create=False, compare_and_swap=False)


async def test_a_save_in_the_steady_state() -> None:
    world = World()
    store = world.store()
    async with world.saver(store) as saver:
        await saver.save(state_of(1), step=1)
        store.calls.clear()
        await saver.save(state_of(2), step=2)
    writes = [call.path.rpartition("/")[2] for call in store.calls if call.operation in {"put", "create", "replace_if"}]
    shards = [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]
    assert sorted(writes) == sorted(
        [*shards, "part-00000.json", "model.safetensors.index.json", "manifest.json", "checkpoint.json"]
    )
    counts = Counter(call.operation for call in store.calls)
    assert counts == {"put": 5, "create": 1, "replace_if": 1, "list": 2}


@pytest.mark.parametrize("parts", [False, True])
async def test_nothing_is_put_before_it_is_known_that_the_step_is_free(parts: bool) -> None:
    world = World()
    look = Hold()
    capabilities = Capabilities(True, True, part_bytes=8) if parts else None
    store = world.store(at("list", "ckpt-00000001/", look), capabilities=capabilities)
    async with world.saver(store) as saver:
        task = asyncio.create_task(saver.save(state_of(1), step=1))
        await look.reached.wait()
        while not parts and not saver._root.budget.used:  # noqa: ASYNC110 - the first shards are being prepared
            await asyncio.sleep(0)
        for _ in range(100):
            await asyncio.sleep(0)
        asked = [call.path for call in store.calls if "safetensors" in call.path]
        look.release.set()
        await task
    assert asked == []
    assert await world.numbers() == {"ckpt-00000001": 1}


async def test_pruning_one_checkpoint() -> None:
    world = World()
    store = world.store()
    async with world.saver(store, max_to_keep=1) as saver:
        await saver.save(state_of(1), step=1)
        store.calls.clear()
        await saver.save(state_of(2), step=2)
    assert await world.numbers() == {"ckpt-00000002": 2}
    saving = {"put": 5, "create": 1, "replace_if": 1, "list": 2}
    pruning = {
        "list": 2,
        "get": 1,
        "replace_if": 2,
        "delete": 1,
    }  # a look, a tombstone, the files, a look, the state file
    counts = Counter(call.operation for call in store.calls)
    assert counts == Counter(saving) + Counter(pruning)


async def test_restoring_the_latest() -> None:
    world = World()
    async with world.saver() as saver:
        for step in range(1, 6):
            await saver.save(state_of(step), step=step)
    store = world.store()
    async with world.saver(store) as saver:
        assert number_of(await saver.restore()) == 5
    counts = Counter(call.operation for call in store.calls)
    assert counts.pop("get_into") == 3
    assert counts == {"list": 1, "get": 2}


async def test_listing_costs_no_request_for_each_checkpoint() -> None:
    world = World()
    async with world.saver() as saver:
        for step in range(1, 6):
            await saver.save(state_of(step), step=step)
    store = world.store()
    async with world.saver(store) as saver:
        assert len(await saver.checkpoints()) == 5
    assert Counter(call.operation for call in store.calls) == {"list": 1, "get": 1}


async def test_the_store_is_probed_once() -> None:
    world = World()
    store = world.store()
    async with world.saver(store) as saver:
        await saver.save(state_of(1), step=1)
        probes = store.count("create", ".asyncsaver-probe/")
        await saver.save(state_of(2), step=2)
    assert probes > 2
    assert store.count("create", ".asyncsaver-probe/") == probes
    assert not [path for path in await world.objects() if "probe" in path]


@pytest.mark.parametrize("lies", [True, False])
async def test_without_exclusive_creation_saving_needs_a_single_writer(lies: bool) -> None:
    world = World()
    capabilities = None if lies else WEAK
    store = world.store(keeps_exclusive=False, capabilities=capabilities)
    async with world.saver(store) as saver:
        with pytest.raises(UnsupportedStoreError, match="single_writer=True"):
            await saver.save(state_of(1), step=1)
    assert await world.objects() == {}
    async with world.saver(store, single_writer=True, max_to_keep=2) as saver:
        for number in (1, 2, 3):
            await saver.save(state_of(number), step=number)
        await saver.save(state_of(30), step=3, overwrite=True)
        await saver.sweep(0)
        assert number_of(await saver.restore()) == 30
    assert await world.numbers() == {"ckpt-00000002": 2, "ckpt-00000003": 30}
    await world.assert_nothing_unreferenced()


async def test_a_store_that_cannot_be_probed_is_not_called_unsupported() -> None:
    world = World()
    store = world.store(always("create", "probe", Fail(timed_out(), applied=True)))
    async with world.saver(store, retry_timeout=0.1) as saver:
        with pytest.raises(StoreTimeoutError):
            await saver.save(state_of(1), step=1)
    assert store.count("create", "probe") > 1
    assert store.count("delete") == 1  # however often it was tried
    assert await world.objects() == {}


async def test_a_probe_is_not_repeated_for_what_the_store_has_sent_again_by_itself() -> None:
    world = World()
    store = world.store(always("get", "probe", Fail(timed_out())))
    async with world.saver(store) as saver:
        with pytest.raises(StoreTimeoutError):
            await saver.save(state_of(1), step=1)
    assert store.count("get", "probe") == 1
    assert await world.objects() == {}


async def test_a_probe_that_was_not_answered_is_tried_again_under_another_name() -> None:
    world = World()
    lost = [Fail(timed_out(), applied=True), Fail(timed_out())]
    store = world.store(at("create", "probe", *lost))
    async with world.saver(store) as saver:
        await saver.save(state_of(1), step=1)
    created = [call.path for call in store.calls if call.operation == "create"]
    assert len(set(created[:3])) == 3
    assert not [path for path in await world.objects() if "probe" in path]
