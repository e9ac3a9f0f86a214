"""A file of which only some ranges are here, read as if it was all there."""

from __future__ import annotations

import io
from bisect import bisect_right
from collections.abc import Sequence


class NotHereError(Exception):
    """A range is needed that is not here.

    Not an `OSError`: `zipfile` would take that for a damaged file.

    Attributes:
        start: first byte.
        stop: one past the last.
    """

    def __init__(self, start: int, stop: int) -> None:
        super().__init__(f"bytes {start} to {stop} are not here")
        self.start = start
        self.stop = stop


class Windows(io.RawIOBase):
    """A read-only file; reading what is not here raises `NotHereError`.

    Args:
        size: of the file, in bytes.
        windows: position and content of what is here: in order, apart from each other, and within the file.
    """

    def __init__(self, size: int, windows: Sequence[tuple[int, memoryview]]) -> None:
        super().__init__()
        self.size = size
        self._windows = windows
        self._starts = [start for start, _ in windows]
        self._at = 0

    def readable(self) -> bool:  # noqa: D102
        return True

    def seekable(self) -> bool:  # noqa: D102
        return True

    def tell(self) -> int:  # noqa: D102
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:  # noqa: D102
        self._at = offset + (0, self._at, self.size)[whence]
        if self._at < 0:
            self._at = 0
            raise OSError("before the beginning of the file")
        return self._at

    def read(self, count: int | None = -1) -> bytes:
        """All the bytes that were asked for, up to the end of the file."""
        start = self._at
        stop = self.size if count is None or count < 0 else min(self.size, start + count)
        if stop <= start:
            return b""
        position = bisect_right(self._starts, start) - 1
        begin, window = self._windows[position] if position >= 0 else (0, memoryview(b""))
        if stop > begin + len(window):
            raise NotHereError(start, stop)
        self._at = stop
        return bytes(window[start - begin : stop - begin])
