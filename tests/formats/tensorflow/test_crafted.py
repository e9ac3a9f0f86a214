"""Indices that TensorFlow would never write: what is wrong touches one tensor where it can, and nothing is allocated for it.

Items 35, 41, 42, 114 and 117 of its behaviours.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from asyncsaver.errors import CheckpointCorruptError, CheckpointNotFoundError, ManifestError, StoreError
from asyncsaver.formats.tensorflow.bundle import Entry, Index, encode_index
from asyncsaver.formats.tensorflow.checksum import crc32c
from asyncsaver.formats.tensorflow.dtypes import NUMBERS
from asyncsaver.formats.tensorflow.ordered_code import FULL, slice_key
from asyncsaver.formats.tensorflow.strings import encode_strings
from asyncsaver.formats.tensorflow.table import read_table, write_table
from asyncsaver.formats.tensorflow.v1_write import V1Tensor, plan_v1
from asyncsaver.model.foreign import Foreign
from asyncsaver.proto import tensorflow_checkpoint_pb2 as messages
from asyncsaver.store.contract import Store

from .checkpoints import described, dtype_of, read

FLOAT, STRING = NUMBERS["float32"], NUMBERS["string"]
DATA = np.arange(24, dtype="<f4").tobytes()
GOOD = Entry(FLOAT, (2, 3), 0, 0, 24, crc32c(DATA[:24]))


async def bundle(
    store: Store,
    entries: Mapping[str, Entry],
    *,
    slices: Mapping[Any, Entry] | None = None,
    shards: int = 1,
    data: bytes = DATA,
) -> Foreign:
    """Describe a checkpoint with these entries, all of whose data files are the same."""
    index = Index(shards, dict(entries), dict(slices or {}))
    await store.put("m.index", encode_index(index))
    for shard in range(shards):
        await store.put(f"m.data-{shard:05d}-of-{shards:05d}", data)
    return await described(store, "m")


CRAFTED = {
    "a negative dimension": (Entry(FLOAT, (-1, 6), 0, 0, 24), "impossible shape"),
    "dimensions that are negative together": (Entry(FLOAT, (-2, -3), 0, 0, 24), "impossible shape"),
    "a product that overflows": (Entry(FLOAT, (2**62, 2**62), 0, 0, 24), "impossible shape"),
    "a product that overflows to the size": (Entry(FLOAT, (2**32, 2**32, 6), 0, 0, 24), "impossible shape"),
    "a long axis of no elements": (Entry(FLOAT, (2**62, 0)), "impossible shape"),
    "an unknown rank": (Entry(FLOAT, (), 0, 0, 4, unknown_rank=True), "not known"),
    "more axes than NumPy has": (Entry(FLOAT, (1,) * 65, 0, 0, 4), "65 axes"),
    "too few bytes": (Entry(FLOAT, (2, 3), 0, 0, 20), r"20 bytes cannot be float32\[2, 3\]"),
    "too many bytes": (Entry(FLOAT, (2, 3), 0, 0, 28), "28 bytes cannot be"),
    "bytes beyond the file": (Entry(FLOAT, (2, 3), 0, 80, 24), "bytes 80 to 104 of m.data-00000-of-00001, which has 96"),
    "bytes far beyond": (Entry(FLOAT, (2, 3), 0, 2**62, 24), "which has 96"),
    "a petabyte": (Entry(FLOAT, (2**48,), 0, 0, 2**50), "which has 96"),
    "a negative offset": (Entry(FLOAT, (2, 3), 0, -4, 24), "bytes -4 to 20"),
    "a negative size": (Entry(FLOAT, (2, 3), 0, 24, -24), "bytes 24 to 0"),
    "another shard": (Entry(FLOAT, (2, 3), 1, 0, 24), "data file 1 of 1"),
    "a negative shard": (Entry(FLOAT, (2, 3), -1, 0, 24), "data file -1 of 1"),
    "a resource": (Entry(20, (), 0, 0, 8), "resource has no data"),
    "a variant": (Entry(21, (), 0, 0, 8), "variant has no data"),
    "an unknown dtype": (Entry(99, (), 0, 0, 8), "type 99 has no data"),
    "a negative dtype": (Entry(-1, (), 0, 0, 8), "type -1 has no data"),
    "more strings than bytes": (Entry(STRING, (2**40,), 0, 0, 24), "24 bytes cannot be 1099511627776 strings"),
    "slices without entries": (Entry(FLOAT, (2, 3), slices=(((0, 1), FULL),)), "has no entry"),
    "a slice outside": (Entry(FLOAT, (2, 3), slices=(((1, 2), FULL),)), "not within"),
    "a slice that begins before": (Entry(FLOAT, (2, 3), slices=(((-1, 2), FULL),)), "not within"),
    "a slice of another rank": (Entry(FLOAT, (2, 3), slices=((FULL,),)), "1 axes, the tensor 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", CRAFTED)
async def test_what_is_wrong_with_one_tensor(store: Store, case: str) -> None:
    entry, problem = CRAFTED[case]
    foreign = await bundle(store, {"bad": entry, "good": GOOD})
    assert list(foreign.tensors) == ["bad", "good"]
    assert list(foreign.unreadable) == ["bad"]
    assert re.search(problem, foreign.unreadable["bad"])
    assert foreign.unreadable["bad"].startswith("m.index: tensor 'bad': ")
    assert np.prod([float(size) for size in foreign.tensors["bad"].shape]) < 2**62
    dtype_of(foreign, "bad")
    assert (await read(store, foreign, "good")).tobytes() == DATA[:24]


def stored(entry: Entry) -> bytes:
    """The message of an entry, as `encode_index` writes it."""
    [_, value] = read_table(encode_index(Index(1, {"x": entry})), "x").values
    return value


def table_with(entry: bytes, *, name: bytes = b"bad", **header: Any) -> bytes:
    """An index of one good tensor, an entry that `encode_index` would not write, and such a header."""
    message = messages.BundleHeaderProto(**({"num_shards": 1} | header))
    return b"".join(write_table(sorted([(b"", message.SerializeToString()), (name, entry), (b"good", stored(GOOD))])))


async def test_an_entry_that_is_no_message(store: Store) -> None:
    await bundle(store, {})
    for entry in (b"\xff", b"\x12\x02\x12\x09", b"\x0b" * 200, stored(GOOD)[:-1]):
        await store.put("m.index", table_with(entry))
        foreign = await described(store, "m")
        assert "tensor 'bad': not a " in foreign.unreadable["bad"]
        assert (await read(store, foreign, "good")).tobytes() == DATA[:24]


async def test_an_absent_checksum_is_found_when_the_tensor_is_read(store: Store) -> None:
    absent = messages.BundleEntryProto.FromString(stored(GOOD))
    absent.ClearField("crc32c")
    await bundle(store, {})
    await store.put("m.index", table_with(absent.SerializeToString()))
    foreign = await described(store, "m")
    with pytest.raises(CheckpointCorruptError, match="checksum differs"):
        await read(store, foreign, "bad")
    assert (await read(store, foreign, "good")).tobytes() == DATA[:24]


async def test_what_tensorflow_accepts(store: Store) -> None:
    """Unknown fields, gaps, shared bytes, no version, a shard that is missing and holds nothing."""
    await bundle(store, {})
    await store.delete(["m.data-00000-of-00001"])
    await store.put("m.data-00001-of-00002", b"gap" + DATA + b"junk")
    entry = replace(GOOD, shard=1, offset=3)
    index = Index(2, {"a": entry, "b": entry})
    await store.put("m.index", encode_index(index))
    foreign = await described(store, "m")
    assert [file.path for file in foreign.files] == ["m.data-00001-of-00002"]
    for name in ("a", "b"):
        assert (await read(store, foreign, name)).tobytes() == DATA[:24]
    await bundle(store, {})
    await store.put("m.index", table_with(stored(GOOD) + b"\xa2\x06\x01x"))
    foreign = await described(store, "m")
    assert (await read(store, foreign, "bad")).tobytes() == DATA[:24]


HEADERS = {
    "a newer format": ({"version": {"producer": 3, "min_consumer": 2}}, "needs a reader of version 2"),
    "not for us": ({"version": {"producer": 3, "bad_consumers": [0, 1]}}, "not to be read by readers of version 1"),
    "no data files": ({"num_shards": 0}, "0 data files"),
    "a negative number of data files": ({"num_shards": -1}, "-1 data files"),
    "more data files than names": ({"num_shards": 2**31 - 1}, "2147483647 data files"),
    "an unknown byte order": ({"endianness": 2}, "unknown byte order"),
}


@pytest.mark.parametrize("case", HEADERS)
async def test_headers(store: Store, case: str) -> None:
    header, problem = HEADERS[case]
    await store.put("m.index", table_with(stored(GOOD), **header))
    with pytest.raises(ManifestError, match=f"m.index: .*{problem}"):
        await described(store, "m")


async def test_no_header(store: Store) -> None:
    for entries in ([], [(b"a", stored(GOOD))]):
        await store.put("m.index", b"".join(write_table(entries)))
        with pytest.raises(ManifestError, match=r"m.index: the index has no header"):
            await described(store, "m")
    await store.put("m.index", b"".join(write_table([(b"", b"\xff")])))
    with pytest.raises(ManifestError, match=r"m.index: not a BundleHeaderProto"):
        await described(store, "m")


@pytest.mark.parametrize(
    "name", [b"\xff\xfe", b"caf\xe9", b"\x00x", slice_key(b"\xe9", ()), slice_key(b"x", (FULL,))[:-1]]
)
async def test_names_that_are_none(store: Store, name: bytes) -> None:
    await store.put("m.index", table_with(stored(GOOD), name=name))
    with pytest.raises(ManifestError, match=r"m.index: the name b.* cannot be read"):
        await described(store, "m")


def sliced(*pieces: tuple[tuple[int, int], Entry]) -> tuple[dict[str, Entry], dict[Any, Entry]]:
    extents = [(rows, FULL) for rows, _ in pieces]
    whole = Entry(FLOAT, (4, 3), slices=tuple(extents))
    return {"good": GOOD, "x": whole}, {("x", one): entry for one, (_, entry) in zip(extents, pieces, strict=True)}


def rows(start: int, count: int) -> tuple[tuple[int, int], Entry]:
    begin, stop = 12 * start, 12 * (start + count)
    return (start, count), Entry(FLOAT, (count, 3), 0, begin, stop - begin, crc32c(DATA[begin:stop]))


async def test_slices(store: Store) -> None:
    entries, slices = sliced(rows(0, 1), rows(3, 1), rows(1, 2))
    foreign = await bundle(store, entries, slices=slices)
    assert (await read(store, foreign, "x")).tobytes() == DATA[:48]
    assert len(foreign.tensors["x"].chunks) == 3


@pytest.mark.parametrize(
    ("pieces", "problem"),
    [
        ([rows(0, 2), rows(1, 3)], "chunks hold 15 of its 12 elements"),
        ([rows(0, 2), rows(1, 2)], "overlap"),
        ([rows(0, 1), rows(2, 2)], "chunks hold 9 of its 12"),
        ([rows(0, 2), ((2, 2), rows(2, 1)[1])], "stored as float32.1, 3."),
        ([rows(0, 2), ((2, 2), replace(rows(2, 2)[1], dtype=3))], "stored as int32.2, 3."),
        ([rows(0, 2), ((2, 2), replace(rows(2, 2)[1], offset=90))], "bytes 90 to 114"),
    ],
)
async def test_slices_that_do_not_fit(store: Store, pieces: Any, problem: str) -> None:
    entries, slices = sliced(*pieces)
    foreign = await bundle(store, entries, slices=slices)
    assert list(foreign.unreadable) == ["x"]
    assert re.search(problem, foreign.unreadable["x"])
    assert (await read(store, foreign, "good")).tobytes() == DATA[:24]


async def test_a_damaged_slice_entry_touches_its_tensor(store: Store) -> None:
    await bundle(store, {})
    entries, _ = sliced(rows(0, 4))
    pairs = [
        (b"", messages.BundleHeaderProto(num_shards=1).SerializeToString()),
        (slice_key(b"x", ((0, 4), FULL)), b"\xff"),
    ]
    pairs += [(name.encode(), stored(entry)) for name, entry in entries.items()]
    await store.put("m.index", b"".join(write_table(sorted(pairs))))
    foreign = await described(store, "m")
    assert foreign.unreadable == {"x": "m.index: tensor 'x': not a BundleEntryProto"}


async def test_slices_of_strings(store: Store) -> None:
    """Each slice has a checksum of its own."""
    first, crc_first = encode_strings([b"one"])
    second, crc_second = encode_strings([b"two", b"three"])
    extents = ((0, 1),), ((1, 2),)
    foreign = await bundle(
        store,
        {"s": Entry(STRING, (3,), slices=extents)},
        slices={
            ("s", extents[0]): Entry(STRING, (1,), 0, 0, len(first), crc_first),
            ("s", extents[1]): Entry(STRING, (2,), 0, len(first), len(second), crc_second),
        },
        data=first + second,
    )
    assert list(await read(store, foreign, "s")) == [b"one", b"two", b"three"]


async def test_slices_without_elements(store: Store) -> None:
    entries, slices = sliced(rows(0, 4), rows(2, 0))
    foreign = await bundle(store, entries, slices=slices)
    assert (await read(store, foreign, "x")).tobytes() == DATA[:48]


async def test_quantized_and_narrow_types_take_a_byte(store: Store) -> None:
    names = ["qint8", "quint8", "int4", "uint4", "int2", "uint2", "float4_e2m1fn"]
    data = bytes(range(4))
    entries = {name: Entry(NUMBERS[name], (4,), 0, 0, 4, crc32c(data)) for name in names}
    foreign = await bundle(store, entries, data=data)
    for name in names:
        array = await read(store, foreign, name)
        assert foreign.tensors[name].dtype == name
        assert array.tobytes() == data
    assert foreign.dtypes["qint8"] == np.int8
    assert foreign.dtypes["quint8"] == np.uint8


async def test_many_tensors_that_claim_the_same_bytes(store: Store) -> None:
    """What TensorFlow lets two tensors share must not make gigabytes of a small file."""
    with pytest.raises(ManifestError, match="far more bytes than the data files have"):
        await bundle(store, {f"t{number}": Entry(FLOAT, (24,), 0, 0, 96, crc32c(DATA)) for number in range(100)})


async def test_nothing_there(store: Store) -> None:
    for path in ("m", "a/m", "m-?????-of-00002", "m-?????-of-00000"):
        with pytest.raises(CheckpointNotFoundError, match="is not a valid checkpoint"):
            await described(store, path)
    for path in ("", "/m", "../m", "a/../m"):
        with pytest.raises(StoreError):
            await described(store, path)


def v1_tensor(name: str, array: Any, *extents: tuple[int, int], shape: tuple[int, ...] = ()) -> V1Tensor:
    return V1Tensor(name, str(array.dtype), shape or array.shape, [(extents or (FULL,) * array.ndim, array)])


async def test_sharded_v1(store: Store) -> None:
    """A tensor whole in one file, and one whose halves are in two."""
    whole = np.arange(6, dtype=np.int32).reshape(2, 3)
    halves = np.arange(8, dtype=np.float64)
    first = plan_v1([v1_tensor("w", whole), v1_tensor("h", halves[:4], (0, 4), shape=(8,))]).pieces()
    second = plan_v1([v1_tensor("h", halves[4:], (4, 4), shape=(8,))]).pieces()
    await store.put("run/m-7-00000-of-00002", b"".join(first))
    await store.put("run/m-7-00001-of-00002", b"".join(second))
    foreign = await described(store, "run/m-7-?????-of-00002")
    assert foreign.step == 7
    assert [file.path for file in foreign.files] == ["run/m-7-00000-of-00002", "run/m-7-00001-of-00002"]
    np.testing.assert_array_equal(await read(store, foreign, "w"), whole)
    np.testing.assert_array_equal(await read(store, foreign, "h"), halves)
    only = await described(store, "run/m-7-00000-of-00002")
    assert only.step == 7
    assert "chunks hold 4 of its 8" in only.unreadable["h"]
    await store.delete(["run/m-7-00001-of-00002"])
    with pytest.raises(ManifestError, match="1 of its files are missing, run/m-7-00001-of-00002 first"):
        await described(store, "run/m-7-?????-of-00002")


async def test_v1_files_that_disagree(store: Store) -> None:
    arrays = np.zeros(4, np.float32), np.zeros(4, np.float64)
    for number, array in enumerate(arrays):
        await store.put(f"m-{number:05d}-of-00002", b"".join(plan_v1([v1_tensor("x", array)]).pieces()))
    assert "disagree about its dtype" in (await described(store, "m-?????-of-00002")).unreadable["x"]
    await store.put("m-00001-of-00002", b"".join(plan_v1([v1_tensor("x", arrays[0])]).pieces()))
    assert "chunks hold 8 of its 4" in (await described(store, "m-?????-of-00002")).unreadable["x"]


async def put_v1(store: Store, *tensors: Any, data: bytes | None = None, **versions: Any) -> None:
    """A V1 file that lists what it may not have."""
    meta = messages.SavedTensorSliceMeta(tensor=tensors, versions=messages.VersionDef(**versions))
    listed = messages.SavedTensorSlices(meta=meta).SerializeToString()
    pairs = [(b"", listed)] + ([] if data is None else [(slice_key(b"x", (FULL,)), data)])
    await store.put("v1", b"".join(write_table(pairs)))


def listed(size: int, dtype: int = FLOAT, name: bytes = b"x") -> Any:
    return messages.SavedSliceMeta(
        name=name, type=dtype, shape={"dim": [{"size": size}]}, slice=[messages.TensorSliceProto(extent=[{}])]
    )


@pytest.mark.parametrize(
    ("meta", "problem"),
    [
        (listed(2**40), "larger than its block can mean"),
        (listed(-1), "impossible shape"),
        (listed(2**62), "impossible shape"),
        (listed(2, 14), "no way to store TensorFlow's bfloat16"),
        (listed(2, 21), "no way to store TensorFlow's variant"),
    ],
)
async def test_crafted_v1(store: Store, meta: Any, problem: str) -> None:
    await put_v1(store, meta, data=b"")
    foreign = await described(store, "v1")
    [why] = foreign.unreadable.values()
    assert problem in why


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"\x12\x00", b"\x12\x04\x1a\x02\x2a\x00", b"\x12\x07\x1a\x05\x2a\x03abc", None]
)
async def test_crafted_v1_values(store: Store, data: bytes | None) -> None:
    await put_v1(store, listed(2), data=data)
    foreign = await described(store, "v1")
    with pytest.raises(CheckpointCorruptError):
        await read(store, foreign, "x")


async def test_v1_that_lists_what_it_does_not_have(store: Store) -> None:
    await put_v1(store, listed(2, name=b"y"), data=b"")
    with pytest.raises(CheckpointCorruptError, match="does not have the tensor"):
        await read(store, await described(store, "v1"), "y")
    await put_v1(store, listed(2))
    assert "is not in v1" in (await described(store, "v1")).unreadable["x"]


async def test_v1_that_is_damaged_as_a_whole(store: Store) -> None:
    await put_v1(store, listed(2, name=b"\xff"))
    with pytest.raises(ManifestError, match=r"v1: the name .* is not UTF-8"):
        await described(store, "v1")
    await put_v1(store, min_consumer=2)
    with pytest.raises(ManifestError, match="v1: it needs a reader of version 2"):
        await described(store, "v1")
    await store.put("v1", b"".join(write_table([])))
    with pytest.raises(ManifestError, match="v1: the table is empty"):
        await described(store, "v1")
    for pairs in ([(b"a", b"")], [(b"", b"\xff")]):
        await store.put("v1", b"".join(write_table(pairs)))
        with pytest.raises(ManifestError, match="v1: "):
            await described(store, "v1")
    await store.put("v1", b"something else altogether, but long enough to have a footer")
    with pytest.raises(ManifestError, match="v1, byte 51: not one of TensorFlow's tables"):
        await described(store, "v1")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_what_is_not_installed_is_named() -> None:
    hide = "import sys; sys.modules[{!r}] = None\ntry: {}\nexcept ImportError as error: print(error)"
    assert "pip install 'asyncsaver[tensorflow]'" in run(
        hide.format("google.protobuf", "import asyncsaver.formats.tensorflow")
    )
    snappy = "from asyncsaver.formats.tensorflow.snappy import decompress; decompress(bytes([1, 0, 97]))"
    assert "pip install 'asyncsaver[tensorflow]'" in run(hide.format("cramjam", snappy))


def test_the_package_does_without() -> None:
    assert (
        run("import sys, asyncsaver; print('cramjam' in sys.modules, 'asyncsaver.formats.tensorflow' in sys.modules)")
        == "False False\n"
    )
