"""Tensors of every dtype and of awkward shapes."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from .theirs import QUANTIZED, Array, Piece

PLAIN = (
    "float16", "float32", "float64", "bfloat16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "complex64", "complex128",
    "float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2fnuz",
)  # fmt: skip
NARROW = {"int4": (-8, 8), "uint4": (0, 16), "int2": (-2, 2), "uint2": (0, 4), "float4_e2m1fn": (0, 4)}
"""Those with less than a byte, and a range of numbers that fit."""

NOT_IN_V1 = {
    "bfloat16", "uint32", "uint64", "qint16", "quint16", *NARROW, *(name for name in PLAIN if name.startswith("float8"))
}  # fmt: skip
SHAPES = ((), (0,), (2, 0, 3), (7,), (2, 3, 4))


def dtype(name: str) -> np.dtype[np.generic]:
    """NumPy's, or that of ml_dtypes."""
    return np.dtype(getattr(ml_dtypes, name) if hasattr(ml_dtypes, name) else name)


def numbers() -> dict[str, Piece]:
    """Each dtype of numbers in each shape. Floats have all kinds of bits, those of NaNs among them."""
    chance = np.random.default_rng(5)
    found = {}
    for name in PLAIN:
        for index, shape in enumerate(SHAPES):
            size = int(np.prod(shape)) * dtype(name).itemsize
            found[f"{name}/{index}"] = Piece(_bits(chance.bytes(size), name, shape), name)
    for name, (low, high) in NARROW.items():
        for index, shape in enumerate(SHAPES):
            array = np.asarray(chance.integers(low, high, shape)).astype(dtype(name))
            found[f"{name}/{index}"] = Piece(array, name)
    for index, shape in enumerate(SHAPES):
        found[f"bool/{index}"] = Piece(np.asarray(chance.integers(0, 2, shape), bool), "bool")
    return found


def _bits(data: bytes, name: str, shape: tuple[int, ...]) -> Array:
    return np.frombuffer(data, dtype(name)).reshape(shape)


def quantized() -> dict[str, Piece]:
    """Those that only TensorFlow has."""
    return {name: Piece(np.array([[1, 2], [100, 0]], plain), name) for name, plain in QUANTIZED.items()}


def strings() -> dict[str, Piece]:
    """Empty, long, of no encoding, with zeros, and scalars; one has lengths that take several bytes."""
    several = np.array([[b"", b"\x00"], [b"\xff\xfe\x80", "ü€".encode()]], object)
    long = np.array([b"x" * 127, b"y" * 128, b"z" * 300_000, b""], object)
    scalar = np.empty((), object)
    scalar[()] = b"a scalar"
    found = {"several": several, "long": long, "scalar": scalar, "none": np.empty((0, 2), object)}
    return {f"strings/{name}": Piece(array, "string") for name, array in found.items()}


def everything() -> dict[str, Piece]:
    """All of these."""
    return numbers() | quantized() | strings()
