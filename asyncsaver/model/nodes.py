"""How plain values stand in a checkpoint's tree.

The tree is JSON. None, booleans, strings, finite floats and integers below 2**53 stand for themselves; everything
else is an object that says what it is:

| node | meaning |
|---|---|
| ``{"int": "123…"}`` | an integer of any size, in decimal; hexadecimal (``0x…``) beyond 4,000 digits |
| ``{"float": "nan"}`` | also ``inf`` and ``-inf`` |
| ``{"str": base64}`` | a string with lone surrogates, as UTF-8 with ``surrogatepass`` |
| ``{"bytes": base64}`` | up to 4,096 bytes |
| ``{"blob": name}`` | more bytes, stored as the tensor of that name |
| ``{"scalar": {"dtype": …, "data": base64}}`` | a NumPy scalar, little-endian |
| ``{"tensor": name}`` | an array; with ``"kind": "torch"`` beside it where it was not NumPy's |
| ``{"dict": {key: node, …}}`` | all keys are strings |
| ``{"items": [[key, node], …]}`` | some keys are integers; those over 2**53 stand as ``{"int": …}`` |
| ``{"ordereddict": [[key, node], …]}`` | likewise ``defaultdict`` |
| ``{"list": [node, …]}`` | likewise ``tuple`` |
| ``{"namedtuple": {field: node, …}, "type": …}`` | likewise ``dataclass`` |
| ``{"object": node, "type": …}`` | what ``state_dict()`` returned |

``type`` is for people to read. It is never imported.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType, NoneType
from typing import Any

import numpy as np

from asyncsaver.model.dtypes import dtype_from_name, dtype_name, storage_order

Node = Any
"""A JSON value, as above."""

MAX_DEPTH = 200
"""How deep a state may be nested. JSON takes up to three levels for one, and its parsers stop at about a thousand."""

MAX_INLINE_BYTES = 4096
"""Longer bytes go to a shard."""

LARGEST_EXACT = 2**53
"""Integers from here on are not exact in every JSON parser."""

_DECIMAL_BITS = 12_000  # Python refuses to convert more than 4,300 digits
_INTEGER = re.compile(r"-?(?:[0-9]{1,4300}|0x[0-9a-f]+)")
_SCALAR_BYTES = re.compile(r"\|([SV])([0-9]+)|<(U)([0-9]+)")


def encode_scalar(value: np.generic) -> Node:
    """The node of a NumPy scalar.

    Raises:
        UnsupportedLeafError: its dtype cannot be stored.
    """
    # A string scalar would lose trailing zeros as an array element, and by str() and bytes().
    match value:
        case np.str_():
            name, data = f"<U{len(value)}", value.encode("utf-32-le", "surrogatepass")
        case np.bytes_():
            name, data = f"|S{len(value)}", b"".join([value])
        case np.void() if value.dtype.names is None:
            name, data = value.dtype.str, value.tobytes()
        case _:
            name = dtype_name(value.dtype)
            data = np.asarray(value).astype(storage_order(value.dtype), copy=False).tobytes()
    return {"scalar": {"dtype": name, "data": _to_base64(data)}}


def encode_int(value: int) -> Node:
    """The node of an integer."""
    if -LARGEST_EXACT < value < LARGEST_EXACT:
        return value
    return {"int": str(value) if value.bit_length() < _DECIMAL_BITS else hex(value)}


def _itself(value: Node) -> Node:
    return value


def _encode_float(value: float) -> Node:
    return value if math.isfinite(value) else {"float": repr(value)}


def _encode_str(value: str) -> Node:
    return value if is_text(value) else {"str": _to_base64(value.encode("utf-8", "surrogatepass"))}


def _encode_bytes(value: bytes) -> Node:
    return {"bytes": _to_base64(value)}


ENCODERS: Mapping[type, Callable[[Any], Node]] = MappingProxyType(
    {
        NoneType: _itself,
        bool: _itself,
        int: encode_int,
        float: _encode_float,
        str: _encode_str,
        bytes: _encode_bytes,
    }
)
"""The node of a plain value, by its exact type. Of bytes, whatever their length: the caller takes out long ones."""


def is_text(value: str) -> bool:
    """Whether JSON can hold the string, which lone surrogates prevent."""
    if value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def decode_value(tag: str, content: object) -> Any:
    """The plain value of a node ``{tag: content}``.

    Raises:
        LookupError: the tag is not that of a plain value.
        ValueError: the content is not what the tag says; of an unknown dtype, `ManifestError`.
    """
    match tag, content:
        case "int", str() if _INTEGER.fullmatch(content):
            return int(content, 16 if "x" in content else 10)
        case "float", "nan" | "inf" | "-inf":
            return float(str(content))
        case "str", str():
            return _from_base64(content).decode("utf-8", "surrogatepass")
        case "bytes", str():
            return _from_base64(content)
        case "scalar", {"dtype": str(name), "data": str(data), **rest} if not rest:
            return _decode_scalar(name, _from_base64(data))
        case "int" | "float" | "str" | "bytes" | "scalar", _:
            raise ValueError(f"malformed {tag}")
        case _:
            raise LookupError(tag)


def _decode_scalar(name: str, data: bytes) -> np.generic:
    sized = _SCALAR_BYTES.fullmatch(name)
    if sized is None:
        dtype = dtype_from_name(name)
        if len(data) != dtype.itemsize:
            raise ValueError(f"a scalar of {dtype.itemsize} bytes has {len(data)}")
        scalar: np.generic = np.frombuffer(data, dtype).astype(dtype.newbyteorder("="))[0]
        return scalar
    if sized[3]:
        if len(data) != 4 * int(sized[4]):
            raise ValueError("a string scalar of another length")
        return np.str_(data.decode("utf-32-le", "surrogatepass"))
    if len(data) != int(sized[2]):
        raise ValueError("a bytes scalar of another length")
    return np.bytes_(data) if sized[1] == "S" else np.void(data)


def _to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
