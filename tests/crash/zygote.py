"""A process that has imported everything and started nothing: its forks run one scenario each, and kill themselves.

Reads one job a line from its standard input, and answers each with a line: how the fork ended, and how many calls it made.
Run as ``python -m tests.crash.zygote``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiobotocore.session  # noqa: F401 - imported here so that no fork has to
import s3fs  # noqa: F401 - the same

from ..doubles.scripted import Call, Fault, ScriptedStore, Work  # noqa: TID252 - test folders have no name
from .grounds import opened
from .scenarios import BY_NAME, saver_for
from .systems import CHANGING, watched


def die() -> None:
    """End this very instant, as a crash does: nothing is flushed, no finally runs."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class Die:
    """The process is killed before the call is carried out, or after."""

    applied: bool

    async def around(self, work: Work) -> Any:
        try:
            if self.applied:
                await work()  # which may end in an error, such as that there is no such object
        finally:
            die()


@dataclass(slots=True)
class Death:
    """A process dies in place of its so-manieth system call.

    Attributes:
        at: the number of that call; None to count only.
        made: how many were made.
    """

    at: int | None
    made: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def around(self, name: str, call: Callable[[], Any]) -> Any:
        if name in CHANGING:
            with self._lock:
                if self.made == self.at:
                    die()
                self.made += 1
        return call()


async def run(job: dict[str, Any]) -> int:
    """Run a job to its end, if it gets there; returns how many calls it made."""
    scenario = BY_NAME[job["scenario"]]

    def script(call: Call) -> Fault | None:
        return Die(job["applied"]) if job["what"] == "operation" and call.number == job["number"] else None

    death = Death(job["number"] if job["what"] == "system call" else None)
    inner = opened(job["url"], job["storage_options"], job["part_bytes"])
    store = ScriptedStore(inner, script)
    with watched(death.around):
        async with inner, saver_for(scenario, store) as saver:
            await scenario.action(saver, job["part_bytes"])
    return death.made if job["what"] == "system call" else len(store.calls)


def fork(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job in a fork; returns its exit status, negative where a signal ended it, and the number of calls."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, str(asyncio.run(run(job))).encode())
        except BaseException:  # noqa: BLE001 - it is told by the exit status
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        calls = answer.read()
    _, status = os.waitpid(pid, 0)
    return {"status": os.waitstatus_to_exitcode(status), "calls": int(calls or 0)}


def serve() -> None:
    """Answer jobs until there are no more."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(fork(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
