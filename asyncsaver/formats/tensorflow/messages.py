"""Parts that several messages have: shapes, slices, versions."""

from __future__ import annotations

from math import prod
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from asyncsaver.errors import CheckpointCorruptError
from asyncsaver.formats.tensorflow.ordered_code import FULL, Slice
from asyncsaver.model.manifest import LARGEST
from asyncsaver.proto.tensorflow_checkpoint_pb2 import TensorShapeProto, TensorSliceProto, VersionDef

M = TypeVar("M", bound=Message)
Shape = tuple[int, ...]
Box = tuple[Shape, Shape]
"""Offset and shape of a slice."""

MAX_AXES = 64
"""NumPy has no more."""
_VERSION = 1
"""Of the formats, V1 and V2 alike: what this reader is, in TensorFlow's count."""


def parse(kind: type[M], data: bytes) -> M:
    """Parse a message.

    Raises:
        CheckpointCorruptError: it is none of that kind.
    """
    try:
        return kind.FromString(data)
    except (DecodeError, ValueError) as error:  # the latter where protobuf is in pure Python, of text that is not UTF-8
        raise CheckpointCorruptError(f"not a {kind.DESCRIPTOR.name}") from error


def tag(field: int) -> bytes:
    """What stands in a message before a field, of up to 15, that has a length."""
    return bytes((field << 3 | 2,))


def shape_problem(shape: Shape, *, unknown_rank: bool = False) -> str:
    """Why nothing can have that shape; empty if something can."""
    if unknown_rank:
        return "its shape is not known"
    if len(shape) > MAX_AXES:
        return f"it has {len(shape)} axes, NumPy has {MAX_AXES} at most"
    # NumPy refuses shapes whose axes are too long together even where one of them is 0.
    if min(shape, default=0) < 0 or prod([size or 1 for size in shape]) > LARGEST // 16:
        return f"it has the impossible shape {list(shape[:8])}"
    return ""


def shape_message(shape: Shape, *, unknown_rank: bool = False) -> TensorShapeProto:
    """A shape as a message."""
    return TensorShapeProto(dim=[TensorShapeProto.Dim(size=size) for size in shape], unknown_rank=unknown_rank)


def slice_of(message: TensorSliceProto) -> Slice:
    """A slice from its message, as it stands there."""
    return tuple([(one.start, one.length if one.HasField("length") else FULL[1]) for one in message.extent])


def slice_message(extents: Slice) -> TensorSliceProto:
    """A slice as a message; whole axes are empty ones."""
    extent = TensorSliceProto.Extent
    return TensorSliceProto(
        extent=[extent() if one == FULL else extent(start=one[0], length=one[1]) for one in extents]
    )


def box_of(extents: Slice, shape: Shape) -> Box:
    """Where a slice is in a tensor of that shape, and how large.

    Raises:
        CheckpointCorruptError: it is not within the tensor.
    """
    if len(extents) != len(shape):
        raise CheckpointCorruptError(f"a slice has {len(extents)} axes, the tensor {len(shape)}")
    box = tuple([size if one == FULL else one[1] for one, size in zip(extents, shape, strict=True)])
    offset = tuple([start for start, _ in extents])
    for start, length, size in zip(offset, box, shape, strict=True):
        if start < 0 or length < 0 or start + length > size:
            raise CheckpointCorruptError(
                f"the slice at {list(offset)} of shape {list(box)} is not within {list(shape)}"
            )
    return offset, box


def check_versions(versions: VersionDef) -> None:
    """Raise `CheckpointCorruptError` unless this reader may read what says so of itself."""
    if versions.min_consumer > _VERSION:
        raise CheckpointCorruptError(
            f"it needs a reader of version {versions.min_consumer}, this is one of version {_VERSION}"
        )
    if _VERSION in versions.bad_consumers:
        raise CheckpointCorruptError(f"it is not to be read by readers of version {_VERSION}, such as this one")
