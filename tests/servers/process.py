"""A storage server as a process of its own, on a free loopback port, for as long as a test session lasts."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 10.0
ATTEMPTS = 3


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    """Whether an HTTP server answers there, with whatever status."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as answer:
        answer.close()
        return True
    except OSError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def serve(
    command: Callable[[int], Sequence[str | Path]], *, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Run a server until the block ends.

    Args:
        command: gives the command line for a port.
        log: where the server's output goes.
        environment: added to our own.

    Yields:
        Its URL, without a trailing slash, once it answers.

    Raises:
        RuntimeError: it ended, or did not answer in time; the message holds what it said.
    """
    for attempt in range(ATTEMPTS):
        port = _free_port()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(word) for word in command(port)],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
            )
        url = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + START_SECONDS
            while process.poll() is None and time.monotonic() < deadline:
                if _answers(url) and process.poll() is None:
                    yield url
                    return
                time.sleep(0.05)
        finally:
            _stop(process)
        # Another process may have taken the port between our look and its bind: then it ended at once, try another.
        if attempt == ATTEMPTS - 1:
            raise RuntimeError(f"the server did not start:\n{log.read_text(errors='replace')[-2000:]}")
