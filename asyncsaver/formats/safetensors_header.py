"""Reading the header of a safetensors file, or of one that stands within another file. As strict as the library itself."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from asyncsaver.aio.threads import Threads
from asyncsaver.errors import ManifestError
from asyncsaver.model.manifest import LARGEST
from asyncsaver.model.nodes import is_text
from asyncsaver.store.contract import Store

MAX_HEADER = 100_000_000
"""Bytes that the library takes a header to have at most, without the eight of its length."""
MAX_AXES = 64
"""More than NumPy has."""

_FIRST = 1 << 17  # bytes that are read at once: nearly all headers are shorter
_LENGTH = 8

# Code → name in `model.dtypes` ("" where there is none) and bits of an element.
_TYPES: Mapping[str, tuple[str, int]] = MappingProxyType({
    "BOOL": ("bool", 8), "U8": ("uint8", 8), "I8": ("int8", 8), "U16": ("uint16", 16), "I16": ("int16", 16),
    "U32": ("uint32", 32), "I32": ("int32", 32), "U64": ("uint64", 64), "I64": ("int64", 64),
    "F16": ("float16", 16), "BF16": ("bfloat16", 16), "F32": ("float32", 32), "F64": ("float64", 64), "C64": ("complex64", 64),
    "F8_E5M2": ("float8_e5m2", 8), "F8_E4M3": ("float8_e4m3fn", 8), "F8_E8M0": ("float8_e8m0fnu", 8),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 8), "F8_E4M3FNUZ": ("float8_e4m3fnuz", 8),
    "F4": ("", 4), "F6_E2M3": ("", 6), "F6_E3M2": ("", 6),
})  # fmt: skip


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A tensor of a safetensors file.

    Attributes:
        code: its dtype, as the file has it.
        dtype: what `model.dtypes` calls it; "" where NumPy has none that lies in memory like it.
        shape: in elements.
        start: first byte in the file.
        stop: one past the last.
    """

    code: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Header(msgspec.Struct, frozen=True):
    """What a header says: tensors by name in file order, and the strings of ``__metadata__``."""

    tensors: dict[str, Stored]
    metadata: dict[str, str]


class _Info(msgspec.Struct, frozen=True, gc=False):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


async def read_header(store: Store, threads: Threads, path: str, size: int, base: int = 0) -> Header:
    """Read the header of a file, in one request where it is short and two otherwise.

    Args:
        store: where from.
        threads: for parsing.
        path: of the file.
        size: of the file, in bytes, as listed.
        base: where in the file the header begins; the data then end with the file.

    Raises:
        ManifestError: it is no such file, or damaged.
        StoreError: the store failed.
    """
    first = bytearray(max(0, min(size - base, _FIRST)))
    await store.get_into(path, [(base, base + len(first))], [memoryview(first)])
    end = _LENGTH + header_length(first, size - base, path)
    text = bytearray(end)
    text[: len(first)] = first[:end]
    if end > len(first):
        await store.get_into(path, [(base + len(first), base + end)], [memoryview(text)[len(first) :]])
    return await threads.run(parse_header, bytes(text[_LENGTH:]), size - base, path, base)


def header_length(data: bytes | bytearray, size: int, where: str) -> int:
    """The length of the header, without the eight bytes that say so.

    Args:
        data: the beginning of the file.
        size: of the whole file.
        where: the file, for messages.

    Raises:
        ManifestError: no file of that size has such a header.
    """
    if len(data) < _LENGTH:
        raise _damaged(where, f"{size} bytes are too few for a safetensors file")
    (length,) = struct.unpack_from("<Q", data)
    if length > MAX_HEADER or length > size - _LENGTH:
        raise _damaged(where, f"no safetensors file: of {size} bytes, its header would take {length}")
    return int(length)


def parse_header(text: bytes, size: int, where: str, base: int = 0) -> Header:
    """Parse and check a header. Blocking.

    Args:
        text: without its length.
        size: of the whole file, with header and length.
        where: the file, for messages.
        base: to be added to all positions.

    Raises:
        ManifestError: not JSON of the right form; names twice; bytes that overlap, leave gaps or are not as many as dtype and
            shape take; data that end before the file does, or after.
    """
    members, metadata = _members(text, where)
    begin = len(text) + _LENGTH
    tensors: dict[str, Stored] = {}
    position = 0
    # Those without elements begin where another one begins, and stand in front of it.
    for name, info in sorted(members.items(), key=lambda member: member[1].data_offsets):
        start, stop = info.data_offsets
        if start != position or stop < start:
            raise _damaged(where, f"bytes {start} to {stop} leave a gap or overlap", name)
        dtype, bits = _TYPES.get(info.dtype, ("", 0))
        if len(info.shape) > MAX_AXES or any(axis < 0 for axis in info.shape):
            raise _damaged(where, f"impossible shape {list(info.shape)[:8]}", name)
        if math.prod(axis or 1 for axis in info.shape) * max(bits, 8) > LARGEST:
            raise _damaged(where, f"impossible shape {list(info.shape)[:8]}", name)
        if bits and math.prod(info.shape) * bits != 8 * (stop - start):
            raise _damaged(where, f"{stop - start} bytes cannot be {info.dtype[:20]}{list(info.shape)}", name)
        tensors[name] = Stored(info.dtype, dtype, info.shape, base + begin + start, base + begin + stop)
        position = stop
    if begin + position != size:
        raise _damaged(where, f"its tensors end at byte {base + begin + position}, the file has {base + size}")
    return Header(tensors, metadata)


def _members(text: bytes, where: str) -> tuple[dict[str, _Info], dict[str, str]]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            counted: set[str] = set()
            for name, _ in pairs:
                if name in counted:
                    raise _damaged(where, "its name stands there twice", name)
                counted.add(name)
        return found

    if not text.startswith(b"{"):
        raise _damaged(where, "no safetensors file: its header does not begin with {")
    try:
        found: dict[str, Any] = json.loads(text.decode(), object_pairs_hook=unique)
        metadata = msgspec.convert(found.pop("__metadata__", {}), dict[str, str])
        members = msgspec.convert(found, dict[str, _Info])
    except ManifestError:
        raise
    except (ValueError, RecursionError) as error:  # those of msgspec are ValueErrors, too
        raise _damaged(where, f"its header is not what safetensors says: {error}") from error
    for value in [*members, *metadata, *metadata.values()]:
        if not is_text(value):
            raise _damaged(where, f"{value[:100]!a} has lone surrogates")
    return members, metadata


def _damaged(where: str, problem: str, name: str | None = None) -> ManifestError:
    what = where if name is None else f"{where}: tensor {name[:200]!a}"
    return ManifestError(f"{what}: {problem}", path=where, tensors=[] if name is None else [name])
