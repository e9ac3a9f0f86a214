"""Checksums of bytes that pass piece by piece."""

from __future__ import annotations

from typing import Protocol, cast

import google_crc32c
import numpy as np
import numpy.typing as npt
import xxhash

from asyncsaver.model.digests import crc32c_digest, kind_of

Bytes = npt.NDArray[np.uint8]


class RunningDigest(Protocol):
    """A checksum on its way."""

    def update(self, data: memoryview | Bytes) -> None:
        """Go on with these bytes, which are contiguous."""
        ...

    def hexdigest(self) -> str:
        """The checksum, as `digest_of` writes it."""
        ...


def running_digest(like: str) -> RunningDigest:
    """Begin a checksum of the same kind as another one; see `model.digests`."""
    return cast("RunningDigest", xxhash.xxh3_128()) if kind_of(like) == "xxh3_128" else _Crc32c()


class _Crc32c:
    def __init__(self) -> None:
        self._crc = 0

    def update(self, data: memoryview | Bytes) -> None:
        view = np.frombuffer(data, np.uint8)
        view.flags.writeable = False  # google_crc32c takes read-only buffers that need no release
        self._crc = google_crc32c.extend(self._crc, view)

    def hexdigest(self) -> str:
        return crc32c_digest(self._crc)
