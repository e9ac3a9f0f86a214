"""What was read and has not passed yet is not read ahead of: a tensor that is held whole keeps nothing else in memory."""

from __future__ import annotations

from collections import deque
from typing import cast

import numpy as np
import xxhash

from asyncsaver.restore.stream import Run, TensorStream
from asyncsaver.save.contents import _StreamedBytes


class Stream:
    """Gives runs as they are, one for each time that something is missing, and notes what was asked for."""

    def __init__(self, *runs: Run) -> None:
        self.wanted: list[int] = []
        self._coming = deque(runs)
        self._loaded: deque[Run] = deque()

    async def load(self, size: int) -> None:
        self.wanted.append(size)
        while size > sum(run.data.size for run in self._loaded) and self._coming:
            self._loaded.append(self._coming.popleft())

    def take(self) -> Run | None:
        return self._loaded.popleft() if self._loaded else None


async def test_only_what_is_missing_is_asked_for() -> None:
    data = np.arange(1000, dtype=np.uint16).view(np.uint8)
    stream = Stream(Run(data[:1000], (1000,)), Run(data[1000:1300], (100, 300)), Run(data[1300:], (700,)))
    content = _StreamedBytes(b"head", [0, 1000, 100, 0, 200, 700, 0], cast("TensorStream", stream), "xxh3_128")
    taken = b""
    for size in (400, 400, 400, 400, 404):
        await content.load(size)
        taken += b"".join(content.take_pieces(size))
    assert taken == b"head" + data.tobytes()
    assert stream.wanted == [396, 400 - 604, 400 - 204, 400 - 104, 404 - 404]
    parts = np.split(data, [0, 1000, 1100, 1100, 1300, 2000])
    assert content.hashes == [xxhash.xxh3_128_hexdigest(part.tobytes()) for part in parts]
