"""The bytes of one shard, made from arrays piece by piece, hashed while they pass. Blocking: runs in threads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from asyncsaver.model.digests import digest_of
from asyncsaver.model.running import running_digest

_PIECE = 1 << 20  # bytes converted, or put together from small tensors, at once
_SMALL = 64 << 10  # up to here a copy costs less than what it takes to pass a tensor on by itself
_MOST_PIECES = 8  # of a part; more cost more to pass on than to put together
_REGISTERED = 2  # what numpy.dtype.isbuiltin says of dtypes that another package has registered

Bytes = npt.NDArray[np.uint8]
_NOTHING: Bytes = np.empty(0, np.uint8)
XXH3_128 = "xxh3_128"
"""What `model.digests` takes for a checksum of ours."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The tensors of a shard in file order.

    Attributes:
        sizes: of each, in bytes.
        array: gets at the one at a position (and may block, copying from a device).
    """

    sizes: Sequence[int]
    array: Callable[[int], npt.NDArray[np.generic]]


class ShardBytes:
    """Yields a shard in parts, in order, without ever holding it whole.

    What lies in large contiguous arrays is passed on as views of the caller's memory; small tensors are put together in new
    memory.

    Args:
        header: the shard's first bytes.
        sources: its tensors, without gaps.
        like: which checksum of each tensor is wanted: another one of its kind; see `model.digests`.

    Attributes:
        size: of the shard, in bytes.
        hashes: of each tensor that has passed: xxh3_128, 32 hex digits, unless another kind is wanted.
    """

    def __init__(self, header: bytes, sources: Sources, like: str = XXH3_128) -> None:
        self._like = like
        self.size = len(header) + sum(sources.sizes)
        self.hashes: list[str] = []
        self._taken = 0
        self._crc = 0
        self._rest: Bytes = np.frombuffer(header, np.uint8)
        self._room = 0  # what is left of the part that is being taken
        self._sources = sources
        self._pieces = self._advance()

    async def load(self, size: int) -> None:
        """To be awaited before the next ``size`` bytes are taken: where they have to be fetched first, they are.

        Args:
            size: as for the call of `take` or `take_pieces` that follows.
        """

    @property
    def crc32c(self) -> str:
        """Of everything taken so far, eight hex digits."""
        return f"{self._crc:08x}"

    def take(self, size: int) -> memoryview:
        """The next ``size`` bytes, in one piece; fewer at the end, none after it."""
        taken = self._take(size)
        return (taken[0] if len(taken) == 1 else _joined(taken)).data

    def take_pieces(self, size: int) -> list[memoryview]:
        """The next ``size`` bytes as they lie in memory, in a few pieces; fewer at the end, none after it."""
        taken = self._take(size)
        return [piece.data for piece in (taken if len(taken) <= _MOST_PIECES else [_joined(taken)])]

    def _take(self, size: int) -> list[Bytes]:
        self._room = min(size, self.size - self._taken)
        self._taken += self._room
        taken: list[Bytes] = []
        while self._room:
            if not self._rest.size:
                self._rest = next(self._pieces)
                continue
            head, self._rest = self._rest[: self._room], self._rest[self._room :]
            taken.append(self._count(head))
            self._room -= head.size
        if not self._rest.size:
            self._rest = _NOTHING  # a view, even an empty one, would keep in memory what has been sent
        if self._taken == self.size:
            for _ in self._pieces:  # what is left are hashes to finish, and tensors without bytes
                pass
        return taken

    def _advance(self) -> Iterator[Bytes]:
        count = len(self._sources.sizes)
        while len(self.hashes) < count:
            packed = self._pack()
            if packed.size:
                yield packed
            if len(self.hashes) < count:
                yield from self._pass_on()

    def _pack(self) -> Bytes:
        """Put together the small tensors that come next and fit into the part, and hash them."""
        room = min(self._room, _PIECE)
        arrays: list[Any] = []  # arrays and bytes: to `bytes.join` both are memory
        first = position = len(self.hashes)
        sizes = self._sources.sizes
        while position < len(sizes) and sizes[position] <= min(room, _SMALL):
            array = self._array(position)
            arrays.append(array if _as_stored(array) else b"".join(piece.data for piece in stored_bytes(array)))
            room -= sizes[position]
            position += 1
        packed = b"".join(arrays)
        # The copy is hashed, not the arrays: it is what will be written.
        memory = memoryview(packed)
        start = 0
        for size in sizes[first:position]:
            self.hashes.append(digest_of(memory[start : start + size], self._like))
            start += size
        return np.frombuffer(packed, np.uint8)

    def _pass_on(self) -> Iterator[Bytes]:
        """Yield the bytes of the tensor that comes next by and by, and hash them."""
        digest = running_digest(self._like)
        for piece in stored_bytes(self._array(len(self.hashes))):
            rest = piece
            while rest.size:
                head, rest = rest[: self._room], rest[self._room :]
                digest.update(head.data)
                yield head
        self.hashes.append(digest.hexdigest())

    def _array(self, position: int) -> npt.NDArray[np.generic]:
        array = self._sources.array(position)
        planned = self._sources.sizes[position]
        if array.nbytes != planned:
            raise RuntimeError(f"a tensor of {planned} bytes had {array.nbytes} when it was written")
        return array

    def _count(self, piece: Bytes) -> Bytes:
        # google_crc32c takes read-only buffers that need no release: a read-only NumPy view is one, a memoryview is not.
        view = piece.view()
        view.flags.writeable = False
        self._crc = google_crc32c.extend(self._crc, view)
        return view


def _joined(pieces: Sequence[Bytes]) -> Bytes:
    return np.concatenate([np.empty(0, np.uint8), *pieces])


def stored_bytes(array: npt.NDArray[np.generic]) -> Iterator[Bytes]:
    """The bytes of an array as they are stored: C order, little-endian; views where it already is so, else copies."""
    if array.size == 0 or array.dtype.itemsize == 0:
        return
    if _as_stored(array):
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


def _as_stored(array: npt.NDArray[np.generic]) -> bool:
    return array.flags.c_contiguous and array.dtype.newbyteorder("<") == array.dtype
