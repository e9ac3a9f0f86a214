"""LevelDB's table as TensorFlow has it: blocks of sorted entries, a block that says where they are, and a footer.

Everything here is pure. A table is read whole from its bytes, or by pieces: `read_footer`, `read_index`, then the blocks wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic

from asyncsaver.errors import CheckpointCorruptError, ManifestError
from asyncsaver.formats.tensorflow.block import TRAILER, BlockWriter, Entries, V, close_block, common_prefix, open_block
from asyncsaver.formats.tensorflow.varint import encode_varint, read_varint

FOOTER = 48
_MAGIC = bytes.fromhex("57fb808b247547db")
BLOCK_SIZE = 262_144
_RESTART_INTERVAL = 16


@dataclass(frozen=True, slots=True)
class Blocks:
    """Where the blocks of a table are.

    Attributes:
        lasts: for each block, a key that is not before its keys, and before those of the next.
        ranges: for each, its first byte in the file and the one behind its trailer; ascending, without overlap.
    """

    lasts: list[bytes]
    ranges: list[tuple[int, int]]


def read_footer(tail: bytes | memoryview, size: int, where: str) -> tuple[int, int]:
    """Find the block that says where the others are.

    Args:
        tail: the last bytes of the file, `FOOTER` or more; all of it where it is shorter.
        size: of the file, in bytes.
        where: its path, for messages.

    Returns:
        Its first byte and the one behind its trailer.

    Raises:
        ManifestError: this is not a table.
    """
    if size < FOOTER:
        raise ManifestError(f"{where}: {size} bytes are too few for one of TensorFlow's tables", path=where)
    footer = tail[-FOOTER:]
    if footer[-8:] != _MAGIC:
        raise ManifestError(
            f"{where}, byte {size - 8}: not one of TensorFlow's tables, or its end is missing (bad magic number)",
            path=where,
        )
    try:
        _, _, position = _read_handle(
            footer, 0
        )  # of the metaindex, which is empty: TensorFlow does not look at it either
        start, stop, _ = _read_handle(footer, position)
    except CheckpointCorruptError as error:
        raise ManifestError(f"{where}, byte {size - FOOTER}: the footer is damaged: {error}", path=where) from error
    if stop > size - FOOTER:
        raise ManifestError(f"{where}, byte {size - FOOTER}: the footer points outside the file", path=where)
    return start, stop


def read_index(stored: bytes | memoryview, start: int, where: str) -> Blocks:
    """Read the block that says where the others are.

    Args:
        stored: it, with its trailer.
        start: its first byte in the file.
        where: path of the file, for messages.

    Raises:
        ManifestError: it is damaged, or the blocks overlap or are not in order.
    """
    index = Entries()
    try:
        index.read(open_block(stored))
        ranges = _read_ranges(index.values, start)
    except CheckpointCorruptError as error:
        raise ManifestError(f"{where}, byte {start}: the table's index is damaged: {error}", path=where) from error
    return Blocks(index.keys, ranges)


def read_table(data: bytes | memoryview, where: str) -> Entries:
    """Read a whole table.

    Args:
        data: the file.
        where: its path, for messages.

    Raises:
        ManifestError: it is damaged; the message names file and position.
    """
    start, stop = read_footer(data, len(data), where)
    entries = Entries()
    for first, end in read_index(data[start:stop], start, where).ranges:
        read_block(data[first:end], first, where, entries)
    return entries


def read_block(stored: bytes | memoryview, start: int, where: str, entries: Entries) -> None:
    """Append the entries of one block.

    Args:
        stored: the block, with its trailer.
        start: its first byte in the file.
        where: path of the file, for messages.
        entries: of the blocks before it.

    Raises:
        ManifestError: the block is damaged.
    """
    try:
        entries.read(open_block(stored))
    except CheckpointCorruptError as error:
        raise ManifestError(f"{where}, byte {start}: a block of the table is damaged: {error}", path=where) from error


def write_table(
    entries: Iterable[tuple[bytes, bytes]], *, block_size: int = BLOCK_SIZE, restart_interval: int = _RESTART_INTERVAL
) -> Iterator[bytes]:
    """Write a table, byte for byte as TensorFlow does.

    Args:
        entries: keys and values, by ascending key.
        block_size: see `lay_out`.
        restart_interval: likewise.

    Yields:
        The file, block by block.
    """
    for section in lay_out(entries, block_size=block_size, restart_interval=restart_interval):
        content = b"".join(section.pieces)
        yield close_block(content) if section.is_block else content


@dataclass(frozen=True, slots=True)
class Section(Generic[V]):
    """What follows next in a table: a block, or the footer.

    Attributes:
        pieces: its content; values stand as they were given.
        size: of that in bytes, with the trailer if it is a block.
        is_block: whether a trailer follows the content.
    """

    pieces: Sequence[bytes | V]
    size: int
    is_block: bool = True


def lay_out(
    entries: Iterable[tuple[bytes, V]], *, block_size: int = BLOCK_SIZE, restart_interval: int = _RESTART_INTERVAL
) -> Iterator[Section[V]]:
    """Divide a table into blocks as TensorFlow does. Of a value only the length matters.

    Args:
        entries: keys and values, by ascending key.
        block_size: a block that has so many bytes is full; an entry with twice as many begins one of its own.
        restart_interval: of the blocks with entries.

    Yields:
        The blocks, then the footer.
    """
    block, index = BlockWriter[V](restart_interval), BlockWriter[bytes](1)
    position = 0
    last = b""
    pending: bytes | None = None  # the handle of a block whose separator depends on the key that follows

    def close() -> Section[V]:
        nonlocal position, pending
        size = len(block) + TRAILER
        pending = _handle(position, size)
        position += size
        return Section(block.take(), size)

    for key, value in entries:
        if block and len(key) + len(value) >= 2 * block_size:
            yield close()
        if pending is not None:
            index.add(_separator(last, key), pending)
            pending = None
        block.add(key, value)
        last = key
        if len(block) >= block_size:
            yield close()
    if block:
        yield close()
    metaindex = BlockWriter[bytes](_RESTART_INTERVAL)
    handles = _handle(position, len(metaindex) + TRAILER)
    position += len(metaindex) + TRAILER
    yield Section(metaindex.take(), len(metaindex) + TRAILER)
    if pending is not None:
        index.add(_successor(last), pending)
    handles += _handle(position, len(index) + TRAILER)
    size = len(index) + TRAILER
    yield Section(index.take(), size)
    yield Section([handles.ljust(FOOTER - len(_MAGIC), b"\x00") + _MAGIC], FOOTER, is_block=False)


def _read_ranges(handles: Iterable[bytes], limit: int) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    end = 0
    for handle in handles:
        start, stop, _ = _read_handle(handle, 0)
        if start < end or stop > limit:
            raise CheckpointCorruptError(f"a block at {start} to {stop} overlaps another, or is not in order")
        ranges.append((start, stop))
        end = stop
    return ranges


def _read_handle(data: bytes | memoryview, position: int) -> tuple[int, int, int]:
    """First byte of a block, the one behind its trailer, and the position behind the handle."""
    start, position = read_varint(data, position)
    size, position = read_varint(data, position)
    return start, start + size + TRAILER, position


def _handle(start: int, size: int) -> bytes:
    return encode_varint(start) + encode_varint(size - TRAILER)


def _separator(last: bytes, following: bytes) -> bytes:
    """A short key that is not before ``last``, and before ``following``."""
    length = common_prefix(last, following)
    if length < min(len(last), len(following)) and last[length] + 1 < following[length]:
        return last[:length] + bytes((last[length] + 1,))
    return last


def _successor(last: bytes) -> bytes:
    """A short key that is not before ``last``."""
    for position, byte in enumerate(last):
        if byte != 0xFF:
            return last[:position] + bytes((byte + 1,))
    return last
