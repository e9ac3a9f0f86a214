"""Snappy, which TensorFlow reads but never writes."""

from __future__ import annotations

from asyncsaver.errors import CheckpointCorruptError
from asyncsaver.formats.tensorflow.varint import read_varint

EXPANSION = 22
"""No byte of snappy stands for more: a copy of 64 bytes takes three."""
_LARGEST = 2**32 - 1  # as the format has it


def decompress(data: bytes | memoryview) -> bytes:
    """The bytes that were compressed, in snappy's raw format.

    Raises:
        CheckpointCorruptError: they are not in that format, or claim to be more than they can be.
        ImportError: cramjam is not installed.
    """
    size, _ = read_varint(data, 0)
    if size > min(EXPANSION * len(data), _LARGEST):
        raise CheckpointCorruptError(f"{len(data)} bytes of snappy cannot be {size}")
    try:
        import cramjam  # noqa: PLC0415 - hardly ever needed
    except ImportError as error:
        raise ImportError(
            "a block is compressed with snappy, which needs cramjam: pip install 'asyncsaver[tensorflow]'",
            name="cramjam",
        ) from error
    whole = bytearray(size)
    try:
        written = cramjam.snappy.decompress_raw_into(data, whole)
    except cramjam.DecompressionError as error:
        raise CheckpointCorruptError(f"the block is not snappy: {error}") from error
    if written != size:
        raise CheckpointCorruptError(f"{written} bytes of snappy came out where {size} were said to")
    return bytes(whole)
