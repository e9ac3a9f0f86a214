"""Checksums of chunks: ours, and what stands in their place for the files of other libraries."""

from __future__ import annotations

import google_crc32c
import numpy as np
import xxhash

NO_DIGEST = ""
"""`Chunk.xxh3_128` of bytes whose checksum nobody has written down."""
_CRC32C = "crc32c:"


def crc32c_digest(crc: int) -> str:
    """What stands for `Chunk.xxh3_128` where the crc32c of the chunk's bytes (not masked) is known instead."""
    return f"{_CRC32C}{crc:08x}"


def digest_of(data: bytes | memoryview, like: str) -> str:
    """The checksum of some bytes, of the same kind as another one: what there is none of has none."""
    if not like.startswith(_CRC32C):
        return xxhash.xxh3_128_hexdigest(data) if like else NO_DIGEST
    view = np.frombuffer(data, np.uint8)
    view.flags.writeable = False  # google_crc32c takes read-only buffers that need no release
    return crc32c_digest(google_crc32c.value(view))


def kind_of(digest: str) -> str:
    """What a checksum is called, for messages."""
    return "crc32c" if digest.startswith(_CRC32C) else "xxh3_128"
