"""States and checkpoints in words that any later version can compare with: JSON, and a SHA-256 for each array."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from asyncsaver import Checkpoint


def describe(value: Any) -> Any:
    """What ``restore()`` without a target must give for this state.

    Dataclasses and all kinds of dict are dicts, named tuples are tuples, objects are what ``state_dict()`` returns.
    """
    kind, items = contents(value)
    if kind == "dict":
        return {"dict": [[repr(key), describe(item)] for key, item in items]}
    if kind:
        return {kind: [describe(item) for _, item in items]}
    if isinstance(value, np.ndarray):
        return {"array": describe_array(value)}
    if isinstance(value, np.generic):
        return {"scalar": [type(value).__name__, bytes_of(np.asarray(value)).hex()]}
    if isinstance(value, bytes):
        return {"bytes": [len(value), hashlib.sha256(value).hexdigest()]}
    return {type(value).__name__: hex(value) if type(value) is int else repr(value)}


def describe_tensors(value: Any, name: str = "") -> dict[str, Any]:
    """The arrays of a state by name, long bytes among them."""
    kind, items = contents(value)
    if kind:
        below = [describe_tensors(item, f"{name}.{key}" if name else str(key)) for key, item in items]
        return {tensor: described for some in below for tensor, described in some.items()}
    if isinstance(value, np.ndarray):
        return {name or "state": describe_array(value)}
    if isinstance(value, bytes) and len(value) > 4096:
        return {name or "state": describe_array(np.frombuffer(value, np.uint8))}
    return {}


def contents(value: Any) -> tuple[str, list[tuple[Any, Any]]]:
    """What kind of container it is ("" for none), and what is in it."""
    if hasattr(value, "state_dict"):
        return contents(value.state_dict())
    if dataclasses.is_dataclass(value):
        return "dict", [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    if isinstance(value, dict):
        return "dict", list(value.items())
    if isinstance(value, tuple):
        return "tuple", list(zip(getattr(value, "_fields", range(len(value))), value, strict=True))
    if isinstance(value, list):
        return "list", list(enumerate(value))
    return "", []


def describe_array(array: np.ndarray[Any, np.dtype[Any]]) -> dict[str, Any]:
    """Dtype, shape, and SHA-256 of the elements, little-endian in C order."""
    name = array.dtype.newbyteorder("<").str if array.dtype.kind in "MmUS" else array.dtype.name
    return {"dtype": name, "shape": list(array.shape), "sha256": hashlib.sha256(bytes_of(array)).hexdigest()}


def bytes_of(array: np.ndarray[Any, np.dtype[Any]]) -> bytes:
    """The elements, little-endian in C order."""
    return array.astype(array.dtype.newbyteorder("<"), order="C").tobytes()


def fields(checkpoint: Checkpoint) -> dict[str, Any]:
    """Of a checkpoint, without where it is and how it was saved."""
    return {
        "name": checkpoint.name,
        "step": checkpoint.step,
        "slot": checkpoint.slot,
        "save_id": checkpoint.save_id,
        "created": checkpoint.created.isoformat(),
        "total_bytes": checkpoint.total_bytes,
        "world_size": checkpoint.world_size,
        "metrics": {name: repr(value) for name, value in checkpoint.metrics.items()},
        "metadata": checkpoint.metadata,
        "pinned": checkpoint.pinned,
    }


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file, by its path in the folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
