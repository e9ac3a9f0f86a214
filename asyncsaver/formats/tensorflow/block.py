"""A block of a table: sorted entries, each key without what it has in common with the one before, and a checksum behind."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Sized
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from asyncsaver.errors import CheckpointCorruptError
from asyncsaver.formats.tensorflow.checksum import crc32c, mask
from asyncsaver.formats.tensorflow.snappy import decompress
from asyncsaver.formats.tensorflow.varint import encode_varint, read_varint

V = TypeVar("V", bound=Sized)

TRAILER = 5
"""Bytes behind each block: its type, and the masked checksum of the block with that."""
_KEY_ROOM = 16 * 2**20
_KEYS_PER_BYTE = 64
_PLAIN, _SNAPPY = 0, 1


def open_block(stored: bytes | memoryview) -> bytes:
    """The content of a block.

    Args:
        stored: block and trailer.

    Raises:
        CheckpointCorruptError: the checksum differs, or the type is unknown.
    """
    kind, crc = struct.unpack("<BI", stored[-TRAILER:])
    if mask(crc32c(stored[: 1 - TRAILER])) != crc:
        raise CheckpointCorruptError("the checksum of the block differs")
    content = stored[:-TRAILER]
    if kind == _PLAIN:
        return bytes(content)
    if kind == _SNAPPY:
        return decompress(content)
    raise CheckpointCorruptError(f"the block is compressed in an unknown way ({kind})")


def close_block(content: bytes) -> bytes:
    """A block as it stands in a table, with its trailer; not compressed, as TensorFlow writes it."""
    return b"".join([content, trailer(crc32c(content))])


def trailer(crc: int) -> bytes:
    """What stands behind a block that is not compressed, from the checksum of its content, not masked."""
    kind = bytes((_PLAIN,))
    return kind + struct.pack("<I", mask(crc32c(kind, crc)))


@dataclass(slots=True)
class Entries:
    """The entries of a table, or of a part of one: keys, ascending, and their values.

    Attributes:
        room: how long all keys of the next block may be together. Since they share beginnings, a few bytes could stand for
            gigabytes.
    """

    keys: list[bytes] = field(default_factory=list)
    values: list[bytes] = field(default_factory=list)
    room: int = _KEY_ROOM

    def read(self, content: bytes) -> None:
        """Append the entries of the next block.

        Raises:
            CheckpointCorruptError: an entry leaves the block, the keys do not ascend, or they are absurdly long.
        """
        keys, values = self.keys, self.values
        limit = _entries_end(content)
        room = self.room + _KEYS_PER_BYTE * len(content)
        key = b""
        last = keys[-1] if keys else None
        position = 0
        while position < limit:
            shared, added, size = content[position : position + 3]  # behind the entries are four bytes at least
            if shared | added | size < 0x80:
                position += 3
            else:
                shared, position = read_varint(content, position)
                added, position = read_varint(content, position)
                size, position = read_varint(content, position)
            middle = position + added
            end = middle + size
            if shared > len(key) or end > limit:
                raise CheckpointCorruptError("an entry of the block is not within it")
            room -= shared + added
            if room < 0:
                raise CheckpointCorruptError("the keys are longer than a table of that size can mean")
            key = key[:shared] + content[position:middle]
            if last is not None and key <= last:
                raise CheckpointCorruptError("the keys do not ascend")
            keys.append(key)
            values.append(content[middle:end])
            last = key
            position = end
        self.room = room


def find_entry(content: bytes, wanted: bytes) -> bytes | None:
    """The value of a key; None if the block does not have it.

    Raises:
        CheckpointCorruptError: an entry on the way leaves the block, or the keys are absurdly long.
    """
    end = _entries_end(content)
    restarts = struct.unpack(f"<{(len(content) - 4 - end) // 4}I", content[end:-4])

    def whole_key(restart: int) -> bytes:
        shared, key, _ = _read_entry(content, restart, end)
        if shared:
            raise CheckpointCorruptError("a restart point of the block has no whole key")
        return key

    position = restarts[max(bisect_right(restarts, wanted, key=whole_key) - 1, 0)] if end else 0
    key = b""
    room = _KEY_ROOM + _KEYS_PER_BYTE * len(content)
    while position < end:
        shared, rest, value = _read_entry(content, position, end)
        room -= shared + len(rest)
        if shared > len(key) or room < 0:
            raise CheckpointCorruptError("the keys of the block are not possible")
        key = key[:shared] + rest
        if key >= wanted:
            return content[value] if key == wanted else None
        position = value.stop
    return None


def _read_entry(content: bytes, position: int, limit: int) -> tuple[int, bytes, slice]:
    """How much of its key an entry shares with the one before, the rest of the key, and where its value is."""
    if position >= limit:
        raise CheckpointCorruptError("an entry of the block is not within it")
    shared, position = read_varint(content, position)
    added, position = read_varint(content, position)
    size, position = read_varint(content, position)
    middle = position + added
    end = middle + size
    if end > limit:
        raise CheckpointCorruptError("an entry of the block is not within it")
    return shared, content[position:middle], slice(middle, end)


def _entries_end(content: bytes) -> int:
    """Where the entries end and the restart points begin: positions of keys that are whole."""
    if len(content) < 4:
        raise CheckpointCorruptError("the block is too short")
    [restarts] = struct.unpack("<I", content[-4:])
    end: int = len(content) - 4 - 4 * restarts
    if end < 0 or (end and not restarts):
        raise CheckpointCorruptError("the block has impossible restart points")
    return end


class BlockWriter(Generic[V]):
    """Makes one block after another.

    Args:
        restart_interval: every so many entries a key is written whole.
    """

    def __init__(self, restart_interval: int) -> None:
        self._interval = restart_interval
        self._clear()

    def _clear(self) -> None:
        self._pieces: list[bytes | V] = []
        self._size = 0
        self._restarts = [0]
        self._count = 0
        self._last = b""

    def __bool__(self) -> bool:
        """Whether the block has entries."""
        return self._count > 0

    def __len__(self) -> int:
        """How long the block would be now, without trailer."""
        return self._size + 4 * len(self._restarts) + 4

    def add(self, key: bytes, value: V) -> None:
        """Append an entry, whose key comes after all others."""
        shared = 0
        if self._count and self._count % self._interval == 0:
            self._restarts.append(self._size)
        else:
            shared = common_prefix(self._last, key)
        head = encode_varint(shared) + encode_varint(len(key) - shared) + encode_varint(len(value)) + key[shared:]
        self._pieces += head, value
        self._size += len(head) + len(value)
        self._last = key
        self._count += 1

    def take(self) -> list[bytes | V]:
        """What the block consists of, without trailer; the next one begins."""
        restarts = struct.pack(f"<{len(self._restarts) + 1}I", *self._restarts, len(self._restarts))
        taken = [*self._pieces, restarts]
        self._clear()
        return taken

    def finish(self: BlockWriter[bytes]) -> bytes:
        """The block with its trailer; the next one begins."""
        return close_block(b"".join(self.take()))


def common_prefix(first: bytes, second: bytes) -> int:
    """How many bytes two keys begin with alike."""
    length = min(len(first), len(second))
    difference = int.from_bytes(first[:length]) ^ int.from_bytes(second[:length])
    return length - (difference.bit_length() + 7) // 8
