"""A state that takes many blocks in a V1 file, made by arithmetic alone, so that TensorFlow can be given the same one."""

from __future__ import annotations

from typing import Any

import numpy as np

FIXED = {"float32": 4, "float64": 8, "complex64": 8, "complex128": 16}
VARYING = {
    "int32": 3_000_000_019, "uint8": 7, "int16": 40_009, "int8": 5, "int64": 10**17 + 3, "bool": 1, "uint16": 331, "float16": 977,
}  # fmt: skip
BLOCK = 262_144


def many_blocks() -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
    """Name → array; of `bytes` for strings."""
    state: dict[str, np.ndarray[Any, np.dtype[Any]]] = {}
    for name, width in FIXED.items():
        # Around what fills a block, and what gets one of its own; by name they come between small ones.
        for size in (BLOCK // 2, BLOCK - 40, BLOCK, 2 * BLOCK - 60, 2 * BLOCK - 10, 2 * BLOCK + 10, 5 * BLOCK):
            state[f"{name}/{size}"] = np.frombuffer(ramp(size // width * width), name)
    for name, factor in VARYING.items():
        numbers = np.arange(-60_000, 60_000, dtype=np.int64) * factor
        kind = np.dtype("u2" if name == "float16" else name)
        state[f"{name}/ramp"] = numbers.astype(kind).view(name).reshape(200, -1)
    for number in range(2000):
        state[f"small/{number}"] = np.full(number % 5, number, np.int32)
    for name, strings in (
        ("few", [b"\x00" * 200_000, b"", b"q" * 400_000]),
        ("many", [b"%d" % n for n in range(99_999)]),
    ):
        state[f"strings/{name}"] = np.empty(len(strings), object)
        state[f"strings/{name}"][:] = strings
    return state


def ramp(size: int) -> bytes:
    """Bytes that do not repeat soon, and make no number that is not a number."""
    return (np.arange(size, dtype=np.int64) * 31 % 113).astype(np.uint8).tobytes()
