"""What the tests of conversions share: reading a checkpoint whole, and comparing two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from asyncsaver import open_checkpoint
from asyncsaver.model.manifest import TensorEntry

GOLDEN = Path(__file__).parents[1] / "golden"
Array = np.ndarray[Any, np.dtype[Any]]
Content = dict[str, tuple[str, Array]]
"""Name → dtype as the checkpoint calls it, and elements."""


async def content_of(url: str, into: str = "auto", options: Mapping[str, Any] | None = None) -> Content:
    """All tensors that can be read."""
    async with await open_checkpoint(url, into, storage_options=options) as reader:
        entries: Mapping[str, TensorEntry] = reader.source.tensors
        readable = [name for name in entries if name not in reader.source.unreadable]
        return {name: (entries[name].dtype, await reader.read(name)) for name in readable}


def files_under(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    """All files below a folder whose names match, but for the lock of a local store."""
    found = [path for path in folder.rglob(pattern) if path.is_file() and path.name != ".asyncsaver.lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(found)}


def assert_same(found: Content, expected: Content, select: Callable[[str], bool] = lambda name: True) -> None:
    """The same names, and of each the same dtype, shape and bits."""
    assert found.keys() == {name for name in expected if select(name)}
    for name, (dtype, array) in found.items():
        known, other = expected[name]
        assert (dtype, array.dtype, array.shape) == (known, other.dtype, other.shape), name
        if array.dtype.hasobject:
            assert array.tolist() == other.tolist(), name
        else:
            assert array.tobytes() == other.tobytes(), name


def can_hold(into: str, dtype: str) -> bool:
    """Whether a format has a dtype, for those that the golden checkpoints have."""
    foreign = {"string", "qint8", "quint8", "qint16", "quint16", "qint32"}
    without_code = {
        "complex128", "int4", "uint4", "int2", "uint2", "float4_e2m1fn", "float8_e4m3b11fnuz", "float8_e4m3fnuz",
        "float8_e5m2fnuz",
    }  # fmt: skip
    match into:
        case "native":
            return dtype not in foreign
        case "huggingface":
            return dtype not in foreign | without_code
        case _:
            return dtype != "float8_e8m0fnu"
