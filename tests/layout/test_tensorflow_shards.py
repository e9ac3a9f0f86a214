"""One data file for each shard key, by the numbers of the list of TensorFlow's behaviours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from asyncsaver import Partitioned, Saver, SaveSpec, SliceInfo, Variable, open_checkpoint
from asyncsaver.formats.tensorflow.bundle import decode_index
from asyncsaver.layout import tensorflow_stage
from asyncsaver.model.shard_keys import device_of

from ..doubles.world import World  # noqa: TID252 - test folders have no name
from .tensorflow_eyes import in_memory, seen

GOLDEN = Path(__file__).parents[1] / "golden" / "tensorflow"
W = np.arange(6, dtype=np.float32).reshape(2, 3)
SLICE = SliceInfo((2, 3), (0, 0))


class Pair:
    """A saveable of two tensors, each with a key of its own."""

    name = "pair"

    def __init__(self, x: str, y: str) -> None:
        self.keys = {"pair/x": x, "pair/y": y}

    def specs(self) -> Sequence[SaveSpec]:
        return [SaveSpec(name, W, shard_key=key) for name, key in self.keys.items()]

    def restore(self, values: Sequence[Any], shapes: Sequence[tuple[int, ...]] | None) -> None:
        pytest.fail(f"{values} {shapes}")


def saver_at(url: Any, **arguments: Any) -> Saver:
    given = {"format": "tensorflow", "prefix": "m", "pad_step_number": False, "sharded": True, **arguments}
    return Saver(url, **given)


def files_in(folder: Path, prefix: str) -> dict[str, bytes]:
    """Index and data files of a checkpoint."""
    paths = [*folder.glob(f"{prefix}.index"), *folder.glob(f"{prefix}.data-*")]
    return {path.name: path.read_bytes() for path in paths}


def shards_in(url: str, prefix: str) -> list[list[str]]:
    """The names of the tensors in each data file of a checkpoint, as they stand there; all of it must be whole."""
    objects = in_memory(url)
    assert prefix in seen(objects)
    index = decode_index(objects[f"{prefix}.index"], prefix)
    files = [path for path in objects if path.startswith(f"{prefix}.data-")]
    assert len(files) == index.shards
    shards: list[list[str]] = [[] for _ in range(index.shards)]
    where = {name: entry for name, entry in index.entries.items() if not entry.slices}
    where |= {name: entry for (name, _), entry in index.slices.items()}  # the last one of each
    for name, entry in sorted(where.items(), key=lambda item: item[1].offset):
        shards[entry.shard].append(name)
    return shards


@pytest.mark.parametrize(
    ("folder", "name"),
    [("v2_sharded", "model.ckpt-12"), ("v2_sharded_onedevice", "model.ckpt"), ("kinds", "v2_sharded")],
)
async def test_items_029_and_031_and_032_the_same_files_as_those_of_tensorflow(
    folder: str, name: str, tmp_path: Path
) -> None:
    golden = files_in(GOLDEN / folder, name)
    index = decode_index(golden[f"{name}.index"], name)
    async with await open_checkpoint(GOLDEN / folder / name) as reader:
        # TensorFlow's key is the device. In any order: neither that, nor the one of the names, decides.
        variables = [
            Variable(tensor, await reader.read(tensor), shard_key=f"/job:ps/task:{index.entries[tensor].shard}")
            for tensor in reversed(list(reader.tensors))
        ]
    prefix, _, step = name.partition("-")
    async with saver_at(tmp_path, prefix=prefix, var_list=variables) as saver:
        await saver.save(step=int(step) if step else None)
    assert files_in(tmp_path, name) == golden


async def test_item_029_a_file_for_each_key_or_device_sorted_by_name() -> None:
    world = World()
    variables = {
        "z": Variable("v", W + 3, shard_key="b"),
        "a": Variable("v", W + 1, shard_key="b"),
        "m": Variable("v", W + 2, shard_key="a"),
        "k": W,
        "c": Variable("v", 5),
    }
    async with saver_at(world.url, var_list=variables) as saver:
        await saver.save(step=1)
        assert shards_in(world.url, "m-1") == [["m"], ["a", "z"], ["c", "k"]]
        variables["z"].shard_key = "a"
        pending = await saver.save_in_background(step=2)
        variables["z"].shard_key = "x"  # too late: that save has begun
        await pending
        assert shards_in(world.url, "m-2") == [["m", "z"], ["a"], ["c", "k"]]
        variables["z"].value = np.zeros_like(W)
        await saver.restore(step=1)
        assert np.array_equal(variables["z"].value, W + 3)
    async with saver_at(world.url, sharded=False, var_list=variables) as saver:
        await saver.save(step=3)
    assert len(shards_in(world.url, "m-3")) == 1


async def test_item_029_an_unbound_saver_has_a_file_for_each_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [device_of(value) for value in (W, 5, SimpleNamespace(device="gpu:1"))] == ["cpu", "cpu", "gpu:1"]
    world = World()
    state = {"a": np.ones(3), "b": np.zeros(3), "c": [np.ones(2), 5, "text"]}
    state["p"] = Partitioned.joined([np.ones(2), np.zeros(2)])
    elsewhere = {id(state["a"]), id(state["p"])}  # but a copy of them is not, which a save in the background writes
    monkeypatch.setattr(tensorflow_stage, "device_of", lambda value: "gpu:1" if id(value) in elsewhere else "cpu")
    async with saver_at(world.url) as saver:
        await saver.save(state, step=1)
        await (await saver.save_in_background(state, step=2))
        restored = await saver.restore(step=2)
    assert shards_in(world.url, "m-1") == shards_in(world.url, "m-2") == [["b", "c.0", "c.1", "c.2"], ["a", "p"]]
    assert restored["c"][1:] == [5, "text"]


async def test_item_029_a_file_that_would_grow_too_large_is_divided() -> None:
    world = World()
    variables = [Variable(name, W + 1, shard_key=key) for name, key in zip("abcd", "xxxy", strict=True)]
    async with saver_at(world.url, var_list=variables, shard_bytes=2 * W.nbytes) as saver:
        await saver.save(step=1)
    assert shards_in(world.url, "m-1") == [["a", "b"], ["c"], ["d"]]


async def test_item_030_a_saveable_on_several_devices_is_refused_before_anything_is_written() -> None:
    world = World()
    probe = json.loads((GOLDEN / "behaviours.json").read_text())["probes"]["graph.multi_device_saveable"]
    words = probe["sharded"]["message"].replace(": s", ": pair")
    with pytest.raises(ValueError, match=f"^{words}"):
        saver_at(world.url, var_list={"pair": Pair("a", "b")})
    pair = Pair("a", "a")
    async with saver_at(world.url, var_list={"pair": pair, "w": W}) as saver:
        await saver.save(step=1)
        pair.keys["pair/y"] = "b"
        before = in_memory(world.url)
        for save in (saver.save, saver.save_in_background):
            with pytest.raises(ValueError, match=f"^{words}"):
                await save(step=2)
        assert in_memory(world.url) == before
    async with saver_at(world.url, sharded=False, var_list={"pair": pair}) as saver:
        await saver.save(step=3)
    assert shards_in(world.url, "m-3") == [["pair/x", "pair/y"]]


async def test_item_031_slices_of_a_tensor_stay_in_its_shard() -> None:
    world = World()

    class Rows(Pair):
        def __init__(self, name: str, first: int, shard_key: str) -> None:
            self.name, self._first, self._key = name, first, shard_key

        def specs(self) -> Sequence[SaveSpec]:
            part = replace(SLICE, offset=(self._first, 0))
            return [SaveSpec("table", W[self._first : self._first + 1], part, shard_key=self._key)]

    variables = {"one": Rows("one", 0, "a"), "two": Rows("two", 1, "a"), "z": Variable("z", W, shard_key="b")}
    async with saver_at(world.url, var_list=variables) as saver:
        await saver.save(step=1)
    objects = in_memory(world.url)
    assert np.array_equal(seen(objects)["m-1"]["table"], W)
    assert [len(objects[f"m-1.data-0000{number}-of-00002"]) for number in (0, 1)] == [W.nbytes, W.nbytes]


async def test_an_empty_state_has_one_empty_file() -> None:
    world = World()
    async with saver_at(world.url) as saver:
        await saver.save({}, step=1)
        assert await saver.restore() == {}
    assert shards_in(world.url, "m-1") == [[]]
