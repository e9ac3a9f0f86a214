"""Runs scenarios in processes that kill themselves at a given call."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from .grounds import Ground
from .scenarios import Scenario

REPOSITORY = Path(__file__).parents[2]
What = Literal["operation", "system call"]


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
