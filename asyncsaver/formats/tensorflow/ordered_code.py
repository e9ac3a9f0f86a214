"""OrderedCode: the keys under which slices of tensors stand in a table, whose order is that of name, rank and extents."""

from __future__ import annotations

import re
from collections.abc import Sequence

from asyncsaver.errors import CheckpointCorruptError

Extent = tuple[int, int]
"""``(start, length)`` of a slice along one axis."""
Slice = tuple[Extent, ...]
FULL: Extent = (0, -1)
"""The extent of a whole axis, whatever its length."""

_SPECIAL = re.compile(rb"[\x00\xff]")
_ESCAPED = re.compile(rb"\x00\xff|\xff\x00")
_END = b"\x00\x01"


def slice_key(name: bytes, extents: Sequence[Extent]) -> bytes:
    """The key of a slice of a tensor."""
    escaped = _SPECIAL.sub(lambda found: found[0] + bytes((found[0][0] ^ 0xFF,)), name)
    rank = len(extents)
    ranked = bytes((1, rank)) if rank else b"\x00"
    return b"\x00" + escaped + _END + ranked + b"".join([_signed(number) for extent in extents for number in extent])


def parse_slice_key(key: bytes) -> tuple[bytes, Slice]:
    """The name and the extents that a key is of.

    Raises:
        CheckpointCorruptError: it is no such key.
    """
    # A zero byte of the name is escaped as 00 ff: the first 00 01 is the end, except that of ff 00 01, which is an ff and a 01.
    match = re.match(rb"\x00((?:[^\x00\xff]|\x00\xff|\xff\x00)*)\x00\x01", key, re.DOTALL)
    if match is None:
        raise CheckpointCorruptError("a key is neither a name nor that of a slice")
    name = _ESCAPED.sub(lambda found: found[0][:1], match[1])
    rest = key[match.end() :]
    numbers: list[int] = []
    position = 1 + rest[0] if rest else 0
    while position < len(rest):
        number, position = _read_signed(rest, position)
        numbers.append(number)
    extents = tuple(zip(numbers[::2], numbers[1::2], strict=False))
    if len(extents) > 0xFF or slice_key(name, extents) != key:  # there is but one way to write it
        raise CheckpointCorruptError("a key is not that of a slice")
    return name, extents


def _signed(value: int) -> bytes:
    """A signed number: as many leading bits as it has bytes are the sign, inverted."""
    size = max((~value if value < 0 else value).bit_length() // 7 + 1, 1)
    header = ((1 << size) - 1) << (7 * size)
    return ((value & ((1 << 8 * size) - 1)) ^ header).to_bytes(size)


def _read_signed(data: bytes, position: int) -> tuple[int, int]:
    negative = data[position] < 0x80
    head = int.from_bytes(data[position : position + 2].ljust(2, b"\x00"))
    inverted = head if negative else head ^ 0xFFFF
    size = min(16 - inverted.bit_length(), 10)
    payload = int.from_bytes(data[position : position + size]) & ((1 << (7 * size)) - 1)
    return payload - (1 << (7 * size)) if negative else payload, position + size
