"""Shards and their index: what the safetensors library makes of them, and the bytes of a shard however it is cut."""

from __future__ import annotations

import json
import random
import tracemalloc
from pathlib import Path
from typing import Any

import google_crc32c
import ml_dtypes
import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize
from safetensors.numpy import load_file

from asyncsaver.formats.safetensors import encode_header, encode_index
from asyncsaver.model.dtypes import storage_dtype
from asyncsaver.save.shard_bytes import ShardBytes, Sources, stored_bytes

Array = np.ndarray[Any, np.dtype[Any]]


def shard(arrays: dict[str, Array]) -> tuple[bytes, Sources]:
    rows, position = [], 0
    for name, array in arrays.items():
        code, width = storage_dtype(array.dtype)
        shape = (*array.shape, width) if width else array.shape
        rows.append((name, code, shape, position, position + array.nbytes))
        position += array.nbytes
    found = list(arrays.values())
    return encode_header(rows), Sources([array.nbytes for array in found], found.__getitem__)


def whole(arrays: dict[str, Array]) -> bytes:
    header, sources = shard(arrays)
    content = ShardBytes(header, sources)
    return bytes(content.take(content.size))


# --- the header ------------------------------------------------------------------------------------------------


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(lambda s: s != "__metadata__")


@given(st.lists(names, unique=True, max_size=8))
def test_any_names_are_read_by_safetensors(tensor_names: list[str]) -> None:
    arrays = {name: np.full((2,), number, np.int16) for number, name in enumerate(tensor_names)}
    header, _ = shard(arrays)
    assert len(header) % 64 == 0
    found = dict(deserialize(whole(arrays)))
    assert found.keys() == arrays.keys()
    assert all(bytes(found[name]["data"]) == array.tobytes() for name, array in arrays.items())


def test_the_header_says_what_it_must() -> None:
    header = encode_header([("é.w", "F32", (2, 3), 0, 24), ("b", "U8", (), 24, 25)])
    length = int.from_bytes(header[:8], "little")
    assert length == len(header) - 8
    assert json.loads(header[8:]) == {
        "__metadata__": {"format": "pt"},
        "é.w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "U8", "shape": [], "data_offsets": [24, 25]},
    }
    assert header[8:].rstrip(b" ").endswith(b"}")


def test_a_gap_would_be_noticed_by_safetensors() -> None:
    header = encode_header([("a", "U8", (1,), 0, 1), ("b", "U8", (1,), 2, 3)])
    with pytest.raises(SafetensorError):
        deserialize(header + b"abc")


def test_the_library_loads_a_shard(tmp_path: Path) -> None:
    arrays: dict[str, Array] = {
        "scalar": np.array(1.5), "empty": np.zeros((0, 3), "f4"), "matrix": np.arange(6, dtype="i4").reshape(2, 3),
        "complex": np.array([1 + 2j, 3]), "text": np.array(["ab", "c"]), "flags": np.array([True, False]),
    }  # fmt: skip
    file = tmp_path / "model.safetensors"
    file.write_bytes(whole(arrays))
    loaded = load_file(file)
    for name in ("scalar", "empty", "matrix", "flags"):
        np.testing.assert_array_equal(loaded[name], arrays[name])
    for name in ("complex", "text"):
        assert loaded[name].dtype == np.uint8
        np.testing.assert_array_equal(loaded[name].view(arrays[name].dtype).reshape(arrays[name].shape), arrays[name])


def test_the_index() -> None:
    index = json.loads(encode_index({"a": "model-00001-of-00002.safetensors"}, 12))
    assert index == {"metadata": {"total_size": 12}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}


# --- the bytes -------------------------------------------------------------------------------------------------

DTYPES = ["u1", "i2", "f4", "f8", "c16", "bool", ">f4", ">c8", "<M8[ns]", ">M8[s]", "U3", ">U3", "S5", "V3",
          ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4]  # fmt: skip


