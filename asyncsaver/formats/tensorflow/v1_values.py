"""The elements of a tensor as V1 stores them: in fields of a message, by kind of number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np

from asyncsaver.errors import CheckpointCorruptError, InvalidStateError
from asyncsaver.formats.tensorflow.block import find_entry, open_block
from asyncsaver.formats.tensorflow.dtypes import STRING, TYPES
from asyncsaver.formats.tensorflow.messages import parse
from asyncsaver.formats.tensorflow.varint import pack_varints, unpack_varints
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


_INT, _HALF = Field("int_val", 1), Field("half_val", 1)
FIELDS: Mapping[int, Field] = MappingProxyType(
    {
        **dict.fromkeys([3, 4, 5, 6, 11, 12, 13, 17], _INT),
        1: Field("float_val", 4, fixed=True),
        2: Field("double_val", 8, fixed=True),
        STRING: Field("string_val", 2),
        8: Field("scomplex_val", 8, fixed=True),
        9: Field("int64_val", 1),
        10: Field("bool_val", 1),
        18: Field("dcomplex_val", 16, fixed=True),
        19: _HALF,
    }
)
"""By TensorFlow's number of the dtype; there are some that V1 does not have."""


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


def encode_values(array: Array, number: int) -> TensorProto:
    """An array as a message.

    Args:
        array: of any shape; for strings, of `bytes` objects.
        number: TensorFlow's, of the dtype.

    Raises:
        InvalidStateError: V1 has no such dtype.
    """
    field = FIELDS.get(number)
    if field is None:
        raise InvalidStateError(f"TensorFlow's V1 format cannot hold {TYPES[number].name}: write V2")
    flat = array.reshape(-1)
    if number == STRING:
        runs = list(flat)
    elif field.fixed:
        runs = [flat.astype(flat.dtype.newbyteorder("<"), copy=False).tobytes()]
    else:
        runs = [pack_varints(flat.view(np.uint16) if field is _HALF else flat)]
    return TensorProto(**{field.name: runs if array.size else []})
