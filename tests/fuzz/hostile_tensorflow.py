"""Run by itself, with little memory: hostile checkpoints of TensorFlow's formats, each opened, restored, verified and converted.

Prints one JSON object: case → what came of it. Anything but one of our errors, or an array, ends the process.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import cramjam
import numpy as np
from hostile import limit_memory, outcome

from asyncsaver import convert, open_checkpoint
from asyncsaver.formats.tensorflow.block import close_block
from asyncsaver.formats.tensorflow.bundle import Entry, Index, encode_index
from asyncsaver.formats.tensorflow.checksum import crc32c, mask
from asyncsaver.formats.tensorflow.dtypes import NUMBERS
from asyncsaver.formats.tensorflow.ordered_code import FULL, Slice, slice_key
from asyncsaver.formats.tensorflow.table import FOOTER
from asyncsaver.formats.tensorflow.varint import encode_varint
from asyncsaver.proto import tensorflow_checkpoint_pb2 as messages

Write = Callable[[Path], None]
Pairs = Iterable[tuple[bytes, bytes]]
MAGIC = bytes.fromhex("57fb808b247547db")
TEBIBYTE = 2**40
FLOAT, STRING = NUMBERS["float32"], NUMBERS["string"]
DATA = np.arange(24, dtype="<f4").tobytes()
GOOD = Entry(FLOAT, (6,), 0, 0, 24, crc32c(DATA[:24]))


def handle(start: int, size: int) -> bytes:
    """Where a block is; its size without trailer."""
    return encode_varint(start) + encode_varint(size)


def footer(start: int, size: int) -> bytes:
    """The end of a table whose index is there."""
    return (b"\x00\x00" + handle(start, size)).ljust(FOOTER - len(MAGIC), b"\x00") + MAGIC


def entry(key: bytes, value: bytes, shared: int = 0) -> bytes:
    """An entry of a block."""
    return encode_varint(shared) + encode_varint(len(key)) + encode_varint(len(value)) + key + value


def content(entries: Iterable[bytes]) -> bytes:
    """A block with one restart point."""
    return b"".join([*entries, struct.pack("<II", 0, 1)])


def compressed(data: bytes) -> bytes:
    """A block that says it is snappy."""
    return data + b"\x01" + struct.pack("<I", mask(crc32c(data + b"\x01")))


def table(*blocks: bytes) -> bytes:
    """A table of one or two stored blocks; the tensor "good" is to be in the first one, and "w" in the last one."""
    position, entries = 0, []
    for number, block in enumerate(blocks):
        key = b"\xff" if number == len(blocks) - 1 else b"\x00h"
        entries.append(entry(key, handle(position, len(block) - 5)))
        position += len(block)
    index = close_block(content(entries))
    return b"".join([*blocks, index, footer(position, len(index) - 5)])


def v2(entries: dict[str, Entry], slices: dict[tuple[str, Slice], Entry] | None = None, data: bytes = DATA) -> Write:
    """A V2 checkpoint with a good tensor besides."""
    return v2_raw(encode_index(Index(1, {"good": GOOD, **entries}, slices or {})), data)


def v2_raw(index: bytes, data: bytes = DATA) -> Write:
    """A V2 checkpoint with this index."""

    def write(prefix: Path) -> None:
        prefix.with_suffix(".index").write_bytes(index)
        prefix.with_suffix(".data-00000-of-00001").write_bytes(data)

    return write


def v1(*metas: Any, values: Pairs = (), blocks: tuple[bytes, ...] = ()) -> Write:
    """A V1 file that lists these tensors and a good one, and has these values or further blocks."""
    good = floats(DATA[:24], name=b"good")
    pairs = sorted([(b"", listing(meta([6], name=b"good"), *metas)), good, *values])
    first = close_block(content(entry(key, value) for key, value in pairs))
    return lambda prefix: v1_raw(prefix, table(first, *blocks))


def v1_raw(prefix: Path, data: bytes) -> None:
    """A V1 file."""
    prefix.write_bytes(data)


def listing(*metas: Any) -> bytes:
    """The first entry of a V1 file."""
    return messages.SavedTensorSlices(meta=messages.SavedTensorSliceMeta(tensor=metas)).SerializeToString()


def meta(shape: list[int], *extents: Slice, dtype: int = FLOAT, name: bytes = b"w") -> Any:
    """What a V1 file says of a tensor; by default that it is there whole."""
    pieces = [
        messages.TensorSliceProto(extent=[{} if one == FULL else {"start": one[0], "length": one[1]} for one in piece])
        for piece in extents or [(FULL,) * len(shape)]
    ]
    dims = {"dim": [{"size": size} for size in shape]}
    return messages.SavedSliceMeta(name=name, type=dtype, shape=dims, slice=pieces)


def floats(data: bytes, extents: Slice = (FULL,), name: bytes = b"w") -> tuple[bytes, bytes]:
    """The entry of a slice of floats in a V1 file."""
    saved = messages.SavedSlice(name=name, data=messages.TensorProto(float_val=[data]))
    return slice_key(name, extents), messages.SavedTensorSlices(data=saved).SerializeToString()


def hole(path: Path, size: int, start: bytes, end: bytes) -> None:
    """A file that takes no room, but has that size."""
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)
        file.seek(size - len(end))
        file.write(end)


def hole_as_index(prefix: Path) -> None:
    """An index of a tebibyte, nearly all of which is said to be one block."""
    hole(prefix.with_suffix(".index"), TEBIBYTE, b"", footer(0, TEBIBYTE - FOOTER - 5))


def hole_as_v1_index(prefix: Path) -> None:
    """A V1 file of a tebibyte whose table's index is nearly all of it."""
    hole(prefix, TEBIBYTE, b"", footer(0, TEBIBYTE - FOOTER - 5))


