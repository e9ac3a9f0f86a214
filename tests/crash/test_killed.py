"""A process that is killed, by SIGKILL, before or after every store operation, and at every system call on a disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from .grounds import S3, Disk, Ground, open_ground
from .killing import Killer, What
from .scenarios import SCENARIOS, Scenario, populate
from .soundness import assert_sound

pytestmark = [pytest.mark.torture, pytest.mark.slow, pytest.mark.timeout(900)]

Scale = Callable[[int, int], int]


async def killed_at(
    template: Ground, killer: Killer, what: What, chosen: int, scenarios: Sequence[Scenario] = SCENARIOS
) -> int:
    """Kill, look and go on, once for each chosen call; returns how many processes were killed."""
    async with open_ground(template) as store:
        await populate(store)
    return await killer.kill_each(template, what, chosen, scenarios, assert_sound)


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
