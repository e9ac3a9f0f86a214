"""Damage in other libraries' checkpoints, as a user meets it: what is whole is read, and what is not is named.

Items 103, 115 and 116 of TensorFlow's behaviours.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from asyncsaver import (
    CheckpointCorruptError,
    CheckpointNotFoundError,
    CheckpointReader,
    ManifestError,
    UnreadableTensorError,
    checkpoint_exists,
)
from asyncsaver.store.registry import open_store

from .foreign_goldens import FOLDER, GOLDENS, Golden, blank

CASES: dict[str, Any] = json.loads((FOLDER / "tensorflow/damaged/golden.json").read_text())["damage"]
WHOLE = GOLDENS["tensorflow/damaged/good/m"]
DATA = "m.data-00000-of-00001"


def golden_of(case: str) -> Golden:
    folder = f"tensorflow/damaged/{case}"
    return Golden(f"{folder}/m", folder, WHOLE.tensors)


@pytest.mark.parametrize("case", [case for case, said in CASES.items() if "error" in said["list"]])
async def test_what_tensorflow_does_not_open(nearby_root: Any, case: str) -> None:
    golden = golden_of(case)
    await golden.put(nearby_root)
    for format in ("auto", "tensorflow"):  # noqa: A001 - as the argument is called
        if CASES[case]["exists"]:
            with pytest.raises(ManifestError, match=rf"{nearby_root.url}/{golden.path}\.index[:,]") as caught:
                await golden.open(nearby_root, format=format)
            assert caught.value.path == "m.index"
        else:
            with pytest.raises(CheckpointNotFoundError, match="m is no"):
                await golden.open(nearby_root, format=format)


@pytest.mark.parametrize("case", [case for case, said in CASES.items() if "error" not in said["list"]])
async def test_only_what_is_touched_fails(nearby_root: Any, case: str) -> None:
    golden, said = golden_of(case), CASES[case]
    await golden.put(nearby_root)
    damaged = {name for name in golden.tensors if said[f"reader {name}"] != "ok"}
    assert damaged or case == "index_flip_footer_padding"
    assert await checkpoint_exists(f"{nearby_root.url}/{golden.path}")
    async with await golden.open(nearby_root) as reader:
        assert list(reader.tensors) == said["list"]
        for name in golden.tensors.keys() - damaged:
            golden.check(name, await reader.read(name))
        state = await reader.restore(select=lambda name: name not in damaged) if len(damaged) < 4 else {}
        for name, array in state.items():
            golden.check(name, array)
        for name in damaged:
            await check_refused(reader, name, case)
        if not damaged:
            assert (await reader.verify()).tensors == len(golden.tensors)
            return
        with pytest.raises(CheckpointCorruptError, match="is damaged in") as caught:
            await reader.verify()
        assert {*caught.value.tensors} == damaged
        assert DATA in str(caught.value)


async def check_refused(reader: CheckpointReader, name: str, case: str) -> None:
    """It cannot be read in any way; the error names file, place and tensor; and no target is touched."""
    errors = []
    with pytest.raises(CheckpointCorruptError) as caught:
        await reader.read(name)
    errors.append(caught.value)
    target = {one: blank(reader, one) for one in reader.tensors}
    before = {one: array.copy() for one, array in target.items()}
    for arguments in ({"select": name}, {"target": target}):
        with pytest.raises(CheckpointCorruptError) as caught:
            await reader.restore(**arguments)  # type: ignore[arg-type]
        errors.append(caught.value)
    for one, array in target.items():
        np.testing.assert_array_equal(array, before[one])
    for error in errors[:2]:
        assert error.tensors == (name,)
    for error in errors:
        assert DATA in str(error)
        assert repr(name) in str(error) or name in error.tensors
        assert "bytes " in str(error) or case == "data_missing"
        assert error.overwritten == ()


async def test_a_missing_data_file_is_an_error_of_its_own(memory_root: Any) -> None:
    golden = golden_of("data_missing")
    await golden.put(memory_root)
    async with await golden.open(memory_root) as reader:
        assert {*reader.unreadable} == {*golden.tensors}
        with pytest.raises(UnreadableTensorError, match=rf"{DATA} is missing"):
            await reader.read("a/f32")


@pytest.mark.parametrize(
    "path", ["tensorflow/v2_single/model.ckpt", "dcp/files", "huggingface/single", "tensorflow/v1_single/model.ckpt-v1"]
)
@pytest.mark.parametrize("damage", ["gone", "cut"])
async def test_a_file_that_goes_while_the_checkpoint_is_open(memory_root: Any, path: str, damage: str) -> None:
    golden = GOLDENS[path]
    await golden.put(memory_root)
    async with await golden.open(memory_root) as reader, open_store(memory_root.url) as store:
        name = next(name for name, info in reader.tensors.items() if 0 not in info.shape)
        folder = golden.path.rpartition("/")[0]
        for file in reader.source.files:
            if damage == "gone":
                await store.delete([f"{folder}/{file.path}"])
            else:
                await store.put(f"{folder}/{file.path}", b"x")
        with pytest.raises(CheckpointCorruptError, match=r"bytes [0-9]+ to [0-9]+: .*; in it: ") as caught:
            await reader.read(name)
        assert name in caught.value.tensors
        assert caught.value.path in {file.path for file in reader.source.files}
        target = {one: blank(reader, one) for one in reader.tensors}
        before = {one: array.copy() for one, array in target.items()}
        with pytest.raises(CheckpointCorruptError):
            await reader.restore(target, strict=False)
        for one, array in target.items():
            assert array.tobytes() == before[one].tobytes()
        with pytest.raises(CheckpointCorruptError, match="is damaged in"):
            await reader.verify()


@pytest.mark.parametrize(
    "path", ["tensorflow/v2_partitioned/model.ckpt", "tensorflow/extra/sliced", "tensorflow/derived/big_endian"]
)
async def test_every_byte_of_tensorflows_data_is_watched(memory_root: Any, path: str) -> None:
    """One flipped bit: verify finds it, names the one tensor, and all others are read."""
    golden = GOLDENS[path]
    await golden.put(memory_root)
    folder = golden.path.rpartition("/")[0]
    async with open_store(memory_root.url) as store, await golden.open(memory_root) as reader:
        [file] = reader.source.files
        whole = (await store.get(f"{folder}/{file.path}")).data
        for position in range(0, len(whole), len(whole) // 25 + 1):
            data = bytearray(whole)
            data[position] ^= 1 << position % 8
            await store.put(f"{folder}/{file.path}", data)
            with pytest.raises(CheckpointCorruptError, match=r"checksum|crc32c|strings") as caught:
                await reader.verify()
            [name] = {*caught.value.tensors}
            for one in golden.tensors.keys() - {name}:
                golden.check(one, await reader.read(one))
