"""What TensorFlow sees in a folder with V1 files: single ones, and shards that are all there or that its state file lists."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from asyncsaver import Saver
from asyncsaver.formats.tensorflow.naming import prefix_of, shard_paths
from asyncsaver.formats.tensorflow.state_text import decode_state
from asyncsaver.formats.tensorflow.table import read_footer, read_index
from asyncsaver.formats.tensorflow.v1 import V1File, describe_v1
from asyncsaver.model.dtypes import dtype_from_name

from .tensorflow_eyes import TornError

_SHARD = re.compile(r"(.*)-\d{5}-of-(\d{5})")


def state_of(number: int) -> dict[str, Any]:
    """A state of four arrays that V1 can hold, with a file each when ``shard_bytes`` is 1."""
    return {
        "weights": np.arange(12, dtype=np.float32).reshape(3, 4) + number,
        "bias": np.full(5, number, dtype=np.int64),
        "number": number,
        "names": np.array([f"name {number}", ""], dtype=object),
    }


def number_of(state: Mapping[str, Any]) -> int:
    """The number of which this is the state, bit for bit; anything else fails."""
    number = int(state["number"])
    expected = state_of(number)
    assert state.keys() == expected.keys()
    np.testing.assert_array_equal(state["weights"], expected["weights"], strict=True)
    np.testing.assert_array_equal(state["bias"], expected["bias"], strict=True)
    assert state["names"].tolist() == [f"name {number}".encode(), b""]
    return number


async def numbers_of(saver: Saver) -> dict[str, int]:
    """Name → number of the state, of every checkpoint that a saver lists; each must restore whole."""
    return {one.name: number_of(await saver.restore(checkpoint=one)) for one in await saver.checkpoints()}


def numbers_seen(objects: Mapping[str, bytes]) -> dict[str, int]:
    """Prefix → number of the state, of every V1 checkpoint that TensorFlow finds; each must be whole."""
    outside = [path for path in objects if "/" not in path and path != "checkpoint"]
    found = {path: [path] for path in outside if "." not in path and not _SHARD.fullmatch(path)}
    # Of a sharded one all files, of which there are more with every save of one name; some only are none yet, or none any more,
    # but for what the state file has.
    for pattern in sorted({_SHARD.sub(r"\1-?????-of-\2", path) for path in outside if _SHARD.fullmatch(path)}):
        shards = shard_paths(pattern) or []
        if objects.keys() >= {*shards}:
            found[prefix_of(pattern)] = shards
    if "checkpoint" in objects:
        for path in decode_state(objects["checkpoint"], "checkpoint").paths:
            pattern = path.rpartition("/")[2]
            if shards := shard_paths(pattern):
                found[prefix_of(pattern)] = shards
    return {name: number_of(_tensors(objects, paths)) for name, paths in found.items()}


def _tensors(objects: Mapping[str, bytes], paths: list[str]) -> dict[str, Any]:
    missing = [path for path in paths if path not in objects]
    if missing:
        raise TornError(f"{missing} are not there")
    files = []
    for path in paths:
        data = objects[path]
        start, stop = read_footer(data, len(data), path)
        blocks = read_index(data[start:stop], start, path)
        first, end = blocks.ranges[0]
        files.append(V1File(path, len(data), blocks, data[first:end]))
    foreign = describe_v1(files, paths[0])
    tensors: dict[str, Any] = {}
    for name, entry in foreign.tensors.items():
        [chunk] = entry.chunks
        encoding = foreign.encoding(name, 0)
        assert encoding is not None
        piece = memoryview(objects[foreign.files[chunk.file].path])[chunk.start : chunk.stop]
        dtype = np.dtype(object) if entry.dtype == "string" else dtype_from_name(entry.dtype)
        tensors[name] = encoding.decode(piece, dtype, tuple(chunk.shape))
    return tensors
