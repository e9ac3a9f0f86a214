"""What a peer does, and what the peers have in common."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

State = Mapping[str, "np.ndarray[Any, np.dtype[Any]]"]
What = Literal["save", "restore", "restore, warm"]
"""What is measured; a disk's cache is cold before a restore, unless it says otherwise."""

BUCKET = "bench"
REGION = "us-east-1"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a state goes.

    Attributes:
        kind: "s3", "gs", "az", "disk" or "memory".
        endpoint: URL of the server.
        folder: on the disk.
        storage_options: what fsspec's filesystem of that kind takes.
    """

    kind: str
    endpoint: str = ""
    folder: str = ""
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.folder)

    @property
    def url(self) -> str:
        """Of a root for checkpoints."""
        if self.kind == "disk":
            return str(self.path / "run")
        return f"{self.kind}://{BUCKET}/run"


class Peer(ABC):
    """Saves one state and restores it.

    Args:
        place: where to.
    """

    def __init__(self, place: Place) -> None:
        self.place = place

    async def prepare_save(self, state: State) -> None:
        """What a long-lived trainer has behind it when it saves: imports, sessions. Not measured. Must not change ``state``."""
        await self.connect()

    async def prepare_restore(self, target: State) -> None:
        """The same for a restore."""
        await self.connect()

    async def connect(self) -> None:
        """The same for both."""

    @abstractmethod
    async def save(self, state: State) -> None:
        """Measured: returns when the state is durable."""

    @abstractmethod
    async def restore(self, target: State) -> State:
        """Measured: fills ``target``, or returns new arrays."""

    async def settle(self) -> None:
        """What is left to do after a save and is not measured."""

    async def close(self) -> None:
        """Not measured."""

    def notes(self) -> dict[str, Any]:
        """What else is worth telling about the last call."""
        return {}


async def each(names: Iterable[str], at_once: int, call: Callable[[str], Awaitable[T]]) -> dict[str, T]:
    """Await a call for each name, so many at once."""
    turns = asyncio.Semaphore(at_once)
    results: dict[str, T] = {}

    async def one(name: str) -> None:
        async with turns:
            results[name] = await call(name)

    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(one(name))
    return results


async def in_threads(names: Iterable[str], threads: int, call: Callable[[str], T]) -> dict[str, T]:
    """Make a blocking call for each name, in so many threads, away from the event loop."""

    def all_of_them() -> dict[str, T]:
        ordered = list(names)
        with ThreadPoolExecutor(threads) as pool:
            return dict(zip(ordered, pool.map(call, ordered), strict=True))

    return await asyncio.to_thread(all_of_them)


def raw(array: np.ndarray[Any, np.dtype[Any]]) -> memoryview:
    """The bytes of a contiguous array, not copied."""
    return array.data.cast("B")


def shaped(data: Any, like: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
    """Bytes as an array, not copied."""
    return np.frombuffer(data, like.dtype).reshape(like.shape)


def fsync_tree(folder: Path) -> None:
    """Make all files and folders below one durable."""
    for path in (folder, *folder.rglob("*")):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
