"""Integers of variable length, seven bits a byte: one by one, and packed in their thousands."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from asyncsaver.errors import CheckpointCorruptError

_LONGEST = 10
_AT_ONCE = 2**20  # bytes decoded together: what NumPy needs meanwhile stays some 40 MB, however long the data
_BITS = 2**64 - 1

Ints = np.ndarray[Any, np.dtype[Any]]


def encode_varint(value: int) -> bytes:
    """The bytes of an integer; a negative one counts as the 64-bit number with the same bits."""
    value &= _BITS
    if value < 0x80:
        return bytes((value,))
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def read_varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """Read an unsigned 64-bit integer.

    Returns:
        It, and the position behind it.

    Raises:
        CheckpointCorruptError: the data end before it does, or it is longer than 64 bits.
    """
    value = shift = 0
    for byte in data[position : position + _LONGEST]:
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            if value > _BITS:
                break
            return value, position
        shift += 7
    raise CheckpointCorruptError("an integer of variable length does not end")


def unpack_varints(data: bytes) -> Ints:
    """All integers of a packed field, as uint64.

    Raises:
        CheckpointCorruptError: the last one does not end, or one is too long.
    """
    raw = np.frombuffer(data, np.uint8)
    if len(raw) and raw[-1] >= 0x80:
        raise CheckpointCorruptError("packed integers do not end")
    pieces: list[Ints] = []
    start = 0
    while start < len(raw):
        stop = min(start + _AT_ONCE, len(raw))
        last = np.flatnonzero(raw[max(start, stop - _LONGEST) : stop] < 0x80)
        if not len(last):
            raise CheckpointCorruptError("a packed integer is too long")
        stop = max(start, stop - _LONGEST) + int(last[-1]) + 1
        pieces.append(_unpack(raw[start:stop]))
        start = stop
    return np.concatenate(pieces) if pieces else np.empty(0, np.uint64)


def _unpack(raw: Ints) -> Ints:
    """Integers from bytes of which the last one ends an integer."""
    if (raw < 0x80).all():
        return raw.astype(np.uint64)
    ends = np.flatnonzero(raw < 0x80)
    starts = np.concatenate(([0], ends[:-1] + 1))
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        raise CheckpointCorruptError("a packed integer is too long")
    places = np.arange(len(raw)) - np.repeat(starts, lengths)
    parts = (raw & 0x7F).astype(np.uint64) << (7 * places).astype(np.uint64)
    return np.add.reduceat(parts, starts)


def pack_varints(values: Ints) -> bytes:
    """Integers as a packed field; see `packed_pieces`."""
    return b"".join(packed_pieces(values))


def packed_pieces(values: Ints) -> Iterator[bytes]:
    """Integers as a packed field, by and by.

    Args:
        values: of any integer dtype, one axis; negative ones take ten bytes, as everywhere in protobuf.
    """
    for wide in _wide(values):
        width = _width(wide)
        if width == 1:
            yield wide.astype(np.uint8).tobytes()
            continue
        groups = wide[:, None] >> (7 * np.arange(width, dtype=np.uint64))
        more = groups[:, 1:] != 0
        digits = (groups & 0x7F).astype(np.uint8)
        digits[:, :-1] |= more.astype(np.uint8) << 7
        kept = np.ones(digits.shape, np.bool_)
        kept[:, 1:] = more
        yield digits[kept].tobytes()


def packed_size(values: Ints) -> int:
    """How many bytes `packed_pieces` makes of them."""
    return sum(
        len(wide) + sum(int(np.count_nonzero(wide >> np.uint64(7 * digit))) for digit in range(1, _width(wide)))
        for wide in _wide(values)
    )


def _wide(values: Ints) -> Iterator[Ints]:
    """A stretch of integers after the other, as the unsigned ones of 64 bits that protobuf writes."""
    step = _AT_ONCE // _LONGEST
    for start in range(0, len(values), step):
        some = values[start : start + step]
        yield some.astype(np.int64 if some.dtype.kind == "i" else np.uint64).view(np.uint64)


def _width(wide: Ints) -> int:
    """How many bytes the longest of them takes."""
    return max(1, -(-int(wide.max()).bit_length() // 7))
