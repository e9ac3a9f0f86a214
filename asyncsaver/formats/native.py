"""The native format, version 1: records, parts and the state file as JSON. `docs/format.md` specifies it.

Whatever these functions are given to decode, they raise `ManifestError` and nothing else.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TypeVar

import msgspec
import xxhash

from asyncsaver.errors import ManifestError
from asyncsaver.model.checkpoint import check_metadata, decode_metrics
from asyncsaver.model.dtypes import dtype_from_name
from asyncsaver.model.manifest import FORMAT, LARGEST, VERSION, Deleted, FileEntry, Manifest, Part, Record, TensorEntry
from asyncsaver.model.merge import check_coverage
from asyncsaver.model.names import MAX_STEP, check_relative, is_save_id, slot_path
from asyncsaver.model.statefile import FORMAT as STATE_FORMAT
from asyncsaver.model.statefile import VERSION as STATE_VERSION
from asyncsaver.model.statefile import Entry, StateFile

T = TypeVar("T")
_MAX_AXES = 64
_BATCH = 5_000  # tensors encoded at once: about a millisecond
_OPENING = b'{"checksum":"'
_SEALED = len(_OPENING) + 32 + 1  # from here on the checksum counts: after the quote that ends it


class _Head(msgspec.Struct):
    format: str
    version: int


def encode(value: Record | Part | StateFile) -> bytes:
    """Any of them as JSON, sealed."""
    if isinstance(value, (Manifest, Part)) and len(value.tensors) > _BATCH:
        value = msgspec.structs.replace(value, tensors=_encode_tensors(value.tensors))
    return seal(msgspec.json.encode(value))


def _encode_tensors(tensors: dict[str, TensorEntry]) -> msgspec.Raw:
    """The same bytes as in one go. But encoding holds the GIL, and so the event loop, for as long as a call takes."""
    entries = iter(tensors.items())
    batches = iter(lambda: dict(itertools.islice(entries, _BATCH)), {})
    return msgspec.Raw(b"{" + b",".join([msgspec.json.encode(batch)[1:-1] for batch in batches]) + b"}")


def seal(document: bytes) -> bytes:
    """Put the checksum in front of the other fields of a JSON object, of which there is at least one.

    A flipped bit in a number or a string leaves JSON that reads well and says something else; nothing but this finds it.
    """
    rest = memoryview(document)[1:]
    checksum = xxhash.xxh3_128(b",")
    checksum.update(rest)
    return b"".join([_OPENING, checksum.hexdigest().encode(), b'",', rest])


def decode_record(data: bytes, *, name: str, slot: int) -> Record:
    """Read what stands at a slot.

    Args:
        data: the object's bytes.
        name: of the checkpoint in whose folder it stands.
        slot: at which it stands; a record that says it belongs elsewhere is damaged.

    Raises:
        ManifestError: its checksum differs; or it is no JSON, of an unknown version, incomplete, points outside its root, or
            contradicts itself.
    """
    where = slot_path(name, slot)
    record: Record = _decode(data, where, Record, FORMAT, VERSION)  # type: ignore[arg-type]  # a union is no type to mypy
    if (record.name, record.slot) != (name, slot):
        raise ManifestError(f"{where}: is the record of {record.name!r} at slot {record.slot}", path=where)
    step = record.step
    if step is not None and not (0 <= step <= MAX_STEP and name.endswith((f"-{step}", f"-{step:08d}"))):
        raise ManifestError(f"{where}: is the record of step {step}", path=where)
    if isinstance(record, Manifest):
        if not is_save_id(record.save_id):
            raise ManifestError(f"{where}: {record.save_id[:100]!r} is no save id", path=where)
        _check_listed(record, where)
        _check_files(record.files, where)
        _check_tensors(record.tensors, record.files, where)
        for tensor, entry in record.tensors.items():
            try:
                check_coverage(tensor, entry)
            except ManifestError as error:
                raise ManifestError(f"{where}: {error}", path=where, tensors=[tensor]) from error
    elif isinstance(record, Deleted):
        for path in record.files:
            check_relative(path, where)
    return record


def decode_part(data: bytes, where: str) -> Part:
    """Read a rank's part, found at the path ``where``."""
    part = _decode(data, where, Part, "asyncsaver-part", VERSION)
    _check_files(part.files, where)
    _check_tensors(part.tensors, part.files, where)
    return part


def decode_state(data: bytes, where: str) -> StateFile:
    """Read a state file."""
    state = _decode(data, where, StateFile, STATE_FORMAT, STATE_VERSION)
    for entry in state.entries:
        if "/" in check_relative(entry.name, where) or not 0 <= entry.slot <= LARGEST:
            raise ManifestError(f"{where}: no record can stand at {entry.name!r}, slot {entry.slot}", path=where)
        if entry.step is not None and not 0 <= entry.step <= MAX_STEP:
            raise ManifestError(f"{where}: {entry.name} cannot be step {entry.step}", path=where)
        _check_listed(entry, where)
    return state


