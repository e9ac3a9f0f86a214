"""Folders of safetensors files: those that the libraries wrote, and those that are not what they say."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from asyncsaver.errors import CheckpointNotFoundError, ManifestError
from asyncsaver.formats.huggingface import describe

from .foreign_folders import GOLDEN, check_tensors, described, expected, files, store_with

FOLDERS = sorted(path.name for path in (GOLDEN / "huggingface").iterdir() if path.is_dir())
ONE = save({"a": np.arange(3.0), "b": np.ones((2, 2), np.int16)}, metadata={"format": "pt", "by": "one"})
TWO = save({"c": np.zeros(4, np.uint8)}, metadata={"format": "pt", "by": "two"})


def index(weight_map: dict[str, str], **more: Any) -> bytes:
    return json.dumps({"weight_map": weight_map, **more}).encode()


def slices(offsets: dict[str, list[int]], **arrays: Any) -> bytes:
    info = {name: {"saved_offsets": offset} for name, offset in offsets.items()}
    return save(arrays, metadata={"DCP_SHARDING_INFO": json.dumps(info)})


def test_there_are_golden_checkpoints() -> None:
    assert FOLDERS == ["consolidated", "diffusion", "indexed-5", "single", "sliced"]


@pytest.mark.parametrize("name", FOLDERS)
async def test_every_tensor_is_what_torch_says(memory_root: Any, name: str) -> None:
    wanted = expected(f"huggingface/{name}")["tensors"]
    content = {f"runs/{name}/{path}": data for path, data in files(f"huggingface/{name}").items()}
    async with store_with(memory_root.url, content) as store:
        found = await described(describe, store, f"runs/{name}")
        await check_tensors(store, found, wanted, [])
    assert (found.format, found.name, found.step, found.tree) == (
        "huggingface",
        name,
        5 if name == "indexed-5" else None,
        None,
    )
    assert sum(file.size for file in found.files) == sum(len(content[file.path]) for file in found.files)


async def test_a_folder_may_be_the_root_and_a_file_may_be_named(memory_root: Any) -> None:
    async with store_with(memory_root.url, {"model.safetensors": ONE, "x/step-7.safetensors": TWO}) as store:
        assert (await described(describe, store, "")).tensors.keys() == {"a", "b"}
        named = await described(describe, store, "x/step-7.safetensors")
        assert (named.name, named.step, [file.path for file in named.files]) == ("step-7", 7, ["x/step-7.safetensors"])
        assert named.metadata == {"format": "pt", "by": "two"}


async def test_an_index_may_be_named_and_what_it_leaves_out_is_left_out(memory_root: Any) -> None:
    content = {
        "f/one.safetensors": ONE,
        "f/two.safetensors": TWO,
        "f/model.safetensors.index.json": index(
            {"a": "one.safetensors", "c": "two.safetensors"}, metadata={"total_size": 28}
        ),
    }
    async with store_with(memory_root.url, content) as store:
        for path in ("f", "f/", "f/model.safetensors.index.json"):
            found = await described(describe, store, path)
            assert found.tensors.keys() == {"a", "c"}
            assert found.metadata == {"format": "pt", "total_size": 28}  # "by" differs


async def test_without_an_index_all_files_count(memory_root: Any) -> None:
    async with store_with(
        memory_root.url, {"f/x.safetensors": ONE, "f/y.safetensors": TWO, "f/notes.txt": b"?"}
    ) as store:
        assert (await described(describe, store, "f")).tensors.keys() == {"a", "b", "c"}


async def test_nothing_there(memory_root: Any) -> None:
    async with store_with(memory_root.url, {"f/model.bin": b"x"}) as store:
        for path in ("f", "g", "g/model.safetensors"):
            with pytest.raises(CheckpointNotFoundError, match="no safetensors file"):
                await described(describe, store, path)


BAD: dict[str, tuple[dict[str, bytes], str]] = {
    "missing file": ({"model.safetensors.index.json": index({"a": "gone.safetensors"})}, "gone.safetensors is missing.* 'a'"),
    "missing tensor": (
        {"model.safetensors.index.json": index({"z": "one.safetensors"}), "one.safetensors": ONE},
        "tensor 'z' is not in f/one.safetensors",
    ),
    "outside": ({"model.safetensors.index.json": index({"a": "../model.safetensors"})}, "does not stay under the root"),
    "absolute": ({"model.safetensors.index.json": index({"a": "/etc/passwd"})}, "does not stay under the root"),
    "not JSON": ({"model.safetensors.index.json": b"{"}, "no index of safetensors files"),
    "no map": ({"model.safetensors.index.json": b'{"weight_map": [1]}'}, "no index of safetensors files"),
    "empty file": ({"model.safetensors": b""}, "0 bytes are too few"),
    "cut off": ({"model.safetensors": ONE[:-1]}, "the file has"),
    "longer": ({"model.safetensors": ONE + b"x"}, "the file has"),
    "twice": ({"x.safetensors": ONE, "y.safetensors": ONE}, "'a' is in f/x.safetensors and in f/y.safetensors"),
    "bad offsets": ({"model.safetensors": save({"a": np.ones(2)}, metadata={"DCP_SHARDING_INFO": "[]"})}, "is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
async def test_bad_folders(memory_root: Any, case: str) -> None:
    content, message = BAD[case]
    async with store_with(memory_root.url, {f"f/{path}": data for path, data in content.items()}) as store:
        with pytest.raises(ManifestError, match=message) as caught:
            await described(describe, store, "f")
        assert caught.value.path.startswith("f/")


SLICES: dict[str, tuple[list[bytes], str]] = {
    "hole": ([slices({"w": [0]}, w=np.ones(2)), slices({"w": [3]}, w=np.ones(2))], "hold 4 of its 5"),
    "only the end": ([slices({"w": [3]}, w=np.ones(2))], "hold 2 of its 5|outside"),
    "overlap": (
        [slices({"w": [0, 0]}, w=np.ones((2, 2))), slices({"w": [1, 0]}, w=np.ones((2, 2)))],
        "hold 8 of its 6",
    ),
    "other axes": ([slices({"w": [0, 0]}, w=np.ones(2))], "a slice of it begins at"),
    "negative": ([slices({"w": [-1]}, w=np.ones(2))], "a slice of it begins at"),
    "far": ([slices({"w": [2**62]}, w=np.ones(2))], "impossible shape"),
    "dtypes": ([slices({"w": [0]}, w=np.ones(2)), slices({"w": [2]}, w=np.ones(2, np.float32))], "several dtypes"),
}


@pytest.mark.parametrize("case", SLICES)
async def test_slices_that_are_no_tensor_hinder_no_other(memory_root: Any, case: str) -> None:
    shards, message = SLICES[case]
    content = {f"f/{number}.safetensors": data for number, data in enumerate(shards)} | {"f/z.safetensors": ONE}
    async with store_with(memory_root.url, content) as store:
        found = await described(describe, store, "f")
    assert found.unreadable.keys() == {"w"}
    assert len(found.tensors["a"].chunks) == 1
    assert found.tensors["w"].chunks == ()
    assert re.search(message, found.unreadable["w"])


async def test_slices_that_an_index_names_once_are_all_found(memory_root: Any) -> None:
    content = {
        "f/1.safetensors": slices({"w": [0]}, w=np.array([1.0, 2.0])),
        "f/2.safetensors": slices({"w": [2], "v": [0]}, w=np.array([3.0]), v=np.ones(1)),
        "f/model.safetensors.index.json": index({"w": "1.safetensors", "v": "2.safetensors"}),
    }
    async with store_with(memory_root.url, content) as store:
        found = await described(describe, store, "f")
    assert [(chunk.offset, chunk.shape, chunk.file) for chunk in found.tensors["w"].chunks] == [
        ((0,), (2,), 0),
        ((2,), (1,), 1),
    ]
    assert not found.unreadable
