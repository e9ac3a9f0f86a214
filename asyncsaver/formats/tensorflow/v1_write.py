"""V1 checkpoints, written: which bytes a file consists of is planned first, and made by and by. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from operator import itemgetter

from asyncsaver.errors import CheckpointCorruptError, InvalidStateError
from asyncsaver.formats.tensorflow.block import trailer
from asyncsaver.formats.tensorflow.checksum import crc32c
from asyncsaver.formats.tensorflow.dtypes import NUMBERS
from asyncsaver.formats.tensorflow.messages import Shape, box_of, shape_message, slice_message, tag
from asyncsaver.formats.tensorflow.ordered_code import Slice, slice_key
from asyncsaver.formats.tensorflow.table import Section, lay_out
from asyncsaver.formats.tensorflow.v1_note import encode_note
from asyncsaver.formats.tensorflow.v1_values import FIELDS, Unencoded, measure
from asyncsaver.formats.tensorflow.varint import encode_varint
from asyncsaver.model.dtypes import Array
from asyncsaver.proto.tensorflow_checkpoint_pb2 import (
    SavedSlice,
    SavedSliceMeta,
    SavedTensorSliceMeta,
    SavedTensorSlices,
    VersionDef,
)

Elements = Array | Callable[[], Array]
"""An array, of `bytes` for strings; or what gives it, the same each time: it is asked once or twice, and the array not kept."""

_LARGEST = 2**31 - 1  # bytes of a message, for protobuf
_JOINED = 2**20  # sections up to here are put together
_DATA_OF_SLICE, _DATA = tag(SavedSlice.DATA_FIELD_NUMBER), tag(SavedTensorSlices.DATA_FIELD_NUMBER)


@dataclass(frozen=True, slots=True)
class V1Tensor:
    """A tensor to be written.

    Attributes:
        name: of the tensor.
        dtype: a name of `dtypes.NUMBERS`.
        shape: of the whole tensor.
        slices: those that are in the file, and their elements.
    """

    name: str
    dtype: str
    shape: Shape
    slices: Sequence[tuple[Slice, Elements]]


@dataclass(frozen=True, slots=True)
class V1Plan:
    """A file that is to be written.

    Attributes:
        sections: of the table, in order.
        size: of the file, in bytes.
    """

    sections: Sequence[Section[bytes | _Value]]
    size: int

    def pieces(self) -> Iterator[bytes | memoryview]:
        """Yield the file, by and by; elements that lie in memory as they will be stored are not copied.

        Of one tensor at a time something is held beyond what was yielded. May be called again.

        Raises:
            RuntimeError: a tensor has another size than when it was planned.
        """
        for section in self.sections:
            pieces = (data for piece in section.pieces for data in _encoded(piece))
            crc = 0
            for data in [b"".join(pieces)] if section.size <= _JOINED else pieces:
                crc = crc32c(data, crc)
                yield data
                del data  # which would keep the tensor while the next one is asked for
            if section.is_block:
                yield trailer(crc)


def plan_v1(tensors: Sequence[V1Tensor], note: str = "") -> V1Plan:
    """Plan a V1 file that is byte for byte what TensorFlow writes, but for a note. Looks at the elements of integers and strings.

    Args:
        tensors: in any order; those that are partitioned have the slices that are in the file.
        note: for `v1_note.note_in`; TensorFlow does not look at it.

    Raises:
        InvalidStateError: V1 cannot hold one of them.
    """
    check_v1(tensors)
    tensors = sorted(tensors, key=lambda tensor: tensor.name.encode())  # as its SaveSlices does
    keyed: dict[bytes, _Value] = {}
    for tensor in tensors:
        for extents, elements in tensor.slices:
            keyed[slice_key(tensor.name.encode(), extents)] = _value(tensor, extents, elements)
    entries: list[tuple[bytes, bytes | _Value]] = [
        (b"", encode_note(note) + _listing(tensors)),
        *sorted(keyed.items(), key=itemgetter(0)),
    ]
    sections = list(lay_out(entries))
    return V1Plan(sections, sum(section.size for section in sections))


def check_v1(tensors: Sequence[V1Tensor]) -> None:
    """Raise `InvalidStateError` for a tensor that V1 cannot hold, as far as can be said without its elements."""
    seen: set[str] = set()
    for tensor in tensors:
        if NUMBERS.get(tensor.dtype) not in FIELDS:
            raise InvalidStateError(
                f"{tensor.name}: TensorFlow's V1 format cannot hold {tensor.dtype}; V2 can (write_version='v2')"
            )
        slices = [extents for extents, _ in tensor.slices]
        try:
            for extents in slices:
                box_of(extents, tensor.shape)
        except CheckpointCorruptError as error:
            raise InvalidStateError(f"{tensor.name}: {error}") from error
        if tensor.name in seen or len({*slices}) < len(slices):
            raise InvalidStateError(f"{tensor.name}: a V1 file can hold the tensor, or the slice, only once")
        seen.add(tensor.name)


@dataclass(frozen=True, slots=True)
class _Value:
    """What stands in the table under one key.

    Attributes:
        name: of the tensor, for messages.
        count: of the elements.
        head: the value's first bytes.
        message: the elements, which follow.
        elements: of that message.
    """

    name: str
    count: int
    head: bytes
    message: Unencoded
    elements: Elements

    def __len__(self) -> int:
        return len(self.head) + len(self.message)

    def encode(self) -> Iterator[bytes | memoryview]:
        yield self.head
        left = len(self.message)
        for data in self.message.encode(_array(self.name, self.count, self.elements)):
            left -= len(data)
            if left < 0:
                break
            yield data
        if left:
            raise RuntimeError(f"{self.name}: the tensor has changed while it was being written")


def _encoded(piece: bytes | _Value) -> Iterator[bytes | memoryview]:
    return iter((piece,)) if isinstance(piece, bytes) else piece.encode()


def _value(tensor: V1Tensor, extents: Slice, elements: Elements) -> _Value:
    _, shape = box_of(extents, tensor.shape)
    name, count = tensor.name, prod(shape)
    message = measure(NUMBERS[tensor.dtype], count, lambda: _array(name, count, elements))
    # By hand, since protobuf would copy all elements several times.
    saved = SavedSlice(name=name.encode(), slice=slice_message(extents)).SerializeToString()
    saved += _DATA_OF_SLICE + encode_varint(len(message))
    value = _Value(name, count, _DATA + encode_varint(len(saved) + len(message)) + saved, message, elements)
    if len(value) > _LARGEST:
        raise InvalidStateError(
            f"{name}: {tensor.dtype}{list(shape)} takes {len(value)} bytes in TensorFlow's V1 format, which has "
            f"{_LARGEST} for a slice: save it in slices, or as V2 (write_version='v2')"
        )
    return value


def _listing(tensors: Sequence[V1Tensor]) -> bytes:
    """What a file says about itself: which tensors it has, and which slices of them."""
    listed = [
        SavedSliceMeta(
            name=tensor.name.encode(),
            shape=shape_message(tensor.shape),
            type=NUMBERS[tensor.dtype],
            slice=[slice_message(extents) for extents, _ in tensor.slices],
        )
        for tensor in tensors
    ]
    meta = SavedTensorSliceMeta(tensor=listed, versions=VersionDef(producer=1))
    return SavedTensorSlices(meta=meta).SerializeToString()


def _array(name: str, count: int, elements: Elements) -> Array:
    array = elements() if callable(elements) else elements
    if array.size != count:
        raise RuntimeError(f"{name}: where {count} elements were planned, there are {array.size}")
    return array
