"""Checkpoints that TensorFlow wrote: every tensor, and every index byte for byte."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from asyncsaver.formats.tensorflow.bundle import decode_index, encode_index
from asyncsaver.formats.tensorflow.dtypes import NUMBERS, type_of
from asyncsaver.formats.tensorflow.ordered_code import FULL, Slice
from asyncsaver.formats.tensorflow.strings import encode_strings
from asyncsaver.formats.tensorflow.v1_write import V1Tensor, plan_v1
from asyncsaver.model.dtypes import Array
from asyncsaver.model.foreign import NO_CRC
from asyncsaver.store.contract import Store

from .checkpoints import CHECKPOINTS, GOLDEN, contents, described, fingerprint, put_folder, read, relative, strings_of

INDICES = sorted(
    relative(path)
    for path in GOLDEN.rglob("*.index")
    if path.parent.parent.name != "damaged" or path.parent.name == "good"
)
OTHERWISE = {"derived/snappy.index", "derived/snappy_literal.index", "derived/small_blocks.index"}
"""Not as TensorFlow writes them, but the same entries as in v2_single."""


def test_there_are_golden_files() -> None:
    assert len(CHECKPOINTS) == 17
    assert len(INDICES) > 30
    assert {*INDICES} > OTHERWISE


@pytest.mark.parametrize("path", CHECKPOINTS)
async def test_every_tensor(store: Store, path: str) -> None:
    expected = contents(GOLDEN / f"{path}.json")
    assert expected
    await put_folder(store, (GOLDEN / path).parent)
    foreign = await described(store, path)
    assert (foreign.format, foreign.name) == ("tensorflow", path.rpartition("/")[2])
    assert {*foreign.tensors} == {*expected}
    assert not foreign.unreadable
    for name, wanted in expected.items():
        array = await read(store, foreign, name)
        assert foreign.tensors[name].dtype == wanted["dtype"] == type_of(wanted["enum"]).name
        assert list(array.shape) == wanted["shape"]
        assert fingerprint(array) == wanted["sha256"], name
        if "strings_b64" in wanted:
            assert list(array.flat) == strings_of(wanted)
        elif "raw_hex" in wanted:
            assert array.tobytes().hex() == wanted["raw_hex"]
    for file in foreign.files:
        assert file.crc32c == NO_CRC
        assert file.size == (GOLDEN / file.path).stat().st_size


@pytest.mark.parametrize("path", INDICES)
def test_an_index_is_rebuilt_byte_for_byte(path: str) -> None:
    data = (GOLDEN / path).read_bytes()
    index = decode_index(data, path)
    assert not index.damaged
    assert (
        encode_index(index)
        == (GOLDEN / "v2_single/model.ckpt.index" if path in OTHERWISE else GOLDEN / path).read_bytes()
    )


V1 = ["v1_single/model.ckpt-v1", "rotation/v1fmt/m-2", "rotation/v1fmt/m-3", "extra/dtypes-v1", "extra/sliced-v1"]


@pytest.mark.parametrize("path", V1)
async def test_a_v1_file_is_rebuilt_byte_for_byte(store: Store, path: str) -> None:
    await put_folder(store, (GOLDEN / path).parent)
    foreign = await described(store, path)
    tensors: list[V1Tensor] = []
    for name, entry in foreign.tensors.items():
        array = await read(store, foreign, name)
        slices: list[tuple[Slice, Array]] = []
        for chunk in entry.chunks:
            extents = list(zip(chunk.offset, chunk.shape, strict=True))
            named = [FULL if one == (0, size) else one for one, size in zip(extents, entry.shape, strict=True)]
            slices.append((tuple(named), array[(*(slice(start, start + count) for start, count in extents), ...)]))
        tensors.append(V1Tensor(name, entry.dtype, entry.shape, slices))
    assert b"".join(plan_v1(tensors).pieces()) == (GOLDEN / path).read_bytes()


async def test_a_variant_hinders_no_other(store: Store) -> None:
    await put_folder(store, GOLDEN / "extra")
    foreign = await described(store, "extra/variant")
    assert foreign.tensors["list"].dtype == "variant"
    assert foreign.unreadable == {
        "list": "extra/variant.index: tensor 'list': TensorFlow's variant has no data that could be read"
    }
    assert list(await read(store, foreign, "x")) == [1.0, 2.0]


async def test_v1_reads_only_what_it_needs(store: Store) -> None:
    """Of a file with many blocks: its ends, the first block, and then that of the tensor."""
    arrays = {f"t{number:03d}": np.full(50_000, number, np.float32) for number in range(100)}
    tensors = [V1Tensor(name, "float32", (50_000,), [(((0, -1),), array)]) for name, array in arrays.items()]
    data = b"".join(plan_v1(tensors).pieces())
    await store.put("many", data)
    foreign = await described(store, "many")
    chunks = [chunk for entry in foreign.tensors.values() for chunk in entry.chunks]
    assert len({chunk.start for chunk in chunks}) > 40
    assert max(chunk.stop - chunk.start for chunk in chunks) < len(data) / 20
    for name in ("t000", "t050", "t099"):
        np.testing.assert_array_equal(await read(store, foreign, name), arrays[name])


@pytest.mark.parametrize("path", [path for path in CHECKPOINTS if path.startswith(("v2_", "meta", "damaged/good"))])
def test_strings_are_written_as_tensorflow_does(path: str) -> None:
    expected = contents(GOLDEN / f"{path}.json") or {}
    index = decode_index((GOLDEN / f"{path}.index").read_bytes(), path)
    checked = 0
    for name, entry in index.entries.items():
        if entry.dtype == NUMBERS["string"]:
            data, crc = encode_strings(strings_of(expected[name]))
            shard = Path(f"{GOLDEN / path}.data-{entry.shard:05d}-of-{index.shards:05d}").read_bytes()
            assert data == shard[entry.offset : entry.offset + entry.size]
            assert crc == entry.crc32c
            checked += 1
    assert checked == sum(wanted["dtype"] == "string" for wanted in expected.values())


async def test_steps_and_shards(store: Store) -> None:
    await put_folder(store, GOLDEN / "v2_sharded")
    foreign = await described(store, "v2_sharded/model.ckpt-12")
    assert foreign.step == 12
    assert len(foreign.files) == 4
    await put_folder(store, GOLDEN / "rotation/padded")
    assert (await described(store, "rotation/padded/m-00000006")).step == 6
    await put_folder(store, GOLDEN / "v2_single")
    assert (await described(store, "v2_single/model.ckpt")).step is None
