"""Varints, OrderedCode, strings, values of V1."""

from __future__ import annotations

import struct
from itertools import pairwise

import numpy as np
import pytest
from google.protobuf.internal import decoder, encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from asyncsaver.errors import CheckpointCorruptError
from asyncsaver.formats.tensorflow.big_endian import BigEndianEncoding
from asyncsaver.formats.tensorflow.checksum import crc32c, mask
from asyncsaver.formats.tensorflow.dtypes import NUMBERS, TYPES, type_of
from asyncsaver.formats.tensorflow.ordered_code import FULL, parse_slice_key, slice_key
from asyncsaver.formats.tensorflow.strings import StringEncoding, encode_strings
from asyncsaver.formats.tensorflow.v1_values import FIELDS, decode_values, measure
from asyncsaver.formats.tensorflow.varint import encode_varint, pack_varints, read_varint, unpack_varints
from asyncsaver.model.dtypes import Array
from asyncsaver.proto.tensorflow_checkpoint_pb2 import TensorProto

int64s = st.integers(-(2**63), 2**63 - 1)
slices = st.lists(st.tuples(int64s, int64s) | st.just(FULL), max_size=5).map(tuple)


@given(st.integers(0, 2**64 - 1))
def test_varints_are_protobufs(value: int) -> None:
    encoded = encode_varint(value)
    written = bytearray()
    encoder._EncodeVarint(written.extend, value)  # type: ignore[attr-defined]
    assert encoded == written
    assert read_varint(b"x" + encoded + b"y", 1) == (value, 1 + len(encoded))
    assert decoder._DecodeVarint(encoded, 0) == (value, len(encoded))  # type: ignore[attr-defined]


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff" * 9, b"\xff" * 11, b"\xff" * 9 + b"\x02"])
def test_varints_that_do_not_end(data: bytes) -> None:
    with pytest.raises(CheckpointCorruptError):
        read_varint(data, 0)


@given(arrays.arrays(np.int64, st.integers(0, 50), elements=int64s))
def test_packed_varints(values: Array) -> None:
    packed = pack_varints(values)
    assert packed == b"".join(encode_varint(int(value)) for value in values)
    np.testing.assert_array_equal(unpack_varints(packed).view(np.int64), values)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "uint8", "uint16", "uint32", "uint64", "bool"])
def test_packed_varints_of_a_million(dtype: str) -> None:
    """More than is decoded at once, so that integers lie across the pieces."""
    values = np.random.default_rng(0).integers(0, 2**63, 1_000_000).astype(dtype)
    np.testing.assert_array_equal(unpack_varints(pack_varints(values)).astype(dtype), values)


@pytest.mark.parametrize("data", [b"\x80", b"\x01\xff", b"\x80" * 11 + b"\x01", b"\x80" * (2**21) + b"\x01"])
def test_packed_varints_that_are_damaged(data: bytes) -> None:
    with pytest.raises(CheckpointCorruptError):
        unpack_varints(data)


def test_slice_keys_are_tensorflows() -> None:
    assert slice_key(b"a", ((63, 1), FULL)).hex() == "00610001" + "0102" + "bf81" + "807f"
    assert slice_key(b"", ()).hex() == "00000100"
    assert slice_key(b"\x00\xff\x01", ()).hex() == "0000ffff0001000100"
    # The two numbers that the source of TensorFlow gives as examples, and where the length changes.
    assert slice_key(b"", ((0x424242, -0x800),)).hex() == "0000010101" + "f0424242" + "3800"
    assert slice_key(b"", ((64, -65), (-64, 63))).hex() == "0000010102" + "c040" + "3fbf" + "40" + "bf"


@settings(max_examples=300)
@given(st.binary(max_size=10) | st.from_regex(rb"[\x00\x01\xff]*"), slices)
def test_slice_keys_both_ways(name: bytes, extents: tuple[tuple[int, int], ...]) -> None:
    assert parse_slice_key(slice_key(name, extents)) == (name, extents)


@given(st.lists(int64s, min_size=2, max_size=20))
def test_slice_keys_are_in_order(numbers: list[int]) -> None:
    keys = [slice_key(b"x", ((number, 0),)) for number in sorted({*numbers})]
    assert all(one < other for one, other in pairwise(keys))


NO_KEYS = [
    "", "61", "00", "0061", "006100", "00610001", "0061000101", "006100010101", "00ff0100", "0061000201", "00610001010180",
    "0061000101018080ff", "006100010200018080", "00ffff0001", "0061000101018180c001",
]  # fmt: skip


