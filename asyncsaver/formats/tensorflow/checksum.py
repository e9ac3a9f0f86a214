"""CRC-32C as TensorFlow stores it: masked, since a checksum of data that contain checksums would be of little use."""

from __future__ import annotations

import google_crc32c
import numpy as np

_BITS = 0xFFFFFFFF
_DELTA = 0xA282EAD8


def crc32c(data: bytes | memoryview, crc: int = 0) -> int:
    """The checksum of some bytes, or going on from that of those before them."""
    if isinstance(data, memoryview):  # google_crc32c takes read-only buffers that need no release
        array = np.frombuffer(data, np.uint8)
        array.flags.writeable = False
        return int(google_crc32c.extend(crc, array))
    return int(google_crc32c.extend(crc, data))


def mask(crc: int) -> int:
    """A checksum as it is stored."""
    return ((crc >> 15 | crc << 17) + _DELTA) & _BITS


def unmask(stored: int) -> int:
    """The checksum that `mask` has made so."""
    rotated = (stored - _DELTA) & _BITS
    return (rotated >> 17 | rotated << 15) & _BITS
