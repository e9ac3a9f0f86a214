"""What stands before a message, and finds every damage to it: magic, kind, version and checksum."""

from __future__ import annotations

from enum import IntEnum
from typing import TypeVar

import xxhash
from google.protobuf.message import DecodeError, Message

from asyncsaver.errors import ManifestError

MAGIC = b"\x89asvpb"
VERSION = 1
"""Of all that follows the checksum. Not the version of a record: that is one of JSON."""
_HEAD = len(MAGIC) + 2
_BODY = _HEAD + 16
M = TypeVar("M", bound=Message)


class Kind(IntEnum):
    """Which message follows."""

    MANIFEST = 1
    PART = 2
    STATE = 3


def seal(kind: Kind, message: bytes) -> bytes:
    """Put before an encoded message what `unseal` looks at."""
    head = MAGIC + bytes([kind, VERSION])
    return b"".join([head, _checksum(head, message), message])


def unseal(data: bytes, where: str, kind: Kind) -> memoryview:
    """The encoded message of a document.

    Args:
        data: the document.
        where: it was read from.
        kind: that it must be of.

    Raises:
        ManifestError: some byte is not what was written; or it is of another kind, or of an unknown version.
    """
    head = data[:_HEAD]
    if len(data) < _BODY or not head.startswith(MAGIC):
        raise ManifestError(f"{where}: damaged: does not begin as a protobuf document of asyncsaver", path=where)
    said, version = head[-2:]
    unknown = "" if version == VERSION else f"format version {version}, which is unknown"
    body = memoryview(data)[_BODY:]
    if data[_HEAD:_BODY] != _checksum(head, body):
        hint = f" (it says that it is of {unknown})" if unknown else ""
        raise ManifestError(
            f"{where}: damaged: its checksum differs, some byte is not what was written{hint}", path=where
        )
    if unknown:
        raise ManifestError(
            f"{where}: is of {unknown}: this asyncsaver reads version {VERSION}; a newer one may have written it",
            path=where,
        )
    if said != kind:
        raise ManifestError(f"{where}: holds a message of kind {said}, not {kind:d} ({kind.name.lower()})", path=where)
    return body


def parse(message: type[M], data: memoryview | bytes, where: str) -> M:
    """Decode a message; fields that it does not have are ignored. Raises `ManifestError`."""
    parsed = message()
    try:
        parsed.ParseFromString(data)  # type: ignore[arg-type]  # takes any buffer, whatever its stub says
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:  # which of them, depends on the implementation
        raise ManifestError(f"{where}: damaged: {error}", path=where) from error
    return parsed


def _checksum(head: bytes, body: memoryview | bytes) -> bytes:
    checksum = xxhash.xxh3_128(head)
    checksum.update(body)
    return checksum.digest()
