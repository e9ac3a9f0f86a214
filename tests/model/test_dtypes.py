"""Names and storage of dtypes."""

from __future__ import annotations

import json

import ml_dtypes
import numpy as np
import pytest
from safetensors import deserialize

from asyncsaver.errors import ManifestError, UnsupportedLeafError
from asyncsaver.model.dtypes import can_cast, cast, dtype_from_name, dtype_name, is_floating, storage_dtype

PLAIN = [
    "bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "float64",
    "complex64", "complex128",
]  # fmt: skip
EXTENDED = ["bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn", "int4"]
SIZED = ["<M8[ns]", "<M8[25s]", "<m8", "<m8[D]", "<U5", "|S3", "|V8"]


@pytest.mark.parametrize("name", PLAIN + EXTENDED + SIZED)
def test_name_leads_back_to_the_dtype(name: str) -> None:
    dtype = dtype_from_name(name)
    assert dtype_name(dtype) == name
    assert dtype == np.dtype(name)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "<U5", "<M8[ns]", "complex128"])
def test_byte_order_is_not_part_of_the_name(name: str) -> None:
    assert dtype_name(np.dtype(name).newbyteorder(">")) == name


@pytest.mark.parametrize(
    "name",
    ["", "object", "O", "|O", "f4", ">f4", "<f4", "float128", "<U0", "<U05", "<U٣", "<U99999999999999", "|V0", "<M8[x]",
     "<M8[ns]\n", "i4,f4", "str", "datetime64[ns]", "int5"],
)  # fmt: skip
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ManifestError, match="unknown dtype"):
        dtype_from_name(name)


@pytest.mark.parametrize(
    ("dtype", "advice"),
    [
        (np.dtype(object), "as a list|a list"),
        (np.dtype([("a", "f4"), ("b", "i4")]), "one array a field"),
        (np.dtype(np.longdouble), "float64"),
        (np.dtype(np.clongdouble), "complex128"),
        (np.dtypes.StringDType(), "astype"),
    ],
)
def test_what_cannot_be_stored_says_what_to_do(dtype: np.dtype, advice: str) -> None:
    with pytest.raises(UnsupportedLeafError, match=advice):
        dtype_name(dtype)
    with pytest.raises(UnsupportedLeafError, match=advice):
        storage_dtype(dtype)


@pytest.mark.parametrize("name", PLAIN + EXTENDED + SIZED)
def test_safetensors_reads_what_is_stored(name: str) -> None:
    dtype = dtype_from_name(name)
    array = np.zeros((2, 3), dtype)
    code, width = storage_dtype(dtype)
    shape = (*array.shape, width) if width else array.shape
    header = json.dumps({"x": {"dtype": code, "shape": shape, "data_offsets": [0, array.nbytes]}}).encode()
    [(_, read)] = deserialize(len(header).to_bytes(8, "little") + header + array.tobytes())
    assert (read["dtype"], tuple(read["shape"]), len(read["data"])) == (code, shape, array.nbytes)


def test_what_safetensors_lacks_gets_an_axis_of_bytes() -> None:
    assert storage_dtype(np.dtype("complex128")) == ("U8", 16)
    assert storage_dtype(np.dtype("<U5")) == ("U8", 20)
    assert storage_dtype(np.dtype(ml_dtypes.int4)) == ("U8", 1)
    assert storage_dtype(np.dtype(">f4")) == ("F32", 0)
    assert storage_dtype(np.dtype("uint8")) == ("U8", 0)


def test_casting_counts_extended_floats_as_floats() -> None:
    bfloat16, float8, int4 = (np.dtype(getattr(ml_dtypes, n)) for n in ("bfloat16", "float8_e4m3fn", "int4"))
    assert is_floating(bfloat16)
    assert is_floating(float8)
    assert not is_floating(int4)
    assert not is_floating(np.dtype("complex64"))
    assert can_cast(np.dtype("float64"), bfloat16)
    assert can_cast(float8, np.dtype("float16"))
    assert can_cast(int4, bfloat16)
    assert not can_cast(bfloat16, np.dtype("int64"))
    assert not can_cast(bfloat16, int4)


def test_cast_overflows_to_infinity_without_a_warning() -> None:
    assert np.isinf(cast(np.array([1e300]), np.dtype("float32"))).all()
    array = np.ones(2, "f4")
    assert cast(array, np.dtype("<f4")) is array