def hole_as_v1_block(prefix: Path, *, first: bool) -> None:
    """A V1 file of a tebibyte, half of which is said to be a block."""
    values = [(b"", listing(meta([6], name=b"good"), meta([2**30]))), floats(DATA[:24], name=b"good")]
    listed = close_block(content(entry(*pair) for pair in values))
    large = handle(0 if first else len(listed), TEBIBYTE // 2)
    small = [] if first else [entry(b"\x00h", handle(0, len(listed) - 5))]
    index = close_block(content([*small, entry(b"\xff", large)]))
    end = TEBIBYTE - FOOTER - len(index)
    hole(prefix, TEBIBYTE, listed, index + footer(end, len(index) - 5))


def rows(*pieces: tuple[int, int]) -> list[Slice]:
    """Slices along the first of two axes."""
    return [((start, count), FULL) for start, count in pieces]


def v2_slices(*pieces: tuple[int, int]) -> Write:
    """A tensor of four rows in these pieces, each of which has its bytes."""
    slices = {
        ("w", extents): Entry(FLOAT, (extents[0][1], 6), 0, 0, 24 * extents[0][1], crc32c(DATA[: 24 * extents[0][1]]))
        for extents in rows(*pieces)
    }
    return v2({"w": Entry(FLOAT, (4, 6), slices=tuple(rows(*pieces)))}, slices)


def v1_slices(*pieces: tuple[int, int]) -> Write:
    """The same in a V1 file."""
    values = dict([floats(bytes(24 * one[0][1]), one) for one in rows(*pieces)])
    return v1(meta([4, 6], *rows(*pieces)), values=values.items())


def twice_in_the_index(key: bytes) -> bytes:
    """A table whose second block is its first one again."""
    block = close_block(content([entry(b"", key)]))
    again = handle(0, len(block) - 5)
    index = close_block(content([entry(b"y", again), entry(b"z", again)]))
    return block + index + footer(len(block), len(index) - 5)


HEADER = messages.BundleHeaderProto(num_shards=1).SerializeToString()
BOMB = compressed(encode_varint(2**32 - 1) + b"\xfe\x01\x00" * 1000)
ZEROS = compressed(bytes(cramjam.snappy.compress_raw(bytes(20 * 2**20))))
LONG_KEYS = close_block(
    content([entry(b"k" * 500_000, b""), *(entry(b"%05d" % n, b"", 500_000) for n in range(20_000))])
)
CASES: dict[str, Write] = {
    "V2: a negative dimension": v2({"w": Entry(FLOAT, (-1, 6), 0, 0, 24)}),
    "V2: dimensions that overflow": v2({"w": Entry(FLOAT, (2**62, 2**62), 0, 0, 24)}),
    "V2: a petabyte": v2({"w": Entry(FLOAT, (2**48,), 0, 0, 2**50)}),
    "V2: a petabyte of strings": v2({"w": Entry(STRING, (2**50,), 0, 0, 24)}),
    "V2: a string of a petabyte": v2(
        {"w": Entry(STRING, (1,), 0, 96, 12)}, data=DATA + encode_varint(2**50) + bytes(4)
    ),
    "V2: overlapping slices": v2_slices((0, 2), (1, 2)),
    "V2: slices that hold too much": v2_slices((0, 3), (1, 3)),
    "V2: slices with a hole": v2_slices((0, 1), (2, 2)),
    "V2: a slice outside": v2_slices((0, 4), (4, 2)),
    "V2: unsorted keys": v2_raw(table(close_block(content([entry(b"", HEADER), entry(b"b", b""), entry(b"a", b"")])))),
    "V2: a name that is not UTF-8": v2_raw(table(close_block(content([entry(b"", HEADER), entry(b"\xff\xfe", b"")])))),
    "V2: a block twice": v2_raw(twice_in_the_index(HEADER)),
    "V2: an index that is its own block": v2_raw(bytes(20) + footer(0, 2**40)),
    "V2: a zip bomb": v2_raw(table(BOMB)),
    "V2: many zeros": v2_raw(table(ZEROS)),
    "V2: keys that become gigabytes": v2_raw(table(LONG_KEYS)),
    "V2: a hole of a tebibyte as the index": hole_as_index,
    "V1: a negative dimension": v1(meta([-1, 6]), values=[floats(bytes(24))]),
    "V1: dimensions that overflow": v1(meta([2**62, 2**62]), values=[floats(bytes(24))]),
    "V1: a petabyte": v1(meta([2**48]), values=[floats(bytes(24))]),
    "V1: a petabyte of strings": v1(meta([2**50], dtype=STRING), values=[floats(b"")]),
    "V1: fewer elements than said": v1(meta([7]), values=[floats(bytes(24))]),
    "V1: overlapping slices": v1_slices((0, 2), (1, 2)),
    "V1: slices that hold too much": v1_slices((0, 3), (1, 3)),
    "V1: slices with a hole": v1_slices((0, 1), (2, 2)),
    "V1: a slice outside": v1_slices((0, 4), (4, 2)),
    "V1: unsorted keys": v1(meta([6]), blocks=(close_block(content([entry(b"\x02", b""), entry(b"\x01", b"")])),)),
    "V1: a name that is not UTF-8": v1(meta([6], name=b"\xff"), values=[floats(bytes(24), name=b"\xff")]),
    "V1: a block twice": lambda prefix: v1_raw(prefix, twice_in_the_index(listing(meta([6])))),
    "V1: an index that is its own block": lambda prefix: v1_raw(prefix, bytes(20) + footer(0, 2**40)),
    "V1: a zip bomb as the list": lambda prefix: v1_raw(prefix, table(BOMB)),
    "V1: a zip bomb as a tensor": v1(meta([250]), blocks=(BOMB,)),
    "V1: keys that become gigabytes": v1(meta([250]), blocks=(LONG_KEYS,)),
    "V1: a hole of a tebibyte as the table's index": hole_as_v1_index,
    "V1: a hole of a tebibyte as the list": lambda prefix: hole_as_v1_block(prefix, first=True),
    "V1: a hole of a tebibyte as a tensor": lambda prefix: hole_as_v1_block(prefix, first=False),
}


async def tour(prefix: Path) -> list[str]:
    """Everything that reads."""

    async def restore() -> object:
        async with await open_checkpoint(str(prefix)) as reader:
            return await reader.restore()

    async def restore_good() -> object:
        async with await open_checkpoint(str(prefix)) as reader:
            return await reader.read("good")

    async def verify() -> object:
        async with await open_checkpoint(str(prefix)) as reader:
            return await reader.verify()

    calls: list[Callable[[], Awaitable[object]]] = [
        restore,
        restore_good,
        verify,
        lambda: convert(str(prefix), str(prefix.with_name("converted")), format="tensorflow", overwrite=True),
    ]
    return [await outcome(call) for call in calls]


def written(folder: Path, write: Write) -> Path:
    """The prefix of a checkpoint that is all there is in the folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write(folder / "m")
    return folder / "m"


async def main(folder: Path) -> dict[str, list[str]]:
    """Go through all cases."""
    found = {}
    for case, write in {"V2": v2({"w": GOOD}), "V1": v1(meta([6]), values=[floats(bytes(24))])}.items():
        found[f"{case}: nothing wrong"] = await tour(
            written(folder, write)
        )  # also starts all threads that there will be
    limit_memory()
    for case, write in CASES.items():
        prefix = written(folder, write)
        began = time.process_time()
        found[case] = await tour(prefix)
        assert time.process_time() - began < 20, f"{case} keeps a reader busy"
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(main(Path(sys.argv[1])))))
