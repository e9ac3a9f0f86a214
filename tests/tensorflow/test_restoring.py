"""Items 105 to 118 of TensorFlow's behaviours: restoring, from each format.

Of damage (115 to 117) there is more in ``tests/restore/test_foreign_damage.py`` and ``tests/formats/tensorflow``, where every
damaged golden file and crafted indices are read.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncsaver import (
    AccessDeniedError,
    CheckpointCorruptError,
    CheckpointNotFoundError,
    InvalidSavePathError,
    ManifestError,
    Saver,
    StructureMismatchError,
    UnreadableTensorError,
)
from asyncsaver.formats.tensorflow.bundle import Entry, Index, data_path, encode_index, index_path
from asyncsaver.formats.tensorflow.checksum import crc32c
from asyncsaver.formats.tensorflow.dtypes import NUMBERS
from asyncsaver.store.registry import open_store
from asyncsaver.testing import FaultyStore, faults
from asyncsaver_backends.memory import MemoryStore

from .golden import PROBES
from .restoring import FORMATS, STATE, TENSORFLOW, put, put_files, restore, same, target, untouched

every_format = pytest.mark.parametrize("kind", FORMATS)


# --- 105 to 110: what fits ---------------------------------------------------------------------------------------


@every_format
async def test_item_105_missing_names_are_all_listed_and_nothing_is_assigned(memory_root: Any, kind: str) -> None:
    path = await put(memory_root.url, kind)
    goal = target(zz=np.full(1, 77.0), yy=np.full(3, 77))
    with pytest.raises(StructureMismatchError, match="2 missing, only in the target:\n  zz\n  yy") as caught:
        await restore(path, goal)
    assert caught.value.missing == ("zz", "yy")
    assert any(path.removesuffix("/") in note for note in caught.value.__notes__)  # which checkpoint it was
    assert untouched(goal)
    many = target(**{f"new{number}": np.full(1, 77) for number in range(100)})
    with pytest.raises(StructureMismatchError, match="100 missing, only in the target") as caught:
        await restore(path, many)
    assert set(caught.value.missing) == {f"new{number}" for number in range(100)}
    assert untouched(many)


@every_format
async def test_item_106_extra_tensors_are_ignored(memory_root: Any, kind: str) -> None:
    """By a selection, as a saver with variables makes it; else they are an error, which `strict` turns off."""
    path = await put(memory_root.url, kind)
    goal = target(b=None, s=None)
    wanted = {name: STATE[name] for name in goal}
    with pytest.raises(StructureMismatchError) as caught:
        await restore(path, goal)
    assert caught.value.unexpected == ("b", "s")
    assert untouched(goal)
    assert same(await restore(path, goal, select=lambda name: name in goal), wanted)
    assert same(goal, wanted)
    assert same(await restore(path, target(b=None, s=None), strict=False), wanted)
    goal = target(b=None, s=None)
    async with Saver("memory://elsewhere/run", var_list=goal) as saver:
        await saver.restore(save_path=path)
    assert same(goal, wanted)


@every_format
async def test_item_107_everything_is_checked_before_anything_is_assigned(memory_root: Any, kind: str) -> None:
    """TensorFlow assigns those that fit."""
    assert PROBES["restore.ref.shape_mismatch"]["after"]["b"] == [5.0]
    path = await put(memory_root.url, kind)
    goal = target(a=np.full(2, 77, np.float32), c=np.full(6, 77, np.int32))
    with pytest.raises(StructureMismatchError, match="2 mismatched") as caught:
        await restore(path, goal)
    assert [line.partition(":")[0] for line in caught.value.mismatched] == ["a", "c"]
    assert "float32[4] in the checkpoint, float32[2] in the target" in str(caught.value)
    assert untouched(goal)


@every_format
async def test_item_108_reshape_takes_as_many_elements(memory_root: Any, kind: str) -> None:
    path = await put(memory_root.url, kind)
    goal = target(a=np.full((2, 2), 77, np.float32), c=np.full((3, 1, 2), 77, np.int32))
    with pytest.raises(StructureMismatchError, match="reshape=True would reshape it"):
        await restore(path, goal)
    assert untouched(goal)
    await restore(path, goal, reshape=True)
    assert goal["a"].tolist() == PROBES["restore.ref.reshape_true_ok"]["after"]["a"]
    assert goal["c"].tolist() == [[[0, 1]], [[2, 3]], [[4, 5]]]
    wrong = target(a=np.full((2, 3), 77, np.float32))
    with pytest.raises(
        StructureMismatchError, match=r"a: float32\[4\] in the checkpoint, float32\[2, 3\] in the target\n"
    ):
        await restore(path, wrong, reshape=True)
    assert untouched(wrong)


@every_format
async def test_item_109_a_scalar_is_no_vector(memory_root: Any, kind: str) -> None:
    path = await put(memory_root.url, kind)
    for changed in ({"s": np.full(1, 77, np.float32)}, {"b": np.full((), 77, np.float32)}):
        goal = target(**changed)
        with pytest.raises(StructureMismatchError, match="1 mismatched"):
            await restore(path, goal)
        assert untouched(goal)
        await restore(path, goal, reshape=True)
        assert (goal["s"].item(), goal["b"].item()) == (1.5, 5.0)


@every_format
async def test_item_110_another_dtype_is_an_error(memory_root: Any, kind: str) -> None:
    path = await put(memory_root.url, kind)
    for dtype in ("int32", "float64", "float16"):
        goal = target(a=np.full(4, 77, dtype))
        with pytest.raises(StructureMismatchError, match=rf"a: float32\[4\] in the checkpoint, {dtype}\[4\]"):
            await restore(path, goal)
        assert untouched(goal)
    goal = target(a=np.full(4, 77, "f8"), c=np.full((2, 3), 77, "i8"))
    await restore(path, goal, dtype="target")
    assert (goal["a"].tolist(), goal["c"].tolist()) == ([1, 2, 3, 4], [[0, 1, 2], [3, 4, 5]])
    for changed in ({"a": np.full(4, 77, "i4")}, {"c": np.full((2, 3), 77, "u1")}):  # a cast that loses
        goal = target(**changed)
        with pytest.raises(StructureMismatchError, match="1 mismatched"):
            await restore(path, goal, dtype="target")
        assert untouched(goal)


# --- 111 to 114: what is restored --------------------------------------------------------------------------------


async def test_item_111_restoring_changes_nothing(memory_root: Any) -> None:
    url = memory_root.url
    await put_files(url, "v2")
    async with Saver(url, max_to_keep=1) as saver:
        old = await saver.save(STATE, step=1, pin=True)
        await saver.save(STATE, step=2)
        before = await saver.checkpoints()
        async with open_store(url) as store:
            files = {(item.path, item.etag) for item in (await store.list()).objects}
            await saver.restore(step=1)
            for path in (old, old.url, f"{url}/v2"):
                await saver.restore(save_path=path)
            assert {(item.path, item.etag) for item in (await store.list()).objects} == files
        assert await saver.checkpoints() == before


@pytest.mark.parametrize("pair", PROBES["restore.cross_format"])
async def test_item_112_a_saver_of_each_kind_restores_each_kind(memory_root: Any, pair: str) -> None:
    """All 16."""
    written, kind = pair.split(" -> ")
    path = await put(memory_root.url, written)
    version, _, sharded = kind.partition("_")
    goal = target()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # V1 is
        saver = Saver("memory://elsewhere/run", format="tensorflow", write_version=version, sharded=bool(sharded))
    async with saver:
        assert same(await saver.restore(goal, save_path=path), STATE)
        assert same(await saver.restore(save_path=path), STATE)
    assert same(goal, STATE)


def test_item_112_there_are_16_pairs() -> None:
    pairs = PROBES["restore.cross_format"]
    assert {*pairs} == {f"{one} -> {other}" for one in TENSORFLOW for other in TENSORFLOW}
    assert {*pairs.values()} == {"ok"}


async def test_item_114_slices_that_leave_holes(memory_root: Any) -> None:
    """The tensor is refused, and no other."""
    data = np.arange(6, dtype="<f4").tobytes()
    number, checksum = NUMBERS["float32"], crc32c(data[:8])
    pieces = (((0, 2),), ((4, 2),))
    index = Index(
        1,
        {
            "holes": Entry(number, (6,), slices=pieces),
            "whole": Entry(number, (2,), 0, 0, 8, checksum),
        },
        {("holes", piece): Entry(number, (2,), 0, 0, 8, checksum) for piece in pieces},
    )
    async with open_store(memory_root.url) as store:
        await store.put(index_path("m"), encode_index(index))
        await store.put(data_path("m", 0, 1), data)
    goal = {"holes": np.full(6, 77, np.float32), "whole": np.full(2, 77, np.float32)}
    with pytest.raises(UnreadableTensorError, match=r"m\.index: tensor 'holes': chunks hold 4 of its 6") as caught:
        await restore(f"{memory_root.url}/m", goal)
    assert caught.value.tensors == ("holes",)
    assert untouched(goal)
    assert (await restore(f"{memory_root.url}/m", select="whole"))["whole"].tolist() == [0, 1]


# --- 115 to 118: what goes wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["v2", "v2_sharded", "v1", "v1_sharded", "native"])
async def test_item_115_only_the_tensor_that_is_touched_fails(memory_root: Any, kind: str) -> None:
    path = await put(memory_root.url, kind)
    async with open_store(memory_root.url) as store:
        name, data = await file_with(store, kind, STATE["a"].tobytes())
        await store.put(name, data.replace(STATE["a"].tobytes(), STATE["a"].tobytes()[:-1] + b"\1"))
    goal = target()
    with pytest.raises(CheckpointCorruptError, match=name.rpartition("/")[2]) as caught:
        await restore(path, goal)
    assert untouched(goal)
    if kind.startswith("v1"):  # so small that the list of its tensors is in the same block
        assert isinstance(caught.value, ManifestError)
        return
    assert caught.value.tensors == ("a",)
    others = [name for name in STATE if name != "a"]
    assert same(await restore(path, select=others), {name: STATE[name] for name in others})


async def file_with(store: Any, kind: str, content: bytes) -> tuple[str, bytes]:
    """The file of a checkpoint that holds these bytes."""
    for item in (await store.list()).objects:
        data = bytes((await store.get(item.path)).data)
        if content in data:
            return item.path, data
    raise AssertionError(kind)


@pytest.mark.parametrize("kind", ["v2", "v2_sharded", "v1", "v1_sharded", "native"])
async def test_item_116_a_missing_data_file_is_an_error_of_its_own(memory_root: Any, kind: str) -> None:
    """Of a kind that means damage: no missing name, which would be looked for elsewhere, and no missing checkpoint."""
    path = await put(memory_root.url, kind)
    async with open_store(memory_root.url) as store:
        name, _ = await file_with(store, kind, STATE["a"].tobytes())
        await store.delete([name])
    goal = target()
    if kind == "v1":  # the file is the checkpoint
        with pytest.raises(InvalidSavePathError):
            await restore(path, goal)
        return
    with pytest.raises(CheckpointCorruptError, match="missing") as caught:
        await restore(path, goal)
    assert name.rpartition("/")[2] in str(caught.value)
    assert not isinstance(caught.value, (StructureMismatchError, CheckpointNotFoundError))
    assert untouched(goal)


async def test_item_117_an_index_that_claims_the_impossible(memory_root: Any) -> None:
    """TensorFlow ends the process."""
    number = NUMBERS["float32"]
    good = np.arange(2, dtype="<f4").tobytes()
    shapes = [(-1, 6), (2**62, 2**62), (2**40,), (1,) * 300]
    entries = {f"x{place}": Entry(number, shape, 0, 0, 8) for place, shape in enumerate(shapes)}
    index = Index(1, {**entries, "y": Entry(number, (2,), 0, 0, 8, crc32c(good))}, {})
    async with open_store(memory_root.url) as store:
        await store.put(index_path("m"), encode_index(index))
        await store.put(data_path("m", 0, 1), good)
    for name in entries:
        for goal in (None, {name: np.zeros(2, np.float32)}):
            with pytest.raises(UnreadableTensorError, match=f"tensor '{name}'") as caught:
                await restore(f"{memory_root.url}/m", goal, select=name)
            assert caught.value.tensors == (name,)
    assert (await restore(f"{memory_root.url}/m", select="y"))["y"].tolist() == [0, 1]


class Fragile:
    """Something whose state cannot be loaded."""

    def state_dict(self) -> dict[str, Any]:
        return {"a": STATE["a"]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise LookupError(f"no place for {list(state)}")


async def test_item_118_wrapped_errors_keep_their_class_and_cause(tmp_path: Path) -> None:
    with pytest.raises(InvalidSavePathError) as caught:
        await restore(tmp_path / "nope")
    assert type(caught.value.__cause__) is CheckpointNotFoundError
    async with Saver(tmp_path) as saver:
        checkpoint = await saver.save({"model": Fragile()}, step=1)
    with pytest.raises(StructureMismatchError, match=r"Fragile\.load_state_dict failed: .*no place for") as mismatch:
        await restore(checkpoint, {"model": Fragile()})
    assert type(mismatch.value.__cause__) is LookupError
    await put_files(str(tmp_path), "v2")
    index = tmp_path / "v2.index"
    index.write_bytes(index.read_bytes()[:-1])
    with pytest.raises(ManifestError, match=re.escape(f"{tmp_path}/v2.index")) as damaged:
        await restore(tmp_path / "v2")
    assert type(damaged.value.__cause__) is ManifestError
    assert damaged.value.path == "v2.index"
    index.unlink()
    index.mkdir()  # what the store says is neither a missing checkpoint nor a damaged one
    (index / "x").touch()
    with pytest.raises(InvalidSavePathError):
        await restore(tmp_path / "v2")


async def test_item_118_what_the_store_says_stays_as_it_is() -> None:
    """A store that fails is no checkpoint that is missing."""
    url = "memory://failing/run"
    await put_files(url, "v2")
    cause = AccessDeniedError("no", path="v2.index")
    store = FaultyStore(MemoryStore(url), [faults.FailBefore(faults.on("get", "v2.index"), error=lambda _: cause)])
    async with Saver(store) as saver:
        with pytest.raises(AccessDeniedError) as caught:
            await saver.restore(save_path=f"{url}/v2")
    assert caught.value is cause
