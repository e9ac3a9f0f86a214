"""Save and restore one state, side by side with what one would use instead. Prints a Markdown table.

python benchmarks/throughput.py --mib 512 --rounds 5
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import s3fs
from safetensors.numpy import load_file, save_file

from asyncsaver import Saver

State = dict[str, np.ndarray]
TENSOR_BYTES = 16 * 2**20
AT_ONCE = 16


class Table:
    """Seconds and event-loop stalls of everything that was measured."""

    def __init__(self, nbytes: int) -> None:
        self._nbytes = nbytes
        self._seconds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        self._stalls: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    async def measure(self, what: str, who: str, call: Callable[[], Awaitable[object]]) -> None:
        async with worst_stall() as stalls:
            began = time.perf_counter()
            await call()
            self._seconds[what][who].append(time.perf_counter() - began)
        self._stalls[what][who].append(stalls[0])

    def show(self) -> None:
        print(
            "| what | who | seconds (median) | MiB/s | worst stall of the loop, ms (median) | asyncsaver is faster by |"
        )
        print("|---|---|---|---|---|---|")
        for what, by_who in self._seconds.items():
            ours = statistics.median(by_who["asyncsaver"])
            for who, seconds in by_who.items():
                median = statistics.median(seconds)
                ratio = "" if who == "asyncsaver" else f"{median / ours:.2f}x"
                stall = statistics.median(self._stalls[what][who]) * 1000
                print(
                    f"| {what} | {who} | {median:.3f} | {self._nbytes / median / 2**20:.0f} | {stall:.0f} | {ratio} |"
                )


@contextlib.asynccontextmanager
async def worst_stall() -> AsyncIterator[list[float]]:
    """A coroutine that wants to run every millisecond: how much later than that it ran at worst, in seconds."""
    worst = [0.0]

    async def tick() -> None:
        last = time.perf_counter()
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            worst[0] = max(worst[0], now - last - 0.001)
            last = now

    ticker = asyncio.create_task(tick())
    try:
        yield worst
    finally:
        ticker.cancel()


async def disk(table: Table, state: State, folder: Path, rounds: int) -> None:
    """The local disk, durable, against safetensors with fsync."""
    plain = folder / "plain.safetensors"

    async def save_plain() -> None:
        save_file(state, plain)
        with plain.open("rb") as file:
            os.fsync(file.fileno())

    async def load_plain() -> None:
        load_file(plain)

    target = {name: np.zeros_like(array) for name, array in state.items()}
    async with Saver(folder / "run", max_to_keep=1) as saver:
        await saver.save(state)  # the first save of a root also finds out what its store can do
        for number in range(rounds):
            await table.measure("disk: save, durable", "asyncsaver", lambda: saver.save(state, step=number))
            await table.measure("disk: save, durable", "safetensors + fsync", save_plain)
            await table.measure("disk: restore", "asyncsaver", saver.restore)
            await table.measure("disk: restore", "asyncsaver, into a target", lambda: saver.restore(target))
            await table.measure("disk: restore", "safetensors", load_plain)


async def s3(table: Table, state: State, options: dict[str, Any], rounds: int) -> None:
    """S3 on loopback, against s3fs with as many requests at once."""
    fs = s3fs.S3FileSystem(asynchronous=True, skip_instance_cache=True, **options)
    await fs.set_session()
    await fs._mkdir("bench")
    turns = asyncio.Semaphore(AT_ONCE)

    async def put(name: str, array: np.ndarray) -> None:
        async with turns:
            await fs._pipe_file(f"bench/plain/{name}", array.tobytes())

    async def get(name: str) -> None:
        async with turns:
            await fs._cat_file(f"bench/plain/{name}")

    async def put_all() -> None:
        await asyncio.gather(*(put(name, array) for name, array in state.items()))

    async def get_all() -> None:
        await asyncio.gather(*(get(name) for name in state))

    async with Saver(
        "s3://bench/run", storage_options=options, max_to_keep=1, concurrency=AT_ONCE, single_writer=True
    ) as saver:
        for number in range(rounds):
            await table.measure("S3: save", "asyncsaver", lambda: saver.save(state, step=number))
            await table.measure("S3: save", "s3fs _pipe_file", put_all)
            await table.measure("S3: restore", "asyncsaver", saver.restore)
            await table.measure("S3: restore", "s3fs _cat_file", get_all)
    await fs._s3creator.__aexit__(None, None, None)


@contextlib.contextmanager
def server(folder: Path) -> Iterator[dict[str, Any]]:
    """An S3 server in a process of its own (rclone's, on a folder), on a free loopback port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rclone = Path(sys.executable).with_name("rclone")
    command = [rclone, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--auth-key", "bench,bench-secret", folder]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        yield {
            "key": "bench",
            "secret": "bench-secret",
            "endpoint_url": f"http://127.0.0.1:{port}",
            "client_kwargs": {"region_name": "us-east-1"},
        }
    finally:
        process.terminate()
        process.wait()


async def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=512, help="size of the state")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    count = max(1, arguments.mib * 2**20 // TENSOR_BYTES)
    rng = np.random.default_rng(0)
    state = {f"layer.{i}": rng.random(TENSOR_BYTES // 4, dtype=np.float32) for i in range(count)}
    table = Table(count * TENSOR_BYTES)
    folder = Path(tempfile.mkdtemp(prefix="asyncsaver-bench-", dir=Path.cwd()))
    try:
        await disk(table, state, folder, arguments.rounds)
        (folder / "buckets").mkdir()
        with server(folder / "buckets") as options:
            await s3(table, state, options, arguments.rounds)
    finally:
        shutil.rmtree(folder)
    table.show()


if __name__ == "__main__":
    asyncio.run(main())
