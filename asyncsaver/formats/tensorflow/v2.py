"""A V2 checkpoint in our own terms: from its index, and the sizes of the files beside it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from asyncsaver.errors import CheckpointCorruptError, ManifestError
from asyncsaver.formats.tensorflow.big_endian import BigEndianEncoding
from asyncsaver.formats.tensorflow.bundle import Entry, Index, data_path, decode_index, index_path
from asyncsaver.formats.tensorflow.dtypes import STRING, TensorFlowType, type_of
from asyncsaver.formats.tensorflow.messages import Shape, box_of, shape_problem
from asyncsaver.formats.tensorflow.naming import step_of
from asyncsaver.formats.tensorflow.sheet import Sheet
from asyncsaver.formats.tensorflow.strings import StringEncoding
from asyncsaver.model.digests import NO_DIGEST, crc32c_digest
from asyncsaver.model.foreign import Foreign
from asyncsaver.model.manifest import Chunk

_SHARED = 16
"""How many times over the bytes of the data files may be claimed: TensorFlow lets tensors share bytes."""


def describe_v2(data: bytes, prefix: str, sizes: Mapping[str, int]) -> Foreign:
    """Describe a V2 checkpoint.

    Args:
        data: its index.
        prefix: of its files.
        sizes: path → size of what is there.

    Raises:
        ManifestError: the index is damaged as a whole.
    """
    return describe_index(decode_index(data, index_path(prefix)), prefix, sizes)


def describe_index(index: Index, prefix: str, sizes: Mapping[str, int]) -> Foreign:
    """As `describe_v2`, of an index that is decoded already."""
    return _Bundle(index, prefix, sizes).describe(index_path(prefix))


class _Bundle:
    def __init__(self, index: Index, prefix: str, sizes: Mapping[str, int]) -> None:
        self._index = index
        self._prefix = prefix
        self._sheet = Sheet()
        self._shards: dict[int, tuple[int, int]] = {}  # position of the file, and its size
        for shard in range(index.shards):
            path = data_path(prefix, shard, index.shards)
            size = sizes.get(path)
            if size is not None:
                self._shards[shard] = (self._sheet.add_file(path, size), size)
        self._shape_problems: dict[tuple[Shape, bool], str] = {}
        self._room = _SHARED * sum(size for _, size in self._shards.values())

    def describe(self, where: str) -> Foreign:
        index, sheet = self._index, self._sheet
        for name, entry in index.entries.items():
            kind = sheet.add_tensor(name, entry.dtype, entry.shape)
            try:
                self._add(name, entry, kind)
            except CheckpointCorruptError as error:
                sheet.set_unreadable(name, f"{where}: tensor {name!r}: {error}")
        for name in sorted(index.damaged.keys() - index.entries.keys()):
            sheet.add_tensor(name, 0, ())
            sheet.set_unreadable(name, f"{where}: tensor {name!r}: {index.damaged[name]}")
        if self._room < 0:
            raise ManifestError(f"{where}: the tensors claim far more bytes than the data files have", path=where)
        return sheet.foreign(self._prefix.rpartition("/")[2], step_of(self._prefix))

    def _add(self, name: str, entry: Entry, kind: TensorFlowType) -> None:
        """Note where a tensor is; raises `CheckpointCorruptError` where it cannot be read."""
        problem = self._index.damaged.get(name) or self._shape_problem(entry)
        if problem:
            raise CheckpointCorruptError(problem)
        pieces = [entry]
        if entry.slices:
            pieces = self._add_slices(name, entry, kind)
        else:
            self._sheet.set_whole(name, self._chunk(entry, kind, (0,) * len(entry.shape)))
        big = self._index.big_endian
        if entry.dtype == STRING:
            self._sheet.encodings[name] = [StringEncoding(piece.crc32c, big) for piece in pieces]
        elif big and kind.dtype.itemsize > 1:
            self._sheet.encodings[name] = BigEndianEncoding()

    def _chunk(self, entry: Entry, kind: TensorFlowType, offset: Shape) -> Chunk:
        """Where the bytes of an entry are; raises `CheckpointCorruptError` where they cannot be there."""
        if not kind.readable:
            raise CheckpointCorruptError(f"TensorFlow's {kind.name} has no data that could be read")
        start, size = entry.offset, entry.size
        stop = start + size
        shard = self._shards.get(entry.shard)
        if shard is None:
            count = self._index.shards
            if not 0 <= entry.shard < count:
                raise CheckpointCorruptError(f"is said to be in data file {entry.shard} of {count}")
            raise CheckpointCorruptError(f"{data_path(self._prefix, entry.shard, count)} is missing")
        position, length = shard
        if not 0 <= start <= stop <= length:
            path = data_path(self._prefix, entry.shard, self._index.shards)
            raise CheckpointCorruptError(f"is said to be bytes {start} to {stop} of {path}, which has {length}")
        self._room -= size
        elements = prod(entry.shape)
        if entry.dtype == STRING:
            if size <= elements:
                raise CheckpointCorruptError(f"{size} bytes cannot be {elements} strings")
            return Chunk(offset, entry.shape, position, start, stop, NO_DIGEST)
        if size != elements * kind.dtype.itemsize:
            raise CheckpointCorruptError(f"{size} bytes cannot be {kind.name}{list(entry.shape)}")
        return Chunk(offset, entry.shape, position, start, stop, crc32c_digest(entry.crc32c))

    def _add_slices(self, name: str, entry: Entry, kind: TensorFlowType) -> list[Entry]:
        """Note a tensor that is stored in slices; returns their entries in the same order."""
        pieces: list[Entry] = []
        chunks: list[Chunk] = []
        for extents in entry.slices:
            offset, shape = box_of(extents, entry.shape)
            piece = self._index.slices.get((name, extents))
            if piece is None:
                raise CheckpointCorruptError(f"the slice at {list(offset)} of shape {list(shape)} has no entry")
            if (piece.dtype, piece.shape) != (entry.dtype, shape):
                stored = f"{type_of(piece.dtype).name}{list(piece.shape)}"
                raise CheckpointCorruptError(
                    f"the slice at {list(offset)} of shape {list(shape)} is stored as {stored}"
                )
            if 0 not in shape:
                pieces.append(piece)
                chunks.append(self._chunk(piece, kind, offset))
        self._sheet.set_slices(name, chunks)
        return pieces

    def _shape_problem(self, entry: Entry) -> str:
        shape = entry.shape, entry.unknown_rank
        known = self._shape_problems.get(shape)
        if known is None:
            known = self._shape_problems[shape] = shape_problem(entry.shape, unknown_rank=entry.unknown_rank)
        return known
