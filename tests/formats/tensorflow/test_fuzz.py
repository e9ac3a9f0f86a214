"""Whatever bytes stand on the store, TensorFlow's formats raise our errors and no others, and take little memory for it."""

from __future__ import annotations

import contextlib
import random
import struct
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsaver.errors import CheckpointCorruptError, ManifestError
from asyncsaver.formats.tensorflow.block import BlockWriter, Entries, close_block, find_entry, open_block
from asyncsaver.formats.tensorflow.bundle import decode_index, encode_index
from asyncsaver.formats.tensorflow.checksum import crc32c, mask
from asyncsaver.formats.tensorflow.object_graph import decode_graph, keys_by_full_name
from asyncsaver.formats.tensorflow.ordered_code import parse_slice_key, slice_key
from asyncsaver.formats.tensorflow.saver_def import decode_saver_def, encode_saver_def
from asyncsaver.formats.tensorflow.snappy import decompress
from asyncsaver.formats.tensorflow.state_text import decode_state, encode_state
from asyncsaver.formats.tensorflow.strings import StringEncoding
from asyncsaver.formats.tensorflow.table import read_footer, read_index, read_table, write_table
from asyncsaver.formats.tensorflow.v1 import V1File, describe_v1
from asyncsaver.formats.tensorflow.v2 import describe_v2
from asyncsaver.model.foreign import Foreign

from .checkpoints import GOLDEN, dtype_of

Scale = Callable[[int, int], int]
Pairs = list[tuple[bytes, bytes]]
pytestmark = pytest.mark.torture

V2 = [
    "v2_single/model.ckpt",
    "v2_partitioned/model.ckpt",
    "v2_sharded/model.ckpt-12",
    "object_based/ckpt-1",
    "derived/big_endian",
]
V1 = "v1_single/model.ckpt-v1"
STRANGE = [
    b"",
    b"\x00",
    b"\xff",
    b"\x80",
    b"\x00\x01",
    b"\xff" * 9 + b"\x01",
    b"\x80" * 9 + b"\x01",
    b"\xff" * 4 + b"\x07",
]
ROOM = 48 * 2**20


@contextlib.contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < ROOM
    finally:
        tracemalloc.stop()


def spoiled_bytes(data: bytes, choose: random.Random, times: int = 1) -> bytes:
    changed = bytearray(data)
    for _ in range(times):
        start = choose.randrange(len(changed) + 1)
        stop = start + choose.choice([0, 1, 1, 8])
        match choose.randrange(4):
            case 0 if changed:
                changed[start % len(changed)] ^= 1 << choose.randrange(8)
            case 1:
                changed[start:stop] = choose.choice(STRANGE)
            case 2:
                changed[start:stop] = changed[stop : stop + 20] * 2
            case _:
                changed[start:stop] = choose.randbytes(choose.choice([1, 2, 10]))
    return bytes(changed)


def spoiled_pairs(pairs: Pairs, choose: random.Random) -> Pairs:
    """A few entries changed, left out, repeated or moved."""
    changed = list(pairs)
    for _ in range(choose.choice([1, 1, 3])):
        at = choose.randrange(len(changed))
        key, value = changed[at]
        match choose.randrange(6):
            case 0 if len(changed) > 1:
                del changed[at]
            case 1:
                changed.insert(choose.randrange(len(changed)), (key, value))
            case 2:
                changed[at] = (spoiled_bytes(key, choose), value)
            case 3:
                changed[at] = (key, choose.choice(changed)[1])
            case _:
                changed[at] = (key, spoiled_bytes(value, choose))
    return sorted(changed) if choose.random() < 0.9 else changed


def pairs_of(path: str) -> Pairs:
    entries = read_table((GOLDEN / path).read_bytes(), path)
    return list(zip(entries.keys, entries.values, strict=True))


