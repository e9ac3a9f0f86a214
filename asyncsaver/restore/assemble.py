"""Assemble: from the chunks of a tensor to the array, or the box of one, that somebody wants."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asyncsaver.errors import CheckpointCorruptError
from asyncsaver.model.dtypes import Array, DType
from asyncsaver.model.foreign import Encoding
from asyncsaver.model.manifest import Chunk, TensorEntry
from asyncsaver.model.rebuild import TensorRead
from asyncsaver.model.slices import byte_range, overlap, smallest_run
from asyncsaver.restore.fetch import Need
from asyncsaver.restore.source import Source


@dataclass(frozen=True, slots=True)
class Paste:
    """What is left to do once everything is read: ``into[...] = data``."""

    into: Array
    data: Array


@dataclass(frozen=True, slots=True)
class Decoding:
    """What is left to do once the bytes of a chunk are read that are not its elements: ``into[...] =`` what they decode to."""

    name: str
    chunk: Chunk
    into: Array
    data: Array
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class Assembly:
    """What to read for boxes of tensors, and what is left to do then.

    Attributes:
        source: what is read.
        needs: to be fetched.
        pastes: to be carried out by `paste`, once all is there.
        decodings: likewise.
    """

    source: Source
    needs: list[Need] = field(default_factory=list)
    pastes: list[Paste] = field(default_factory=list)
    decodings: list[Decoding] = field(default_factory=list)
    _raw: dict[tuple[int, int, int], Array] = field(default_factory=dict)

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
            if encoding is not None and self._add_encoded(name, entry, read, arrays, verify=verify):
                continue
            if len(entry.chunks) == 1:  # which then is the tensor: that it is covered was checked
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
        for chunk in entry.chunks:
            if chunk.shape == into.shape and chunk.offset == offset:  # the box itself: nearly always
                digest = _digest(chunk, verify=verify)
                self.needs.append(Need(name, chunk.file, chunk.start, chunk.stop, into, digest))
            else:
                self._add_shared(name, chunk, dtype, offset, into, verify=verify)

    def paste(self) -> None:
        """Put what was read into memory of its own where it belongs, decoded if need be. Blocking.

        Raises:
            CheckpointCorruptError: it cannot be decoded.
        """
        for paste in self.pastes:
            paste.into[...] = paste.data
        for step in self.decodings:
            chunk = step.chunk
            data = step.data.data.toreadonly()
            try:
                step.into[...] = step.encoding.decode(data, step.into.dtype, chunk.shape)
            except CheckpointCorruptError as error:
                path = self.source.files[chunk.file].path
                raise CheckpointCorruptError(
                    f"{self.source.url}/{path}, bytes {chunk.start} to {chunk.stop}: tensor {step.name!r}: {error}",
                    path=path,
                    tensors=[step.name],
                ) from error

    def _add_encoded(
        self, name: str, entry: TensorEntry, read: TensorRead, arrays: dict[str, Array], *, verify: bool
    ) -> bool:
        """Have the chunks of a tensor read that are to be decoded; False where all are plain."""
        encodings = [self.source.encoding_of(name, number) for number in range(len(entry.chunks))]
        if not any(encodings):
            return False
        # What Python objects are made of never lies in memory that is read into.
        into = arrays[name] = np.empty(read.shape, read.dtype) if read.dtype.hasobject else _memory(read)
        for chunk, encoding in zip(entry.chunks, encodings, strict=True):
            if encoding is None:
                self._add_shared(name, chunk, read.dtype, (0,) * len(read.shape), into, verify=verify)
                continue
            index: tuple[Any, ...] = tuple(
                slice(start, start + length) for start, length in zip(chunk.offset, chunk.shape, strict=True)
            )
            data = self._read_raw(name, chunk, verify=verify)
            self.decodings.append(Decoding(name, chunk, into[(*index, ...)], data, encoding))
        return True

    def _read_raw(self, name: str, chunk: Chunk, *, verify: bool) -> Array:
        """Have all bytes of a chunk read, once even if several tensors lie in them."""
        key = chunk.file, chunk.start, chunk.stop
        if key not in self._raw:
            self._raw[key] = np.empty(chunk.stop - chunk.start, np.uint8)
            self.needs.append(Need(name, *key, self._raw[key], _digest(chunk, verify=verify)))
        return self._raw[key]

    def _add_shared(
        self, name: str, chunk: Chunk, dtype: DType, offset: tuple[int, ...], into: Array, *, verify: bool
    ) -> None:
        shared = overlap(chunk.offset, chunk.shape, offset, into.shape)
        if shared is None:
            if not into.size and chunk.shape == into.shape and verify:
                self.needs.append(Need(name, chunk.file, chunk.start, chunk.stop, into, _digest(chunk, verify=verify)))
            return
        inside = tuple(
            slice(part.start - start, part.stop - start) for part, start in zip(shared, chunk.offset, strict=True)
        )
        run = smallest_run(chunk.shape, inside)
        start, stop = byte_range(chunk.shape, run, dtype.itemsize)
        whole = run.shape == chunk.shape
        corner = [slice(part.start - low, part.stop - low) for part, low in zip(shared, offset, strict=True)]
        index: tuple[Any, ...] = (*corner, ...)  # without the ellipsis, NumPy copies the element of a 0-d array
        place = into[index]
        if run.shape == place.shape and place.flags.c_contiguous:
            memory = place
        else:
            memory = np.empty(run.shape, dtype)
            self.pastes.append(Paste(place, memory[run.index]))
        digest = _digest(chunk, verify=verify and whole)
        self.needs.append(Need(name, chunk.file, chunk.start + start, chunk.start + stop, memory, digest))


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
