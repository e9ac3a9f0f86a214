"""Raw O_DIRECT writes and reads: the most that the disk can do."""

from __future__ import annotations

import mmap
import os
from typing import Any

import numpy as np

from peers.contract import Peer, Place, State, in_threads, raw

ALIGNMENT = 4096
PIECE_BYTES = 8 * 2**20


class DirectIO(Peer):
    """One file a tensor, written from page-aligned memory that is copied beforehand, and synced.

    Args:
        place: a folder.
        threads: how many.
    """

    def __init__(self, place: Place, *, threads: int) -> None:
        super().__init__(place)
        self._threads = threads
        self._aligned: dict[str, memoryview] = {}

    async def prepare_restore(self, target: State) -> None:
        await self.prepare_save(target)

    async def prepare_save(self, state: State) -> None:
        for name, array in state.items():
            room = -(-array.nbytes // ALIGNMENT) * ALIGNMENT
            self._aligned[name] = memoryview(mmap.mmap(-1, room))
            self._aligned[name][: array.nbytes] = raw(array)

    async def save(self, state: State) -> None:
        def write(name: str) -> None:
            number = os.open(self.place.path / name, os.O_CREAT | os.O_WRONLY | os.O_DIRECT)
            try:
                data = self._aligned[name]
                for start in range(0, len(data), PIECE_BYTES):
                    os.pwrite(number, data[start : start + PIECE_BYTES], start)
                os.fsync(number)
            finally:
                os.close(number)

        await in_threads(state, self._threads, write)

    async def restore(self, target: State) -> State:
        def read(name: str) -> np.ndarray[Any, np.dtype[Any]]:
            data = self._aligned[name]
            number = os.open(self.place.path / name, os.O_RDONLY | os.O_DIRECT)
            try:
                for start in range(0, len(data), PIECE_BYTES):
                    os.preadv(number, [data[start : start + PIECE_BYTES]], start)
            finally:
                os.close(number)
            like = target[name]
            return np.frombuffer(data[: like.nbytes], like.dtype).reshape(like.shape)

        return await in_threads(target, self._threads, read)
