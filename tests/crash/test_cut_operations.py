"""A fault at every store operation of every scenario, on memory, a local disk and S3."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from asyncsaver import Saver
from asyncsaver.errors import AsyncSaverError

from ..doubles.scripted import Cancel, Fail, Script, ScriptedStore, from_nth, nothing, nth  # noqa: TID252 - no package
from ..doubles.world import broken, closing, for_each, timed_out, unretried  # noqa: TID252
from .grounds import S3, Ground, open_ground
from .scenarios import SCENARIOS, Scenario, numbers_of, saver_for
from .soundness import assert_sound

pytestmark = [pytest.mark.torture, pytest.mark.slow, pytest.mark.timeout(1200)]

KINDS = ("refused", "dies", "lost request", "lost reply", "cancelled before", "cancelled after")
Scale = Callable[[int, int], int]


@dataclass(frozen=True, slots=True)
class Cut:
    """One run, and what happens to which of its operations."""

    scenario: Scenario
    kind: str
    number: int

    def __str__(self) -> str:
        return f"{self.scenario.name}, {self.kind} at operation {self.number}"


def script_of(cut: Cut, task: Callable[[], asyncio.Task[Any]]) -> Script:
    match cut.kind:
        case "refused":
            return nth(cut.number, Fail(broken()))
        case "dies":
            return from_nth(cut.number, timed_out)
        case "lost request":
            return nth(cut.number, Fail(timed_out()))
        case "lost reply":
            return nth(cut.number, Fail(timed_out(), applied=True))
        case "cancelled before":
            return nth(cut.number, Cancel(task))
        case _:
            return nth(cut.number, Cancel(task, applied=True))


async def operations_of(ground: Ground, scenario: Scenario) -> int:
    async with open_ground(ground) as inner:
        store = ScriptedStore(inner, nothing)
        async with unretried(saver_for(scenario, store), store) as saver:
            await scenario.action(saver, ground.part_bytes)
            return len(store.calls)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_left_alone_a_scenario_does_what_it_says(populated_near: Ground, scenario: Scenario) -> None:
    assert await operations_of(populated_near, scenario) > 5
    async with Saver(open_ground(populated_near)) as saver:
        assert await numbers_of(saver) == scenario.after
    await assert_sound(populated_near, scenario, None)


async def interrupted(ground: Ground, cut: Cut) -> BaseException | None:
    """Run a scenario with a cut; returns how it failed, if it did."""
    tasks: list[asyncio.Task[Any]] = []
    async with open_ground(ground) as inner:
        store = ScriptedStore(inner, script_of(cut, lambda: tasks[0]))
        async with closing(unretried(saver_for(cut.scenario, store), store)) as saver:

            async def act() -> None:
                await cut.scenario.action(saver, ground.part_bytes)

            tasks.append(asyncio.create_task(act()))
            try:
                await tasks[0]
            except (AsyncSaverError, asyncio.CancelledError) as error:
                return error
    return None


async def cut_all(template: Ground, scenarios: Sequence[Scenario], chosen: int, figures: Any) -> None:
    """Run scenarios again and again, each time with another cut, and look what is left; so many of all the cuts there are."""
    cuts = [
        Cut(scenario, kind, number)
        for scenario in scenarios
        for number in range(await operations_of(await template.copy(), scenario))
        for kind in KINDS
    ]

    async def check(cut: Cut) -> None:
        ground = await template.copy()
        await assert_sound(ground, cut.scenario, await interrupted(ground, cut))
        figures.add(f"operations cut, {ground.name}")

    await for_each(random.Random(chosen).sample(cuts, min(chosen, len(cuts))), check)


async def test_a_fault_at_every_operation(populated_near: Ground, scale: Scale, figures: Any) -> None:
    # Of some 2000: all of them in memory; on a disk each takes a third of a second.
    chosen = scale(30, 10_000) if populated_near.name == "memory" else scale(8, 100)
    await cut_all(populated_near, SCENARIOS, chosen, figures)


@pytest.mark.server
async def test_a_fault_at_operations_on_s3(populated_s3: S3, scale: Scale, figures: Any) -> None:
    # A run over HTTP, with all that is looked at afterwards, takes a second or two.
    await cut_all(populated_s3, SCENARIOS[1 : scale(2, len(SCENARIOS))], scale(2, 40), figures)
