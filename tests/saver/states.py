"""States that hold one of everything, and what tells two states apart to the last bit."""

from __future__ import annotations

import struct
from collections import OrderedDict, defaultdict
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

PLAIN_DTYPES = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
    "complex64", "complex128", "datetime64[ns]", "timedelta64[s]", "S3", "U5", "V4", ">i4", ">f8", ">c16", ">U2", ">M8[us]",
]  # fmt: skip
EXTENDED_DTYPES = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz", "float8_e8m0fnu", "int4", "uint4")


class Moments(NamedTuple):
    first: Any
    second: Any


@dataclass
class Schedule:
    rates: Any
    warmup: int


class Counter:
    """An object that gives its state and takes it back."""

    def __init__(self, count: int, table: Any) -> None:
        self.count = count
        self.table = table

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "table": self.table}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.table = state["count"], state["table"]


def every_dtype(rng: np.random.Generator) -> dict[str, Any]:
    """An array of each dtype that can be stored, with random bits (valid ones)."""
    arrays: dict[str, Any] = {}
    for name in PLAIN_DTYPES:
        dtype = np.dtype(name)
        if dtype.kind == "U":
            arrays[name] = np.array([["ä", "日本"], ["", "ab"]], dtype)
        elif dtype.kind == "b":
            arrays[name] = rng.integers(0, 2, (2, 3)).astype(bool)
        else:
            arrays[name] = np.frombuffer(rng.bytes(6 * dtype.itemsize), dtype).reshape(2, 3)
    for name in EXTENDED_DTYPES:
        dtype = np.dtype(getattr(ml_dtypes, name))
        if name.endswith("int4"):
            arrays[name] = rng.integers(0, 7, (2, 3)).astype(dtype)
        else:
            arrays[name] = np.frombuffer(rng.bytes(6 * dtype.itemsize), dtype).reshape(2, 3)
    return arrays


def mixed_state(folder: Path, seed: int = 0) -> dict[str, Any]:
    """One of everything that can be saved."""
    rng = np.random.default_rng(seed)
    weights = rng.standard_normal((40, 30)).astype(np.float32)
    read_only = weights.copy()
    read_only.flags.writeable = False
    mapped = np.memmap(folder / f"mapped-{seed}-{rng.integers(1 << 40)}", np.int16, "w+", shape=(7, 5))
    mapped[...] = rng.integers(-99, 99, (7, 5))
    return {
        "model": {
            "weight": weights,
            "fortran": np.asfortranarray(weights),
            "strided": weights[::2, ::-3],
            "read_only": read_only,
            "mapped": mapped,
            "dtypes": every_dtype(rng),
        },
        "shapes": [np.array(rng.random()), np.empty((0, 4)), np.empty((3, 0), ml_dtypes.bfloat16), np.ones((1, 1, 1))],
        "optimizer": OrderedDict([("moments", Moments(rng.random(3), (np.arange(3), None))), (3, "three"), (-1, b"")]),
        "schedule": Schedule(rng.random((2, 2)), 100),
        "counts": defaultdict(int, {"a": 1, 10**30: 2}),
        "counter": Counter(int(rng.integers(1000)), rng.integers(0, 9, 4)),
        "scalars": (
            np.float32(0.1),
            np.int64(-5),
            np.bool_(1),
            np.str_("x\0"),
            ml_dtypes.bfloat16(1.5),
            np.bytes_(b"\0"),
        ),
        "values": {
            "ints": [0, -1, 2**53, -(2**63), 10**4200],
            "floats": [0.0, -0.0, 1e-320, float("nan"), float("inf"), float("-inf"), 0.1],
            "others": (True, False, None, "", "日本\ud800", b"\x00\xff", [], (), {}),
            "long": rng.bytes(5000),
        },
    }


def plain(state: Any) -> Any:
    """What a state is restored as without a target."""
    if isinstance(state, Counter):
        return plain(state.state_dict())
    if is_dataclass(state):
        return {field.name: plain(getattr(state, field.name)) for field in fields(state)}
    if isinstance(state, dict):
        return {key: plain(value) for key, value in state.items()}
    if isinstance(state, tuple):
        return tuple(plain(value) for value in state)
    return [plain(value) for value in state] if isinstance(state, list) else state


def bits(state: Any) -> Any:
    """A state as something that ``==`` compares to the last bit: types, dtypes (byte order aside), shapes, order, bytes."""
    match state:
        case np.ndarray() | np.generic():
            little = state.dtype.newbyteorder("<")
            kind = "array" if isinstance(state, np.ndarray) else type(state).__name__
            return kind, str(little), state.shape, np.asarray(state).astype(little).tobytes()
        case float():
            return "float", struct.pack("<d", state)
        case Counter():
            return "Counter", bits(state.state_dict())
        case dict():
            return type(state).__name__, [(type(key).__name__, key, bits(value)) for key, value in state.items()]
        case list() | tuple():
            return type(state).__name__, [bits(value) for value in state]
        case _ if is_dataclass(state):
            return type(state).__name__, [bits(getattr(state, field.name)) for field in fields(state)]
        case _:
            return type(state).__name__, state


def leaves(state: Any, name: str = "") -> dict[str, Any]:
    """Every array outside of objects, by name."""
    if isinstance(state, np.ndarray):
        return {name: state}
    items: Any = ()
    if isinstance(state, dict):
        items = state.items()
    elif isinstance(state, list | tuple):
        items = enumerate(state)
    elif is_dataclass(state):
        items = [(field.name, getattr(state, field.name)) for field in fields(state)]
    found: dict[str, Any] = {}
    for key, value in items:
        found |= leaves(value, f"{name}.{key}" if name else str(key))
    return found