def sizes_of(path: str) -> dict[str, int]:
    return {
        f"m{found.name.removeprefix(path.rpartition('/')[2])}": found.stat().st_size
        for found in (GOLDEN / path).parent.glob("*.data*")
    }


def use(foreign: Foreign, data: Callable[[str], bytes]) -> None:
    """Everything that is done with a description, and every tensor decoded."""
    assert foreign.unreadable.keys() <= foreign.tensors.keys()
    for name, entry in foreign.tensors.items():
        dtype = dtype_of(foreign, name)
        assert name in foreign.unreadable or entry.chunks or 0 in entry.shape
        assert all(0 <= size < 2**60 for size in entry.shape)
        for position, chunk in enumerate(entry.chunks):
            stored = data(foreign.files[chunk.file].path)[chunk.start : chunk.stop]
            assert len(stored) == chunk.stop - chunk.start
            encoding = foreign.encoding(name, position)
            if encoding is None:
                np.frombuffer(stored, dtype).reshape(chunk.shape)
            else:
                with contextlib.suppress(CheckpointCorruptError):
                    assert encoding.decode(memoryview(stored), dtype, chunk.shape).shape == chunk.shape


@pytest.mark.parametrize("path", V2)
def test_spoiled_indices(path: str, scale: Scale, figures: Any) -> None:
    pairs, sizes = pairs_of(f"{path}.index"), sizes_of(path)
    files = {name: bytes(size) for name, size in sizes.items()}
    accepted, count = 0, scale(150, 15_000)
    refused: set[str] = set()
    longest = 0
    for seed in range(count):
        choose = random.Random(f"{path} {seed}")
        data = b"".join(write_table(spoiled_pairs(pairs, choose), block_size=choose.choice([100, 262_144])))
        try:
            with little_memory():
                use(describe_v2(data, "m", sizes), files.__getitem__)
            accepted += 1
        except ManifestError as error:
            refused.add(str(error)[:7])
            longest = max(longest, len(str(error)))
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    assert 0 < accepted < count
    assert refused == {"m.index"}
    assert longest < 3000  # somebody has to read it
    figures.add("hostile documents read, TensorFlow's formats", count)


def test_spoiled_v1(scale: Scale, figures: Any) -> None:
    pairs = pairs_of(V1)
    refused: set[str] = set()
    accepted, count = 0, scale(150, 10_000)
    for seed in range(count):
        choose = random.Random(f"v1 {seed}")
        data = b"".join(write_table(spoiled_pairs(pairs, choose), block_size=choose.choice([100, 262_144])))
        try:
            with little_memory():
                start, stop = read_footer(data, len(data), "m")
                blocks = read_index(data[start:stop], start, "m")
                first, end = blocks.ranges[0]
                use(describe_v1([V1File("m", len(data), blocks, data[first:end])], "m"), {"m": data}.__getitem__)
            accepted += 1
        except ManifestError as error:
            refused.add(str(error)[:1])
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    assert 0 < accepted < count
    assert refused == {"m"}
    figures.add("hostile documents read, TensorFlow's formats", count)


def test_spoiled_blocks(scale: Scale, figures: Any) -> None:
    """What no writer of tables writes, with a checksum that fits."""
    writer = BlockWriter[bytes](3)
    for number in range(20):
        writer.add(b"key/%03d" % number, bytes(number))
    content = open_block(writer.finish())
    accepted, count = 0, scale(1000, 200_000)
    for seed in range(count):
        choose = random.Random(f"block {seed}")
        spoiled = spoiled_bytes(content, choose, choose.choice([1, 1, 3]))
        entries = Entries()
        with contextlib.suppress(CheckpointCorruptError), little_memory():
            entries.read(open_block(close_block(spoiled)))
            assert entries.keys == sorted({*entries.keys})
            accepted += 1
        with contextlib.suppress(CheckpointCorruptError):
            find_entry(spoiled, b"key/%03d" % choose.randrange(21))
    assert 0 < accepted < count
    figures.add("hostile documents read, TensorFlow's formats", count)


