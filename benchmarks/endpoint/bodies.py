"""How a request's body comes in: straight into the memory where it stays, through whatever framing it has."""

from __future__ import annotations

from typing import Protocol


class BadFramingError(ValueError):
    """What arrived is no chunk of a chunked body."""


class Body(Protocol):
    """Takes bytes in, either copied by `feed` or received directly into its `window`."""

    @property
    def done(self) -> bool:
        """Whether all of it has arrived."""

    def window(self) -> memoryview | None:
        """Where the next bytes may be received, or None where they have to be looked at first."""

    def received(self, count: int) -> None:
        """So many bytes were received into the window."""

    def feed(self, data: memoryview) -> int:
        """Take bytes from the front of ``data``; returns how many."""


class Plain:
    """Bytes into memory of the right size; the sink of the others."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._filled = 0

    @property
    def done(self) -> bool:
        return self._filled == len(self._view)

    def window(self) -> memoryview | None:
        return None if self.done else self._view[self._filled :]

    def received(self, count: int) -> None:
        self._filled += count

    def feed(self, data: memoryview) -> int:
        count = min(len(data), len(self._view) - self._filled)
        self._view[self._filled : self._filled + count] = data[:count]
        self._filled += count
        return count


class Growing:
    """Bytes of which nobody said how many; the sink of a chunked body."""

    done = False

    def __init__(self) -> None:
        self.data = bytearray()

    def window(self) -> memoryview | None:
        return None

    def received(self, count: int) -> None:
        raise AssertionError(count)  # it never offers a window

    def feed(self, data: memoryview) -> int:
        self.data += data
        return len(data)


class Counted:
    """A body by Content-Length."""

    def __init__(self, sink: Body, length: int) -> None:
        self._sink = sink
        self._left = length

    @property
    def done(self) -> bool:
        return not self._left

    def window(self) -> memoryview | None:
        window = self._sink.window()
        return None if window is None else window[: self._left]

    def received(self, count: int) -> None:
        self._sink.received(count)
        self._left -= count

    def feed(self, data: memoryview) -> int:
        count = self._sink.feed(data[: self._left])
        self._left -= count
        return count


class Chunked:
    """Chunks with a size in front: HTTP's transfer coding and ``aws-chunked`` alike; signatures and trailers are passed over."""

    def __init__(self, sink: Body) -> None:
        self.done = False
        self._sink = sink
        self._line = bytearray()
        self._left = 0  # of the chunk
        self._after = False  # the line that ends a chunk's data is due
        self._last = False  # only trailers follow

    def window(self) -> memoryview | None:
        window = self._sink.window() if self._left else None
        return None if window is None else window[: self._left]

    def received(self, count: int) -> None:
        self._sink.received(count)
        self._left -= count
        self._after = not self._left

    def feed(self, data: memoryview) -> int:
        used = 0
        while used < len(data) and not self.done:
            if self._left:
                count = self._sink.feed(data[used : used + self._left])
                if not count:
                    raise BadFramingError("more bytes than were announced")
                used += count
                self._left -= count
                self._after = not self._left
            else:
                used += self._feed_line(data[used:])
        return used

    def _feed_line(self, data: memoryview) -> int:
        piece = bytes(data[:8192])
        end = piece.find(b"\n")
        if end < 0:
            self._line += piece
            return len(piece)
        line = bytes(self._line + piece[:end]).strip()
        self._line.clear()
        if self._after:
            self._after = False
        elif self._last:
            self.done = not line
        else:
            try:
                self._left = int(line.partition(b";")[0], 16)
            except ValueError:
                raise BadFramingError(f"no size of a chunk: {line[:40]!r}") from None
            self._last = not self._left
        return end + 1
