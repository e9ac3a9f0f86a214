"""Tables: written and read back whatever their entries, and refused where they are crafted."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import cramjam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsaver.errors import CheckpointCorruptError, ManifestError
from asyncsaver.formats.tensorflow.block import BlockWriter, close_block, find_entry, open_block
from asyncsaver.formats.tensorflow.checksum import crc32c, mask, unmask
from asyncsaver.formats.tensorflow.table import FOOTER, read_table, write_table
from asyncsaver.formats.tensorflow.varint import encode_varint

MAGIC = bytes.fromhex("57fb808b247547db")


def table(*blocks: bytes, index: bytes | None = None) -> bytes:
    """A table of blocks that are stored as they are, trailer and all."""
    data = b"".join(blocks)
    if index is None:
        writer = BlockWriter[bytes](1)
        position = 0
        for number, block in enumerate(blocks):
            writer.add(b"\xff%05d" % number, handle(position, len(block) - 5))
            position += len(block)
        index = writer.finish()
    return data + index + (b"\x00\x00" + handle(len(data), len(index) - 5)).ljust(FOOTER - 8, b"\x00") + MAGIC


def handle(start: int, size: int) -> bytes:
    return encode_varint(start) + encode_varint(size)


def entry(shared: int, rest: bytes, value: bytes = b"", *, claimed: int | None = None) -> bytes:
    size = len(value) if claimed is None else claimed
    return encode_varint(shared) + encode_varint(len(rest)) + encode_varint(size) + rest + value


def block(*entries: bytes, restarts: tuple[int, ...] = (0,)) -> bytes:
    return close_block(b"".join(entries) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts)))


def compressed(content: bytes) -> bytes:
    whole = content + b"\x01"
    return whole + struct.pack("<I", mask(crc32c(whole)))


sorted_entries = st.dictionaries(st.binary(max_size=12), st.binary(max_size=40), max_size=60).map(
    lambda entries: sorted(entries.items())
)


@settings(max_examples=200)
@given(sorted_entries, st.integers(1, 300), st.integers(1, 20))
def test_whatever_is_written_is_read(entries: list[tuple[bytes, bytes]], block_size: int, interval: int) -> None:
    data = b"".join(write_table(entries, block_size=block_size, restart_interval=interval))
    found = read_table(data, "x")
    assert list(zip(found.keys, found.values, strict=True)) == entries


@settings(max_examples=100)
@given(sorted_entries, st.integers(1, 20), st.binary(max_size=12))
def test_one_entry_is_found_as_all_are_read(entries: list[tuple[bytes, bytes]], interval: int, other: bytes) -> None:
    writer = BlockWriter[bytes](interval)
    for key, value in entries:
        writer.add(key, value)
    content = open_block(writer.finish())
    for key, value in entries:
        assert find_entry(content, key) == value
    assert find_entry(content, other) == dict(entries).get(other)


@given(st.integers(0, 2**32 - 1))
def test_checksums_are_unmasked(crc: int) -> None:
    assert unmask(mask(crc)) == crc
    assert 0 <= mask(crc) < 2**32


@given(st.binary(max_size=2000), st.integers(0, 20))
def test_snappy(data: bytes, repeats: int) -> None:
    content = data * repeats
    assert open_block(compressed(bytes(cramjam.snappy.compress_raw(content)))) == content


LONG_KEYS = block(entry(0, b"k" * 500_000), *[entry(500_000, b"%05d" % number) for number in range(20_000)])
CRAFTED: dict[str, tuple[bytes, str]] = {
    "keys that descend": (table(block(entry(0, b"b"), entry(0, b"a"))), "do not ascend"),
    "a key twice": (table(block(entry(0, b"a"), entry(1, b""))), "do not ascend"),
    "blocks whose keys descend": (table(block(entry(0, b"b")), block(entry(0, b"a"))), "do not ascend"),
    "a value beyond the block": (table(block(entry(0, b"a", claimed=2**60))), "not within it"),
    "a value into the restart points": (table(block(entry(0, b"a", claimed=4))), "not within it"),
    "a shared beginning that is not there": (table(block(entry(0, b"a"), entry(2, b"b"))), "not within it"),
    "a length without end": (table(block(b"\xff" * 40)), "does not end"),
    "more restart points than bytes": (table(close_block(struct.pack("<I", 2**31))), "impossible restart points"),
    "entries without a restart point": (table(block(entry(0, b"a"), restarts=())), "impossible restart points"),
    "a block of nothing": (table(close_block(b"")), "too short"),
    "an unknown compression": (table(b"abcd\x02" + struct.pack("<I", mask(crc32c(b"abcd\x02")))), "an unknown way"),
    "not snappy": (table(compressed(b"\x03\xff\xff")), "not snappy"),
    "a zip bomb": (table(compressed(encode_varint(2**32 - 1) + b"\xfe\x01\x00" * 1000)), "cannot be 4294967295"),
    "a zip bomb of absurd size": (table(compressed(encode_varint(2**64 - 1) + b"a" * 100)), "cannot be"),
    "a block that contains itself": (table(block(), index=block(entry(0, b"z", handle(0, 2**40)))), "overlaps another"),
    "the index as a block": (table(b"", index=block(entry(0, b"z", handle(0, 10)))), "overlaps another"),
    "a block twice": (
        table(block(entry(0, b"a")), index=block(entry(0, b"y", handle(0, 8)), entry(0, b"z", handle(0, 8)))),
        "overlaps another",
    ),
    "blocks in another order": (
        table(
            block(entry(0, b"a")), block(entry(0, b"b")),
            index=block(entry(0, b"y", handle(17, 12)), entry(0, b"z", handle(0, 12))),
        ),
        "overlaps another",
    ),
    "a handle that does not end": (table(b"", index=block(entry(0, b"z", b"\xff" * 4))), "does not end"),
    "a footer that points outside": (bytes(40) + handle(0, 0) + handle(2**50, 9) + bytes(29) + MAGIC, "points outside"),
    "a footer of absurd numbers": (b"\xff" * 40 + MAGIC, "footer is damaged"),
    "keys that become gigabytes": (table(LONG_KEYS), "longer than a table of that size can mean"),
}  # fmt: skip


@pytest.mark.parametrize("case", CRAFTED)
def test_crafted(case: str) -> None:
    data, problem = CRAFTED[case]
    tracemalloc.start()
    try:
        with pytest.raises(ManifestError, match=problem) as caught:
            read_table(data, "run/m.index")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert str(caught.value).startswith("run/m.index, byte ")
    assert caught.value.path == "run/m.index"
    assert peak < 64 * 2**20 + 100 * len(data)


def test_the_crafted_tables_are_otherwise_whole() -> None:
    """What is refused above is not refused for how the test puts a table together."""
    assert read_table(table(block(entry(0, b"a", b"1")), block(entry(0, b"b", b"2"))), "x").keys == [b"a", b"b"]
    content = open_block(block(entry(0, b"a"), entry(1, b"b")))
    assert read_table(table(compressed(bytes(cramjam.snappy.compress_raw(content)))), "x").keys == [b"a", b"ab"]


def test_keys_that_become_gigabytes_on_the_way_to_another() -> None:
    content = open_block(LONG_KEYS)
    with pytest.raises(CheckpointCorruptError, match="not possible"):
        find_entry(content, b"l")


@pytest.mark.parametrize("restarts", [(0, 3), (0, 1), (7,), (0, 2**31)])
def test_restart_points_that_point_wrongly(restarts: tuple[int, ...]) -> None:
    content = open_block(block(entry(0, b"abc", b"1"), entry(2, b"d", b"2"), restarts=restarts))
    try:
        found: Any = find_entry(content, b"abd")
    except CheckpointCorruptError:
        found = None
    assert found in {None, b"2"}
