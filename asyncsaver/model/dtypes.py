"""Dtypes: their names in a manifest, and how their bytes stand in a safetensors file.

Names are NumPy's (``float32``, ``complex128``), those of ml_dtypes (``bfloat16``, ``float8_e4m3fn``, ``int4``), and for
dtypes with a unit or a width NumPy's little-endian type string (``<M8[ns]``, ``<U5``, ``|S3``, ``|V8``). Byte order
is not part of a dtype: on storage it is always little-endian.

What safetensors has a code for is stored as just that. Everything else is stored as U8 with one more axis, the bytes of
an element, so that any safetensors reader can open the file; the manifest keeps the true dtype. Codes that came with
safetensors 0.7 and later (``F4``, ``F6_*``, ``F8_*FNUZ``) are not used: an older reader would refuse the whole file
for one of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np

from asyncsaver.errors import ManifestError, UnsupportedLeafError

DType = np.dtype[Any]
Array = np.ndarray[Any, DType]

_PLAIN_NAMES = frozenset([
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64", "complex64", "complex128",
])  # fmt: skip

_EXTENDED_NAMES = (
    "bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz",
    "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn",
    "bcomplex32", "complex32", "int1", "int2", "int4", "uint1", "uint2", "uint4",
)  # fmt: skip

# Older releases of ml_dtypes lack some.
_EXTENDED: Mapping[str, DType] = MappingProxyType(
    {name: np.dtype(getattr(ml_dtypes, name)) for name in _EXTENDED_NAMES if hasattr(ml_dtypes, name)}
)

_CODES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "float16": "F16", "bfloat16": "BF16",
    "uint32": "U32", "int32": "I32", "float32": "F32", "uint64": "U64", "int64": "I64", "float64": "F64",
    "complex64": "C64", "float8_e5m2": "F8_E5M2", "float8_e4m3fn": "F8_E4M3", "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip

_SIZED = re.compile(r"<[Mm]8(\[[0-9]*[A-Za-z]+\])?|<U[0-9]+|\|[SV][0-9]+")

# Stand-ins by which NumPy's casting rules are asked about the dtypes that it does not know.
_STAND_INS = {"b": "float16", "f": "float16", "c": "complex64", "i": "int8", "u": "uint8"}


# A state of a million tensors asks for the same few dtypes again and again, and NumPy works out a dtype's name in Python.
_remembered = lru_cache(maxsize=256)


@_remembered
def dtype_name(dtype: DType) -> str:
    """The name of a dtype in a manifest; byte order does not matter.

    Raises:
        UnsupportedLeafError: it cannot be stored. The message says what to do instead, and leaves the path to the
            caller.
    """
    if dtype.name in _EXTENDED and dtype.newbyteorder("=") == _EXTENDED[dtype.name]:
        return dtype.name
    if dtype.names is not None:
        raise UnsupportedLeafError(
            f"arrays with named fields ({dtype}) cannot be saved: save one array a field, as a dict of arrays"
        )
    if dtype.char in "gG":
        raise UnsupportedLeafError(
            f"{dtype} differs between platforms and cannot be saved: convert it to float64 or complex128"
        )
    if dtype.kind in "biufc" and dtype.name in _PLAIN_NAMES:
        return dtype.name
    if dtype.kind in "MmUSV" and dtype.itemsize > 0 and not _is_foreign(dtype):
        return dtype.newbyteorder("<").str
    if dtype.kind == "O":
        raise UnsupportedLeafError(
            "arrays of Python objects cannot be saved: save a list, or convert them to a numeric or string dtype"
        )
    if dtype.kind == "T":
        raise UnsupportedLeafError("StringDType arrays cannot be saved: convert them to fixed width with .astype(str)")
    raise UnsupportedLeafError(f"dtype {dtype!r} cannot be saved: convert it to a NumPy or ml_dtypes dtype")


@_remembered
def dtype_from_name(name: str) -> DType:
    """The dtype that `dtype_name` called so, little-endian.

    Raises:
        ManifestError: there is none of that name.
    """
    if name in _EXTENDED:
        return storage_order(_EXTENDED[name])
    if name in _PLAIN_NAMES:
        return storage_order(np.dtype(name))
    if _SIZED.fullmatch(name):
        try:
            dtype = np.dtype(name)
        except (TypeError, ValueError, OverflowError) as exc:
            raise ManifestError(f"unknown dtype {name!r}") from exc
        if dtype.itemsize > 0 and dtype.str == name:
            return dtype
    raise ManifestError(f"unknown dtype {name!r}")


def storage_order(dtype: DType) -> DType:
    """The same dtype as it is on storage: little-endian."""
    return dtype.newbyteorder("<")


@_remembered
def storage_dtype(dtype: DType) -> tuple[str, int]:
    """How safetensors holds a dtype: the code, and the length in bytes of one more axis at the end (0: no such axis).

    ``float32`` gives ``("F32", 0)``; ``complex128`` gives ``("U8", 16)``: shape ``(2, 3)`` is then stored as ``(2, 3,
    16)``.

    Raises:
        UnsupportedLeafError: as `dtype_name`.
    """
    code = _CODES.get(dtype_name(dtype))
    return (code, 0) if code is not None else ("U8", dtype.itemsize)


def is_floating(dtype: DType) -> bool:
    """Whether it is a real floating-point dtype, those of ml_dtypes included."""
    return dtype.kind == "f" or (dtype.name in _EXTENDED and dtype.name.startswith(("bfloat", "float")))


def can_cast(source: DType, target: DType) -> bool:
    """NumPy's ``same_kind`` rule, in which the dtypes of ml_dtypes count as the kind that their name says."""
    return np.can_cast(_known_to_numpy(source), _known_to_numpy(target), "same_kind")


def cast(array: Array, dtype: DType) -> Array:
    """``array`` as ``dtype``, itself if that is its dtype. What is too large becomes infinite, as in any framework."""
    if array.dtype == dtype:
        return array
    with np.errstate(all="ignore"):
        return array.astype(dtype)


def _is_foreign(dtype: DType) -> bool:
    """Whether another library defined the dtype, whose bytes then mean nothing here."""
    return dtype.isbuiltin == 2


def _known_to_numpy(dtype: DType) -> DType:
    if dtype.name not in _EXTENDED:
        return dtype
    return np.dtype("complex64" if "complex" in dtype.name else _STAND_INS[dtype.name[0]])
