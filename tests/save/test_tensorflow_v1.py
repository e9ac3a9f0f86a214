"""V1 files: written within the memory budget, read again whole or in shards, and copied as they are or not at all."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import google_crc32c
import numpy as np
import pytest

from asyncsaver import open_checkpoint
from asyncsaver.catalog.opening import open_root
from asyncsaver.catalog.root import Root
from asyncsaver.errors import CheckpointCorruptError, InvalidStateError, ObjectNotFoundError, StoreError
from asyncsaver.formats.tensorflow.naming import shard_paths, sharded_filespec
from asyncsaver.formats.tensorflow.ordered_code import FULL, Slice
from asyncsaver.formats.tensorflow.v1_write import Elements, V1Tensor, plan_v1
from asyncsaver.layout.tensorflow_stage import bundle_of, stage_tensorflow
from asyncsaver.model.checkpoint import Progress
from asyncsaver.model.leaves import Adapters
from asyncsaver.model.manifest import FileEntry
from asyncsaver.model.names import Naming
from asyncsaver.model.partitioned import Partitioned
from asyncsaver.restore.foreign import open_foreign
from asyncsaver.save.tensorflow_v1 import copy, v1_tensors, write_v1
from asyncsaver_backends.memory import MemoryStore

from ..doubles.scripted import Cancel, Fail, Script, ScriptedStore, always, at, nothing  # noqa: TID252 - no name to import by
from ..formats.foreign_folders import GOLDEN as FOREIGN  # noqa: TID252 - test folders have no name

Array = np.ndarray[Any, np.dtype[Any]]
PART = 1000


@asynccontextmanager
async def root_of(script: Script = nothing, *, budget: int = 3 * PART, **capabilities: Any) -> AsyncIterator[Root]:
    """A root in memory whose requests carry `PART` bytes; it ends with all of its budget given back."""
    inner = MemoryStore(f"memory://{uuid.uuid4().hex}/run")
    store = ScriptedStore(
        inner, script, capabilities=replace(inner.capabilities, **({"part_bytes": PART} | capabilities))
    )
    root = open_root(store, Naming(), memory_budget=budget)
    try:
        yield root
        assert root.budget.used == 0
        assert root.budget.peak <= max(budget, PART)
    finally:
        await root.close()


def state() -> dict[str, Array]:
    rng = np.random.default_rng(5)
    strings = np.empty((2, 2), object)
    strings[:] = [[b"", b"\x00\xff"], [b"a" * 700, "ü".encode()]]
    return {
        "wide": rng.standard_normal((70, 30)).astype(np.float32),
        "ints": rng.integers(-(2**40), 2**40, 999),
        "half": rng.standard_normal(300).astype(np.float16),
        "flags": rng.integers(0, 2, (5, 5)).astype(bool),
        "complex": np.array(1 - 2j),
        "none": np.zeros((3, 0), np.int16),
        "text": strings,
        **{f"small/{number}": np.full(number % 3, number, np.uint8) for number in range(60)},
    }


def whole(name: str, array: Array) -> V1Tensor:
    dtype = "string" if array.dtype == object else array.dtype.name
    return V1Tensor(name, dtype, array.shape, [((FULL,) * array.ndim, array)])


def rows(name: str, array: Array, start: int, stop: int) -> V1Tensor:
    extents: Slice = ((start, stop - start), *((0, size) for size in array.shape[1:]))
    slices: list[tuple[Slice, Elements]] = [(extents, array[start:stop])]
    return V1Tensor(name, array.dtype.name, array.shape, slices)


def entry(path: str, content: bytes) -> FileEntry:
    return FileEntry(path, len(content), f"{google_crc32c.value(content):08x}")


def scripted(root: Root) -> ScriptedStore:
    """The store of `root_of`, beneath what paces requests and sends them again."""
    store: Any = root.store
    while not isinstance(store, ScriptedStore):
        store = store._store
    return store


def calls(root: Root) -> list[str]:
    return [call.operation for call in scripted(root).calls]


async def assert_holds(root: Root, path: str, expected: Mapping[str, Array]) -> None:
    async with await open_checkpoint(f"{root.store.url}/{path}") as reader:
        found = await reader.restore()
    assert {*found} == {*expected}
    for name, array in expected.items():
        assert found[name].dtype == array.dtype, name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("part", [PART, 10**6])
async def test_what_is_written_is_what_was_planned(part: int, scattered: bool) -> None:
    tensors = [whole(name, array) for name, array in state().items()]
    expected = b"".join(plan_v1(tensors).pieces())
    reports: list[Progress] = []
    async with root_of(part_bytes=part, scattered=scattered, budget=3 * part) as root:
        entries = await write_v1(root, [("a/m-5", tensors)], step=5, report=reports.append)
        assert (await root.store.get("a/m-5")).data == expected
        assert entries == [entry("a/m-5", expected)]
    assert [(one.step, one.bytes_total) for one in reports] == [(5, len(expected))] * len(reports)
    assert reports[-1].bytes_done == len(expected)


async def test_item_112_v1_in_one_file() -> None:
    async with root_of() as root:
        await write_v1(root, [("m-5", [whole(name, array) for name, array in state().items()])])
        await assert_holds(root, "m-5", state())


def test_item_035_the_pattern_of_shards() -> None:
    behaviours = json.loads((FOREIGN / "tensorflow" / "behaviours.json").read_text())["probes"]["save.returned_path"]
    assert f"$DIR/{sharded_filespec('v1_sharded-4', 1)}" == behaviours["v1_sharded"]["ok"]
    assert shard_paths(sharded_filespec("a/m-4", 2)) == ["a/m-4-00000-of-00002", "a/m-4-00001-of-00002"]
    assert shard_paths(sharded_filespec("v1_sharded-4", 1)) == [
        name for name in behaviours["files"] if name.startswith("v1_sharded-4-")
    ]


async def test_item_112_v1_in_shards() -> None:
    """One tensor is partitioned over both."""
    arrays = state()
    cut = [
        [whole(name, array) for name, array in arrays.items() if name.startswith("small")],
        [whole(name, array) for name, array in arrays.items() if not name.startswith(("small", "wide"))],
    ]
    cut[0].append(rows("wide", arrays["wide"], 0, 31))
    cut[1].append(rows("wide", arrays["wide"], 31, 70))
    async with root_of() as root:
        files = list(zip(shard_paths(sharded_filespec("m-5", 2)) or [], cut, strict=True))
        entries = await write_v1(root, files)
        assert [one.path for one in entries] == [path for path, _ in files]
        for found in entries:
            assert found == entry(found.path, (await root.store.get(found.path)).data)
        await assert_holds(root, "m-5-?????-of-00002", arrays)


async def test_what_would_be_written_as_v2() -> None:
    """A state in two files, one tensor of which is held in slices; strings are those of V1 then."""
    arrays = state() | {"text": np.array([["", "ü"], ["b" * 300, "c"]])}
    wide = arrays["wide"]
    adapters = Adapters()
    bundle = bundle_of(
        stage_tensorflow(arrays | {"wide": Partitioned.joined([wide[:9], wide[9:]])}, adapters), adapters
    )
    count = len(bundle.staged.tensors)
    assert count == len(arrays) + 1
    async with root_of() as root:
        paths = shard_paths(sharded_filespec("m-5", 2)) or []
        await write_v1(
            root, [(path, v1_tensors(bundle, adapters, range(first, count, 2))) for first, path in enumerate(paths)]
        )
        as_read = arrays | {"text": np.char.encode(arrays["text"], "utf-8").astype(object)}
        await assert_holds(root, "m-5-?????-of-00002", as_read)
        chunks = (await open_foreign(root, "m-5-?????-of-00002")).tensors["wide"].chunks
    assert [(chunk.offset, chunk.shape, chunk.file) for chunk in chunks] == [
        ((0, 0), (9, 30), 0),
        ((9, 0), (61, 30), 1),
    ]


async def test_a_file_without_tensors() -> None:
    async with root_of() as root:
        assert await write_v1(root, []) == []
        await write_v1(root, [("m", [])])
        await assert_holds(root, "m", {})


async def test_nothing_is_put_if_one_of_the_files_cannot_be() -> None:
    good = whole("good", np.zeros(9))
    async with root_of() as root:
        with pytest.raises(InvalidStateError, match="w: TensorFlow's V1 format cannot hold uint64"):
            await write_v1(root, [("m-0", [good]), ("m-1", [good, whole("w", np.zeros(3, np.uint64))])])
        assert calls(root) == []
    async with root_of(max_object_bytes=2000) as root:
        with pytest.raises(InvalidStateError, match=r"m-1 would have \d+ bytes, and the store takes 2000 at most"):
            await write_v1(root, [("m-0", [good]), ("m-1", [whole("w", np.zeros(300))])])
        assert calls(root) == []


async def test_nothing_is_put_before_it_may_be() -> None:
    async with root_of() as root:
        begun = asyncio.Event()
        task = asyncio.create_task(write_v1(root, [("m", [whole("w", np.zeros(9))])], begun=begun))
        while not root.budget.used:  # noqa: ASYNC110 - it is being prepared
            await asyncio.sleep(0)
        assert calls(root) == []
        begun.set()
        [written] = await task
        assert (await root.store.head("m")).size == written.size


@pytest.mark.parametrize("size", [9, 999])
async def test_a_file_that_the_store_refuses(size: int) -> None:
    failing = always("put" if size == 9 else "put_parts", "m-1", Fail(StoreError("full", path="m-1")))
    async with root_of(failing) as root:
        tensors = [whole("w", np.zeros(size))]
        with pytest.raises(StoreError, match="full"):
            await write_v1(root, [("m-0", tensors), ("m-1", tensors)])
        assert "m-1" not in [item.path for item in (await root.store.list()).objects]


async def test_an_upload_that_is_lost_is_made_again() -> None:
    tensors = [whole(name, array) for name, array in state().items()]
    lost = at("put_parts", "m", Fail(StoreError("lost", path="m", retryable=True)))
    async with root_of(lost) as root:
        [written] = await write_v1(root, [("m", tensors)])
        assert calls(root).count("put_parts") == 2
        assert written == entry("m", (await root.store.get("m")).data)


@pytest.mark.parametrize("scattered", [False, True])
@pytest.mark.parametrize("size", [0, 1, PART, PART + 1, 10 * PART, 12_345])
async def test_a_copy_is_the_same(size: int, scattered: bool) -> None:
    content = np.random.default_rng(size).bytes(size)
    async with root_of(scattered=scattered) as root:
        await root.store.put("m", b"what was there")
        await root.store.put("saves/m", content)
        await copy(root, entry("saves/m", content), "m")
        assert (await root.store.get("m")).data == (await root.store.get("saves/m")).data == content


DAMAGE: Mapping[str, tuple[Callable[[bytes], bytes], str]] = {
    "longer": (lambda content: content + b"x", r"has \d+ bytes, \d+ were written"),
    "shorter": (lambda content: content[:-1], r"has \d+ bytes, \d+ were written"),
    "first byte": (lambda content: b"!" + content[1:], r"\(crc32c differs\)"),
    "last byte": (lambda content: content[:-1] + b"!", r"\(crc32c differs\)"),
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("size", [PART, 5 * PART, 5 * PART + 1])
async def test_what_is_damaged_is_not_copied(size: int, damage: str) -> None:
    content = bytes(range(250)) * (size // 250) + b"\xff" * (size % 250)
    change, why = DAMAGE[damage]
    async with root_of() as root:
        await root.store.put("m", b"what was there")
        await root.store.put("saves/m", change(content))
        with pytest.raises(CheckpointCorruptError, match=f"{root.store.url}/saves/m.*{why}") as caught:
            await copy(root, entry("saves/m", content), "m")
        assert caught.value.path == "saves/m"
        assert (await root.store.get("m")).data == b"what was there"


async def test_what_is_not_there_is_not_copied() -> None:
    async with root_of() as root:
        with pytest.raises(ObjectNotFoundError):
            await copy(root, entry("saves/m", b"12345"), "m")
        assert not (await root.store.list()).objects


@pytest.mark.parametrize("size", [10, 5 * PART])
@pytest.mark.parametrize("operation", ["head", "get_into", "put", "put_parts"])
async def test_a_copy_that_fails_leaves_what_was_there(operation: str, size: int) -> None:
    fails = operation != ("put_parts" if size == 10 else "put")
    content = b"y" * size
    script = always(operation, "", Fail(StoreError("refused", path="m")))
    async with root_of() as root:
        await root.store.put("m", b"what was there")
        await root.store.put("saves/m", content)
        scripted(root).script = script
        if fails:
            with pytest.raises(StoreError, match="refused"):
                await copy(root, entry("saves/m", content), "m")
        else:
            await copy(root, entry("saves/m", content), "m")
        scripted(root).script = nothing
        assert (await root.store.get("m")).data == (b"what was there" if fails else content)


@pytest.mark.parametrize("operation", ["head", "get_into", "put_parts"])
async def test_a_copy_that_is_cancelled_leaves_what_was_there(operation: str) -> None:
    content = b"y" * 5 * PART
    async with root_of() as root:
        await root.store.put("m", b"what was there")
        await root.store.put("saves/m", content)
        task: asyncio.Task[None]
        scripted(root).script = at(operation, "", Cancel(lambda: task))
        task = asyncio.create_task(copy(root, entry("saves/m", content), "m"))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await root.store.get("m")).data == b"what was there"


async def test_a_copy_in_a_real_folder(local_root: Any) -> None:
    root = open_root(local_root.url, Naming(), memory_budget=4 * 2**20)
    try:
        tensors = [whole("w", np.arange(3 * 2**20, dtype=np.float64))]
        [written] = await write_v1(root, [("saves/1/m-3", tensors)])
        await copy(root, written, "m-3")
        assert (await root.store.get("m-3")).data == (await root.store.get("saves/1/m-3")).data
        assert written == entry("saves/1/m-3", (await root.store.get("m-3")).data)
    finally:
        await root.close()
