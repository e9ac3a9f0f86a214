"""Buffers of any shape and dtype, and parts however they lie in memory, seen as plain bytes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from asyncsaver.store.contract import Buffer, Part, ScatteredPart


def plain_bytes(data: Buffer) -> memoryview:
    """Return ``data`` as a flat view of bytes on the same memory; nothing is copied.

    Args:
        data: C-contiguous.
    """
    view = memoryview(data)
    if not view.nbytes:
        return memoryview(b"")  # a shape with a zero in it cannot be cast
    return view.cast("B")


@contextmanager
def pieces_of(part: Part) -> Iterator[Sequence[memoryview]]:
    """Enter a part for its pieces; one piece where it is not a `ScatteredPart`."""
    if isinstance(part, ScatteredPart):
        with part.pieces() as pieces:
            yield pieces
    else:
        with part as data:
            yield [plain_bytes(data)]