@st.composite
def layouts(draw: st.DrawFn) -> Array:
    """An array of any storable dtype and memory layout."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=3)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    count = int(np.prod(shape, dtype=int))
    if dtype.type is np.void:
        array: Array = np.array([np.void(rng.bytes(dtype.itemsize)) for _ in range(count)], dtype).reshape(shape)
    else:
        plain = rng.integers(0, 2, count) if dtype.kind in "bUS" else rng.integers(-8, 8, count)
        array = plain.astype(dtype).reshape(shape)
    match draw(st.sampled_from(["C", "F", "reversed", "strided", "broadcast", "read-only"])):
        case "F":
            array = np.asfortranarray(array)
        case "reversed":
            array = array[tuple(slice(None, None, -1) for _ in shape)]
        case "strided":
            array = np.repeat(array, 2, axis=-1)[..., ::2] if shape else array
        case "broadcast":
            array = np.broadcast_to(array, (2, *shape))
        case "read-only":
            array = array.copy()
            array.flags.writeable = False
        case _:
            pass
    return array


def expected_bytes(array: Array) -> bytes:
    return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()


@given(layouts())
def test_stored_bytes_are_little_endian_in_c_order(array: Array) -> None:
    before = array.copy()
    assert b"".join(piece.tobytes() for piece in stored_bytes(array)) == expected_bytes(array)
    assert array.tobytes() == before.tobytes()


@given(st.lists(layouts(), max_size=4), st.data())
def test_however_it_is_cut_a_shard_is_the_same(arrays: list[Array], data: st.DataObject) -> None:
    header, sources = shard({f"t{number}": array for number, array in enumerate(arrays)})
    expected = header + b"".join(expected_bytes(array) for array in arrays)
    content = ShardBytes(header, sources)
    assert content.size == len(expected)
    parts = []
    while (taken := sum(map(len, parts))) < content.size:
        part = content.take(data.draw(st.integers(1, content.size - taken + 5)))
        assert part.contiguous
        assert part.format == "B"
        parts.append(bytes(part))
    assert b"".join(parts) == expected
    assert content.hashes == [xxhash.xxh3_128_hexdigest(expected_bytes(array)) for array in arrays]
    assert content.crc32c == f"{google_crc32c.value(expected):08x}"
    assert bytes(content.take(10)) == b""


def test_a_contiguous_array_is_passed_on_without_a_copy() -> None:
    array = np.arange(1000, dtype="<f4")
    header, sources = shard({"a": array})
    content = ShardBytes(header, sources)
    content.take(len(header))
    part = content.take(400)
    assert np.shares_memory(np.frombuffer(part, np.uint8), array)


def test_another_layout_is_converted_piece_by_piece() -> None:
    array = np.ones((2048, 4096), "f4").T
    header, sources = shard({"a": array})
    content = ShardBytes(header, sources)
    tracemalloc.start()
    try:
        while len(content.take(2**20)):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < array.nbytes // 2


@pytest.mark.parametrize("size", [1, 10, 2**20])
def test_an_array_that_changed_its_size_is_noticed(size: int) -> None:
    content = ShardBytes(b"", Sources([size], lambda _: np.zeros(5, "u1")))
    with pytest.raises(RuntimeError, match=f"{size} bytes had 5"):
        content.take(size)


def test_arrays_are_asked_for_one_by_one() -> None:
    asked: list[int] = []

    def array(position: int) -> Array:
        asked.append(position)
        return np.full(4, position, "u1")

    content = ShardBytes(b"head", Sources([4, 4, 4], array))
    content.take(4)
    assert asked == []
    content.take(4)
    assert asked == [0]
    content.take(5)
    assert asked == [0, 1, 2]


@given(st.lists(st.tuples(layouts(), st.integers(0, 200_000)), max_size=6), st.data())
def test_small_and_large_tensors_may_follow_each_other(tensors: list[tuple[Array, int]], data: st.DataObject) -> None:
    arrays = [made for array, size in tensors for made in (array, np.arange(size, dtype="u1"))]
    header, sources = shard({f"t{number}": array for number, array in enumerate(arrays)})
    expected = header + b"".join(map(expected_bytes, arrays))
    content = ShardBytes(header, sources)
    found = bytearray()
    while len(found) < content.size:
        found += content.take(data.draw(st.integers(1_000, 150_000)))
    assert found == expected
    assert content.hashes == [xxhash.xxh3_128_hexdigest(expected_bytes(array)) for array in arrays]
    assert content.crc32c == f"{google_crc32c.value(expected):08x}"


def test_many_small_tensors_take_little_more_than_the_part_they_fill() -> None:
    arrays = {f"t{number}": np.full(256, number, "f4") for number in range(20_000)}
    content = ShardBytes(*shard(arrays))
    tracemalloc.start()
    try:
        while len(content.take(4 * 2**20)):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20  # of 20 MiB: the part twice while it is joined, and 20,000 hashes


def test_random_cuts_of_a_large_shard_agree() -> None:
    rng = random.Random(1)
    array = np.arange(3 * 2**19, dtype="<f4").reshape(1024, -1)
    arrays = {"a": array, "b": array.T, "c": array[::2]}
    expected = whole(arrays)
    content = ShardBytes(*shard(arrays))
    found = bytearray()
    while len(found) < content.size:
        found += content.take(rng.randrange(1, 2**21))
    assert found == expected


def test_pieces_lie_in_the_memory_of_the_arrays() -> None:
    arrays = [np.arange(100_000, dtype=np.uint8), np.arange(200_000, dtype=np.uint8), np.arange(10, dtype=np.uint8)]
    content = ShardBytes(b"header", Sources([array.nbytes for array in arrays], lambda position: arrays[position]))
    parts = []
    while part := content.take_pieces(70_000):
        parts.append(part)
    assert [sum(len(piece) for piece in part) for part in parts] == [70_000] * 4 + [20_016]
    assert [len(part) for part in parts] == [2, 2, 1, 1, 2]
    assert b"".join(piece for part in parts for piece in part) == b"header" + b"".join(map(bytes, arrays))
    views = [np.frombuffer(piece, np.uint8) for part in parts for piece in part if len(piece) > 10]
    assert all(np.shares_memory(view, arrays[0]) or np.shares_memory(view, arrays[1]) for view in views)


def test_many_pieces_are_put_together() -> None:
    arrays = [np.full(70_000, number, np.uint8) for number in range(12)]
    content = ShardBytes(b"", Sources([array.nbytes for array in arrays], lambda position: arrays[position]))
    (one,) = content.take_pieces(10 * 70_000)
    first, second = content.take_pieces(10 * 70_000)
    assert b"".join([one, first, second]) == b"".join(map(bytes, arrays))
    assert content.take_pieces(1) == []
