"""What the ``.metadata`` of a PyTorch Distributed Checkpoint says. Pure.

It is a pickle of `torch.distributed.checkpoint.metadata.Metadata`: which tensors and values there are
(``state_dict_metadata``), where each piece of them stands (``storage_data``), and where in the nested state each
belongs (``planner_data``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec

from asyncsaver.errors import ManifestError
from asyncsaver.formats.dcp.pickles import Global, Record, read_pickle
from asyncsaver.formats.safetensors_header import MAX_AXES
from asyncsaver.model.manifest import LARGEST

_METADATA = "torch.distributed.checkpoint.metadata:"
_STORAGE = "torch.distributed.checkpoint.filesystem:"
_OLDER = "torch.distributed._shard.sharded_tensor.metadata:"  # where PyTorch had the properties of tensors before 2.3
_ADMITTED = frozenset([
    *(_METADATA + name for name in (
        "Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata",
        "TensorProperties", "_MEM_FORMAT_ENCODING",
    )),
    _OLDER + "TensorProperties", _OLDER + "MEM_FORMAT_ENCODING", _STORAGE + "_StorageInfo", _STORAGE + "_StoragePrefix",
    "torch:Size", "torch.serialization:_get_layout", "collections:OrderedDict",
    # StorageMeta has the path that the checkpoint was saved to.
    *(f"{module}:{name}" for module in ("pathlib", "pathlib._local") for name in (
        "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path",
    )),
])  # fmt: skip
_DTYPE = re.compile(r"torch:(bool|q?u?int[0-9]+(x[0-9]+)?|bits[0-9x]+|b?complex[0-9]+|b?float[0-9]+[0-9a-z_]*)")

# Name in PyTorch → in `model.dtypes`, where they differ or where PyTorch's elements do not lie in memory as NumPy's do.
_NAMES: Mapping[str, str] = MappingProxyType(
    {"float4_e2m1fn_x2": ""} | {f"{u}int{n}": "" for u in ("u", "") for n in range(1, 8)}
)


class Piece(msgspec.Struct, frozen=True, gc=False):
    """A chunk of a tensor, as the metadata has it: per axis where it begins and how long it is."""

    offset: tuple[int, ...]
    shape: tuple[int, ...]


class Place(msgspec.Struct, frozen=True, gc=False):
    """Where an entry stands: file as named, first byte, bytes, and by what its bytes were transformed ("" for nothing)."""

    file: str
    start: int
    length: int
    transformed: str


class Described(msgspec.Struct, frozen=True, gc=False):
    """A tensor: its dtype as PyTorch calls it, its shape, its pieces."""

    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]


@dataclass(frozen=True, slots=True)
class Metadata:
    """The whole document.

    Attributes:
        order: all names, as they stand there.
        tensors: by name.
        values: names of what is no tensor.
        damaged: tensor or value → what is wrong with what the document says of it.
        places: by name and offset, which is None for values.
        paths: name → keys and positions that lead to it in the state; None where the state was not nested, or nobody knows.
    """

    order: Sequence[str]
    tensors: Mapping[str, Described]
    values: Sequence[str]
    damaged: Mapping[str, str]
    places: Mapping[tuple[str, tuple[int, ...] | None], Place]
    paths: Mapping[str, tuple[str | int, ...]] | None


def admits_dtype(name: str) -> bool:
    """Whether a global is one of PyTorch's dtypes."""
    return _DTYPE.fullmatch(name) is not None


def numpy_name(dtype: str) -> str:
    """What `model.dtypes` calls a dtype of PyTorch, or would call it; "" where NumPy's is another one."""
    return _NAMES.get(dtype, dtype)


def parse_metadata(data: bytes, where: str) -> Metadata:
    """Read a ``.metadata`` file. Blocking.

    Raises:
        ManifestError: it is damaged, or names classes that no such file has.
    """
    root = read_pickle(data, lambda name: name in _ADMITTED or admits_dtype(name), where)
    fields = _fields(root, _METADATA + "Metadata")
    described = None if fields is None else fields.get("state_dict_metadata")
    if fields is None or not isinstance(described, dict) or not all(isinstance(name, str) for name in described):
        raise ManifestError(f"{where}: not the metadata of a checkpoint of torch.distributed.checkpoint", path=where)
    places = _places(fields.get("storage_data"), where)
    tensors: dict[str, Described] = {}
    values: list[str] = []
    damaged: dict[str, str] = {}
    left = len(
        data
    )  # each piece takes some bytes, unless a list of them was written once and is referred to again and again
    for name, entry in described.items():
        if _fields(entry, _METADATA + "BytesStorageMetadata") is not None:
            values.append(name)
            continue
        tensor = _tensor(entry, left)
        if tensor is None:
            damaged[name] = "its entry in .metadata is damaged"
        else:
            tensors[name] = tensor
            left -= len(tensor.pieces)
    return Metadata(list(described), tensors, values, damaged, places, _paths(fields.get("planner_data"), described))


