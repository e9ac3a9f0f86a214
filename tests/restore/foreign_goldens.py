"""Checkpoints that other libraries wrote: what they say is in them, and opening them as a user does."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from asyncsaver import CheckpointReader, open_checkpoint
from asyncsaver.store.registry import open_store

from ..formats.tensorflow import checkpoints as tensorflow  # noqa: TID252 - test folders are not packages with a name

FOLDER = Path(__file__).parents[1] / "golden"
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Golden:
    """A checkpoint, by its path below the folder of all.

    Attributes:
        path: what is opened.
        folder: of its files.
        tensors: name → dtype, shape and content of those that can be read.
        unreadable: names of the others.
        values: leaves that are no tensors.
    """

    path: str
    folder: str
    tensors: Mapping[str, Any]
    unreadable: frozenset[str] = frozenset()
    values: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        return self.path

    def check(self, name: str, array: Any) -> None:
        """Fail unless this is the tensor, bit for bit."""
        wanted = self.tensors[name]
        assert isinstance(array, np.ndarray)
        assert list(array.shape) == wanted["shape"], name
        if "data" in wanted:
            assert array.tobytes() == base64.b64decode(wanted["data"]), name
        else:
            assert tensorflow.fingerprint(array) == wanted["sha256"], name

    async def put(self, root: Any) -> None:
        """Write its files below a root."""
        async with open_store(root.url, storage_options=root.storage_options) as store:
            for path in (FOLDER / self.folder).rglob("*"):
                if path.is_file():
                    await store.put(path.relative_to(FOLDER).as_posix(), path.read_bytes())

    async def open(self, root: Any, **arguments: Any) -> CheckpointReader:
        """Open it below a root that has its files."""
        options = root.storage_options or None
        return await open_checkpoint(f"{root.url}/{self.path}", storage_options=options, **arguments)


def _of_tensorflow(path: str) -> Golden:
    contents = tensorflow.contents(tensorflow.GOLDEN / f"{path}.json")
    assert contents is not None
    return Golden(f"tensorflow/{path}", f"tensorflow/{path}".rpartition("/")[0], contents)


def _of_pytorch(path: str) -> Golden:
    said = json.loads((FOLDER / f"{path}.expected.json").read_text())
    unreadable = frozenset(said.get("unreadable", []))
    readable = {name: wanted for name, wanted in said["tensors"].items() if name not in unreadable}
    return Golden(path, path, readable, unreadable, said.get("values"))


GOLDENS = {
    golden.path: golden
    for golden in [
        *map(_of_tensorflow, tensorflow.CHECKPOINTS),
        *(
            _of_pytorch(path.relative_to(FOLDER).as_posix())
            for library in ("dcp", "huggingface")
            for path in sorted((FOLDER / library).iterdir())
            if path.is_dir()
        ),
    ]
}


def leaf(state: Any, name: str) -> Any:
    """A leaf of a restored state, by its name."""
    if not name:
        return state
    if isinstance(state, dict) and name in state:
        return state[name]
    first, _, rest = name.partition(".")
    return leaf(state[int(first) if isinstance(state, list) else first], rest)


def blank(reader: CheckpointReader, name: str) -> Array:
    """An array that a tensor fits into, with other content."""
    info = reader.tensors[name]
    if info.dtype.hasobject:
        return np.full(info.shape, b"before", object)
    return np.frombuffer(b"\x55" * info.nbytes, info.dtype).reshape(info.shape).copy()
