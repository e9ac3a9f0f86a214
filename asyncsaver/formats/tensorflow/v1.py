"""V1 checkpoints, read: tables that hold the tensors themselves, behind an entry that lists them. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from asyncsaver.errors import CheckpointCorruptError, ManifestError
from asyncsaver.formats.tensorflow.block import Entries
from asyncsaver.formats.tensorflow.dtypes import type_of
from asyncsaver.formats.tensorflow.messages import (
    Shape,
    box_of,
    check_versions,
    parse,
    shape_problem,
    slice_of,
)
from asyncsaver.formats.tensorflow.naming import step_of
from asyncsaver.formats.tensorflow.ordered_code import Slice, slice_key
from asyncsaver.formats.tensorflow.sheet import Sheet
from asyncsaver.formats.tensorflow.snappy import EXPANSION
from asyncsaver.formats.tensorflow.table import Blocks, read_block
from asyncsaver.formats.tensorflow.v1_values import FIELDS, V1Encoding
from asyncsaver.model.digests import NO_DIGEST
from asyncsaver.model.foreign import Foreign
from asyncsaver.model.manifest import Chunk
from asyncsaver.proto.tensorflow_checkpoint_pb2 import SavedSliceMeta, SavedTensorSliceMeta, SavedTensorSlices

_LARGEST_BLOCK = 2**31 + 2**20
"""A tensor is one message of protobuf, which has no more than 2 GiB; where it is in a block with others they are small."""


@dataclass(frozen=True, slots=True)
class V1File:
    """What was read of one file: where its blocks are, and the first of them.

    Attributes:
        path: of the file.
        size: in bytes.
        blocks: of its table.
        first: the first block, with trailer.
    """

    path: str
    size: int
    blocks: Blocks
    first: bytes


@dataclass(frozen=True, slots=True)
class _Piece:
    """A slice of a tensor, and the file it is in."""

    file: int
    extents: Slice


class _Listed:
    """A tensor that files list.

    Attributes:
        dtype: TensorFlow's number.
        shape: as the first of them has it.
        pieces: of all of them.
        problem: why it cannot be read.
    """

    def __init__(self, meta: SavedSliceMeta) -> None:
        self.dtype: int = meta.type
        self.shape: Shape = tuple([dim.size for dim in meta.shape.dim])
        self.pieces: list[_Piece] = []
        self.problem = shape_problem(self.shape, unknown_rank=meta.shape.unknown_rank)

    def add(self, meta: SavedSliceMeta, file: int) -> None:
        if meta.type != self.dtype or tuple([dim.size for dim in meta.shape.dim]) != self.shape:
            self.problem = "two entries disagree about its dtype or shape"
        self.pieces += [_Piece(file, slice_of(one)) for one in meta.slice]


def describe_v1(files: Sequence[V1File], path: str) -> Foreign:
    """Describe a V1 checkpoint.

    Args:
        files: one, or the shards of one, in order.
        path: of the checkpoint: the file, or the pattern that stands for its shards.

    Raises:
        ManifestError: a file is damaged where it lists its tensors.
    """
    sheet = Sheet()
    listed: dict[str, _Listed] = {}
    for file in files:
        position = sheet.add_file(file.path, file.size)
        for meta in _read_meta(file).tensor:
            try:
                name = meta.name.decode()
            except UnicodeDecodeError as error:
                raise ManifestError(
                    f"{file.path}: the name {meta.name[:100]!r} is not UTF-8", path=file.path
                ) from error
            known = listed.get(name) or listed.setdefault(name, _Listed(meta))
            known.add(meta, position)
    room = [[EXPANSION * (stop - start) for start, stop in file.blocks.ranges] for file in files]
    for name, tensor in listed.items():
        sheet.add_tensor(name, tensor.dtype, tensor.shape)
        try:
            _add_pieces(sheet, name, tensor, files, room)
        except CheckpointCorruptError as error:
            sheet.set_unreadable(name, f"{path}: tensor {name!r}: {error}")
    return sheet.foreign(path.rpartition("/")[2], step_of(path))


def _read_meta(file: V1File) -> SavedTensorSliceMeta:
    entries = Entries()
    read_block(file.first, file.blocks.ranges[0][0], file.path, entries)
    if not entries.keys or entries.keys[0]:
        raise ManifestError(f"{file.path}: the table has no entry that lists tensors", path=file.path)
    try:
        saved = parse(SavedTensorSlices, entries.values[0])
        check_versions(saved.meta.versions)
    except CheckpointCorruptError as error:
        raise ManifestError(f"{file.path}: {error}", path=file.path) from error
    if not saved.HasField("meta"):  # as if the checkpoint were empty, which is what TensorFlow takes it for
        raise ManifestError(f"{file.path} lists no tensors; a V2 checkpoint is called without .index", path=file.path)
    return saved.meta


def _add_pieces(sheet: Sheet, name: str, tensor: _Listed, files: Sequence[V1File], room: list[list[int]]) -> None:
    if tensor.problem:
        raise CheckpointCorruptError(tensor.problem)
    if tensor.dtype not in FIELDS:
        raise CheckpointCorruptError(f"V1 has no way to store TensorFlow's {type_of(tensor.dtype).name}")
    chunks: list[Chunk] = []
    encodings: list[V1Encoding] = []
    for piece in tensor.pieces:
        offset, shape = box_of(piece.extents, tensor.shape)
        if len(tensor.pieces) > 1 and 0 in shape:
            continue
        key = slice_key(name.encode(), piece.extents)
        blocks = files[piece.file].blocks
        block = bisect_left(blocks.lasts, key)
        if block == len(blocks.lasts):
            raise CheckpointCorruptError(f"its slice at {list(offset)} is not in {files[piece.file].path}")
        # What all that is said to be in a block takes at least: nobody takes memory for more than can be in it.
        room[piece.file][block] -= prod(shape) * FIELDS[tensor.dtype].smallest
        if room[piece.file][block] < 0:
            raise CheckpointCorruptError(
                f"its slice at {list(offset)} of shape {list(shape)} is larger than its block can mean"
            )
        start, stop = blocks.ranges[block]
        if stop - start > _LARGEST_BLOCK:
            raise CheckpointCorruptError(f"its block at {start} to {stop} is larger than a message can be")
        chunks.append(Chunk(offset, shape, piece.file, start, stop, NO_DIGEST))
        encodings.append(V1Encoding(key, tensor.dtype))
    sheet.set_slices(name, chunks)
    sheet.encodings[name] = encodings
