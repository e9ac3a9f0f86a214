"""A fault at every store call of whatever changes a root: checkpoints stay whole, and nothing is left for good."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from asyncsaver import Saver
from asyncsaver.errors import AsyncSaverError, CommitUnknownError

from ..doubles.everywhere import KINDS, script_of  # noqa: TID252 - test folders have no name
from ..doubles.scripted import Call, Fail  # noqa: TID252 - test folders have no name
from ..doubles.world import World, broken, closing, for_each, number_of, numbers_of, state_of  # noqa: TID252

pytestmark = pytest.mark.slow  # some 1300 interrupted runs

Action = Callable[[Saver], Awaitable[Any]]


BEFORE = {f"ckpt-{step:08d}": step for step in (1, 2, 3, 4)}


def ckpt(step: int) -> str:
    return f"ckpt-{step:08d}"


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is done on a root that holds steps 1 to 4, each with the state of that number.

    Attributes:
        name: for the test's id.
        action: what is interrupted.
        allowed: checkpoint name → numbers it may hold afterwards; 0 for not there.
        done: whether the checkpoints found are those of an action that has succeeded.
        fails_clean: an error, other than that the outcome is unknown, means that nothing has changed.
    """

    name: str
    action: Action
    allowed: dict[str, set[int]]
    done: Callable[[dict[str, int]], bool] = lambda found: True
    fails_clean: bool = False


SCENARIOS = [
    Scenario(
        "save",
        lambda saver: saver.save(state_of(50), step=5),
        {ckpt(5): {0, 50}},
        done=lambda found: found.get(ckpt(5)) == 50,
        fails_clean=True,
    ),
    Scenario(
        "save pinned",
        lambda saver: saver.save(state_of(50), step=5, pin=True),
        {ckpt(5): {0, 50}},
        done=lambda found: found.get(ckpt(5)) == 50,
        fails_clean=True,
    ),
    Scenario(
        "overwrite",
        lambda saver: saver.save(state_of(40), step=4, overwrite=True),
        {ckpt(4): {4, 40}},
        done=lambda found: found[ckpt(4)] == 40,
        fails_clean=True,
    ),
    Scenario(
        "delete",
        lambda saver: saver.delete(3),
        {ckpt(3): {0, 3}},
        done=lambda found: ckpt(3) not in found,
    ),
    Scenario("pin", lambda saver: saver.pin(2), {}),
    Scenario("unpin", lambda saver: saver.unpin(1), {}),
    # Step 3 was committed last, by the overwrite.
    Scenario(
        "prune",
        lambda saver: saver.prune(),
        {ckpt(2): {0, 2}, ckpt(4): {0, 4}},
    ),
    Scenario("sweep", lambda saver: saver.sweep(0), {}),
]


async def populated() -> World:
    """Steps 1 (pinned) to 4, 3 overwritten and its replaced slot still there, and a dead attempt at step 4 and at 6."""
    world = World()
    async with world.saver() as saver:
        for step in (1, 2, 4):
            await saver.save(state_of(step), step=step)
        await saver.save(state_of(1000), step=3)
        await saver.pin(1)
    await world.memory().put("ckpt-00000004/20200101T000000Z-0123456789abcdef/part-00000.json", b"dead")
    await world.memory().put("ckpt-00000006/20200101T000000Z-0123456789abcdee/part-00000.json", b"dead")
    # The replaced slot stays: the saver that overwrites dies before it prunes.
    store = world.store(lambda call: Fail(broken()) if call.operation == "replace_if" else None)
    async with closing(world.saver(store)) as saver:
        await saver.save(state_of(3), step=3, overwrite=True)
    return world


def saver_for(scenario: Scenario, world: World, store: Any) -> Saver:
    keep = 1 if scenario.name == "prune" else None
    return world.saver(store, max_to_keep=keep, commit_timeout=0.3, retry_timeout=0.3)


async def calls_of(scenario: Scenario, world: World) -> list[Call]:
    store = world.store()
    async with saver_for(scenario, world, store) as saver:
        await scenario.action(saver)
        return list(store.calls)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_a_fault_at_every_call(scenario: Scenario, kind: str) -> None:
    template = await populated()

    async def check(call: Call) -> None:
        world = template.copy()
        tasks: list[asyncio.Task[Any]] = []
        store = world.store(script_of(kind, call.number, lambda: tasks[0]))
        outcome: BaseException | None = None
        async with closing(saver_for(scenario, world, store)) as saver:
            tasks.append(asyncio.ensure_future(scenario.action(saver)))
            try:
                await tasks[0]
            except (AsyncSaverError, asyncio.CancelledError) as error:
                outcome = error
        await assert_sound(world, scenario, outcome)

    await for_each(await calls_of(scenario, template.copy()), check)


async def assert_sound(world: World, scenario: Scenario, outcome: BaseException | None) -> None:
    async with world.saver() as saver:
        found = await numbers_of(saver)
        for name in BEFORE.keys() | scenario.allowed.keys() | found.keys():
            allowed = scenario.allowed.get(name, {BEFORE.get(name, 0)})
            assert found.get(name, 0) in allowed, f"{name} holds {found.get(name, 0)} after {outcome!r}"
        if outcome is None:
            assert scenario.done(found)
        elif isinstance(outcome, AsyncSaverError) and not isinstance(outcome, CommitUnknownError):
            assert not scenario.done(found) or not scenario.fails_clean, f"done, in spite of {outcome!r}"
        # Life goes on: another saver saves, restores, prunes and cleans up.
        await saver.save(state_of(70), step=7)
        assert number_of(await saver.restore()) == 70
        report = await saver.prune()
        assert not report.failed
        await saver.sweep(0)
        assert not (await saver.sweep(0)).leftovers
        assert await numbers_of(saver) == {**found, ckpt(7): 70}
    await world.assert_nothing_unreferenced()


async def test_the_enumerated_calls_are_those_of_the_protocol() -> None:
    operations = [call.operation for call in await calls_of(SCENARIOS[0], await populated())]
    assert operations.count("put") >= 5  # three shards, part, index
    assert "create" in operations
    assert "replace_if" in operations
