"""Pickles of classes that are not installed, and of what no honest program writes."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

META = "torch.distributed.checkpoint.metadata"
FILES = "torch.distributed.checkpoint.filesystem"


class Code(bytes):
    """Instructions that leave one value."""


def pickled(value: Any) -> bytes:
    """A whole pickle."""
    return b"\x80\x04" + write(value) + b"."


def write(value: Any) -> Code:
    """The instructions of a plain value, or of one that has `Code` in it."""
    match value:
        case Code():
            return value
        case None:
            return Code(b"N")
        case bool():
            return Code(b"\x88" if value else b"\x89")
        case int():
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            return Code(b"\x8a" + bytes([len(data)]) + data)
        case str():
            return Code(b"X" + struct.pack("<I", len(value.encode())) + value.encode())
        case tuple():
            return Code(b"(" + b"".join(map(write, value)) + b"t")
        case list():
            return Code(b"](" + b"".join(map(write, value)) + b"e")
        case dict():
            return Code(b"}(" + b"".join(write(key) + write(item) for key, item in value.items()) + b"u")
    raise TypeError(value)


def named(module: str, name: str) -> Code:
    """A global."""
    return Code(write(module) + write(name) + b"\x93")


def called(module: str, name: str, *args: Any) -> Code:
    """What a function returns."""
    return Code(named(module, name) + write(args) + b"R")


def made(module: str, name: str, state: Any) -> Code:
    """An object with a state."""
    return Code(named(module, name) + b")\x81" + write(state) + b"b")


def size(*shape: Any) -> Code:
    """A `torch.Size`."""
    return called("torch", "Size", shape)


def tensor(dtype: str, shape: Sequence[Any], chunks: Sequence[tuple[Sequence[Any], Sequence[Any]]]) -> Code:
    """What the metadata say of a tensor: each chunk with offsets and sizes."""
    pieces = [
        made(META, "ChunkStorageMetadata", {"offsets": size(*offsets), "sizes": size(*sizes)})
        for offsets, sizes in chunks
    ]
    properties = made(META, "TensorProperties", (named("torch", dtype), None, False, None, False))
    return made(META, "TensorStorageMetadata", {"properties": properties, "size": size(*shape), "chunks": pieces})


def value() -> Code:
    """What the metadata say of a value that is no tensor."""
    return Code(named(META, "BytesStorageMetadata") + b")\x81")


def place(
    name: str, offset: Sequence[Any] | None, file: Any, start: Any, length: Any, **more: Any
) -> tuple[Code, Code]:
    """Where an entry is."""
    index = {"fqn": name, "offset": None if offset is None else size(*offset), "index": None}
    info = {"relative_path": file, "offset": start, "length": length, **more}
    return made(META, "MetadataIndex", index), made(FILES, "_StorageInfo", info)


def metadata(entries: Mapping[str, Code], places: Sequence[tuple[Code, Code]], planner: Any = None) -> bytes:
    """A ``.metadata`` file."""
    storage = Code(b"}(" + b"".join(index + info for index, info in places) + b"u")
    state = {"state_dict_metadata": dict(entries), "planner_data": planner, "storage_data": storage, "version": "1.0.0"}
    return pickled(made(META, "Metadata", state))
