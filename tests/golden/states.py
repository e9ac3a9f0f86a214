"""The states in the golden checkpoints: every dtype, every kind of node."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

PLAIN = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
         "complex64", "complex128"]  # fmt: skip
EXTENDED = ["bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz",
            "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn", "int2", "int4",
            "uint2", "uint4"]  # fmt: skip


class Point(NamedTuple):
    """A named tuple."""

    x: Any
    y: Any


@dataclass
class Settings:
    """A dataclass."""

    rate: float
    mask: Any


class Counter:
    """An object with state."""

    def state_dict(self) -> dict[str, Any]:
        """Its state."""
        return {"count": 3, "mean": np.array([0.5, 1.5], np.float32)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Not needed: golden checkpoints are restored without a target."""
        raise NotImplementedError


def mixed() -> dict[str, Any]:
    """A state with all that a checkpoint can hold."""
    dtypes: dict[str, Array] = {name: np.arange(6).reshape(2, 3).astype(name) for name in PLAIN}
    for name in EXTENDED:
        # Raw bits: what each of them means is not the business of a checkpoint.
        width = {"2": 2, "4": 4, "6": 6}.get(next(c for c in name if c.isdigit()), 8)
        size = np.dtype(getattr(ml_dtypes, name)).itemsize
        bits = np.arange(1, 6, dtype=f"u{size}") % (3 if width == 2 else 15)
        dtypes[name] = bits.view(getattr(ml_dtypes, name))
    return {
        "dtypes": dtypes,
        "sized": {
            "dates": np.array(["2026-01-01T00:00:00.000000001", "NaT"], "<M8[ns]"),
            "spans": np.array([1, -2, 3], "<m8[s]"),
            "text": np.array(["a", "äöü", "日本語!!"], "<U5"),
            "raw": np.array([b"abc", b"\xff"], "|S3"),
            "void": np.frombuffer(b"12345678abcdefgh", "|V8"),
        },
        "shapes": {
            "scalar": np.array(1.25),
            "empty": np.zeros((0, 4), np.float32),
            "big-endian": np.arange(4, dtype=">i4"),
            "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
            "strided": np.arange(20, dtype=np.int16)[::3],
        },
        "values": {
            "none": None, "yes": True, "no": False, "int": 7, "large": 2**53, "huge": -(10**5000), "float": 0.1, "zero": -0.0,
            "nan": float("nan"), "inf": float("inf"), "minus": float("-inf"), "text": "Grüße, 世界 \U0001f680", "odd": "\ud800",
            "bytes": b"\x00\xff", "blob": bytes(range(256)) * 17,
        },
        "scalars": [np.float32(1.5), np.int64(-3), np.bool_(True), np.complex64(1 + 2j), np.str_("x\0"), np.bytes_(b"y\0"),
                    np.datetime64("2026-01-01"), ml_dtypes.bfloat16(2.5)],
        "containers": {
            "tuple": (1, [2, (3,)]), "empty": [{}, [], ()], "items": {0: "zero", -1: "minus one", "k": 1, 2**60: "large"},
            "ordered": OrderedDict([("b", 1), ("a", np.ones(2, np.int8))]), "default": defaultdict(int, {"a": 1, 5: 2}),
            "point": Point(np.array([1, 2], np.uint8), "y"), "settings": Settings(1e-3, np.array([True, False])),
            "counter": Counter(), "a.b": np.array([9], np.int64),
        },
    }  # fmt: skip


def small(step: int) -> dict[str, Any]:
    """A state that tells its step."""
    return {"w": np.full((3, 4), step, np.float32), "step": step, "b": np.arange(step, step + 5, dtype=np.int64)}
