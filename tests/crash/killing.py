"""Runs scenarios in processes that kill themselves at a given call."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from ..doubles.world import for_each  # noqa: TID252 - test folders have no name
from .grounds import Ground
from .scenarios import Scenario

REPOSITORY = Path(__file__).parents[2]
What = Literal["operation", "system call"]
Judge = Callable[[Ground, Scenario, BaseException | str | None], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Kill:
    """One process and where it dies."""

    scenario: Scenario
    what: What
    number: int
    applied: bool

    def __str__(self) -> str:
        return f"{self.scenario.name}, killed {'after' if self.applied else 'before'} {self.what} {self.number}"


class Killer:
    """Talks to a zygote (see there), whose forks die in its place."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.crash.zygote"),
            cwd=REPOSITORY,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},  # a fork has only the thread that forked
        )
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert await self._process.wait() == 0

    async def calls(self, ground: Ground, scenario: Scenario, what: What) -> int:
        """How many calls a scenario makes when it is left alone."""
        answer = await self._ask(ground, scenario, what=what, number=None, applied=False)
        assert answer["status"] == 0
        return int(answer["calls"])

    async def kill(self, ground: Ground, scenario: Scenario, what: What, number: int, *, applied: bool) -> bool:
        """Run a scenario in a process that kills itself; returns whether it got that far, and did."""
        answer = await self._ask(ground, scenario, what=what, number=number, applied=applied)
        assert answer["status"] in {0, -signal.SIGKILL}
        return bool(answer["status"])

    async def kill_each(
        self, template: Ground, what: What, chosen: int, scenarios: Sequence[Scenario], judge: Judge
    ) -> int:
        """Kill, look and go on, once for each chosen call; returns how many processes were killed.

        Args:
            template: what stands before; each process gets a copy.
            what: the calls at which they die.
            chosen: how many of those, drawn with a fixed seed.
            scenarios: what they do.
            judge: gets what a process has left, and how it ended.
        """
        kills: list[Kill] = []
        for scenario in scenarios:
            count = await self.calls(await template.copy(), scenario, what)
            assert count > 0, f"{scenario.name} makes no {what}"
            # System calls follow each other at once: after one is before the next.
            sides = (False, True) if what == "operation" else (False,)
            kills += [Kill(scenario, what, number, applied) for number in range(count) for applied in sides]
        kills = random.Random(chosen).sample(kills, min(len(kills), chosen))
        killed = 0

        async def check(kill: Kill) -> None:
            nonlocal killed
            ground = await template.copy()
            died = await self.kill(ground, kill.scenario, what, kill.number, applied=kill.applied)
            killed += died
            await judge(ground, kill.scenario, "killed" if died else None)

        await for_each(kills, check)
        assert killed > 0.3 * len(kills)  # how the shards race with each other may change how many calls there are
        return killed

    async def _ask(self, ground: Ground, scenario: Scenario, **job: Any) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        where = {
            "url": ground.url,
            "storage_options": dict(ground.storage_options),
            "part_bytes": ground.part_bytes,
            "scenario": scenario.name,
        }
        async with self._turn:
            self._process.stdin.write(json.dumps(where | job).encode() + b"\n")
            answer: dict[str, Any] = json.loads(await self._process.stdout.readline())
        return answer
