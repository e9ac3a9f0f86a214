"""Assemble: from the chunks of a tensor to the array, or the box of one, that somebody wants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asyncsaver.model.dtypes import Array, DType
from asyncsaver.model.foreign import Encoding
from asyncsaver.model.manifest import Chunk, TensorEntry
from asyncsaver.model.rebuild import TensorRead
from asyncsaver.model.slices import byte_range, overlap, smallest_run
from asyncsaver.restore.decode import Decoding
from asyncsaver.restore.fetch import Need
from asyncsaver.restore.source import Source


@dataclass(frozen=True, slots=True)
class Paste:
    """What is left to do once everything is read: ``into[...] = data``."""

    into: Array
    data: Array


@dataclass(frozen=True, slots=True)
class Assembly:
    """What to read for boxes of tensors, and what is left to do then.

    Attributes:
        source: what is read.
        needs: to be fetched.
        pastes: to be carried out by `paste`, once all is there.
    """

    source: Source
    needs: list[Need] = field(default_factory=list)
    pastes: list[Paste] = field(default_factory=list)
    _encoded: dict[tuple[int, int, int, str | None], list[Decoding]] = field(default_factory=dict)

    def add_whole(self, reads: Iterable[TensorRead], request_bytes: int, *, verify: bool) -> dict[str, Array]:
        """Have tensors read whole.

        Args:
            reads: which, and where to; what has no destination that fits gets new memory.
            request_bytes: the most that a request has.
            verify: whether they are to be checked.

        Returns:
            Where each is going to be, except for those that the `Fetcher` adds: they stay in the memory of their request.
        """
        arrays: dict[str, Array] = {}
        tensors, encoding = self.source.tensors, self.source.encoding
        for read in reads:
            name, entry = read.name, tensors[read.name]
            plain = len(entry.chunks) == 1 and (encoding is None or encoding(name, 0) is None)
            if read.dtype.hasobject:  # what Python objects are made of never lies in memory that is read into
                arrays[name] = np.empty(read.shape, read.dtype)
                self.add(name, entry, read.dtype, (0,) * len(read.shape), arrays[name], verify=verify)
            elif plain:  # the chunk then is the tensor: that it is covered was checked
                [chunk] = entry.chunks
                digest = _digest(chunk, verify=verify)
                into: Array | TensorRead = read
                if not (read.passing and 0 < chunk.stop - chunk.start <= request_bytes):
                    into = arrays[name] = _memory(read)
                self.needs.append(Need(name, chunk.file, chunk.start, chunk.stop, into, digest))
            else:
                arrays[name] = _memory(read)
                self.add(name, entry, read.dtype, (0,) * len(read.shape), arrays[name], verify=verify)
        return arrays

    def add(
        self, name: str, entry: TensorEntry, dtype: DType, offset: tuple[int, ...], into: Array, *, verify: bool
    ) -> None:
        """Have a box of a tensor read, straight into its memory where that is contiguous.

        Args:
            name: of the tensor.
            entry: of the manifest.
            dtype: as stored.
            offset: of the box in the tensor, per axis.
            into: C-contiguous memory of the box: its shape is the box's, its dtype as stored.
            verify: whether chunks that are needed whole are to be checked. Of a chunk needed in part only that part is read,
                and there is nothing to check it against.
        """
        for number, chunk in enumerate(entry.chunks):
            encoding = self.source.encoding_of(name, number)
            if encoding is not None:
                self._add_encoded(name, chunk, encoding, offset, into, verify=verify)
            elif dtype.hasobject:  # bytes of a file would become references
                raise TypeError(f"{self.source.checkpoint.url}: nothing says how the elements of {name!r} are stored")
            elif chunk.shape == into.shape and chunk.offset == offset:  # the box itself: nearly always
                digest = _digest(chunk, verify=verify)
                self.needs.append(Need(name, chunk.file, chunk.start, chunk.stop, into, digest))
            else:
                self._add_shared(name, chunk, dtype, offset, into, verify=verify)

    def paste(self) -> None:
        """Put what was read into memory of its own where it belongs. Blocking."""
        for paste in self.pastes:
            paste.into[...] = paste.data

    def _add_encoded(
        self, name: str, chunk: Chunk, encoding: Encoding, offset: tuple[int, ...], into: Array, *, verify: bool
    ) -> None:
        """Have a chunk read whole, once even if several tensors lie in it, and what a box has of it decoded into the box."""
        shared = overlap(chunk.offset, chunk.shape, offset, into.shape)
        if shared is None:
            if into.size or chunk.shape != into.shape:
                return
            shared = tuple(slice(start, start + length) for start, length in zip(offset, into.shape, strict=True))
        digest = _digest(chunk, verify=verify)
        key = chunk.file, chunk.start, chunk.stop, digest
        decodings = self._encoded.get(key)
        if decodings is None:
            decodings = self._encoded[key] = []
            self.needs.append(Need(name, chunk.file, chunk.start, chunk.stop, decodings, digest))
        index: tuple[Any, ...] = (*_shifted(shared, offset), ...)
        decodings.append(Decoding(name, chunk.shape, encoding, _shifted(shared, chunk.offset), into[index]))

    def _add_shared(
        self, name: str, chunk: Chunk, dtype: DType, offset: tuple[int, ...], into: Array, *, verify: bool
    ) -> None:
        shared = overlap(chunk.offset, chunk.shape, offset, into.shape)
        if shared is None:
            if not into.size and chunk.shape == into.shape and verify:
                self.needs.append(Need(name, chunk.file, chunk.start, chunk.stop, into, _digest(chunk, verify=verify)))
            return
        run = smallest_run(chunk.shape, _shifted(shared, chunk.offset))
        start, stop = byte_range(chunk.shape, run, dtype.itemsize)
        whole = run.shape == chunk.shape
        # Without the ellipsis, NumPy copies the element of a 0-d array.
        index: tuple[Any, ...] = (*_shifted(shared, offset), ...)
        place = into[index]
        if run.shape == place.shape and place.flags.c_contiguous:
            memory = place
        else:
            memory = np.empty(run.shape, dtype)
            self.pastes.append(Paste(place, memory[run.index]))
        digest = _digest(chunk, verify=verify and whole)
        self.needs.append(Need(name, chunk.file, chunk.start + start, chunk.start + stop, memory, digest))


def _shifted(box: Sequence[slice], origin: Sequence[int]) -> tuple[slice, ...]:
    """A box in coordinates that begin at an origin."""
    return tuple(slice(part.start - low, part.stop - low) for part, low in zip(box, origin, strict=True))


def _digest(chunk: Chunk, *, verify: bool) -> str | None:
    return (chunk.xxh3_128 or None) if verify else None


def _memory(read: TensorRead) -> Array:
    direct = read.destination
    return direct if direct is not None and read.direct else np.empty(read.shape, read.dtype)


def files_of_box(entry: TensorEntry, offset: Sequence[int], shape: tuple[int, ...]) -> set[int]:
    """Positions of the files that a box of a tensor is read from."""
    return {
        chunk.file
        for chunk in entry.chunks
        if overlap(chunk.offset, chunk.shape, offset, shape) is not None or (chunk.shape == shape and 0 in shape)
    }
