"""Which byte ranges to request, so that many small tensors take few requests and one large tensor many. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

_GAP = 64 * 1024  # reading this much for nothing is cheaper than another request


class Ranged(Protocol):
    """A run of bytes that somebody needs."""

    @property
    def file(self) -> int:
        """Position of the file in a list of files."""
        ...

    @property
    def start(self) -> int:
        """Its first byte in the file."""
        ...

    @property
    def stop(self) -> int:
        """One past its last byte."""
        ...


@dataclass(frozen=True, slots=True)
class Fetch:
    """One request: a byte range of one file.

    Attributes:
        file: position of the file in the list of files.
        start: first byte in the file.
        stop: one past the last byte.
        needs: positions of the needs that it serves, in file order: several that lie in it whole, or a single one, of which it
            may be just a part.
    """

    file: int
    start: int
    stop: int
    needs: Sequence[int]

    @property
    def nbytes(self) -> int:
        """Of the request."""
        return self.stop - self.start

    @property
    def direct(self) -> bool:
        """Whether all of it belongs to one need, so that it can be read straight to where it belongs."""
        return len(self.needs) == 1


def plan_fetches(needs: Sequence[Ranged], request_bytes: int) -> list[Fetch]:
    """Cut large needs into requests and join small neighbours.

    Args:
        needs: empty ones get no request.
        request_bytes: the most that a request has.

    Returns:
        Requests in order of file and position. Every byte of every need is in exactly one of them.
    """
    files, starts, stops = (
        [need.file for need in needs],
        [need.start for need in needs],
        [need.stop for need in needs],
    )
    fetches: list[Fetch] = []
    joined: list[int] = []
    current = -1

    first = end = 0  # of the request that is being put together

    def close() -> None:
        if joined:
            fetches.append(Fetch(current, first, end, tuple(joined)))
            joined.clear()

    # Sorted by NumPy, since for tuples in their hundred thousands this would be most of the work here.
    for need in np.lexsort((stops, starts, files)).tolist():
        file, start, stop = files[need], starts[need], stops[need]
        if stop - start > request_bytes:
            close()
            cuts = range(start, stop, request_bytes)
            fetches.extend(Fetch(file, cut, min(cut + request_bytes, stop), (need,)) for cut in cuts)
            continue
        if stop == start:
            continue
        if joined and (file != current or start - end > _GAP or max(stop, end) - first > request_bytes):
            close()
        if not joined:
            current, first, end = file, start, stop
        joined.append(need)
        end = max(end, stop)
    close()
    return fetches
