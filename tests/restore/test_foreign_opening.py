"""Finding out what stands at a URL: which library's checkpoint, or none; with how many requests; and from plain code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from asyncsaver import (
    CheckpointNotFoundError,
    ManifestError,
    Saver,
    SaverClosedError,
    blocking,
    checkpoint_exists,
    open_checkpoint,
)
from asyncsaver.aio.meter import metered
from asyncsaver.restore.foreign import FORMATS
from asyncsaver.store.registry import open_store

from .foreign_goldens import FOLDER, GOLDENS, Golden

PREFIX = GOLDENS["tensorflow/v2_sharded/model.ckpt-12"]
V1 = GOLDENS["tensorflow/v1_single/model.ckpt-v1"]
INDEXED = GOLDENS["huggingface/indexed-5"]
RANKS = GOLDENS["dcp/ranks-20"]
ONE_OF_EACH = {"tensorflow": PREFIX, "huggingface": INDEXED, "dcp": RANKS}


def files_of(golden: Golden) -> dict[str, bytes]:
    """By what comes behind the last part of its path: in a folder ``/name``, of a prefix ``.index``."""
    if (folder := FOLDER / golden.path).is_dir():
        return {
            f"/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }
    name = golden.path.rpartition("/")[2]
    return {
        path.name.removeprefix(name): path.read_bytes()
        for path in (FOLDER / golden.folder).glob(f"{name}*")
        if path.suffix != ".json"
    }


async def put(root: Any, name: str, golden: Golden) -> None:
    """Write a checkpoint under another name."""
    async with open_store(root.url) as store:
        for end, data in files_of(golden).items():
            await store.put(name + end, data)


# --- which it is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wanted", FORMATS)
@pytest.mark.parametrize("there", FORMATS)
async def test_a_format_that_was_named(nearby_root: Any, wanted: str, there: str) -> None:
    golden = ONE_OF_EACH[there]
    await golden.put(nearby_root)
    if wanted == there:
        async with await golden.open(nearby_root, format=wanted) as reader:
            assert {*reader.tensors} == {*golden.tensors}
            assert reader.checkpoint.step == int(golden.path.rpartition("-")[2])
            assert reader.checkpoint.created.year > 2000
    else:
        with pytest.raises(CheckpointNotFoundError, match=nearby_root.url):
            await golden.open(nearby_root, format=wanted)
    with pytest.raises(CheckpointNotFoundError, match="is not a committed checkpoint"):
        await golden.open(nearby_root, format="native")


async def test_ours_goes_first_then_tensorflow_then_dcp(memory_root: Any) -> None:
    root, url = memory_root, f"{memory_root.url}/m-1"

    async def tensors() -> set[str]:
        async with await open_checkpoint(url) as reader:
            return {*reader.tensors}

    await put(root, "m-1", INDEXED)
    assert await tensors() == {*INDEXED.tensors}
    await put(root, "m-1", RANKS)
    assert await tensors() == {*RANKS.tensors}
    await put(root, "m-1", PREFIX)
    assert await tensors() == {*PREFIX.tensors}
    async with Saver(root.url, prefix="m", pad_step_number=False) as saver:
        await saver.save({"ours": np.zeros(2)}, step=1)
    assert await tensors() == {"ours"}
    for format, golden in ONE_OF_EACH.items():  # noqa: A001 - as the argument is called
        async with await open_checkpoint(url, format=format) as reader:
            assert {*reader.tensors} == {*golden.tensors}


async def test_what_was_deleted_is_not_what_stands_beside_it(memory_root: Any) -> None:
    async with Saver(memory_root.url, prefix="m", pad_step_number=False) as saver:
        await saver.save({"ours": np.zeros(2)}, step=1)
        await saver.delete(1)
    await put(memory_root, "m-1", PREFIX)
    with pytest.raises(CheckpointNotFoundError, match="was deleted"):
        await open_checkpoint(f"{memory_root.url}/m-1")
    assert not await checkpoint_exists(f"{memory_root.url}/m-1")
    async with await open_checkpoint(f"{memory_root.url}/m-1", format="tensorflow") as reader:
        assert {*reader.tensors} == {*PREFIX.tensors}


@pytest.mark.parametrize("path", ["run", "run/ckpt-9", "run/model.safetensors", "run/x-?????-of-00002", "other"])
async def test_nothing_there(nearby_root: Any, path: str) -> None:
    async with open_store(nearby_root.url) as store:
        await store.put("run/notes.txt", b"?")
        await store.put("run/ckpt-9.data-00000-of-00001", b"?")
    assert not await checkpoint_exists(f"{nearby_root.url}/{path}")
    for format in ("auto", *FORMATS):  # noqa: A001 - as above
        with pytest.raises(CheckpointNotFoundError) as caught:
            await open_checkpoint(f"{nearby_root.url}/{path}", format=format)
        assert f"{nearby_root.url}/{path}" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"x" * 7, b"x" * 100, save({"a": np.zeros(2)})], ids=len)
async def test_other_files_are_no_checkpoints(nearby_root: Any, content: bytes) -> None:
    async with open_store(nearby_root.url) as store:
        await store.put("file", content)
    with pytest.raises(CheckpointNotFoundError, match="is no"):
        await open_checkpoint(f"{nearby_root.url}/file")
    with pytest.raises(ManifestError, match=f"{nearby_root.url}/file"):
        await open_checkpoint(f"{nearby_root.url}/file", format="tensorflow")


@pytest.mark.parametrize("golden", [PREFIX, V1, INDEXED, RANKS], ids=str)
@pytest.mark.parametrize(
    "name",
    ["model.ckpt-1", "two words", "what?", "a=b&c", "50%", "#1", "naïve-模型", "[0]*", "+plus", "x" * 120, "ckpt"],
)
async def test_odd_names(nearby_root: Any, golden: Golden, name: str) -> None:
    for path in (name, f"in {name}/{name}"):
        await put(nearby_root, path, golden)
        assert await checkpoint_exists(f"{nearby_root.url}/{path}")
        async with await open_checkpoint(f"{nearby_root.url}/{path}") as reader:
            assert reader.checkpoint.name == name
            assert reader.checkpoint.url == f"{nearby_root.url}/{path}"
            for tensor in [*golden.tensors][-3:]:
                golden.check(tensor, await reader.read(tensor))


async def test_the_pattern_of_a_sharded_v1_checkpoint(nearby_root: Any) -> None:
    first, second = (GOLDENS[f"tensorflow/extra/{name}-v1"] for name in ("dtypes", "sliced"))
    for number, golden in enumerate((first, second)):
        await put(nearby_root, f"m-7-{number:05d}-of-00002", golden)
    url = f"{nearby_root.url}/m-7-?????-of-00002"
    assert await checkpoint_exists(url)
    async with await open_checkpoint(url) as reader:
        assert reader.checkpoint.step == 7
        assert {*reader.tensors} == first.tensors.keys() | second.tensors.keys()
        for golden in (first, second):
            for name in golden.tensors:
                golden.check(name, await reader.read(name))
    async with open_store(nearby_root.url) as store:
        await store.delete(["m-7-00001-of-00002"])
    with pytest.raises(ManifestError, match="1 of its files are missing, m-7-00001-of-00002 first"):
        await open_checkpoint(url)


async def test_a_checkpoint_in_a_root_of_ours_is_left_alone(memory_root: Any) -> None:
    root = memory_root
    for name, golden in (("ckpt-1", PREFIX), ("ckpt-00000002", INDEXED), ("ckpt-3", RANKS)):
        await put(root, name, golden)
    async with open_store(root.url) as store:
        before = {info.path for info in (await store.list()).objects}
        async with Saver(root.url, max_to_keep=1) as saver:
            for step in range(10, 13):
                await saver.save({"x": np.zeros(3)}, step=step)
            await saver.prune()
            await saver.sweep(grace=0)
            assert [one.step for one in await saver.checkpoints()] == [12]
        assert before <= {info.path for info in (await store.list()).objects}
    for name, golden in (("ckpt-1", PREFIX), ("ckpt-00000002", INDEXED), ("ckpt-3", RANKS)):
        async with await open_checkpoint(f"{root.url}/{name}") as reader:
            assert {*reader.tensors} == {*golden.tensors}


async def test_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.safetensors").write_bytes(save({"a": np.arange(3.0)}))
    monkeypatch.chdir(tmp_path)
    assert await checkpoint_exists("one.safetensors")


# --- what it takes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "format", "requests"),
    [
        # Is it ours, what stands beside it, the data files, the index.
        ("tensorflow/v2_sharded/model.ckpt-12", "auto", {"list": 3, "get": 1}),
        # The data files, the index, and when they were made.
        ("tensorflow/v2_sharded/model.ckpt-12", "tensorflow", {"list": 2, "get": 1}),
        # Of the file: its last eight bytes tell what it is, its end where the blocks are, its first block what is in them.
        ("tensorflow/v1_single/model.ckpt-v1", "auto", {"list": 3, "get_range": 3}),
        # What stands in it, besides; the index, and a header for each file.
        ("huggingface/indexed-5", "auto", {"list": 4, "get_range": 3}),
        ("huggingface/indexed-5", "huggingface", {"list": 2, "get_range": 3}),
    ],
)
async def test_requests_to_open(memory_root: Any, path: str, format: str, requests: dict[str, int]) -> None:  # noqa: A002
    golden = GOLDENS[path]
    await golden.put(memory_root)
    with metered() as meter:
        reader = await golden.open(memory_root, format=format)
        await reader.close()
    assert dict(meter.requests) == requests


# --- from plain code ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("golden", [PREFIX, V1, INDEXED, RANKS], ids=str)
def test_blocking(tmp_path: Path, golden: Golden) -> None:
    for end, data in files_of(golden).items():
        path = Path(f"{tmp_path}/m-3{end}")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    with blocking.open_checkpoint(tmp_path / "m-3") as reader:
        assert {*reader.tensors} == {*golden.tensors}
        assert dict(reader.unreadable) == {}
        assert reader.checkpoint.step == 3
        for name in golden.tensors:
            golden.check(name, reader.read(name))
        assert reader.verify().tensors == len(golden.tensors)
    reader.close()
    with pytest.raises(SaverClosedError, match="the reader is closed"):
        reader.restore()
    with pytest.raises(CheckpointNotFoundError):
        blocking.open_checkpoint(tmp_path / "m-4")


def test_blocking_verify_of_ours(tmp_path: Path) -> None:
    with blocking.Saver(tmp_path) as saver:
        saver.save({"x": np.zeros(3)}, step=1)
        with saver.open(1) as reader:
            assert reader.verify().tensors == 1
            assert str(reader.tensors["x"]) == "float64[3]"
            assert dict(reader.unreadable) == {}
        assert saver.verify().tensors == 1  # closing the reader has not closed the saver


# --- what is not installed ---------------------------------------------------------------------------------------


def forget(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Have packages missing, for what imports them from now on."""
    for name in [name for name in sys.modules if name.startswith("asyncsaver.formats.tensorflow")]:
        monkeypatch.delitem(sys.modules, name)
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


async def test_without_protobuf(memory_root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for golden in (PREFIX, V1, INDEXED, RANKS):
        await golden.put(memory_root)
    forget(monkeypatch, "google.protobuf")
    for golden in (PREFIX, V1):
        with pytest.raises(
            ImportError, match=r"need protobuf, which is not installed: pip install 'asyncsaver\[tensorflow\]'"
        ):
            await golden.open(memory_root)
        with pytest.raises(ImportError, match="need protobuf"):
            await checkpoint_exists(f"{memory_root.url}/{golden.path}")
    for golden in (INDEXED, RANKS):
        async with await golden.open(memory_root) as reader:
            assert {*reader.tensors} == {*golden.tensors}


async def test_without_cramjam(memory_root: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    snappy = GOLDENS["tensorflow/derived/snappy"]
    for golden in (PREFIX, snappy):
        await golden.put(memory_root)
    forget(monkeypatch, "cramjam")
    with pytest.raises(ImportError, match=r"needs cramjam: pip install 'asyncsaver\[tensorflow\]'"):
        await snappy.open(memory_root)
    async with await PREFIX.open(memory_root) as reader:
        assert {*reader.tensors} == {*PREFIX.tensors}
