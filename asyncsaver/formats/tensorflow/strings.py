"""Tensors of strings: all lengths, a checksum of them, then all bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

import numpy as np

from asyncsaver.errors import CheckpointCorruptError
from asyncsaver.formats.tensorflow.checksum import crc32c, mask
from asyncsaver.formats.tensorflow.varint import encode_varint, read_varint
from asyncsaver.model.dtypes import Array, DType

_CHECKSUM = 4
_UINT32 = 2**32


def encode_strings(strings: Iterable[bytes]) -> tuple[bytes, int]:
    """The bytes of a tensor, from its elements in C order, and the checksum for its entry, not masked."""
    elements = list(strings)
    lengths = [len(element) for element in elements]
    lengths_crc = crc32c(_fixed(lengths, "<"))
    stored = struct.pack("<I", mask(lengths_crc))
    content = b"".join(elements)
    crc = crc32c(content, crc32c(stored, lengths_crc))
    return b"".join([*map(encode_varint, lengths), stored, content]), crc


@dataclass(frozen=True, slots=True)
class StringEncoding:
    """How one chunk of strings is to be decoded.

    Attributes:
        crc: that its entry says, not masked.
        big_endian: whether a big-endian machine has written it.
    """

    crc: int
    big_endian: bool = False

    @property
    def checked(self) -> bool:
        """As `Encoding` says: their lengths and their bytes have one each."""
        return True

    def decode(self, data: memoryview, dtype: DType, shape: tuple[int, ...]) -> Array:  # noqa: ARG002 - strings are strings
        """Make the array of `bytes`; raises as `Encoding.decode`."""
        count = prod(shape)
        if count + _CHECKSUM > len(data):
            raise CheckpointCorruptError(f"{len(data)} bytes cannot be {count} strings")
        lengths, position = _lengths(data, count)
        order = ">" if self.big_endian else "<"
        lengths_crc = crc32c(_fixed(lengths, order))
        content = position + _CHECKSUM
        if content + sum(lengths) != len(data):
            raise CheckpointCorruptError("the strings have other lengths than their tensor")
        stored = data[position:content]
        if struct.unpack(f"{order}I", stored) != (mask(lengths_crc),):
            raise CheckpointCorruptError("the checksum of the strings' lengths differs")
        if crc32c(data[content:], crc32c(stored, lengths_crc)) != self.crc:
            raise CheckpointCorruptError("the checksum of the strings differs")
        strings = np.empty(count, object)
        for number, length in enumerate(lengths):
            strings[number] = bytes(data[content : content + length])
            content += length
        return strings.reshape(shape)


def _lengths(data: memoryview, count: int) -> tuple[list[int], int]:
    """The lengths that the data begin with, and the position behind them."""
    lengths: list[int] = []
    position = 0
    for _ in range(count):
        length = data[position] if position < len(data) else 0xFF
        if length < 0x80:
            position += 1
        else:
            length, position = read_varint(data, position)
        lengths.append(length)
    if position + _CHECKSUM > len(data):
        raise CheckpointCorruptError("the strings' lengths do not end")
    return lengths, position


def _fixed(lengths: list[int], order: str) -> bytes:
    """Lengths as their checksum sees them: four bytes each, or eight."""
    if max(lengths, default=0) < _UINT32:
        return np.array(lengths, f"{order}u4").tobytes()
    return b"".join([struct.pack(f"{order}{'I' if length < _UINT32 else 'Q'}", length) for length in lengths])
