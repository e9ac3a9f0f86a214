"""Memory for objects: touched beforehand, so that page faults are not what is measured."""

from __future__ import annotations

import bisect
import mmap
from weakref import finalize

PAGE = 4096
POPULATE = getattr(mmap, "MAP_POPULATE", 0)  # Linux only; elsewhere pages are touched as they are written


class Blob:
    """The bytes of one body. Its place in the arena is free again when nobody refers to it."""

    def __init__(self, view: memoryview) -> None:
        self.view = view

    def __len__(self) -> int:
        return len(self.view)


class Arena:
    """One large piece of memory, from which bodies are cut first fit.

    Args:
        size: in bytes; what does not fit in gets memory of its own.
    """

    def __init__(self, size: int) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | POPULATE
        self._memory = memoryview(mmap.mmap(-1, max(PAGE, size), flags=flags))
        self._free = [(0, len(self._memory))] if size else []  # (start, stop), in order, never touching

    def take(self, size: int) -> Blob:
        """Memory for a body of so many bytes."""
        room = -(-max(1, size) // PAGE) * PAGE
        for index, (start, stop) in enumerate(self._free):
            if stop - start >= room:
                if stop - start == room:
                    del self._free[index]
                else:
                    self._free[index] = (start + room, stop)
                blob = Blob(self._memory[start : start + size])
                finalize(blob, self._give_back, start, start + room)
                return blob
        return Blob(memoryview(bytearray(size)))

    def _give_back(self, start: int, stop: int) -> None:
        index = bisect.bisect(self._free, (start, stop))
        if index < len(self._free) and self._free[index][0] == stop:
            stop = self._free.pop(index)[1]
        if index and self._free[index - 1][1] == start:
            index -= 1
            start = self._free.pop(index)[0]
        self._free.insert(index, (start, stop))