def test_spoiled_tables(scale: Scale, figures: Any) -> None:
    """Handles and footers too: bytes anywhere, with the checksums of all blocks made to fit again where there still are some."""
    data = b"".join(write_table(pairs_of("v2_single/model.ckpt.index"), block_size=300))
    start, stop = read_footer(data, len(data), "x")
    ranges = [*read_index(data[start:stop], start, "x").ranges, (start, stop)]
    count = scale(500, 60_000)
    for seed in range(count):
        choose = random.Random(f"table {seed}")
        spoiled = bytearray(data)
        for _ in range(choose.choice([1, 1, 4])):
            at = choose.choice([choose.randrange(len(data)), choose.randrange(start, len(data))])
            spoiled[at] = choose.choice([choose.randrange(256), spoiled[at] ^ 1 << choose.randrange(8)])
        for first, end in ranges:
            spoiled[end - 4 : end] = struct.pack("<I", mask(crc32c(bytes(spoiled[first : end - 4]))))
        with contextlib.suppress(ManifestError), little_memory():
            decode_index(bytes(spoiled), "m.index")
    figures.add("hostile documents read, TensorFlow's formats", count)


WORDS = [
    "model_checkpoint_path", "all_model_checkpoint_paths", "all_model_checkpoint_timestamps", "last_preserved_timestamp",
    ":", '"m"', "'", '"', "\\", "\\x", "\\777", "\\u0000", "\\U00110000", "\\ud800", "[", "]", "{", "}", "<", ">", ",", ";", "#",
    "\n", "\r", " ", "inf", "-", "nan", "1e999", "0x10", "07", "9" * 400, "1.5f", "\x00", "é", "[a.b/c.d]", "::", "true",
]  # fmt: skip


def test_any_state_text(scale: Scale, figures: Any) -> None:
    @settings(max_examples=scale(500, 50_000))
    @given(st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=12))
    def any_text(words: Sequence[str]) -> None:
        with contextlib.suppress(ManifestError, UnicodeEncodeError):  # the latter: a lone surrogate
            state = decode_state(" ".join(words).encode(), "checkpoint")
            again = decode_state(encode_state(state), "checkpoint")
            assert repr(again) == repr(state)  # nan is not itself
        figures.add("hostile documents read, TensorFlow's formats")

    any_text()


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    for read in (decode_index, read_table, decode_state, decode_saver_def, decode_graph):
        with contextlib.suppress(ManifestError):
            found: Any = read(data, "x")
            if read is decode_saver_def:
                assert decode_saver_def(encode_saver_def(found), "x") == found or "nan" in repr(found)
            elif read is decode_graph:
                keys_by_full_name(found)
    with contextlib.suppress(CheckpointCorruptError):
        assert slice_key(*parse_slice_key(data)) == data
    with contextlib.suppress(CheckpointCorruptError), little_memory():
        decompress(data)
    for count in (0, 1, 3, 2**60):
        with contextlib.suppress(CheckpointCorruptError):
            StringEncoding(0).decode(memoryview(data), np.dtype(object), (count,))


def test_what_is_accepted_can_be_written_again(scale: Scale, figures: Any) -> None:
    """Entries that were changed by hand and still are some: what is read of them is all that is written."""
    pairs = pairs_of("v2_partitioned/model.ckpt.index")
    count, same = scale(200, 20_000), 0
    for seed in range(count):
        choose = random.Random(f"again {seed}")
        with contextlib.suppress(ManifestError):
            index = decode_index(b"".join(write_table(spoiled_pairs(pairs, choose))), "m")
            if not index.damaged:
                again = decode_index(encode_index(index), "m")
                assert (again.entries.keys(), again.slices) == (index.entries.keys(), index.slices)
                same += 1
    assert same
    figures.add("hostile documents read, TensorFlow's formats", count)
