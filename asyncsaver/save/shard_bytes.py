"""The bytes of one shard, made from arrays piece by piece, hashed while they pass. Blocking: runs in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import google_crc32c
import numpy as np
import numpy.typing as npt
import xxhash

_PIECE = 1 << 20  # bytes converted at once where an array is not already laid out as it is stored
_REGISTERED = 2  # what numpy.dtype.isbuiltin says of dtypes that another package has registered

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor in file order: its size in bytes and how to get at it (which may block, copying from a device)."""

    nbytes: int
    array: Callable[[], npt.NDArray[np.generic]]


class ShardBytes:
    """Yields a shard in parts, in order, without ever holding it whole.

    A part that lies within one contiguous array is a view of the caller's memory; others are put together in new memory.

    Args:
        header: the shard's first bytes.
        sources: its tensors, without gaps.

    Attributes:
        size: of the shard, in bytes.
        hashes: of each tensor that has passed: xxh3_128, 32 hex digits.
    """

    def __init__(self, header: bytes, sources: Sequence[Source]) -> None:
        self.size = len(header) + sum(source.nbytes for source in sources)
        self.hashes: list[str] = []
        self._taken = 0
        self._crc = 0
        self._digest = xxhash.xxh3_128()
        self._rest: Bytes = np.frombuffer(header, np.uint8)
        self._pieces = self._advance(sources)

    @property
    def crc32c(self) -> str:
        """Of everything taken so far, eight hex digits."""
        return f"{self._crc:08x}"

    def take(self, size: int) -> memoryview:
        """The next ``size`` bytes; fewer at the end, none after it."""
        size = min(size, self.size - self._taken)
        self._taken += size
        taken: list[Bytes] = []
        while size:
            if not self._rest.size:
                next(self._pieces)
                continue
            head, self._rest = self._rest[:size], self._rest[size:]
            taken.append(self._count(head))
            size -= head.size
        if self._taken == self.size:
            for _ in self._pieces:  # what is left are hashes to finish, and tensors without bytes
                pass
        return (taken[0] if len(taken) == 1 else np.concatenate([self._rest[:0], *taken])).data

    def _advance(self, sources: Sequence[Source]) -> Iterator[None]:
        for source in sources:
            self._digest = xxhash.xxh3_128()
            planned = source.nbytes
            for piece in stored_bytes(source.array()):
                planned -= piece.size
                self._rest = piece
                yield
            if planned:
                raise RuntimeError(
                    f"a tensor of {source.nbytes} bytes had {source.nbytes - planned} when it was written"
                )
            self.hashes.append(self._digest.hexdigest())

    def _count(self, piece: Bytes) -> Bytes:
        # google_crc32c takes read-only buffers that need no release: a read-only NumPy view is one, a memoryview is not.
        view = piece.view()
        view.flags.writeable = False
        self._crc = google_crc32c.extend(self._crc, view)
        self._digest.update(view.data)
        return view


def stored_bytes(array: npt.NDArray[np.generic]) -> Iterator[Bytes]:
    """The bytes of an array as they are stored: C order, little-endian; views where it already is so, else copies."""
    if array.size == 0 or array.dtype.itemsize == 0:
        return
    if array.flags.c_contiguous and _little(array.dtype):
        yield array.reshape(-1).view(np.uint8)
        return
    # NumPy's buffered iterator knows its own dtypes; those of ml_dtypes have one byte order, and pass as opaque bytes.
    plain = array.view(f"V{array.itemsize}") if array.dtype.isbuiltin == _REGISTERED else array
    pieces = np.nditer(
        plain,
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=["readonly"],
        op_dtypes=plain.dtype.newbyteorder("<"),
        order="C",
        casting="equiv",
        buffersize=max(1, _PIECE // array.itemsize),
    )
    with pieces:
        for piece in pieces:
            yield np.array(piece, copy=True).reshape(-1).view(np.uint8)


def _little(dtype: np.dtype[np.generic]) -> bool:
    return dtype.newbyteorder("<") == dtype