def _other_version(data: bytes, version: int) -> str:
    """What a document whose checksum differs says of its version, if that is another one."""
    try:
        said = msgspec.json.decode(data, type=_Head).version
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return "" if said == version else f" (it says that it is of format version {said}, which is unknown)"


def _decode(data: bytes, where: str, kind: type[T], expected: str, version: int) -> T:
    sealed = data[: len(_OPENING)] == _OPENING
    if sealed and data[len(_OPENING) : _SEALED] != _checksum(data):
        raise ManifestError(
            f"{where}: damaged: its checksum differs, some byte is not what was written{_other_version(data, version)}",
            path=where,
        )
    try:
        head = msgspec.json.decode(data, type=_Head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(
            f"{where}: damaged, not readable as JSON with a format and a version: {error}", path=where
        ) from error
    if head.format != expected:
        raise ManifestError(f"{where}: format is {head.format[:100]!r}, not {expected!r}", path=where)
    if head.version != version:
        raise ManifestError(
            f"{where}: format version {head.version} is unknown, this asyncsaver reads version {version}; "
            "a newer one may have written it",
            path=where,
        )
    if not sealed:  # asked last: another format, or another version of this one, has no reason to begin so
        raise ManifestError(f"{where}: damaged: does not begin with its checksum", path=where)
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError) as error:
        raise ManifestError(f"{where}: damaged: {error}", path=where) from error


def _checksum(data: bytes) -> bytes:
    return xxhash.xxh3_128_hexdigest(memoryview(data)[_SEALED:]).encode() + b'"'


def _check_listed(record: Manifest | Entry, where: str) -> None:
    """Check what manifests and entries of the state file have in common."""
    for field in ("sequence", "total_bytes", "world_size"):
        if not 0 <= getattr(record, field) <= LARGEST:
            raise ManifestError(f"{where}: {field} cannot be {getattr(record, field)}", path=where)
    try:
        check_metadata(record.metadata)
        for value in decode_metrics(record.metrics).values():
            float(value)
    except (ValueError, TypeError, OverflowError) as error:
        raise ManifestError(f"{where}: {error}", path=where) from error


def _check_files(files: list[FileEntry], where: str) -> None:
    for file in files:
        check_relative(file.path, where)
        if not 0 <= file.size <= LARGEST:
            raise ManifestError(f"{where}: {file.path} cannot have {file.size} bytes", path=where)


def _check_tensors(tensors: dict[str, TensorEntry], files: list[FileEntry], where: str) -> None:
    sizes = [file.size for file in files]
    for name, entry in tensors.items():
        try:
            itemsize = dtype_from_name(entry.dtype).itemsize
        except (TypeError, ValueError) as error:
            raise ManifestError(f"{where}: tensor {name!r}: {error}", path=where, tensors=[name]) from error
        if _is_whole(entry, sizes, itemsize):
            continue
        problem = _problem(entry, files, itemsize)
        if problem:
            raise ManifestError(f"{where}: tensor {name!r}: {problem}", path=where, tensors=[name])


def _is_whole(entry: TensorEntry, sizes: Sequence[int], itemsize: int) -> bool:
    """Whether a tensor that has elements is just one chunk, in which `_problem` would find nothing: nearly always."""
    shape = entry.shape
    if len(entry.chunks) != 1 or len(shape) > _MAX_AXES:
        return False
    [chunk] = entry.chunks
    return (
        chunk.shape == shape
        and min(shape, default=1) > 0
        and 0 <= chunk.file < len(sizes)
        and 0 <= chunk.start < chunk.stop <= sizes[chunk.file]
        and chunk.stop - chunk.start == itemsize * math.prod(shape)
    )


def _problem(entry: TensorEntry, files: list[FileEntry], itemsize: int) -> str:
    # NumPy refuses shapes whose axes are too long together even where one of them is 0.
    extent = itemsize * math.prod(size or 1 for size in entry.shape[:_MAX_AXES])
    if len(entry.shape) > _MAX_AXES or any(size < 0 for size in entry.shape) or extent > LARGEST:
        return f"impossible shape {list(entry.shape)[:8]}"
    for chunk in entry.chunks:
        if not 0 <= chunk.file < len(files):
            return f"a chunk is in file {chunk.file} of {len(files)}"
        if not 0 <= chunk.start <= chunk.stop <= files[chunk.file].size:
            return f"bytes {chunk.start} to {chunk.stop} are not within {files[chunk.file].path}"
        if any(size < 0 for size in chunk.shape) or chunk.stop - chunk.start != itemsize * math.prod(chunk.shape):
            return f"{chunk.stop - chunk.start} bytes cannot be {entry.dtype}{list(chunk.shape)}"
    return ""
