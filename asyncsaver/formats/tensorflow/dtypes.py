"""TensorFlow's dtypes: their numbers on storage, their names, and what NumPy makes of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from asyncsaver.errors import ManifestError
from asyncsaver.model.dtypes import DType, dtype_from_name

STRING = 7


@dataclass(frozen=True, slots=True)
class TensorFlowType:
    """One of TensorFlow's dtypes.

    Attributes:
        name: in a manifest.
        dtype: in memory; `object` for strings, and where there is nothing to be read.
        known: whether `model.dtypes` knows the name, or it is "string".
        readable: whether tensors of it have data.
    """

    name: str
    dtype: DType
    known: bool = True
    readable: bool = True


_OBJECT = np.dtype(object)
# Numbers of types.proto. Where elements have less than a byte, each takes one all the same.
_PLAIN = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 8: "complex64", 9: "int64", 10: "bool",
    14: "bfloat16", 17: "uint16", 18: "complex128", 19: "float16", 22: "uint32", 23: "uint64", 24: "float8_e5m2",
    25: "float8_e4m3fn", 26: "float8_e4m3fnuz", 27: "float8_e4m3b11fnuz", 28: "float8_e5m2fnuz", 29: "int4", 30: "uint4",
    31: "int2", 32: "uint2", 33: "float4_e2m1fn",
}  # fmt: skip
_QUANTIZED = {
    11: ("qint8", "i1"),
    12: ("quint8", "u1"),
    13: ("qint32", "<i4"),
    15: ("qint16", "<i2"),
    16: ("quint16", "<u2"),
}
_WITHOUT_DATA = {20: "resource", 21: "variant"}


def _plain(name: str) -> TensorFlowType:
    try:
        return TensorFlowType(name, dtype_from_name(name))
    except ManifestError:  # an older release of ml_dtypes lacks it; all that it may lack have one byte an element
        return TensorFlowType(name, np.dtype(np.uint8), known=False)


TYPES: Mapping[int, TensorFlowType] = MappingProxyType(
    {
        **{number: _plain(name) for number, name in _PLAIN.items()},
        **{number: TensorFlowType(name, np.dtype(code), known=False) for number, (name, code) in _QUANTIZED.items()},
        **{
            number: TensorFlowType(name, _OBJECT, known=False, readable=False) for number, name in _WITHOUT_DATA.items()
        },
        STRING: TensorFlowType("string", _OBJECT),
    }
)
"""By number."""

NUMBERS: Mapping[str, int] = MappingProxyType({one.name: number for number, one in TYPES.items()})
"""By name."""


def type_of(number: int) -> TensorFlowType:
    """The dtype with that number, which may be one that nobody knows yet."""
    return TYPES.get(number) or TensorFlowType(f"type {number}", _OBJECT, known=False, readable=False)
