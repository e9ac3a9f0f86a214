"""Read tensors one after another as one run of bytes, of which only what is asked for is in memory."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from asyncsaver.aio.budget import ByteBudget
from asyncsaver.catalog.root import Root
from asyncsaver.errors import CheckpointCorruptError
from asyncsaver.model.boxes import boxes_of
from asyncsaver.model.digests import kind_of
from asyncsaver.model.dtypes import Array, DType
from asyncsaver.model.manifest import Chunk, TensorEntry
from asyncsaver.model.running import Bytes, RunningDigest, running_digest
from asyncsaver.restore.assemble import Assembly
from asyncsaver.restore.fetch import Fetcher, Need, byte_view
from asyncsaver.restore.source import Source


@dataclass(frozen=True, slots=True)
class Streaming:
    """What all streams of one checkpoint share.

    Attributes:
        root: where it is; its budget bounds the requests in flight.
        source: what is read.
        scratch: bounds what is put together elsewhere first: chunks whose bytes lie apart in the tensor.
        pack: makes the bytes of a tensor of Python objects, of which it is given the name, for a target that can hold such.
    """

    root: Root
    source: Source
    scratch: ByteBudget
    pack: Callable[[str, Array], Bytes] | None = None

    def is_whole(self, name: str) -> bool:
        """Whether a tensor has to be decoded, and so is held whole."""
        chunks = range(len(self.source.tensors[name].chunks))
        return any(self.source.encoding_of(name, chunk) is not None for chunk in chunks)


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes that have been read: of one tensor or several, without gaps.

    Attributes:
        data: them.
        ends: position in them behind the last byte of each tensor that ends there.
    """

    data: Bytes
    ends: Sequence[int]


class _Segment(msgspec.Struct, frozen=True, gc=False):
    """Elements of a tensor that are to be read: all of them, or some in C order."""

    name: str
    start: int
    stop: int
    ends: bool


class _Watch(msgspec.Struct, frozen=True, gc=False):
    """A need that has only a part of a chunk whose checksum is known."""

    need: Need
    key: tuple[str, int]
    chunk: Chunk


@dataclass(slots=True)
class _Batch:
    """What one call of `TensorStream.load` reads, and what becomes of it."""

    assembly: Assembly
    runs: list[Run] = field(default_factory=list)
    wholes: dict[int, tuple[str, Array]] = field(default_factory=dict)  # by the position of the run that they will be
    watches: list[_Watch] = field(default_factory=list)
    nbytes: int = 0

    @property
    def scratch(self) -> int:
        wholes = [array.nbytes for _, array in self.wholes.values()]
        return sum([paste.data.nbytes for paste in self.assembly.pastes]) + sum(wholes)


