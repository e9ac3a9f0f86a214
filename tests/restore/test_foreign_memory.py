"""What reading other libraries' checkpoints takes: requests, bytes, and memory where tensors are to be decoded."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from asyncsaver import CheckpointCorruptError, CheckpointReader, open_checkpoint
from asyncsaver.aio.meter import metered
from asyncsaver.formats.tensorflow.bundle import Entry, Index, encode_index
from asyncsaver.formats.tensorflow.checksum import crc32c
from asyncsaver.formats.tensorflow.dtypes import NUMBERS
from asyncsaver.formats.tensorflow.strings import encode_strings
from asyncsaver.formats.tensorflow.v1_write import V1Tensor, plan_v1
from asyncsaver.store.registry import open_store

KIB, MIB = 2**10, 2**20
Array = np.ndarray[Any, np.dtype[Any]]


async def put_v2(root: Any, arrays: Mapping[str, Array], *, big_endian: bool = False) -> dict[str, tuple[int, int]]:
    """Write a V2 checkpoint; returns where each tensor is in its data file."""
    entries: dict[str, Entry] = {}
    data = bytearray()
    for name, array in arrays.items():
        if array.dtype == object:
            content, crc = encode_strings(array.flat)
        else:
            content = (array.byteswap() if big_endian else array).tobytes()
            crc = crc32c(content)
        number = NUMBERS["string" if array.dtype == object else array.dtype.name]
        entries[name] = Entry(number, array.shape, 0, len(data), len(content), crc)
        data += content
    async with open_store(root.url) as store:
        await store.put("m.index", encode_index(Index(1, entries, big_endian=big_endian)))
        await store.put("m.data-00000-of-00001", data)
    return {name: (entry.offset, entry.offset + entry.size) for name, entry in entries.items()}


def floats(count: int, size: int) -> dict[str, Array]:
    """Arrays of ``size`` bytes each."""
    return {f"t{number:04d}": np.arange(size // 8) + float(number) for number in range(count)}


def narrow(reader: CheckpointReader, *, budget: int, part: int) -> None:
    """Give a reader little memory, and have requests be small."""
    reader._root.budget.resize(budget)
    store = reader._root.store
    store.capabilities = dataclasses.replace(store.capabilities, part_bytes=part)


# --- what is read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("big_endian", [False, True])
async def test_one_tensor_is_read_by_its_range_alone(memory_root: Any, big_endian: bool) -> None:
    arrays = floats(64, 64 * KIB)
    await put_v2(memory_root, arrays, big_endian=big_endian)
    with metered() as meter:
        async with await open_checkpoint(f"{memory_root.url}/m") as reader:
            opened = meter.bytes_read
            np.testing.assert_array_equal(await reader.read("t0040"), arrays["t0040"])
            assert meter.bytes_read - opened == 64 * KIB
            np.testing.assert_array_equal(await reader.read("t0041", np.s_[100:200]), arrays["t0041"][100:200])
            # What is to be decoded is read whole.
            assert meter.bytes_read - opened == 64 * KIB + (64 * KIB if big_endian else 800)
            assert meter.requests["get_range"] == 2
    assert opened < 64 * KIB


@pytest.mark.parametrize("big_endian", [False, True])
async def test_many_small_tensors_take_few_requests(memory_root: Any, big_endian: bool) -> None:
    await put_v2(memory_root, floats(2000, 256), big_endian=big_endian)
    async with await open_checkpoint(f"{memory_root.url}/m") as reader:
        for work in (reader.restore, reader.verify):
            with metered() as meter:
                await work()
            assert meter.requests.total() == 1


async def test_what_many_tensors_lie_in_is_read_once(memory_root: Any) -> None:
    """A block of a V1 file."""
    arrays = {f"t{number}": np.full(30, number, np.int32) for number in range(50)}
    tensors = [V1Tensor(name, "int32", (30,), [(((0, -1),), array)]) for name, array in arrays.items()]
    data = b"".join(plan_v1(tensors).pieces())
    async with open_store(memory_root.url) as store:
        await store.put("m", data)
    async with await open_checkpoint(f"{memory_root.url}/m") as reader:
        with metered() as meter:
            state = await reader.restore()
        assert meter.requests.total() == 1
        assert meter.bytes_read <= len(data)
        for name, array in arrays.items():
            np.testing.assert_array_equal(state[name], array)


# --- what is held ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "size"), [(128, 64 * KIB), (16, 512 * KIB)], ids=["requests", "tensors of many requests"]
)
async def test_a_larger_state_is_decoded_as_it_arrives(memory_root: Any, count: int, size: int) -> None:
    arrays = floats(count, size)
    await put_v2(memory_root, arrays, big_endian=True)
    async with await open_checkpoint(f"{memory_root.url}/m") as reader:
        narrow(reader, budget=MIB, part=128 * KIB)
        target = {name: np.zeros_like(array) for name, array in arrays.items()}
        tracemalloc.start()
        try:
            restored = await reader.restore(dict(target))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        budget = reader._root.budget
        assert 128 * KIB <= budget.peak <= MIB
        assert budget.used == 0
    assert peak < 3 * MIB  # of a state of 8 MiB: the budget, what is being decoded, and the plan
    for name, array in arrays.items():
        assert restored[name] is target[name]
        np.testing.assert_array_equal(target[name], array)


async def test_a_tensor_larger_than_the_budget(memory_root: Any) -> None:
    arrays = {"before": np.arange(4.0), "large": np.arange(MIB / 8), "after": np.arange(5.0)}
    arrays["strings"] = np.array([b"x" * 1000 + b"%d" % number for number in range(600)], object)
    await put_v2(memory_root, {**arrays, "large": arrays["large"]})
    async with await open_checkpoint(f"{memory_root.url}/m") as reader:
        narrow(reader, budget=64 * KIB, part=16 * KIB)
        restored = await reader.restore()
        for name, array in arrays.items():
            np.testing.assert_array_equal(restored[name], array)
            np.testing.assert_array_equal(await reader.read(name), array)
        assert (await reader.verify()).tensors == 4
        assert reader._root.budget.used == 0


async def test_damage_in_a_larger_state_names_what_was_overwritten(memory_root: Any) -> None:
    """Strings never are: no bytes of a file are read to where references stand."""
    arrays = floats(8, 64 * KIB)
    arrays["strings"] = np.array([b"a", b"b"], object)
    places = await put_v2(memory_root, arrays, big_endian=False)
    async with open_store(memory_root.url) as store:
        data = bytearray((await store.get("m.data-00000-of-00001")).data)
        data[places["strings"][1] - 1] ^= 1
        await store.put("m.data-00000-of-00001", data)
    async with await open_checkpoint(f"{memory_root.url}/m") as reader:
        narrow(reader, budget=128 * KIB, part=64 * KIB)
        target = {name: np.zeros_like(array) for name, array in arrays.items()}
        with pytest.raises(CheckpointCorruptError, match="checksum of the strings differs") as caught:
            await reader.restore(target)
    assert caught.value.tensors == ("strings",)
    assert {*caught.value.overwritten} == arrays.keys() - {"strings"}
    assert list(target["strings"]) == [0, 0]


async def test_two_tensors_that_share_bytes_are_each_checked(memory_root: Any) -> None:
    content = np.arange(8.0).byteswap().tobytes()
    number = NUMBERS["float64"]
    entries = {
        "good": Entry(number, (8,), 0, 0, 64, crc32c(content)),
        "same": Entry(number, (2, 4), 0, 0, 64, crc32c(content)),
        "wrong": Entry(number, (8,), 0, 0, 64, 12345),
    }
    async with open_store(memory_root.url) as store:
        await store.put("m.index", encode_index(Index(1, entries, big_endian=True)))
        await store.put("m.data-00000-of-00001", content)
    async with await open_checkpoint(f"{memory_root.url}/m") as reader:
        state = await reader.restore(select=["good", "same"])
        np.testing.assert_array_equal(state["good"], np.arange(8.0))
        np.testing.assert_array_equal(state["same"], np.arange(8.0).reshape(2, 4))
        with pytest.raises(CheckpointCorruptError, match="'wrong'"):
            await reader.restore()
        with pytest.raises(CheckpointCorruptError) as caught:
            await reader.verify()
        assert caught.value.tensors == ("wrong",)