def plain_shape(value: Any) -> tuple[int, ...] | None:
    """A `torch.Size`, or the plain tuple that stands for one; None for anything else, and for impossible ones."""
    if isinstance(value, Record) and value.kind == "torch:Size" and len(value.args) == 1:
        value = value.args[0]
    if type(value) is not tuple or len(value) > MAX_AXES:
        return None
    return value if all(type(size) is int and 0 <= size <= LARGEST for size in value) else None


def _fields(value: Any, kind: str) -> dict[Any, Any] | None:
    """The attributes of an instance of that class; None where it is none."""
    if not isinstance(value, Record) or value.kind != kind:
        return None
    state = {} if value.state is None else value.state
    return state if isinstance(state, dict) else None


def _places(found: Any, where: str) -> dict[tuple[str, tuple[int, ...] | None], Place]:
    if not isinstance(found, dict):
        raise ManifestError(f"{where}: it does not say where anything stands (storage_data)", path=where)
    places: dict[tuple[str, tuple[int, ...] | None], Place] = {}
    for key, value in found.items():
        index, info = _fields(key, _METADATA + "MetadataIndex"), _fields(value, _STORAGE + "_StorageInfo")
        if index is None or info is None:
            continue  # what it belongs to has no place then, and that is said of it
        transformed = info.get("transform_descriptors") or ()
        match index.get("fqn"), info.get("relative_path"), info.get("offset"), info.get("length"):
            case str(name), str(file), int(start), int(length) if 0 <= start <= LARGEST and 0 <= length <= LARGEST:
                offset = index.get("offset")
                names = _names(transformed)
                places[name, None if offset is None else plain_shape(offset)] = Place(file, start, length, names)
            case _:
                pass
    return places


def _names(transformed: Any) -> str:
    """Some names for a message; "" only where there are none."""
    if isinstance(transformed, (list, tuple)) and not transformed:
        return ""
    names = transformed[:5] if isinstance(transformed, (list, tuple)) else ()
    return ", ".join(name[:50] for name in names if isinstance(name, str)) or "something unknown"


def _tensor(entry: Any, most: int) -> Described | None:
    fields = _fields(entry, _METADATA + "TensorStorageMetadata")
    if fields is None:
        return None
    properties, shape, chunks = fields.get("properties"), plain_shape(fields.get("size")), fields.get("chunks")
    dtype = _dtype(properties)
    if not dtype or shape is None or not isinstance(chunks, list) or len(chunks) > most:
        return None
    pieces: list[Piece] = []
    for chunk in chunks:
        offsets_sizes = _fields(chunk, _METADATA + "ChunkStorageMetadata") or {}
        offset, size = plain_shape(offsets_sizes.get("offsets")), plain_shape(offsets_sizes.get("sizes"))
        if offset is None or size is None or not len(offset) == len(size) == len(shape):
            return None
        pieces.append(Piece(offset, size))
    return Described(dtype, shape, tuple(pieces))


def _dtype(properties: Any) -> str:
    """PyTorch's name of a dtype; "" where there is none."""
    if isinstance(properties, Record) and properties.kind.endswith(":TensorProperties"):
        match properties.state:
            case (Global(name), *_) | {"dtype": Global(name)} if admits_dtype(name):
                return name.removeprefix("torch:")
    return ""


def _paths(found: Any, described: Mapping[str, Any]) -> dict[str, tuple[str | int, ...]] | None:
    if not isinstance(found, dict):
        return None
    paths: dict[str, tuple[str | int, ...]] = {}
    for name in described:
        path = found.get(name)
        if type(path) is not tuple or not path or any(type(key) is not str and type(key) is not int for key in path):
            return None
        paths[name] = path
    return paths
