"""A fault at every store call of savers of V1 files: TensorFlow finds each checkpoint whole or not at all."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest

from asyncsaver import Saver
from asyncsaver.errors import AsyncSaverError
from asyncsaver.store import Store

from ..doubles.everywhere import KINDS, script_of  # noqa: TID252 - test folders have no name
from ..doubles.scripted import Call, Fail, Fault, Script, nothing  # noqa: TID252
from ..doubles.world import World, closing, for_each, timed_out  # noqa: TID252
from .interrupted import THREE, Scenario, ckpt, is_refused
from .table_eyes import numbers_of, numbers_seen, state_of
from .tensorflow_eyes import in_memory, unretried

pytestmark = pytest.mark.filterwarnings("ignore:TensorFlow's V1 format:DeprecationWarning")


async def _twice(saver: Saver) -> None:
    await saver.save(state_of(4), step=4)
    await saver.save(state_of(5), step=5)


async def _again(saver: Saver) -> None:
    await saver.delete(2)
    await saver.save(state_of(20), step=2)


SCENARIOS: Mapping[str, Scenario] = {
    "first save": Scenario(lambda saver: saver.save(state_of(1), step=1), {}, ((ckpt(1), 1),)),
    "save with a sidecar": Scenario(
        lambda saver: saver.save(state_of(4), step=4, write_meta=b"meta"), THREE, ((ckpt(4), 4),)
    ),
    "overwrite": Scenario(lambda saver: saver.save(state_of(30), step=3, overwrite=True), THREE, ((ckpt(3), 30),)),
    "two saves and rotation": Scenario(
        _twice, THREE, ((ckpt(4), 4), (ckpt(5), 5)), frozenset({ckpt(1), ckpt(2), ckpt(3)}), 2
    ),
    "prune": Scenario(lambda saver: saver.prune(), THREE, (), frozenset({ckpt(1), ckpt(2)}), 1),
    "delete": Scenario(lambda saver: saver.delete(2), THREE, (), frozenset({ckpt(2)})),
    "delete and save again": Scenario(_again, THREE, ((ckpt(2), 0), (ckpt(2), 20))),
    "sweep": Scenario(lambda saver: saver.sweep(0), THREE),
}


def saver_of(world: World, store: Store, sharded: bool, max_to_keep: int | None = None) -> Saver:
    saver = Saver(
        world.url,
        format="tensorflow",
        write_version="v1",
        sharded=sharded,
        shard_bytes=50,
        max_to_keep=max_to_keep,
        commit_timeout=2,
        retry_timeout=0.3,
    )
    return unretried(saver, store)


async def populated(before: Mapping[str, int], sharded: bool) -> World:
    world = World()
    async with saver_of(world, world.memory(), sharded) as saver:
        for name, number in before.items():
            await saver.save(state_of(number), step=int(name[-8:]))
        # Three attempts have died: with their files, with some of them, and before there were any.
        if before:
            await _die(world, sharded, 1, 11, "part-00000.json")
            await _die(world, sharded, 3, 33, "/table")
            await _die(world, sharded, 9, 9, "/files-")
    return world


async def _die(world: World, sharded: bool, step: int, number: int, where: str) -> None:
    """A process that saves dies when it comes to a path."""
    dead = False

    def script(call: Call) -> Fault | None:
        nonlocal dead
        dead = dead or where in call.path
        return Fail(timed_out()) if dead else None

    saver = saver_of(world, world.store(script), sharded)
    with pytest.raises(AsyncSaverError):
        await saver.save(state_of(number), step=step, overwrite=True)
    saver._root.threads.close()


def watched(world: World, scenario: Scenario, script: Script) -> Script:
    """Look at what TensorFlow finds before every call."""

    def look(call: Call) -> Fault | None:
        for name, number in numbers_seen(in_memory(world.url)).items():
            assert number in scenario.allowed(name) | {0}, f"{name} holds {number} before {call}"
        return script(call)

    return look


async def run(world: World, scenario: Scenario, sharded: bool, kind: str, number: int) -> BaseException | None:
    tasks: list[asyncio.Task[Any]] = []
    script = nothing if number < 0 else script_of(kind, number, lambda: tasks[0])
    store = world.store(watched(world, scenario, script))
    async with closing(saver_of(world, store, sharded, scenario.max_to_keep)) as saver:

        async def act() -> None:
            await scenario.act(saver)

        tasks.append(asyncio.create_task(act()))
        try:
            await tasks[0]
        except (AsyncSaverError, asyncio.CancelledError) as error:
            return error
    return None


async def calls_of(scenario: Scenario, template: World, sharded: bool) -> int:
    world = template.copy()
    store = world.store()
    async with saver_of(world, store, sharded, scenario.max_to_keep) as saver:
        await scenario.act(saver)
        return len(store.calls)


async def assert_sound(world: World, scenario: Scenario, sharded: bool, outcome: BaseException | None) -> None:
    """Nothing was lost or torn, and all that has been committed is there for TensorFlow when anybody has been there."""
    seen = numbers_seen(in_memory(world.url))
    async with saver_of(world, world.memory(), sharded) as saver:
        found = await numbers_of(saver)
        for name in scenario.before.keys() | dict(scenario.commits).keys() | found.keys():
            new = {0} if name not in scenario.before else set()
            assert found.get(name, 0) in scenario.allowed(name) | new, f"{name} after {outcome!r}"
        if outcome is None:
            for name, number in scenario.after.items():
                assert found.get(name) == number, f"{name} after success"
        elif len(scenario.commits) == 1 and is_refused(outcome):
            assert found == scenario.before
        for name, number in seen.items():
            assert found.get(name, number) == number or (name, found[name]) in scenario.commits
        await saver.prune()
        assert numbers_seen(in_memory(world.url)) == found
        for name in found:
            await saver.verify(int(name[-8:]))
        await saver.save(state_of(70), step=7)
        assert await saver.restore() is not None
    # Months later nothing is left that belongs to no checkpoint.
    world.time += timedelta(days=40)
    async with saver_of(world, world.memory(), sharded) as saver:
        await saver.prune()
        await saver.sweep()
        world.time += timedelta(days=40)
        await saver.sweep()
        found = await numbers_of(saver)
    objects = in_memory(world.url)
    assert numbers_seen(objects) == found
    prefixes = {path.partition(".")[0].partition("-000")[0] for path in objects if "/" not in path}
    assert prefixes <= {"checkpoint", "ckpt"}
    loose = {
        path
        for path in objects
        if "/" not in path and path != "checkpoint" and path.partition(".")[0][:13] not in found
    }
    assert not loose


@pytest.mark.parametrize("sharded", [False, True], ids=["single", "sharded"])
@pytest.mark.parametrize("name", SCENARIOS)
async def test_left_alone_a_scenario_does_what_it_says(name: str, sharded: bool) -> None:
    scenario = SCENARIOS[name]
    world = await populated(scenario.before, sharded)
    assert await run(world, scenario, sharded, "", -1) is None
    assert numbers_seen(in_memory(world.url)) == scenario.after
    await assert_sound(world, scenario, sharded, None)


@pytest.mark.parametrize("sharded", [False, True], ids=["single", "sharded"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SCENARIOS)
async def test_items_033_and_060_to_062_a_fault_at_every_call(
    name: str, kind: str, sharded: bool, scale: Callable[[int, int], int]
) -> None:
    scenario = SCENARIOS[name]
    template = await populated(scenario.before, sharded)
    template.time += timedelta(days=2)

    async def check(number: int) -> None:
        world = template.copy()
        await assert_sound(world, scenario, sharded, await run(world, scenario, sharded, kind, number))

    numbers = range(await calls_of(scenario, template, sharded))
    chosen = random.Random(f"{name}{kind}{sharded}").sample(numbers, min(len(numbers), scale(3, 1000)))
    await for_each(chosen, check)