@dataclass(slots=True)
class TensorStream:
    """Tensors one after another, each in C order, little-endian.

    What is read is compared with the checksums there are, also of chunks that are read in several parts: a damaged one is an
    error when its last byte has been read.

    Args:
        streaming: of what.
        names: of the tensors; none of them is empty, except that one of Python objects may have no elements.
    """

    streaming: Streaming
    names: Sequence[str]
    _position: int = 0  # of the tensor of which something is to be read next
    _element: int = 0  # of that tensor, the first that was not read
    _runs: deque[Run] = field(default_factory=deque)
    _ahead: int = 0
    _digests: dict[tuple[str, int], tuple[RunningDigest, int]] = field(default_factory=dict)

    async def load(self, size: int) -> None:
        """Have the next ``size`` bytes in memory, or a few more, or as many as there are.

        Raises:
            CheckpointCorruptError: the data are damaged.
            StoreError: the store failed.
        """
        root, source = self.streaming.root, self.streaming.source
        while size > self._ahead and self._position < len(self.names):  # what is packed may be shorter than it was
            batch = await root.threads.run(self._plan, size - self._ahead)
            try:
                async with self.streaming.scratch.hold(batch.scratch):
                    await Fetcher(root, source, _nobody, {}).fetch(batch.assembly.needs)
                    await root.threads.run(self._finish, batch)
            except CheckpointCorruptError as error:
                await source.explain(error)
                raise

    def take(self) -> Run | None:
        """What was loaded first and has not been taken yet; None where there is nothing."""
        if not self._runs:
            return None
        run = self._runs.popleft()
        self._ahead -= run.data.size
        return run

    def _plan(self, size: int) -> _Batch:
        batch = _Batch(Assembly(self.streaming.source))
        group: list[_Segment] = []
        while batch.nbytes < size and self._position < len(self.names):
            name = self.names[self._position]
            spec = self.streaming.source.spec(name)
            if self.streaming.is_whole(name):
                self._add_group(batch, group)
                group = []
                self._add_whole(batch, name, spec.dtype, spec.shape)
                self._position += 1
                continue
            count = math.prod(spec.shape)
            stop = min(count, self._element - (batch.nbytes - size) // spec.dtype.itemsize)
            group.append(_Segment(name, self._element, stop, stop == count))
            batch.nbytes += (stop - self._element) * spec.dtype.itemsize
            self._position, self._element = (self._position + 1, 0) if stop == count else (self._position, stop)
        self._add_group(batch, group)
        return batch

    def _add_whole(self, batch: _Batch, name: str, dtype: DType, shape: tuple[int, ...]) -> None:
        array: Array = np.empty(shape, dtype)
        entry = self.streaming.source.tensors[name]
        batch.assembly.add(name, entry, dtype, (0,) * len(shape), array, verify=True)
        batch.wholes[len(batch.runs)] = name, array
        batch.runs.append(Run(np.empty(0, np.uint8), ()))
        batch.nbytes += array.nbytes

    def _add_group(self, batch: _Batch, group: Sequence[_Segment]) -> None:
        """Have segments read into memory of their own, side by side."""
        source = self.streaming.source
        sizes = [(one.stop - one.start) * source.spec(one.name).dtype.itemsize for one in group]
        if not group:
            return
        memory = np.empty(sum(sizes), np.uint8)
        ends: list[int] = []
        at = 0
        for segment, size in zip(group, sizes, strict=True):
            entry = source.tensors[segment.name]
            itemsize = size // (segment.stop - segment.start)
            # Bytes are moved, nothing else; and as void, an element may stand anywhere.
            dtype = np.dtype(f"V{itemsize}")
            for offset, box in boxes_of(entry.shape, segment.start, segment.stop):
                into: Array = np.ndarray(box, dtype, memory, at)
                self._add_box(batch, segment.name, entry, offset, into)
                at += into.nbytes
            if segment.ends:
                ends.append(at)
        batch.runs.append(Run(memory, ends))

    def _add_box(self, batch: _Batch, name: str, entry: TensorEntry, offset: tuple[int, ...], into: Array) -> None:
        assembly = batch.assembly
        for number, chunk in enumerate(entry.chunks):
            first = len(assembly.needs)
            one = TensorEntry(entry.dtype, entry.shape, (chunk,))
            assembly.add(name, one, into.dtype, offset, into, verify=True)
            if chunk.xxh3_128:
                batch.watches += [
                    _Watch(need, (name, number), chunk) for need in assembly.needs[first:] if need.digest is None
                ]

    def _finish(self, batch: _Batch) -> None:
        """Put everything where it belongs, and go on with the checksums. Blocking."""
        batch.assembly.paste()
        for watch in batch.watches:
            self._check(watch)
        for position, (name, array) in batch.wholes.items():
            data = self._packed(name, array)
            batch.runs[position] = Run(data, (data.size,))
        self._runs.extend(batch.runs)
        self._ahead += sum(run.data.size for run in batch.runs)

    def _packed(self, name: str, array: Array) -> Bytes:
        if not array.dtype.hasobject:
            return byte_view(array)
        if self.streaming.pack is None:
            raise RuntimeError("nothing says how a tensor of Python objects is to be written")
        return self.streaming.pack(name, array)

    def _check(self, watch: _Watch) -> None:
        """Go on with the checksum of a chunk. Its parts come in the order in which they stand in it."""
        need, chunk = watch.need, watch.chunk
        digest, done = self._digests.get(watch.key) or (running_digest(chunk.xxh3_128), 0)
        if isinstance(need.into, np.ndarray):
            digest.update(byte_view(need.into))
        done += need.stop - need.start
        if done < chunk.stop - chunk.start:
            self._digests[watch.key] = digest, done
            return
        self._digests.pop(watch.key, None)
        if digest.hexdigest() != chunk.xxh3_128:
            source, name = self.streaming.source, watch.key[0]
            path = source.files[chunk.file].path
            raise CheckpointCorruptError(
                f"{source.url}/{path}, bytes {chunk.start} to {chunk.stop}: the data of tensor {name!r} are not "
                f"those that were written ({kind_of(chunk.xxh3_128)} differs)",
                path=path,
                tensors=[name],
            )


def _nobody(nbytes: int) -> None:
    """Whoever writes tells how far it is."""
    del nbytes
