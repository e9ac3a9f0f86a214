"""Running one measurement in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


class FailedError(Exception):
    """There is no figure; the message says why."""


def in_a_process(script: Path, job: str, *, timeout: float) -> dict[str, Any]:
    """Run a script with a job as its argument.

    Args:
        script: prints what it measured as JSON, in its last line.
        job: as JSON.
        timeout: in seconds.

    Raises:
        FailedError: it ended with an error, or not in time.
    """
    command = [sys.executable, str(script), job]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired as error:
        raise FailedError(f"not done after {timeout:.0f} seconds") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise FailedError(f"failed: {last[:200]}")
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured
