"""Savers with different manifest formats have state files of different names: one of them stands, and nothing is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asyncsaver import Saver
from asyncsaver.errors import AccessDeniedError
from asyncsaver.formats.encodings import STATE_FILES, decode_state
from asyncsaver.model.statefile import StateFile
from asyncsaver.store import Capabilities

from ..doubles.scripted import Fail, Meanwhile, always, at  # noqa: TID252 - no name to import by
from ..doubles.world import World, closing, numbers_of, state_of, timed_out  # noqa: TID252

FORMATS = ("json", "proto")
PLAIN = Capabilities(exclusive_create=True, compare_and_swap=False)
OTHER = {"json": "proto", "proto": "json"}
PATH = {"json": "checkpoint.json", "proto": "checkpoint.pb"}


def saver(world: World, manifest_format: str, **options: Any) -> Saver:
    return world.saver(manifest_format=manifest_format, **options)


async def states(world: World) -> dict[str, StateFile]:
    """Path → state file, of those that stand."""
    objects = await world.objects()
    return {path: decode_state(objects[path], path) for path in STATE_FILES.values() if path in objects}


async def listed(world: World) -> tuple[str, list[int]]:
    """Which state file stands, and the steps that it lists; there must be one only."""
    [(path, state)] = (await states(world)).items()
    return path, sorted(entry.step for entry in state.entries if entry.state == "committed" and entry.step is not None)


@pytest.mark.parametrize("first", FORMATS)
async def test_the_next_saver_takes_over_what_the_other_kind_has_listed(first: str) -> None:
    world = World()
    async with saver(world, first, keep_checkpoint_every_n_hours=1) as one:
        for step in (1, 2):
            await one.save(state_of(step), step=step)
        await one.pin(1)
        await one.delete(2)
    [before] = (await states(world)).values()
    async with saver(world, OTHER[first]) as other:
        await other.save(state_of(3), step=3)
    assert await listed(world) == (PATH[OTHER[first]], [1, 3])
    [after] = (await states(world)).values()
    assert after.last_preserved == before.last_preserved is not None
    assert [entry for entry in after.entries if entry.step != 3] == before.entries
    assert [entry.pinned for entry in after.entries if entry.step == 1] == [True]


@pytest.mark.parametrize("first", FORMATS)
async def test_two_that_save_in_turn_know_of_each_other(first: str) -> None:
    world = World()
    async with saver(world, first, max_to_keep=3) as one, saver(world, OTHER[first], max_to_keep=3) as other:
        for step in range(1, 9):
            await (one if step % 2 else other).save(state_of(step), step=step)
            steps = [max(1, step - 2), max(1, step - 1), step]
            assert await listed(world) == (PATH[first if step % 2 else OTHER[first]], sorted({*steps}))
        assert await numbers_of(one) == await numbers_of(other) == {f"ckpt-0000000{step}": step for step in (6, 7, 8)}
        assert [one.step for one in (await one.prune(dry_run=True)).deleted] == []
    await world.assert_nothing_unreferenced()


@pytest.mark.parametrize("first", FORMATS)
async def test_two_that_save_at_once_end_with_one_that_lists_everything(first: str) -> None:
    world = World()
    async with saver(world, first) as one, saver(world, OTHER[first]) as other:
        for step in (1, 3, 5):
            await asyncio.gather(one.save(state_of(step), step=step), other.save(state_of(step + 1), step=step + 1))
        await one.save(state_of(7), step=7)
    assert await listed(world) == (PATH[first], [*range(1, 8)])


@pytest.mark.parametrize("first", FORMATS)
async def test_two_first_savers_that_create_theirs_at_the_same_time_see_each_other(first: str) -> None:
    world = World()

    async def save() -> None:
        async with saver(world, OTHER[first]) as other:
            await other.save(state_of(2), step=2)

    store = world.store(at("create", PATH[first], Meanwhile(save)))
    async with saver(world, first, store=store) as one:
        await one.save(state_of(3), step=3)
    assert await listed(world) == (PATH[first], [2, 3])


async def left_behind(world: World, manifest_format: str) -> None:
    """A saver writes its state file, and dies before it removes that of the other kind."""
    store = world.store(always("delete", PATH[OTHER[manifest_format]], Fail(timed_out())))
    async with closing(saver(world, manifest_format, store=store)) as dying:
        saved = await dying.save(state_of(20), step=2, overwrite=True)
        assert saved.stats is not None
        assert saved.stats.state_file_error is not None
    assert len(await states(world)) == 2


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("next_one", FORMATS)
async def test_where_both_stand_the_stale_one_does_no_harm(first: str, next_one: str) -> None:
    world = World()
    async with saver(world, first) as one:
        for step in (1, 2, 3):
            await one.save(state_of(step), step=step)
        await left_behind(world, OTHER[first])
        for reader in FORMATS:
            async with saver(world, reader, read_only=True) as reading:
                found = await numbers_of(reading)
                latest = await reading.latest()
            assert found == {"ckpt-00000001": 1, "ckpt-00000002": 20, "ckpt-00000003": 3}
            assert latest is not None
            assert latest.step == 2
    async with saver(world, next_one, max_to_keep=2) as after:
        assert [item.step for item in (await after.prune(dry_run=True)).kept] == [3, 2]
        await after.save(state_of(4), step=4)
    assert await listed(world) == (PATH[next_one], [2, 4])
    await world.assert_nothing_unreferenced()


@pytest.mark.parametrize("first", FORMATS)
async def test_what_cannot_be_removed_is_told_and_tried_again(first: str) -> None:
    world = World()
    async with saver(world, first) as one:
        await one.save(state_of(1), step=1)
    store = world.store(at("delete", PATH[first], Fail(AccessDeniedError("not yours"))))
    async with saver(world, OTHER[first], store=store) as other:
        saved = await other.save(state_of(2), step=2)
        assert saved.stats is not None
        assert saved.stats.state_file_error == "not yours"
        assert len(await states(world)) == 2
        await other.save(state_of(3), step=3)
        assert await listed(world) == (PATH[OTHER[first]], [1, 2, 3])


@pytest.mark.parametrize("first", FORMATS)
async def test_who_is_overtaken_while_taking_over_looks_again(first: str) -> None:
    world = World()
    async with saver(world, first) as one:
        await one.save(state_of(1), step=1)

    async def save() -> None:
        async with saver(world, OTHER[first]) as faster:
            await faster.save(state_of(2), step=2)

    store = world.store(at("create", PATH[OTHER[first]], Meanwhile(save)))
    async with saver(world, OTHER[first], store=store) as other:
        await other.save(state_of(3), step=3)
    assert await listed(world) == (PATH[OTHER[first]], [1, 2, 3])


@pytest.mark.parametrize("first", FORMATS)
async def test_what_is_written_to_a_state_file_just_before_it_is_removed_is_not_lost(first: str) -> None:
    world = World()
    async with saver(world, first) as one:
        await one.save(state_of(1), step=1)

        async def save() -> None:
            await one.save(state_of(3), step=3)
            assert (await states(world))[PATH[first]].by_path().keys() >= {"ckpt-00000003/manifest.json"}

        store = world.store(at("delete", PATH[first], Meanwhile(save)))
        async with saver(world, OTHER[first], store=store) as other:
            await other.save(state_of(2), step=2)
    assert await listed(world) == (PATH[OTHER[first]], [1, 2, 3])


@pytest.mark.parametrize("first", FORMATS)
async def test_two_who_remove_what_the_other_has_made_make_it_again(first: str) -> None:
    world = World()
    async with saver(world, first) as one:
        await one.save(state_of(1), step=1)

    async def take_back() -> None:
        async with saver(world, first) as another:
            await another.save(state_of(3), step=3)
        assert [*await states(world)] == [PATH[first]]

    store = world.store(at("delete", PATH[first], Meanwhile(take_back)))
    async with saver(world, OTHER[first], store=store) as other:
        await other.save(state_of(2), step=2)
    assert await listed(world) == (PATH[OTHER[first]], [1, 2, 3])


@pytest.mark.parametrize("first", FORMATS)
async def test_stores_without_compare_and_swap(first: str) -> None:
    world = World()
    for step, manifest_format in enumerate([first, OTHER[first], first], 1):
        store = world.store(capabilities=PLAIN)
        async with saver(world, manifest_format, store=store, max_to_keep=2) as one:
            await one.save(state_of(step), step=step)
            await one.save(state_of(10 + step), step=step, overwrite=True)
    assert await listed(world) == (PATH[first], [2, 3])
    await world.assert_nothing_unreferenced()


@pytest.mark.parametrize("first", FORMATS)
@pytest.mark.parametrize("act", ["pin", "delete", "prune"])
async def test_what_is_done_by_hand_with_the_other_kind(first: str, act: str) -> None:
    world = World()
    async with saver(world, first, max_to_keep=3) as one:
        for step in (1, 2, 3):
            await one.save(state_of(step), step=step)
        async with saver(world, OTHER[first], max_to_keep=2) as other:
            match act:
                case "pin":
                    await other.pin(1)
                case "delete":
                    await other.delete(2)
                case _:
                    await other.prune()
        assert (await listed(world))[0] == PATH[OTHER[first]]
        await one.save(state_of(4), step=4)
        expected = {"pin": [1, 2, 3, 4], "delete": [1, 3, 4], "prune": [2, 3, 4]}[act]
        assert await listed(world) == (PATH[first], expected)
    await world.assert_nothing_unreferenced()


@pytest.mark.parametrize("first", FORMATS)
async def test_a_read_only_saver_writes_neither(first: str) -> None:
    world = World()
    async with saver(world, first) as one:
        await one.save(state_of(1), step=1)
    before = await world.objects()
    async with saver(world, OTHER[first], read_only=True) as reading:
        assert await numbers_of(reading) == {"ckpt-00000001": 1}
        assert [item.step for item in (await reading.prune(dry_run=True)).kept] == [1]
    assert await world.objects() == before
