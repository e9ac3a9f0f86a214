"""Which byte ranges to request, so that many small tensors take few requests and one large tensor many. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

_GAP = 64 * 1024  # reading this much for nothing is cheaper than another request


class Piece(msgspec.Struct, frozen=True, gc=False):
    """A run of bytes that somebody needs.

    Attributes:
        need: which need it belongs to.
        offset: where it begins in that need, in bytes.
        start: where it begins in the file.
        stop: one past its end in the file.
    """

    need: int
    offset: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Fetch:
    """One request: a byte range of one file, and the pieces in it, in file order."""

    file: int
    start: int
    stop: int
    pieces: Sequence[Piece]

    @property
    def nbytes(self) -> int:
        """Of the request."""
        return self.stop - self.start

    @property
    def direct(self) -> bool:
        """Whether it is one piece and nothing else, so that it can be read straight to where it belongs."""
        return len(self.pieces) == 1 and self.nbytes == self.pieces[0].stop - self.pieces[0].start


def plan_fetches(needs: Iterable[tuple[int, int, int]], request_bytes: int) -> list[Fetch]:
    """Cut large needs into requests and join small neighbours.

    Args:
        needs: file, first byte and end, each; empty ones get no request.
        request_bytes: the most that a request has.

    Returns:
        Requests in order of file and position. Every byte of every need is in exactly one of them.
    """
    ordered = sorted((file, start, stop, need) for need, (file, start, stop) in enumerate(needs) if stop > start)
    fetches: list[Fetch] = []
    pieces: list[Piece] = []
    current = -1

    first = end = 0  # of the request that is being put together

    def close() -> None:
        if pieces:
            fetches.append(Fetch(current, first, end, tuple(pieces)))
            pieces.clear()

    for file, start, stop, need in ordered:
        if stop - start > request_bytes:
            close()
            for cut in range(start, stop, request_bytes):
                cut_end = min(cut + request_bytes, stop)
                fetches.append(Fetch(file, cut, cut_end, (Piece(need, cut - start, cut, cut_end),)))
            continue
        if pieces and (file != current or start - end > _GAP or max(stop, end) - first > request_bytes):
            close()
        if not pieces:
            current, first, end = file, start, stop
        pieces.append(Piece(need, 0, start, stop))
        end = max(end, stop)
    close()
    return fetches
