"""Reading tensors and slices of an open checkpoint."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from asyncsaver import CheckpointCorruptError, CheckpointDeletedError, CheckpointReader, Saver

from .place import Place
from .states import bits

CUBE = np.arange(5 * 4 * 6, dtype=np.float32).reshape(5, 4, 6)
STATE = {
    "cube": CUBE,
    "scalar": np.array(3.5),
    "empty": np.empty((3, 0, 2), np.int16),
    "half": np.arange(12).astype(ml_dtypes.bfloat16).reshape(3, 4),
    "words": np.array(["a", "bcd"]),
    "big": np.arange(4, dtype=">i4"),
}


@pytest.fixture
async def reader(memory: Place) -> AsyncIterator[CheckpointReader]:
    async with memory.saver(shard_bytes=300) as saver:
        await saver.save(STATE, step=3, metadata={"git": "abc"}, metrics={"loss": 0.5})
        async with await saver.open() as reader:
            yield reader


async def test_what_a_reader_tells(reader: CheckpointReader) -> None:
    assert reader.checkpoint.step == 3
    assert reader.checkpoint.metrics == {"loss": 0.5}
    assert reader.metadata == {"git": "abc"}
    assert list(reader.tensors) == list(STATE)
    for name, array in STATE.items():
        info = reader.tensors[name]
        assert (info.dtype, info.shape, info.nbytes) == (array.dtype.newbyteorder("<"), array.shape, array.nbytes)


async def test_whole_tensors(reader: CheckpointReader) -> None:
    for name, array in STATE.items():
        read = await reader.read(name)
        assert isinstance(read, np.ndarray)
        assert bits(read) == bits(array)
        assert read.flags.c_contiguous
        assert read.flags.writeable


@pytest.fixture(scope="module")
def module_runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def cube_saver(module_runner: asyncio.Runner) -> Iterator[Saver]:
    saver = Saver("memory://reader-slices")
    module_runner.run(saver.save(STATE, step=1))
    yield saver
    module_runner.run(saver.close())


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), name=st.sampled_from(["cube", "scalar", "empty", "half"]))
def test_slices_are_those_of_numpy(data: Any, name: str, module_runner: asyncio.Runner, cube_saver: Saver) -> None:
    array = STATE[name]
    index = data.draw(npst.basic_indices(array.shape))

    async def read() -> Any:
        async with await cube_saver.open() as reader:
            return await reader.read(name, index)

    found = module_runner.run(read())
    assert isinstance(found, np.ndarray)
    assert bits(found) == bits(np.asarray(array[index]))


@pytest.mark.parametrize(
    ("name", "index", "error", "words"),
    [
        ("cub", ..., KeyError, "has no tensor 'cub'"),
        ("cube", 5, IndexError, "out of bounds for axis 0 with size 5"),
        ("cube", (0, 0, 0, 0), IndexError, "3 axes, but 4"),
        ("cube", (..., 0, ...), IndexError, "one ellipsis"),
        ("cube", [0, 1], TypeError, "not by list"),
        ("cube", True, TypeError, "not by bool"),
        ("cube", None, TypeError, "not by NoneType"),
        ("scalar", 0, IndexError, "0 axes, but 1"),
    ],
)
async def test_wrong_names_and_indices(
    reader: CheckpointReader, name: str, index: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await reader.read(name, index)


async def test_a_reader_restores(reader: CheckpointReader) -> None:
    target = {"cube": np.zeros_like(CUBE)}
    assert await reader.restore(target, select="cube") == target
    np.testing.assert_array_equal(target["cube"], CUBE)
    assert bits(await reader.restore()) == bits(STATE)


async def test_a_closed_reader_refuses(reader: CheckpointReader) -> None:
    await reader.close()
    await reader.close()
    with pytest.raises(ValueError, match="closed"):
        await reader.read("cube")
    with pytest.raises(ValueError, match="closed"):
        await reader.restore()


async def test_many_reads_at_once(reader: CheckpointReader) -> None:
    rows = await asyncio.gather(*(reader.read("cube", row) for row in range(5)))
    assert bits(np.stack(rows)) == bits(CUBE)


async def test_a_checkpoint_that_another_saver_deletes_meanwhile(memory: Place) -> None:
    async with memory.saver() as saver, memory.saver() as other:
        await saver.save(STATE, step=1)
        async with await saver.open(1) as reader:
            await other.delete(1)
            with pytest.raises(CheckpointDeletedError, match="was deleted while it was being read"):
                await reader.read("cube")


async def test_a_shard_that_vanishes_under_a_standing_manifest(memory: Place) -> None:
    async with memory.saver() as saver:
        await saver.save(STATE, step=1)
        async with await saver.open(1) as reader:
            [shard] = await memory.shards()
            await memory.remove(shard)
            with pytest.raises(CheckpointCorruptError) as caught:
                await reader.read("cube", 2)
    assert caught.value.path == shard
    assert "cube" in caught.value.tensors
    assert shard in str(caught.value)
