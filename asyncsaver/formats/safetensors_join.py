"""Joining the headers of several safetensors files into the tensors of one checkpoint. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from asyncsaver.errors import ManifestError
from asyncsaver.formats.batches import UNREADABLE
from asyncsaver.formats.folder import Folder
from asyncsaver.formats.safetensors_header import Header, Stored
from asyncsaver.model.digests import NO_DIGEST
from asyncsaver.model.dtypes import DType, dtype_from_name
from asyncsaver.model.foreign import NO_CRC
from asyncsaver.model.manifest import LARGEST, Chunk, FileEntry, TensorEntry
from asyncsaver.model.merge import check_coverage

SHARDING = "DCP_SHARDING_INFO"
"""In the metadata of a file: JSON that says for each of its tensors where in the whole tensor it begins."""

_OPAQUE = np.dtype("V1")
_Offset = tuple[int, ...]


class _Slice(msgspec.Struct, frozen=True, gc=False):
    saved_offsets: _Offset


@dataclass(frozen=True, slots=True)
class Joined:
    """The tensors of all files; what `Foreign` takes.

    Attributes:
        metadata: strings that stand in the headers and do not differ.
    """

    files: list[FileEntry] = field(default_factory=list)
    tensors: dict[str, TensorEntry] = field(default_factory=dict)
    dtypes: dict[str, DType] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Found:
    """A tensor, or a slice of one, in a file; the offset is None where the file does not speak of slices."""

    file: int
    offset: _Offset | None
    stored: Stored


def join(folder: Folder, headers: Mapping[str, Header], weight_map: Mapping[str, str] | None) -> Joined:
    """Join. Blocking.

    Args:
        folder: where the files are.
        headers: by file.
        weight_map: tensor → file, which decides what belongs to the checkpoint; None for everything.

    Raises:
        ManifestError: a tensor is not in its file, or whole in two files, or a file says nonsense of its slices.
    """
    joined = Joined()
    found: dict[str, list[_Found]] = {}
    for number, (file, header) in enumerate(headers.items()):
        path = folder.prefix + file
        joined.files.append(FileEntry(path, folder.sizes[file], NO_CRC))
        offsets = _offsets(header, path)
        for name, stored in header.tensors.items():
            found.setdefault(name, []).append(_Found(number, offsets.get(name), stored))
    if weight_map is not None:
        found = _mapped(found, weight_map, {file: number for number, file in enumerate(headers)}, folder)
    for name, parts in found.items():
        if len(parts) > 1 and any(part.offset is None for part in parts):
            where = [joined.files[part.file].path for part in parts[:2]]
            raise ManifestError(
                f"tensor {name[:200]!a} is in {where[0]} and in {where[1]}", path=where[1], tensors=[name]
            )
        _add(joined, name, parts)
    _join_metadata(joined, headers.values())
    return joined


def _offsets(header: Header, path: str) -> dict[str, _Offset]:
    text = header.metadata.get(SHARDING)
    if text is None:
        return {}
    try:
        slices = msgspec.json.decode(text, type=dict[str, _Slice])
    except UNREADABLE as error:
        raise ManifestError(f"{path}: its {SHARDING} is damaged: {error}", path=path) from error
    return {name: one.saved_offsets for name, one in slices.items()}


def _mapped(
    found: Mapping[str, list[_Found]], weight_map: Mapping[str, str], numbers: Mapping[str, int], folder: Folder
) -> dict[str, list[_Found]]:
    """What the index names. Of a tensor in slices it can name one file only: the others count, too."""
    wanted: dict[str, list[_Found]] = {}
    for name, file in weight_map.items():
        parts = found.get(name, [])
        named = [part for part in parts if part.file == numbers[file]]
        if not named:
            path = folder.prefix + file
            raise ManifestError(f"tensor {name[:200]!a} is not in {path}, as the index says", path=path, tensors=[name])
        wanted[name] = named if named[0].offset is None else [part for part in parts if part.offset is not None]
    return wanted


def _add(joined: Joined, name: str, parts: Sequence[_Found]) -> None:
    stored = parts[0].stored
    shape, problem = stored.shape, ""
    if parts[0].offset is not None:
        offsets = [part.offset or () for part in parts]
        shape, problem = _whole_shape(parts, offsets)
    if any(part.stored.code != stored.code for part in parts):
        problem = problem or "its slices have several dtypes"
    try:
        dtype_from_name(stored.dtype)
    except ManifestError:
        joined.dtypes[name] = _OPAQUE
        joined.tensors[name] = TensorEntry(stored.code, shape, ())
        joined.unreadable[name] = f"NumPy has no dtype whose elements lie in memory as those of {stored.code[:50]}"
        return
    if not problem:
        chunks = [
            Chunk(
                part.offset or (0,) * len(shape),
                part.stored.shape,
                part.file,
                part.stored.start,
                part.stored.stop,
                NO_DIGEST,
            )
            for part in parts
            if len(parts) == 1 or 0 not in part.stored.shape
        ]
        joined.tensors[name] = TensorEntry(stored.dtype, shape, tuple(chunks))
        try:
            check_coverage(name, joined.tensors[name])
        except ManifestError as error:
            problem = str(error)
        else:
            return
    joined.tensors[name] = TensorEntry(stored.dtype, shape, ())
    joined.unreadable[name] = problem


def _whole_shape(parts: Sequence[_Found], offsets: Sequence[_Offset]) -> tuple[tuple[int, ...], str]:
    """How far the slices reach along each axis, and what is wrong with them."""
    ends: list[tuple[int, ...]] = []
    for part, offset in zip(parts, offsets, strict=True):
        if (
            len(offset) != len(parts[0].stored.shape)
            or len(part.stored.shape) != len(offset)
            or min(offset, default=0) < 0
        ):
            return parts[0].stored.shape, f"a slice of it begins at {list(offset)[:64]}"
        ends.append(tuple(start + length for start, length in zip(offset, part.stored.shape, strict=True)))
    shape = tuple(max(axis) for axis in zip(*ends, strict=True))
    extent = 16
    for length in shape:
        extent *= length or 1
    return (shape, "") if extent <= LARGEST else (parts[0].stored.shape, f"impossible shape {list(shape)}")


def _join_metadata(joined: Joined, headers: Iterable[Header]) -> None:
    differing: set[str] = {SHARDING}
    for header in headers:
        for key, value in header.metadata.items():
            if joined.metadata.setdefault(key, value) != value:
                differing.add(key)
    for key in differing:
        joined.metadata.pop(key, None)
