"""A trainer in a process of its own, which its parent can watch and kill."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from digits.trainer import Settings

SCRIPT = Path(__file__).resolve().parent.parent / "train_digits.py"


class TrainerProcess:
    """Runs ``train_digits.py --train-only``; leaving the ``async with`` block leaves no process behind.

    Args:
        settings: of the training.
        environment: added to this process's own, for credentials.
    """

    def __init__(self, settings: Settings, environment: Mapping[str, str]) -> None:
        self._settings = settings
        # One thread in the linear algebra: the order of additions, and so every bit of the result, is then fixed.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._environment = {**os.environ, **threads, **environment}
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        settings = self._settings
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(SCRIPT), "--train-only", "--url", settings.url, "--steps", str(settings.steps)),
            *("--save-every", str(settings.save_every), "--seed", str(settings.seed)),
            *("--hidden", str(settings.hidden)),
            stdout=PIPE,
            start_new_session=True,  # Ctrl-C is for the parent, which ends this process itself
            env=self._environment,
        )
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.kill()
        await self.wait()

    @property
    def _running(self) -> Process:
        if self._process is None:
            raise RuntimeError("enter the process first")
        return self._process

    def kill(self) -> None:
        """Send SIGKILL, if it still runs: nothing in it gets a chance to clean up."""
        if self._running.returncode is None:
            self._running.kill()

    async def wait(self) -> int:
        """Read what is left of its output, wait for its end, and return its exit code (negative: the signal)."""
        output = self._running.stdout
        if output is not None:
            await output.read()
        return await self._running.wait()

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Yield what the trainer emits, as it comes, to the end of its output."""
        output = self._running.stdout
        if output is None:
            return
        # A killed process may leave half a line; what has no end of line was never said.
        while (line := await output.readline()).endswith(b"\n"):
            yield json.loads(line)
