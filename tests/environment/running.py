"""Running `program.py`, and looking at what it left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from asyncsaver import Saver
from asyncsaver.model.names import parse_slot
from asyncsaver.store.registry import open_store

from .program import state

PROGRAM = Path(__file__).with_name("program.py")
SECONDS = 100


def _command(what: str, url: str, options: Mapping[str, Any]) -> list[str]:
    return [sys.executable, str(PROGRAM), what, url, json.dumps(dict(options))]


def run(what: str, url: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Run it to its end; returns what it told."""
    done = subprocess.run(_command(what, url, options), capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


class Stopping:
    """A running program that stops itself with SIGSTOP now and then."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self._process = process
        self._output = output

    def wait(self) -> bool:
        """Until it has stopped itself, or ended; returns whether it has stopped."""
        _, status = os.waitpid(self._process.pid, os.WUNTRACED)
        if os.WIFSTOPPED(status):
            return True
        self._process.returncode = os.waitstatus_to_exitcode(status)
        assert self._process.returncode == 0
        return False

    def go_on(self) -> None:
        """Wake it up."""
        self._process.send_signal(signal.SIGCONT)

    def told(self) -> list[dict[str, Any]]:
        """All that it has told."""
        return [json.loads(line) for line in self._output.read_text().splitlines()]


@contextmanager
def stopping(what: str, url: str, options: Mapping[str, Any]) -> Iterator[Stopping]:
    """Run it until the block ends."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "told"
        with output.open("wb") as file, subprocess.Popen(_command(what, url, options), stdout=file) as process:
            try:
                yield Stopping(process, output)
            finally:
                if process.returncode is None:
                    process.kill()


async def steps_of(url: str, options: Mapping[str, Any]) -> list[int | None]:
    """The steps of the checkpoints under a root, oldest first; each is verified, and restores bit for bit."""
    async with Saver(url, storage_options=dict(options) or None) as saver:
        steps = [one.step for one in await saver.checkpoints()]
        for step in steps:
            assert step is not None
            await saver.verify(step)
            restored = await saver.restore(step=step)
            nbytes = len(restored["tensor0"])
            for name, tensor in state(step, nbytes).items():
                np.testing.assert_array_equal(restored[name], tensor, strict=True)
        return steps


async def leftovers(url: str, options: Mapping[str, Any]) -> list[str]:
    """Objects under a root that are no records, and belong to no checkpoint."""
    async with Saver(url, storage_options=dict(options) or None) as saver:
        ours = {f"{one.name}/{one.save_id}/" for one in await saver.checkpoints()}
    store = open_store(url, storage_options=dict(options))
    try:
        paths = [item.path for item in (await store.list()).objects]
    finally:
        await store.close()
    return [
        path
        for path in paths
        if path != "checkpoint.json" and parse_slot(path.partition("/")[2]) is None and not path.startswith(tuple(ours))
    ]


def temporaries(folder: str) -> list[str]:
    """Temporary files of the local store, which no listing shows."""
    return [name for _, _, files in os.walk(folder) for name in files if name.startswith(".asyncsaver-tmp-")]
