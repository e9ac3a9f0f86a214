"""A simulated S3 endpoint: in memory, in a process of its own, on a loopback port. Requests need no valid signature.

python benchmarks/s3_endpoint.py --latency-ms 30 --bandwidth-mb 90

Prints its URL once it listens. `GET /?stats` tells the requests by kind since the last `POST /?reset`, which also forgets all
objects.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from endpoint.arena import Arena
from endpoint.protocol import Connection
from endpoint.service import Service
from endpoint.traffic import Settings, Traffic


@contextlib.contextmanager
def endpoint(bucket: str, *, arena_mib: int = 0, latency_ms: float = 0, bandwidth_mb: float = 0) -> Iterator[str]:
    """Run an endpoint with one bucket, in a process of its own, for the duration of a block. Gives its URL."""
    command = [sys.executable, __file__, "--arena-mib", str(arena_mib)]
    command += ["--latency-ms", str(latency_ms), "--bandwidth-mb", str(bandwidth_mb)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if not url:
                raise RuntimeError("the endpoint did not start")
            _ask(url, "PUT", f"/{bucket}")
            yield url
        finally:
            process.terminate()


def stats(url: str) -> dict[str, Any]:
    """What went through the endpoint since it was last reset."""
    found: dict[str, Any] = json.loads(_ask(url, "GET", "/?stats"))
    return found


def reset(url: str) -> None:
    """Make the endpoint forget objects and counts."""
    _ask(url, "POST", "/?reset")


def _ask(url: str, method: str, target: str) -> bytes:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, target)
        return connection.getresponse().read()


async def serve(options: argparse.Namespace) -> None:
    """Serve until a signal says to stop."""
    settings = Settings(
        latency=options.latency_ms / 1000,
        bandwidth=options.bandwidth_mb * 1e6,
        error_rate=options.error_rate,
        seed=options.seed,
    )
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(options.log.open("w")) if options.log else None
        traffic = Traffic(settings, log)
        service = Service(Arena(options.arena_mib * 2**20), traffic)
        server = await loop.create_server(
            lambda: Connection(service, settings, traffic), "127.0.0.1", options.port, backlog=1024
        )
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await stopped.wait()
        server.close()


def main() -> None:
    """Parse the command line and serve, on uvloop where it is installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="a free one by default")
    parser.add_argument("--latency-ms", type=float, default=0, help="before each answer")
    parser.add_argument(
        "--bandwidth-mb", type=float, default=0, help="MB/s of each connection and direction; 0: unlimited"
    )
    parser.add_argument("--error-rate", type=float, default=0, help="the share of requests that get 503 SlowDown")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of those")
    parser.add_argument("--log", type=Path, help="a file for one JSON line a request")
    parser.add_argument("--arena-mib", type=int, default=256, help="memory touched beforehand")
    options = parser.parse_args()
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        asyncio.run(serve(options))
    else:
        uvloop.run(serve(options))


if __name__ == "__main__":
    main()
