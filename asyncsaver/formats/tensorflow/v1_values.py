"""The elements of a tensor as V1 stores them: in fields of a message, by kind of number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np

from asyncsaver.errors import CheckpointCorruptError
from asyncsaver.formats.tensorflow.block import find_entry, open_block
from asyncsaver.formats.tensorflow.dtypes import STRING
from asyncsaver.formats.tensorflow.messages import parse, tag
from asyncsaver.formats.tensorflow.varint import Ints, encode_varint, packed_pieces, packed_size, unpack_varints
from asyncsaver.model.dtypes import Array, DType
from asyncsaver.proto.tensorflow_checkpoint_pb2 import SavedTensorSlices, TensorProto


@dataclass(frozen=True, slots=True)
class Field:
    """Where the elements of a dtype stand.

    Attributes:
        name: of the field of `TensorProto`.
        smallest: the fewest bytes that an element takes there.
        fixed: whether they stand as in memory, little-endian; else as integers of variable length.
    """

    name: str
    smallest: int
    fixed: bool = False


_INT, _HALF, _STRING = Field("int_val", 1), Field("half_val", 1), Field("string_val", 2)
FIELDS: Mapping[int, Field] = MappingProxyType(
    {
        **dict.fromkeys([3, 4, 5, 6, 11, 12, 13, 17], _INT),
        1: Field("float_val", 4, fixed=True),
        2: Field("double_val", 8, fixed=True),
        STRING: _STRING,
        8: Field("scomplex_val", 8, fixed=True),
        9: Field("int64_val", 1),
        10: Field("bool_val", 1),
        18: Field("dcomplex_val", 16, fixed=True),
        19: _HALF,
    }
)
"""By TensorFlow's number of the dtype; there are some that V1 does not have."""

_TAGS: Mapping[Field, bytes] = MappingProxyType(
    {field: tag(TensorProto.DESCRIPTOR.fields_by_name[field.name].number) for field in FIELDS.values()}
)
_STRINGS_AT_ONCE = 2**14


@dataclass(frozen=True, slots=True)
class V1Encoding:
    """How one slice of a tensor is to be decoded from the block of the table that it is in.

    Attributes:
        key: of the slice in the table.
        number: of the dtype.
    """

    key: bytes
    number: int

    @property
    def checked(self) -> bool:
        """As `Encoding` says: every block of a table has one."""
        return True

    def decode(self, data: memoryview, dtype: DType, shape: tuple[int, ...]) -> Array:
        """Find the slice in its block and make the array; raises as `Encoding.decode`."""
        value = find_entry(open_block(data), self.key)
        if value is None:
            raise CheckpointCorruptError("the block does not have the tensor")
        return decode_values(parse(SavedTensorSlices, value).data.data, self.number, dtype, shape)


def decode_values(message: TensorProto, number: int, dtype: DType, shape: Sequence[int]) -> Array:
    """The array that a message holds.

    Args:
        message: with its elements.
        number: TensorFlow's, of the dtype.
        dtype: what NumPy makes of it.
        shape: of the array.

    Raises:
        CheckpointCorruptError: it has more elements than that, or fewer.
    """
    field = FIELDS[number]
    runs: Sequence[bytes] = getattr(message, field.name)
    values: np.ndarray[Any, Any]
    if number == STRING:
        values = np.empty(len(runs), object)
        values[:] = list(runs)
    elif field.fixed:
        joined = b"".join(runs)
        if len(joined) % dtype.itemsize:
            raise CheckpointCorruptError(f"{len(joined)} bytes cannot be {dtype}")
        values = np.frombuffer(joined, dtype)
    else:
        values = unpack_varints(b"".join(runs))
        values = values.astype(np.uint16).view(dtype) if field is _HALF else values.astype(dtype)
    if len(values) != prod(shape):
        raise CheckpointCorruptError(f"{len(values)} elements cannot be of shape {list(shape)}")
    return values.reshape(shape)


@dataclass(frozen=True, slots=True)
class Unencoded:
    """The elements of an array as a message, of which the size is known before it is made.

    Attributes:
        field: where they stand.
        count: of the elements.
        payload: how many bytes they take in that field; of strings, with what stands before each.
    """

    field: Field
    count: int
    payload: int

    def __len__(self) -> int:
        """Of the message, in bytes."""
        return len(self._head()) + self.payload

    def encode(self, array: Array) -> Iterator[bytes | memoryview]:
        """Yield the message by and by. What lies in memory as it will be stored is not copied.

        Args:
            array: of which the size was measured; the caller finds out whether it has another one now.
        """
        yield self._head()
        flat = array.reshape(-1)
        if self.field is _STRING:
            for start in range(0, flat.size, _STRINGS_AT_ONCE):
                some = flat[start : start + _STRINGS_AT_ONCE].tolist()
                yield b"".join([part for one in some for part in (_TAGS[_STRING], encode_varint(len(one)), one)])
        elif self.field.fixed:
            yield _as_stored(flat).view(np.uint8).data
        else:
            yield from packed_pieces(_integers(flat, self.field))

    def _head(self) -> bytes:
        packed = self.count and self.field is not _STRING
        return _TAGS[self.field] + encode_varint(self.payload) if packed else b""


def measure(number: int, count: int, elements: Callable[[], Array]) -> Unencoded:
    """Find out how long a message with an array is.

    Args:
        number: TensorFlow's, of the dtype, which is one of `FIELDS`.
        count: of the elements.
        elements: gives the array, of any shape; for strings, of `bytes` objects. Called only where dtype and count do not tell.
    """
    field = FIELDS[number]
    if field.fixed:
        return Unencoded(field, count, count * field.smallest)
    flat = elements().reshape(-1)
    if field is _STRING:
        lengths = [len(one) for one in flat.tolist()]
        return Unencoded(field, count, sum([1 + len(encode_varint(length)) + length for length in lengths]))
    return Unencoded(field, count, packed_size(_integers(flat, field)))


def _as_stored(flat: Array) -> Array:
    return flat.astype(flat.dtype.newbyteorder("<"), copy=False)


def _integers(flat: Array, field: Field) -> Ints:
    return _as_stored(flat).view("<u2") if field is _HALF else flat
