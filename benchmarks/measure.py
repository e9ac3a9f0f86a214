"""What one call takes, seen from inside the process that makes it: time, CPU, memory, and stalls of the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
STATUS = Path("/proc/self/status")
TICK = 0.001


@dataclass(slots=True)
class Sample:
    """One call.

    Attributes:
        seconds: by the wall clock.
        cpu: seconds of all threads.
        memory: the peak above what was there before, in bytes.
        stall: how much later than it wanted to a coroutine ran at worst, in seconds.
    """

    seconds: float = 0.0
    cpu: float = 0.0
    memory: int = 0
    stall: float = 0.0


async def measured(call: Callable[[], Awaitable[T]]) -> tuple[Sample, T]:
    """Make a call and measure it."""
    gc.collect()
    sample = Sample()
    before = _start_peak()
    async with _ticking(sample):
        cpu, began = time.process_time(), time.perf_counter()
        result = await call()
        sample.seconds = time.perf_counter() - began
        sample.cpu = time.process_time() - cpu
    sample.memory = max(0, _peak() - before)
    return sample, result


@contextlib.asynccontextmanager
async def _ticking(sample: Sample) -> AsyncIterator[None]:
    """Let a coroutine run every millisecond, and note how late it was at worst."""

    async def tick() -> None:
        last = time.perf_counter()
        try:
            while True:
                await asyncio.sleep(TICK)
                now = time.perf_counter()
                sample.stall = max(sample.stall, now - last - TICK)
                last = now
        finally:  # a stall that lasted to the end
            sample.stall = max(sample.stall, time.perf_counter() - last - TICK)

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        ticker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticker


def _start_peak() -> int:
    """Give free memory back, begin a new peak, and tell what is in use, in bytes."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
            return _status("VmRSS")
    return _peak()


def _peak() -> int:
    if STATUS.exists():
        return _status("VmHWM")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _status(field: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def warm_caches(folder: Path) -> None:
    """Let the system read the files below a folder, so that it holds them."""
    buffer = bytearray(2**20)
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def drop_caches(folder: Path) -> None:
    """Let the system forget what it holds of the files below a folder, so that they are read from the disk."""
    os.sync()
    if not hasattr(os, "posix_fadvise"):
        return
    for path in folder.rglob("*"):
        if path.is_file():
            number = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(number)
