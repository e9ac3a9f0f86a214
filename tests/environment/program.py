"""A process of its own that saves under a root, for tests of what signals, forks and limits do to it.

    python program.py WHAT URL OPTIONS

OPTIONS are the storage options as JSON. It writes what happened as lines of JSON.
"""
# ruff: noqa: ASYNC240 - what blocks here keeps nobody waiting

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from asyncsaver import Progress, Saver
from asyncsaver.errors import AsyncSaverError

SHARDS = 4


def state(number: int, nbytes: int = 4096) -> dict[str, Any]:
    return {f"tensor{index}": np.full(nbytes, (number + index) % 251, dtype=np.uint8) for index in range(SHARDS)}


def tell(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


class Moment:
    """A progress callback that does something at its n-th call."""

    def __init__(self, number: int, what: Callable[[], None]) -> None:
        self.left = number
        self.reached = False
        self.phase = ""
        self._what = what

    def __call__(self, progress: Progress) -> None:
        self.left -= 1
        if self.left == 0:
            self.reached = True
            self.phase = progress.phase
            self._what()


def make(url: str, options: dict[str, Any], **arguments: Any) -> Saver:
    return Saver(url, storage_options=options or None, shard_bytes=1, max_to_keep=None, **arguments)


async def attempt(saver: Saver, step: int, nbytes: int = 4096) -> tuple[str, str]:
    """Save; returns what came of it, and the message."""
    try:
        await saver.save(state(step, nbytes), step=step)
    except asyncio.CancelledError:
        return "CancelledError", ""
    except AsyncSaverError as error:
        return type(error).__name__, str(error)
    return "committed", ""


async def stops(url: str, options: dict[str, Any], moments: Sequence[int] = range(1, 1000)) -> None:
    """Save step 2 again and again, each time under another root and stopped at a later moment, until none is left."""
    for number in moments:
        moment = Moment(number, lambda: os.kill(os.getpid(), signal.SIGSTOP))
        root = f"{url}/{number}"
        async with make(root, options) as saver:
            await saver.save(state(1), step=1)
        async with make(root, options, progress=moment) as saver:
            outcome, message = await attempt(saver, 2)
        tell(root=root, outcome=outcome, message=message, reached=moment.reached, phase=moment.phase)
        if not moment.reached:
            return


async def terminated(url: str, options: dict[str, Any]) -> None:
    """The same, with SIGTERM as a program handles it that wants to end cleanly."""
    for number in range(1, 1000):
        moment = Moment(number, lambda: os.kill(os.getpid(), signal.SIGTERM))
        root = f"{url}/{number}"
        async with make(root, options) as saver:
            await saver.save(state(1), step=1)
        async with make(root, options, progress=moment) as saver:
            task = asyncio.create_task(attempt(saver, 2))
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
            try:
                outcome, message = await task
            except asyncio.CancelledError:
                outcome, message = "CancelledError", "before it began"
        tell(root=root, outcome=outcome, message=message, reached=moment.reached, phase=moment.phase)
        if not moment.reached:
            return


async def stops_seldom(url: str, options: dict[str, Any]) -> None:
    """The same, stopped only just before the commit."""
    await stops(url, options, moments=[SHARDS + 2, 1000])


async def forks(url: str, options: dict[str, Any]) -> None:
    """Fork in the middle of each save; the child tries the parent's saver, then saves with one of its own."""
    for number in range(1, 1000):
        statuses: list[int] = []

        def fork(number: int = number, statuses: list[int] = statuses) -> None:
            child = os.fork()
            if child == 0:
                os._exit(_in_child(saver, url, options, 1000 + number))
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))

        moment = Moment(number, fork)
        async with make(url, options, progress=moment) as saver:
            outcome, message = await attempt(saver, number)
        tell(outcome=outcome, message=message, reached=moment.reached, child=statuses)
        if not moment.reached:
            return


def _in_child(parents: Saver, url: str, options: dict[str, Any], step: int) -> int:
    async def use() -> int:
        outcome, _ = await attempt(parents, step)
        if outcome != "WrongLoopError":
            return 1
        async with make(url, options) as own:
            outcome, _ = await attempt(own, step)
        return 0 if outcome == "committed" else 2

    try:
        return asyncio.run(use())
    except BaseException:  # noqa: BLE001 - the stack is a copy of the parent's, and must not be unwound
        traceback.print_exc()
        return 3


async def few_files(url: str, options: dict[str, Any]) -> None:
    """Save with room for ever more open files, from none at all."""
    async with make(url, options) as saver:
        await saver.save(state(0), step=0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for room in range(16):
        async with make(url, options) as saver:
            await saver.latest()  # its threads are there
            highest = max(
                int(entry.name) for entry in Path("/proc/self/fd").iterdir()
            )  # the listing's own, which is gone
            resource.setrlimit(resource.RLIMIT_NOFILE, (highest + room, hard))
            try:
                outcome, message = await attempt(saver, room + 1)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        tell(room=room, outcome=outcome, message=message)


async def small_files(url: str, options: dict[str, Any]) -> None:
    """Save under a limit of the size of files, then without."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with make(url, options) as saver:
        await saver.save(state(1), step=1)
        for nbytes in (65536, 1 << 20, 40 << 20):
            resource.setrlimit(resource.RLIMIT_FSIZE, (60000, hard))
            try:
                outcome, message = await attempt(saver, 2, nbytes)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            files = sorted(name for folder in os.walk(url) for name in folder[2])
            tell(outcome=outcome, message=message, files=files)
        outcome, message = await attempt(saver, 2, 65536)
        tell(outcome=outcome, message=message, files=[])


async def undeletable(url: str, options: dict[str, Any]) -> None:
    """Save as somebody who may write everywhere but in the save folder of the first checkpoint. Begins as root."""
    saver = Saver(url, shard_bytes=1, max_to_keep=2)
    async with saver:
        for step in (1, 2):
            await saver.save(state(step), step=step)
        [locked] = [path for path in Path(url, "ckpt-00000001").iterdir() if path.is_dir()]
        for path, _, files in os.walk(url):
            os.chown(path, 65534, 65534)
            for name in files:
                os.chown(f"{path}/{name}", 65534, 65534)
        locked.chmod(0o555)
        os.seteuid(65534)
        try:
            made = await saver.save(state(3), step=3)
            report = await saver.prune()
        finally:
            os.seteuid(0)
            locked.chmod(0o755)
        steps = [one.step for one in await saver.checkpoints()]
        assert made.stats is not None
        tell(
            prune_error=made.stats.prune_error, steps=steps, left=len(list(locked.iterdir())), report=report.first_error
        )
        made = await saver.save(state(4), step=4)
        steps = [one.step for one in await saver.checkpoints()]
        assert made.stats is not None
        tell(prune_error=made.stats.prune_error, steps=steps, left=int(locked.exists()), report=None)


if __name__ == "__main__":
    programs = {
        "stops": stops,
        "stops_seldom": stops_seldom,
        "terminated": terminated,
        "forks": forks,
        "few_files": few_files,
        "small_files": small_files,
        "undeletable": undeletable,
    }
    what, where, given = sys.argv[1:]
    asyncio.run(programs[what](where, json.loads(given)))
