"""The native format: records, parts and the state file as JSON. `docs/format.md` specifies it.

Records are of version 1, but for those whose manifest stands in a body: older readers must not take these for whole.

Whatever these functions are given to decode, they raise `ManifestError` and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Any

import msgspec
import xxhash

from asyncsaver.errors import ManifestError
from asyncsaver.formats.batches import BATCH, LARGE, UNREADABLE, decode_tensors, decode_tree, encode_members
from asyncsaver.formats.record_checks import check_part, check_record, check_state
from asyncsaver.model.manifest import (
    FORMAT,
    SUMMARY_VERSION,
    VERSION,
    Aborted,
    Deleted,
    Manifest,
    Part,
    Record,
    Summary,
)
from asyncsaver.model.names import slot_path
from asyncsaver.model.statefile import FORMAT as STATE_FORMAT
from asyncsaver.model.statefile import VERSION as STATE_VERSION
from asyncsaver.model.statefile import StateFile

_Kinds = Mapping[int, type | UnionType]  # version → what a document of it holds
_OPENING = b'{"checksum":"'
_SEALED = len(_OPENING) + 32 + 1  # from here on the checksum counts: after the quote that ends it


class _Head(msgspec.Struct):
    format: str
    version: int


def encode(value: Record | Part | StateFile) -> bytes:
    """Any of them as JSON, sealed."""
    if isinstance(value, (Manifest, Part)) and len(value.tensors) > BATCH:
        value = msgspec.structs.replace(value, tensors=encode_members(value.tensors))
    return seal(msgspec.json.encode(value))


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
    record: Record = _decode(data, where, FORMAT, {VERSION: Manifest | Deleted | Aborted, SUMMARY_VERSION: Summary})
    check_record(record, where, name=name, slot=slot)
    return record


def decode_part(data: bytes, where: str) -> Part:
    """Read a rank's part, found at the path ``where``."""
    part: Part = _decode(data, where, "asyncsaver-part", {VERSION: Part})
    check_part(part, where)
    return part


def decode_state(data: bytes, where: str) -> StateFile:
    """Read a state file."""
    state: StateFile = _decode(data, where, STATE_FORMAT, {STATE_VERSION: StateFile})
    check_state(state, where)
    return state


def _other_version(data: bytes, kinds: _Kinds) -> str:
    """What a document whose checksum differs says of its version, if that is another one."""
    try:
        said = msgspec.json.decode(data, type=_Head).version
    except UNREADABLE:
        return ""
    return "" if said in kinds else f" (it says that it is of format version {said}, which is unknown)"


def _decode(data: bytes, where: str, expected: str, kinds: _Kinds) -> Any:
    sealed = data[: len(_OPENING)] == _OPENING
    if sealed and data[len(_OPENING) : _SEALED] != _checksum(data):
        raise ManifestError(
            f"{where}: damaged: its checksum differs, some byte is not what was written{_other_version(data, kinds)}",
            path=where,
        )
    try:
        small, large = _divide(data)
        head = msgspec.json.decode(small, type=_Head)
    except UNREADABLE as error:
        raise ManifestError(
            f"{where}: damaged, not readable as JSON with a format and a version: {error}", path=where
        ) from error
    if head.format != expected:
        raise ManifestError(f"{where}: format is {head.format[:100]!r}, not {expected!r}", path=where)
    if head.version not in kinds:
        raise ManifestError(
            f"{where}: format version {head.version} is unknown, this asyncsaver reads version {' and '.join(map(str, kinds))}; "
            "a newer one may have written it",
            path=where,
        )
    if not sealed:  # asked last: another format, or another version of this one, has no reason to begin so
        raise ManifestError(f"{where}: damaged: does not begin with its checksum", path=where)
    try:
        value = msgspec.json.decode(small, type=kinds[head.version])
        if not large or not isinstance(value, (Manifest, Part)):
            return value
        filled: dict[str, Any] = {"tensors": decode_tensors(large["tensors"])} if "tensors" in large else {}
        if "tree" in large and isinstance(value, Manifest):
            filled["tree"] = decode_tree(large["tree"])
        return msgspec.structs.replace(value, **filled)
    except UNREADABLE as error:
        raise ManifestError(f"{where}: damaged: {error}", path=where) from error


def _divide(data: bytes) -> tuple[bytes, dict[str, bytes]]:
    """Take out what is too large to be decoded at once, and leave an empty object in its place.

    Returns:
        What is left of the document, and the fields that were taken out.

    Raises:
        Exception: one of `UNREADABLE`.
    """
    if len(data) <= LARGE:
        return data, {}
    fields = msgspec.json.decode(data, type=dict[str, msgspec.Raw])  # skips the values, which is fast
    large = {
        name: bytes(fields[name])
        for name in fields.keys() & {"tensors", "tree"}
        if len(memoryview(fields[name])) > LARGE
    }
    return msgspec.json.encode(fields | dict.fromkeys(large, msgspec.Raw(b"{}"))), large


def _checksum(data: bytes) -> bytes:
    return xxhash.xxh3_128_hexdigest(memoryview(data)[_SEALED:]).encode() + b'"'
