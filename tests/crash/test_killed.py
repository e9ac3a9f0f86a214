"""A process that is killed, by SIGKILL, before or after every store operation, and at every system call on a disk."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from ..doubles.world import for_each  # noqa: TID252 - test folders have no name
from .grounds import S3, Disk, Ground, open_ground
from .killing import Killer, What
from .scenarios import SCENARIOS, Scenario, populate
from .soundness import assert_sound

pytestmark = [pytest.mark.torture, pytest.mark.slow, pytest.mark.timeout(900)]

Scale = Callable[[int, int], int]


@dataclass(frozen=True, slots=True)
class Kill:
    """One process and where it dies."""

    scenario: Scenario
    what: What
    number: int
    applied: bool

    def __str__(self) -> str:
        return f"{self.scenario.name}, killed {'after' if self.applied else 'before'} {self.what} {self.number}"


async def kills_of(
    template: Ground, killer: Killer, what: What, scenarios: Sequence[Scenario], chosen: int
) -> list[Kill]:
    """All places to die in all scenarios, or so many of them, drawn with a fixed seed."""
    kills: list[Kill] = []
    for scenario in scenarios:
        count = await killer.calls(await template.copy(), scenario, what)
        assert count > 0, f"{scenario.name} makes no {what}"
        # System calls follow each other at once: after one is before the next.
        sides = (False, True) if what == "operation" else (False,)
        kills += [Kill(scenario, what, number, applied) for number in range(count) for applied in sides]
    return random.Random(chosen).sample(kills, min(len(kills), chosen))


async def killed_at(
    template: Ground, killer: Killer, what: What, chosen: int, scenarios: Sequence[Scenario] = SCENARIOS
) -> int:
    """Kill, look and go on, once for each chosen call; returns how many processes were killed."""
    async with open_ground(template) as store:
        await populate(store)
    kills = await kills_of(template, killer, what, scenarios, chosen)
    killed = 0

    async def check(kill: Kill) -> None:
        nonlocal killed
        ground = await template.copy()
        died = await killer.kill(ground, kill.scenario, what, kill.number, applied=kill.applied)
        killed += died
        await assert_sound(ground, kill.scenario, "killed" if died else None)

    await for_each(kills, check)
    assert killed > 0.3 * len(kills)  # how the shards race with each other may change how many calls there are
    return killed


async def test_killed_at_operations_on_a_disk(disk: Disk, killer: Killer, scale: Scale, figures: Any) -> None:
    figures.add("processes killed, local disk", await killed_at(disk, killer, "operation", scale(8, 10_000)))


async def test_killed_at_system_calls_on_a_disk(disk: Disk, killer: Killer, scale: Scale, figures: Any) -> None:
    killed = await killed_at(disk, killer, "system call", scale(8, 200))
    figures.add("processes killed at a system call, local disk", killed)


@pytest.mark.server
async def test_killed_at_operations_on_s3(s3: S3, killer: Killer, scale: Scale, figures: Any) -> None:
    scenarios = SCENARIOS[1 : scale(2, len(SCENARIOS))]
    killed = await killed_at(s3, killer, "operation", scale(2, 20), scenarios)
    figures.add("processes killed, S3", killed)
