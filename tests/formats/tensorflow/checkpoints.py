"""What the tests of TensorFlow's formats share: the golden checkpoints, and reading a description as a reader would."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from asyncsaver.aio.threads import Threads
from asyncsaver.errors import CheckpointCorruptError
from asyncsaver.formats.tensorflow.describe import describe
from asyncsaver.model.digests import digest_of
from asyncsaver.model.dtypes import Array, dtype_from_name
from asyncsaver.model.foreign import Foreign
from asyncsaver.store.contract import Store

GOLDEN = Path(__file__).parents[2] / "golden" / "tensorflow"


def relative(path: Path) -> str:
    return path.relative_to(GOLDEN).as_posix()


def contents(path: Path) -> Mapping[str, Any] | None:
    """What TensorFlow says is in the checkpoint beside this JSON file; None if it is about something else."""
    tensors = json.loads(path.read_text()).get("tensors")
    return None if tensors is None else dict(tensors)


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]


CHECKPOINTS = sorted(relative(path.with_suffix("")) for path in GOLDEN.rglob("*.json") if contents(path) is not None)
"""All that come with a list of what is in them."""


async def put_folder(store: Store, folder: Path) -> None:
    for path in files_in(folder):
        await store.put(relative(path), path.read_bytes())


async def described(store: Store, path: str) -> Foreign:
    threads = Threads("test", 1)
    try:
        return await describe(store, threads, path)
    finally:
        threads.close()


async def read(store: Store, foreign: Foreign, name: str) -> Array:
    """Read a tensor by its description alone; raises `CheckpointCorruptError` as a reader would."""
    entry = foreign.tensors[name]
    if name in foreign.unreadable:
        raise CheckpointCorruptError(foreign.unreadable[name])
    whole = np.empty(entry.shape, dtype_of(foreign, name))
    for position, chunk in enumerate(entry.chunks):
        data = bytearray(chunk.stop - chunk.start)
        await store.get_into(foreign.files[chunk.file].path, [(chunk.start, chunk.stop)], [memoryview(data)])
        if digest_of(bytes(data), chunk.xxh3_128) != chunk.xxh3_128:
            raise CheckpointCorruptError("the checksum differs")
        encoding = foreign.encoding(name, position)
        if encoding is None:
            array = np.frombuffer(data, whole.dtype).reshape(chunk.shape)
        else:
            array = encoding.decode(memoryview(data).toreadonly(), whole.dtype, chunk.shape)
        assert array.dtype == whole.dtype
        assert array.shape == chunk.shape
        box = [slice(start, start + size) for start, size in zip(chunk.offset, chunk.shape, strict=True)]
        whole[(*box, ...)] = array  # with the ellipsis also where there is no axis
    return whole


def dtype_of(foreign: Foreign, name: str) -> np.dtype[Any]:
    dtype = foreign.tensors[name].dtype
    if name in foreign.dtypes:
        return foreign.dtypes[name]
    return np.dtype(object) if dtype == "string" else dtype_from_name(dtype)


def fingerprint(array: Array) -> str:
    """As the golden files have it."""
    if array.dtype != object:
        return hashlib.sha256(array.tobytes()).hexdigest()
    return hashlib.sha256(b"".join(len(one).to_bytes(8, "little") + one for one in array.flat)).hexdigest()


def strings_of(expected: Mapping[str, Any]) -> list[bytes]:
    return [base64.b64decode(text) for text in expected["strings_b64"]]
