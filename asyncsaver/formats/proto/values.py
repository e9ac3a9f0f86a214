"""The small things that documents consist of: JSON, times, files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec

from asyncsaver.errors import ManifestError
from asyncsaver.formats.batches import UNREADABLE
from asyncsaver.model.manifest import FileEntry, Json
from asyncsaver.proto.manifest_pb2 import File, Time

Metrics = dict[str, int | float | str]
_CRC32C = re.compile(r"[0-9a-f]{8}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def encode_json(value: Json, absent: Json) -> bytes:
    """JSON text, and none of it for the value ``absent``."""
    return b"" if value == absent else msgspec.json.encode(value)


def decode_json(text: bytes, where: str, kind: Any = Any) -> Any:
    """A value from its JSON text. Raises `ManifestError` for what is not JSON of that type."""
    try:
        return msgspec.json.decode(text, type=kind)
    except UNREADABLE as error:
        raise ManifestError(f"{where}: damaged: {error}", path=where) from error


def encode_time(time: datetime) -> Time:
    """An aware time, to the microsecond."""
    offset = time.utcoffset() or timedelta()
    return Time(
        microseconds=(time - _EPOCH) // timedelta(microseconds=1), offset_minutes=offset // timedelta(minutes=1)
    )


def decode_time(time: Time, where: str) -> datetime:
    """The inverse of `encode_time`. Raises `ManifestError` for what no calendar holds."""
    try:
        offset = timedelta(minutes=time.offset_minutes)
        # As local time first: of the first and the last day of the calendar, the instant itself may lie outside.
        local = _EPOCH.replace(tzinfo=None) + (timedelta(microseconds=time.microseconds) + offset)
        return local.replace(tzinfo=timezone(offset) if offset else UTC)
    except (ValueError, OverflowError) as error:
        raise ManifestError(f"{where}: damaged: no time: {error}", path=where) from error


def encode_files(files: Iterable[FileEntry]) -> list[File]:
    """The files of a manifest or part. Raises `ManifestError` for a checksum that is none."""
    return [File(path=file.path, size=file.size, crc32c=_crc32c(file)) for file in files]


def decode_files(files: Iterable[File]) -> list[FileEntry]:
    """The inverse of `encode_files`."""
    return [FileEntry(file.path, file.size, f"{file.crc32c:08x}") for file in files]


def _crc32c(file: FileEntry) -> int:
    if not _CRC32C.fullmatch(file.crc32c):
        raise ManifestError(f"{file.path}: {file.crc32c[:100]!r} is no CRC-32C in hexadecimal", path=file.path)
    return int(file.crc32c, 16)
