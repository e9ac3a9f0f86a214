"""What ``torch.save`` wrote: a zip archive with a pickle of the object and, for each storage in it, its raw bytes. Pure.

PyTorch stores everything uncompressed, and so a tensor's bytes can be read by a range once it is known where they begin.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from asyncsaver.errors import ManifestError
from asyncsaver.formats.dcp.metadata import admits_dtype, plain_shape
from asyncsaver.formats.dcp.pickles import PERSISTENT, Global, Record, read_pickle
from asyncsaver.formats.dcp.windows import Windows
from asyncsaver.model.manifest import LARGEST

MAGIC = b"PK\3\4"
"""The first bytes of an archive."""
MAX_PICKLE = 1 << 20
"""The largest pickle that is read: those of tensors take a few hundred bytes."""

_LOCAL_HEADER = 30
_V2, _V3 = "torch._utils:_rebuild_tensor_v2", "torch._utils:_rebuild_tensor_v3"
_UNTYPED = "torch.storage:UntypedStorage"
_STORAGES: Mapping[str, str] = MappingProxyType({
    f"torch:{name}Storage": dtype for name, dtype in {
        "Float": "float32", "Double": "float64", "Half": "float16", "BFloat16": "bfloat16", "Long": "int64", "Int": "int32",
        "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool", "ComplexFloat": "complex64",
        "ComplexDouble": "complex128",
    }.items()
})  # fmt: skip
_ADMITTED = frozenset([_V2, _V3, _UNTYPED, "torch:UntypedStorage", *_STORAGES, "collections:OrderedDict", "torch:Size"])
_ADMITTED_IN_VALUES = frozenset(["collections:OrderedDict", "_codecs:encode"])
# What `zipfile` may raise for an archive that is not one.
_BAD_ARCHIVE = (
    zipfile.BadZipFile, struct.error, OSError, EOFError, ValueError, LookupError, RuntimeError, OverflowError,
)  # fmt: skip


class TorchTensor(msgspec.Struct, frozen=True, gc=False):
    """A tensor, and the storage that its elements are in.

    Attributes:
        dtype: as PyTorch calls it.
        shape: in elements.
        strides: in elements, per axis.
        offset: of its first element in its storage, in elements.
        start: first byte of its storage in the archive.
        stop: one past the last.
    """

    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    start: int
    stop: int


def read_tensor(file: Windows, where: str) -> TorchTensor:
    """Find out where the bytes of a saved tensor stand. Blocking.

    Args:
        file: the archive.
        where: it stands, for messages.

    Raises:
        NotHereError: another range is needed for that.
        ManifestError: it is damaged, or no plain tensor.
    """
    archive, saved = _open(file, lambda name: name in _ADMITTED or admits_dtype(name), where)
    dtype, key, offset, shape, strides = _tensor(saved, where)
    return TorchTensor(dtype, shape, strides, offset, *_stored(archive, file, f"data/{key}", where))


def read_value(file: Windows, where: str) -> tuple[Any, int]:
    """Read the pickle of what is no tensor. Blocking.

    Returns:
        What `read_pickle` makes of it, and the length of the pickle.

    Raises:
        NotHereError: another range is needed for that.
        ManifestError: it is damaged, or consists of more than plain values.
    """
    archive, saved = _open(file, _ADMITTED_IN_VALUES.__contains__, where)
    return saved, archive["data.pkl"].file_size


def _open(file: Windows, admits: Callable[[str], bool], where: str) -> tuple[dict[str, zipfile.ZipInfo], Any]:
    """The entries of an archive, by name without the folder that they are in, and its pickle."""
    try:
        with zipfile.ZipFile(file) as archive:
            entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
            pickle = _small(archive, entries["data.pkl"], MAX_PICKLE)
            order = _small(archive, entries["byteorder"], 16) if "byteorder" in entries else b"little"
    except ManifestError as error:
        raise ManifestError(f"{where}: {error}", path=where) from error
    except _BAD_ARCHIVE as error:
        raise ManifestError(
            f"{where}: no archive of torch.save: {type(error).__name__}: {error}", path=where
        ) from error
    if order != b"little":
        raise ManifestError(f"{where}: its byte order is {order!r}", path=where)
    return entries, read_pickle(pickle, admits, where)


def _small(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limit: int) -> bytes:
    if entry.compress_type != zipfile.ZIP_STORED:
        raise ManifestError(f"{entry.filename[:100]!a} is compressed")
    if entry.file_size > limit:
        raise ManifestError(
            f"{entry.filename[:100]!a} has {entry.file_size} bytes, more than the {limit} that are read"
        )
    return archive.read(entry)


def _stored(entries: Mapping[str, zipfile.ZipInfo], file: Windows, name: str, where: str) -> tuple[int, int]:
    """Where the content of an entry begins and ends."""
    entry = entries.get(name)
    if entry is None or entry.compress_type != zipfile.ZIP_STORED or entry.header_offset < 0:
        raise ManifestError(f"{where}: its storage {name[:50]!a} is missing, or compressed", path=where)
    file.seek(entry.header_offset)
    header = file.read(_LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or not header.startswith(MAGIC):
        raise ManifestError(f"{where}: its storage {name[:50]!a} is not where the archive says", path=where)
    start = entry.header_offset + _LOCAL_HEADER + sum(struct.unpack("<HH", header[26:]))
    if start + entry.file_size > file.size:
        raise ManifestError(f"{where}: its storage {name[:50]!a} ends beyond the archive", path=where)
    return start, start + entry.file_size


def _tensor(saved: Any, where: str) -> tuple[str, str, int, tuple[int, ...], tuple[int, ...]]:
    """Dtype, key of the storage, offset in elements, shape and strides of what was pickled as a tensor."""
    if not isinstance(saved, Record) or saved.kind not in {_V2, _V3}:
        raise ManifestError(f"{where}: it is no plain tensor", path=where)
    match saved.args:
        case (Record(kind, (("storage", Global(storage), str(key), *_),)), int(offset), size, stride, _, _, *rest) if (
            kind == PERSISTENT
        ):
            shape, strides = plain_shape(size), plain_shape(stride)
        case _:
            raise ManifestError(f"{where}: it is no plain tensor", path=where)
    dtype = _STORAGES.get(storage, "")
    if saved.kind == _V3:
        untyped, rest = rest[:1], rest[1:]
        dtype = untyped[0].name.removeprefix("torch:") if untyped and isinstance(untyped[0], Global) else ""
    if any(rest):  # what is left is a dict of flags
        raise ManifestError(f"{where}: it is a lazy conjugate or negative of what is stored", path=where)
    if not dtype or shape is None or strides is None or len(strides) != len(shape) or not 0 <= offset <= LARGEST:
        raise ManifestError(f"{where}: its dtype, shape or strides are damaged", path=where)
    if math.prod(shape) > LARGEST:
        raise ManifestError(f"{where}: impossible shape {list(shape)[:8]}", path=where)
    return dtype, key, offset, shape, strides
