"""Buffers of any shape and dtype, seen as plain bytes."""

from __future__ import annotations

from asyncsaver.store.contract import Buffer


def plain_bytes(data: Buffer) -> memoryview:
    """Return ``data`` as a flat view of bytes on the same memory; nothing is copied.

    Args:
        data: C-contiguous.
    """
    view = memoryview(data)
    if not view.nbytes:
        return memoryview(b"")  # a shape with a zero in it cannot be cast
    return view.cast("B")
