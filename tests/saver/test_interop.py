"""The folder of a save is a sharded safetensors checkpoint that others read without us."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from asyncsaver import Checkpoint

from .place import Place
from .states import every_dtype

CODES = {
    "float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "uint16": "U16", "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "complex64": "C64",
}  # fmt: skip
SIMPLE = {
    "model": {
        "weight": np.arange(600, dtype=np.float32).reshape(20, 30),
        "bias": np.arange(7, dtype=np.float64)[::-1],
        "ids": np.arange(300, dtype=">i8"),
        "mask": np.array([True, False]),
        "empty": np.empty((0, 3), np.float16),
        "scalar": np.array(2, np.int32),
    },
    "step": 3,
}


async def saved(local: Place, state: Any, **arguments: Any) -> tuple[Checkpoint, Path]:
    """Save, and give the folder that the save wrote."""
    async with local.saver(**arguments) as saver:
        checkpoint = await saver.save(state, step=1)
    return checkpoint, Path(local.url) / checkpoint.name / checkpoint.save_id


def read_header(shard: Path) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file, by its specification alone."""
    content = shard.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


async def test_safetensors_loads_every_shard(local: Place) -> None:
    _, folder = await saved(local, SIMPLE, shard_bytes=1000)
    shards = sorted(folder.glob("*.safetensors"))
    assert len(shards) > 2
    loaded: dict[str, Any] = {}
    for shard in shards:
        loaded |= safetensors.numpy.load_file(shard)
    assert loaded.keys() == {f"model.{name}" for name in SIMPLE["model"]}  # type: ignore[attr-defined]
    for name, array in SIMPLE["model"].items():  # type: ignore[attr-defined]
        np.testing.assert_array_equal(loaded[f"model.{name}"], array)
        assert loaded[f"model.{name}"].dtype == array.dtype.newbyteorder("=")


async def test_safe_open_reads_names_slices_and_metadata(local: Place) -> None:
    _, folder = await saved(local, SIMPLE)
    with safetensors.safe_open(folder / "model-00001-of-00001.safetensors", framework="numpy") as file:
        assert set(file.keys()) == {f"model.{name}" for name in SIMPLE["model"]}  # type: ignore[attr-defined]
        assert file.metadata() == {"format": "pt"}  # transformers refuses files without
        piece = file.get_slice("model.weight")[3:5, 10:]
    np.testing.assert_array_equal(piece, SIMPLE["model"]["weight"][3:5, 10:])  # type: ignore[index]


async def test_the_index_maps_every_tensor_to_the_file_that_holds_it(local: Place) -> None:
    checkpoint, folder = await saved(local, SIMPLE, shard_bytes=1000)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    held = {
        name: shard.name
        for shard in folder.glob("*.safetensors")
        for name in read_header(shard)[0]
        if name != "__metadata__"
    }
    assert index["weight_map"] == held
    assert index["metadata"]["total_size"] == sum(array.nbytes for array in SIMPLE["model"].values())  # type: ignore[attr-defined]
    count = len(set(held.values()))
    assert sorted(set(held.values())) == [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    assert checkpoint.total_bytes == sum(shard.stat().st_size for shard in folder.glob("*.safetensors"))


async def test_bytes_and_dtypes_of_every_tensor_by_the_specification(local: Place) -> None:
    arrays = every_dtype(np.random.default_rng(0))
    _, folder = await saved(local, arrays)
    header, data = read_header(folder / "model-00001-of-00001.safetensors")
    assert (len((folder / "model-00001-of-00001.safetensors").read_bytes()) - len(data)) % 8 == 0
    end = 0
    for name, entry in sorted(
        ((name, entry) for name, entry in header.items() if name != "__metadata__"),
        key=lambda item: item[1]["data_offsets"],
    ):
        array = arrays[name]
        start, stop = entry["data_offsets"]
        assert start == end  # no gaps
        end = stop
        assert data[start:stop] == array.astype(array.dtype.newbyteorder("<")).tobytes()
        if name in CODES:
            assert (entry["dtype"], entry["shape"]) == (CODES[name], list(array.shape))
    assert end == len(data)
    # Whatever it cannot name, it can still open.
    with safetensors.safe_open(folder / "model-00001-of-00001.safetensors", framework="numpy") as file:
        assert set(file.keys()) == set(arrays)


async def test_bfloat16_by_the_bytes(local: Place) -> None:
    array = np.arange(64).astype(ml_dtypes.bfloat16).reshape(8, 8)
    _, folder = await saved(local, {"w": array})
    header, data = read_header(folder / "model-00001-of-00001.safetensors")
    start, stop = header["w"]["data_offsets"]
    np.testing.assert_array_equal(np.frombuffer(data[start:stop], ml_dtypes.bfloat16).reshape(8, 8), array)


async def test_a_state_without_tensors_has_no_shards_and_no_index(local: Place) -> None:
    checkpoint, folder = await saved(local, {"step": 5, "name": "run"})
    assert [path.name for path in folder.iterdir()] == ["part-00000.json"]
    assert checkpoint.total_bytes == 0


@pytest.mark.parametrize("name", ["plain", "with space", "日本", 'quote"s\\and/slashes', "new\nline"])
async def test_names_survive(local: Place, name: str) -> None:
    _, folder = await saved(local, {name: np.arange(3)})
    loaded = safetensors.numpy.load_file(folder / "model-00001-of-00001.safetensors")
    np.testing.assert_array_equal(loaded[name], np.arange(3))