@pytest.mark.parametrize("key", NO_KEYS)
def test_what_is_no_slice_key(key: str) -> None:
    with pytest.raises(CheckpointCorruptError, match="a key is"):
        parse_slice_key(bytes.fromhex(key))


byte_strings = st.lists(st.binary(max_size=300), max_size=20)


@given(byte_strings)
def test_strings_both_ways(strings: list[bytes]) -> None:
    data, crc = encode_strings(strings)
    array = StringEncoding(crc).decode(memoryview(data), np.dtype(object), (len(strings),))
    assert list(array) == strings
    assert array.dtype == object


@given(byte_strings, st.data())
def test_a_flipped_bit_in_strings_is_found(strings: list[bytes], data: st.DataObject) -> None:
    stored, crc = encode_strings(strings)
    changed = bytearray(stored)
    changed[data.draw(st.integers(0, len(stored) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CheckpointCorruptError):
        StringEncoding(crc).decode(memoryview(changed), np.dtype(object), (len(strings),))


@pytest.mark.parametrize("shape", [(2**62,), (2**31, 2**31), (5,), (3,), (1, 1)])
def test_strings_of_another_shape(shape: tuple[int, ...]) -> None:
    data, crc = encode_strings([b"abc", b"defg"])
    with pytest.raises(CheckpointCorruptError):
        StringEncoding(crc).decode(memoryview(data), np.dtype(object), shape)


def test_the_lengths_of_long_strings_count_as_eight_bytes() -> None:
    """A length of 4 GiB or more, without having such a string: its checksum is right, and only then what it says is refused."""
    lengths = struct.pack("<IQ", 3, 2**32)
    for fixed, problem in ((lengths, "other lengths"), (lengths[:-4], "other lengths")):
        data = encode_varint(3) + encode_varint(2**32) + struct.pack("<I", mask(crc32c(fixed))) + b"abc"
        with pytest.raises(CheckpointCorruptError, match=problem):
            StringEncoding(0).decode(memoryview(data), np.dtype(object), (2,))


@pytest.mark.parametrize("name", sorted({*NUMBERS} - {"string", "resource", "variant"}))
def test_numbers_of_a_big_endian_machine(name: str) -> None:
    dtype = type_of(NUMBERS[name]).dtype
    data = np.random.default_rng(0).bytes(dtype.itemsize * 6)
    unit = dtype.itemsize // (2 if dtype.kind == "c" else 1)
    swapped = b"".join(data[at : at + unit][::-1] for at in range(0, len(data), unit))
    array = BigEndianEncoding().decode(memoryview(swapped), dtype, (2, 3))
    assert (array.dtype, array.shape, array.tobytes()) == (dtype, (2, 3), data)
    with pytest.raises(CheckpointCorruptError):
        BigEndianEncoding().decode(memoryview(swapped), dtype, (2, 4))


@pytest.mark.parametrize("number", sorted(FIELDS))
@given(st.data())
def test_values_of_v1_both_ways(number: int, data: st.DataObject) -> None:
    dtype = TYPES[number].dtype
    shape = data.draw(arrays.array_shapes(min_dims=0, min_side=0, max_side=4))
    if number == NUMBERS["string"]:
        array = np.empty(shape, object)
        array.reshape(-1)[:] = data.draw(st.lists(st.binary(max_size=5), min_size=array.size, max_size=array.size))
    else:
        array = data.draw(arrays.arrays(dtype, shape))
    unencoded = measure(number, array.size, lambda: array)
    encoded = b"".join(unencoded.encode(array))
    assert len(encoded) == len(unencoded)
    message = TensorProto.FromString(encoded)
    again = decode_values(message, number, dtype, shape)
    assert (again.dtype, again.shape) == (dtype, shape)
    if number == NUMBERS["string"]:
        assert list(again.flat) == list(array.flat)
    else:
        assert again.tobytes() == array.tobytes()  # nan too
    for other in ((*shape, 2), (array.size + 1,)):
        if np.prod(other) != array.size:
            with pytest.raises(CheckpointCorruptError):
                decode_values(message, number, dtype, other)


def test_unknown_dtypes_have_a_name() -> None:
    assert type_of(12345).name == "type 12345"
    assert not type_of(12345).readable
    assert [type_of(number).name for number in (20, 21, 11, 29)] == ["resource", "variant", "qint8", "int4"]
    assert type_of(29).dtype.itemsize == type_of(11).dtype.itemsize == 1
