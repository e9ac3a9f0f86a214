"""Saving V1 files: one, or one for each shard."""

from __future__ import annotations

import asyncio
import shutil
import warnings
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from asyncsaver import Partitioned, Saver, Variable, convert, open_checkpoint
from asyncsaver.errors import (
    CheckpointCorruptError,
    CheckpointDeletedError,
    CheckpointExistsError,
    CheckpointNotFoundError,
    InvalidStateError,
)
from asyncsaver.formats.tensorflow.state_text import decode_state
from asyncsaver.formats.tensorflow.v1_note import HEAD, encode_note, note_in
from asyncsaver.formats.tensorflow.v1_write import V1Tensor, plan_v1
from asyncsaver.model.dtypes import Array
from asyncsaver.tensorflow import checkpoint_exists, get_checkpoint_state, latest_checkpoint, remove_checkpoint

from ..doubles.scripted import Fail, Hold, Meanwhile, always, at  # noqa: TID252 - test folders have no name
from ..doubles.world import World, closing, timed_out  # noqa: TID252
from .table_eyes import number_of, numbers_of, numbers_seen, state_of
from .tensorflow_eyes import in_memory, unretried

W = np.arange(6, dtype=np.float32).reshape(2, 3)
ignored = pytest.mark.filterwarnings("ignore:TensorFlow's V1 format:DeprecationWarning")
pytestmark = ignored
both = pytest.mark.parametrize("sharded", [False, True], ids=["single", "sharded"])


def saver_at(url: Any, **arguments: Any) -> Saver:
    given = {"format": "tensorflow", "write_version": "v1", "prefix": "m", "pad_step_number": False, "shard_bytes": 50}
    return Saver(url, **{**given, **arguments})


def tensorflow_files(folder: Path) -> list[str]:
    """What stands in a folder, but for our records and the lock."""
    return sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def shards(name: str, count: int) -> list[str]:
    return [f"{name}-{shard:05d}-of-{count:05d}" for shard in range(count)]


def of_tensorflow(array: Array) -> bytes:
    """A V1 file as TensorFlow itself writes it."""
    full = ((0, -1),) * array.ndim
    return b"".join(plan_v1([V1Tensor("w", array.dtype.name, array.shape, [(full, array)])]).pieces())


async def names(saver: Saver) -> list[str]:
    return [found.name for found in await saver.checkpoints()]


@pytest.mark.filterwarnings("error")
def test_the_old_format_warns_its_caller() -> None:
    with pytest.warns(DeprecationWarning, match="TensorFlow's V1 format is deprecated") as caught:
        saver_of = Saver(World().url, format="tensorflow", write_version="v1")
    assert [one.filename for one in caught] == [__file__]
    saver_of._root.threads.close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Saver(World().url, format="tensorflow", sharded=True)._root.threads.close()


async def test_items_044_and_112_one_file_is_the_checkpoint(tmp_path: Path) -> None:
    async with saver_at(tmp_path) as saver:
        saved = await saver.save(state_of(1), step=1, metrics={"loss": 0.5})
        assert saved.url == str(tmp_path / "m-1")
        assert tensorflow_files(tmp_path) == ["checkpoint", "m-1"]
        state = decode_state((tmp_path / "checkpoint").read_bytes(), "checkpoint")
        assert (state.latest, *state.paths) == (saved.url, saved.url)
        assert number_of(await saver.restore()) == 1
        assert number_of(await saver.restore(save_path=saved.url)) == 1
        assert [one.url for one in await saver.checkpoints()] == [saved.url]
        await saver.verify(1)
        async with await open_checkpoint(saved.url) as reader:
            assert reader.checkpoint.metrics == {"loss": 0.5}
            assert number_of(await reader.restore()) == 1
    assert await checkpoint_exists(saved.url)
    assert await latest_checkpoint(tmp_path) == saved.url
    assert saved.total_bytes == (tmp_path / "m-1").stat().st_size


async def test_items_035_044_and_112_shards_are_called_by_their_pattern(tmp_path: Path) -> None:
    async with saver_at(tmp_path, sharded=True) as saver:
        saved = await saver.save(state_of(1), step=1)
        assert saved.url == str(tmp_path / "m-1-?????-of-00003")
        assert tensorflow_files(tmp_path) == ["checkpoint", *shards("m-1", 3)]
        state = decode_state((tmp_path / "checkpoint").read_bytes(), "checkpoint")
        assert (state.latest, *state.paths) == (saved.url, saved.url)
        assert number_of(await saver.restore()) == 1
        assert number_of(await saver.restore(save_path=saved.url)) == 1
        latest = await saver.latest()
        assert latest is not None
        assert latest.url == saved.url
        await saver.verify(1)
    assert await latest_checkpoint(tmp_path) == saved.url
    assert await checkpoint_exists(saved.url)
    async with saver_at(tmp_path, sharded=True) as other:  # which knows of it by its records only
        await other.save(state_of(2), step=2)
    found = await get_checkpoint_state(tmp_path)
    assert found is not None
    assert found.paths == (saved.url, str(tmp_path / "m-2-?????-of-00003"))


async def test_item_035_there_is_a_file_for_each_shard_key(tmp_path: Path) -> None:
    variables = [Variable("a", W, shard_key="one"), Variable("b", W + 1, shard_key="two")]
    async with saver_at(tmp_path, sharded=True, shard_bytes=1000, var_list=variables) as saver:
        saved = await saver.save(step=1)
    assert tensorflow_files(tmp_path) == ["checkpoint", *shards("m-1", 2)]
    async with await open_checkpoint(saved.url) as reader:
        np.testing.assert_array_equal(await reader.read("b"), W + 1)
    async with await open_checkpoint(tmp_path / "m-1-00000-of-00002") as reader:
        assert list(reader.tensors) == ["a"]


@both
async def test_items_041_and_042_tensors_in_slices(tmp_path: Path, sharded: bool) -> None:
    parts = [((0, 0), np.ones((4, 2))), ((4, 0), np.zeros((2, 2)))]
    async with saver_at(tmp_path, sharded=sharded) as saver:
        saved = await saver.save({"e": Partitioned((6, 2), parts)}, step=1)
        restored = await saver.restore()
    np.testing.assert_array_equal(restored["e"], np.repeat([[1.0, 1.0], [0.0, 0.0]], [4, 2], axis=0))
    async with await open_checkpoint(saved.url) as reader:
        np.testing.assert_array_equal(await reader.read("e", (slice(3, 5), 0)), [1.0, 0.0])


@both
async def test_bound_variables_go_through_the_background(tmp_path: Path, sharded: bool) -> None:
    w, text = Variable("w", W.copy()), Variable("text", np.array([b"a", b"b"], dtype=object))
    async with saver_at(tmp_path, sharded=sharded, var_list=[w, text]) as saver:
        pending = await saver.save_in_background(step=1)
        w.value = np.zeros_like(W)
        text.value = np.array([b"", b""], dtype=object)
        await pending
        await saver.restore()
    np.testing.assert_array_equal(w.value, W)
    assert text.value.tolist() == [b"a", b"b"]


@both
async def test_a_state_without_tensors(tmp_path: Path, sharded: bool) -> None:
    async with saver_at(tmp_path, sharded=sharded) as saver:
        await saver.save({"nothing": None, "list": []}, step=1)
        assert await saver.restore() == {"nothing": None, "list": []}


@pytest.mark.parametrize("dtype", ["bfloat16", "uint32", "uint64"])
@both
async def test_what_v1_cannot_hold_is_refused_before_anything_is_written(sharded: bool, dtype: str) -> None:
    world = World()
    array = np.zeros(3, ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    async with saver_at(world.url, sharded=sharded) as saver:
        with pytest.raises(InvalidStateError, match=f"w: TensorFlow's V1 format cannot hold {dtype}"):
            await saver.save({"w": array}, step=1)
        with pytest.raises(InvalidStateError, match="write_version='v2'"):
            await saver.save_in_background({"w": array}, step=1)
        assert not in_memory(world.url)


async def test_an_overwrite_replaces_the_file() -> None:
    world = World()
    async with saver_at(world.url) as saver:
        await saver.save(state_of(1), step=1)
        with pytest.raises(CheckpointExistsError):
            await saver.save(state_of(2), step=1)
        await saver.save(state_of(2), step=1, overwrite=True)
        assert numbers_seen(in_memory(world.url)) == await numbers_of(saver) == {"m-1": 2}


async def test_an_overwrite_of_shards_takes_other_names(tmp_path: Path) -> None:
    async with saver_at(tmp_path, sharded=True) as saver:
        await saver.save(state_of(1), step=1)
        saved = await saver.save(state_of(2), step=1, overwrite=True)
        assert tensorflow_files(tmp_path) == ["checkpoint", *shards("m-1", 4)]
        assert number_of(await saver.restore()) == 2
    state = decode_state((tmp_path / "checkpoint").read_bytes(), "checkpoint")
    assert state.paths == (saved.url,)
    async with await open_checkpoint(saved.url) as reader:
        assert number_of(await reader.restore()) == 2


@pytest.mark.parametrize("first", ["v1", "v2"])
@pytest.mark.parametrize("then", ["v1", "v2"])
@both
async def test_item_112_any_version_replaces_any_other(tmp_path: Path, first: str, then: str, sharded: bool) -> None:
    async with saver_at(tmp_path, write_version=first, sharded=sharded) as saver:
        await saver.save(state_of(1), step=1)
        await saver.save(state_of(2), step=2)
    async with saver_at(tmp_path, write_version=then, sharded=not sharded) as saver:
        assert await numbers_of(saver) == {"m-1": 1, "m-2": 2}
        saved = await saver.save(state_of(20), step=2, overwrite=True)
        assert await numbers_of(saver) == {"m-1": 1, "m-2": 20}
        await saver.sweep(0)
    of_two = [path for path in tensorflow_files(tmp_path) if path.startswith("m-2")]
    assert any(path.endswith(".index") for path in of_two) == (then == "v2")
    assert ("m-2" in of_two) == (then == "v1" and sharded)
    async with await open_checkpoint(saved.url) as reader:
        assert number_of(await reader.restore()) == 20
    async with saver_at(tmp_path, write_version=first, sharded=sharded, max_to_keep=1) as saver:
        await saver.save(state_of(3), step=3)
        assert await names(saver) == ["m-3"]
    assert {path.partition(".")[0][:3] for path in tensorflow_files(tmp_path)} == {"che", "m-3"}


@both
async def test_older_ones_go_and_the_sidecar_with_them(tmp_path: Path, sharded: bool) -> None:
    async with saver_at(tmp_path, sharded=sharded, max_to_keep=2) as saver:
        for number in (1, 2, 3):
            await saver.save(state_of(number), step=number, write_meta=b"meta")
        await saver.pin(2)
        await saver.save(state_of(4), step=4)
        await saver.delete(3)
        assert await numbers_of(saver) == {"m-2": 2, "m-4": 4}
        assert {path.partition("-0")[0] for path in tensorflow_files(tmp_path)} >= {"checkpoint", "m-2", "m-4"}
        assert not [path for path in tensorflow_files(tmp_path) if path.startswith(("m-1", "m-3"))]
        assert [path for path in tensorflow_files(tmp_path) if path.endswith(".meta")] == [
            "m-2-?????-of-00003.meta" if sharded and (tmp_path / "m-2-?????-of-00003.meta").exists() else "m-2.meta"
        ]
        with pytest.raises(CheckpointDeletedError):
            await saver.restore(step=3)


@both
async def test_a_sweep_removes_what_a_dead_save_has_left(sharded: bool) -> None:
    world = World()
    store = world.store(always("create", "manifest", Fail(timed_out())))
    dead = unretried(saver_at(world.url, sharded=sharded, commit_timeout=0.2), store)
    async with closing(dead):
        with pytest.raises(Exception, match="not known"):
            await dead.save(state_of(1), step=1)
    assert any("/table" in path for path in in_memory(world.url))
    async with saver_at(world.url, sharded=sharded) as saver:
        report = await saver.sweep(0)
        assert [one.name for one in report.leftovers] == ["m-1"]
        assert not numbers_seen(in_memory(world.url))
        assert not any("/table" in path for path in in_memory(world.url))
        await saver.save(state_of(2), step=1)
        assert await numbers_of(saver) == {"m-1": 2}


@pytest.mark.parametrize("how", ["save", "prune", "close"])
@both
async def test_an_interrupted_publishing_is_rolled_forward(sharded: bool, how: str) -> None:
    world = World()
    store = world.store(
        lambda call: Fail(timed_out()) if call.operation.startswith("put") and call.path[:2] == "m-" else None
    )
    saver = unretried(saver_at(world.url, sharded=sharded), store)
    saved = await saver.save(state_of(1), step=1)
    assert saved.stats is not None
    assert "no answer" in (saved.stats.state_file_error or "")
    assert not numbers_seen(in_memory(world.url))
    assert number_of(await saver.restore()) == 1, "ours is there already"
    store.script = lambda call: None
    if how == "close":
        await saver.close()
    async with saver_at(world.url, sharded=sharded) as other:
        if how == "save":
            await other.save(state_of(2), step=2)
        if how == "prune":
            await other.prune()
    assert numbers_seen(in_memory(world.url)) == {"m-1": 1} | ({"m-2": 2} if how == "save" else {})
    if how != "close":
        await saver.close()


async def test_a_late_copy_of_an_older_save_is_replaced_again() -> None:
    world = World()
    async with saver_at(world.url, max_to_keep=None) as saver:
        await saver.save(state_of(1), step=1)
        late = in_memory(world.url)["m-1"]
        await saver.save(state_of(2), step=1, overwrite=True)
        await world.memory().put("m-1", late)
        assert number_of(await saver.restore(step=1)) == 2
        await saver.prune()
        assert numbers_seen(in_memory(world.url)) == {"m-1": 2}
        await saver.delete(1)
        await world.memory().put("m-1", late)
        await saver.prune()
        assert not numbers_seen(in_memory(world.url))


async def test_two_savers_of_one_file_are_kept_apart() -> None:
    world = World()
    hold = Hold()
    slow = unretried(saver_at(world.url), world.store(at("create", "m-1/manifest", hold)))
    async with closing(slow), saver_at(world.url) as fast:
        losing = asyncio.create_task(slow.save(state_of(1), step=1))
        await hold.reached.wait()
        await fast.save(state_of(2), step=1)
        hold.release.set()
        with pytest.raises(CheckpointExistsError):
            await losing
        assert numbers_seen(in_memory(world.url)) == await numbers_of(fast) == {"m-1": 2}


async def test_a_deletion_that_meets_a_new_save_of_the_name_is_made_good() -> None:
    world = World()
    async with saver_at(world.url) as saver:
        await saver.save(state_of(1), step=1)

        async def save_again() -> None:
            await saver.save(state_of(2), step=1)

        slow = unretried(saver_at(world.url), world.store(at("delete", "m-1", Meanwhile(save_again))))
        async with closing(slow):
            await slow.delete(1)
        assert await numbers_of(saver) == {"m-1": 2}
        await saver.prune()
        assert numbers_seen(in_memory(world.url)) == await numbers_of(saver) == {"m-1": 2}


@both
async def test_item_086_what_others_have_deleted_is_gone(tmp_path: Path, sharded: bool) -> None:
    async with saver_at(tmp_path, sharded=sharded) as saver:
        saved = [await saver.save(state_of(number), step=number) for number in (1, 2)]
        await remove_checkpoint(saved[1].url, "v1")
        assert await names(saver) == ["m-1"]
        with pytest.raises(CheckpointNotFoundError):
            await saver.restore(step=2)
        assert number_of(await saver.restore()) == 1
        report = await saver.prune()
        assert [one.reason for one in report.deleted if one.name == "m-2"] == ["deleted by others"]
        assert not list((tmp_path / ".asyncsaver").glob("m-2/*/table*"))


async def test_item_084_ours_that_others_have_replaced_is_theirs(tmp_path: Path) -> None:
    async with saver_at(tmp_path, max_to_keep=1) as saver:
        await saver.save(state_of(1), step=1)
        (tmp_path / "m-1").write_bytes(of_tensorflow(W))
        np.testing.assert_array_equal((await saver.restore(step=1))["w"], W)
        await saver.save(state_of(2), step=2)
        assert (tmp_path / "m-1").read_bytes() == of_tensorflow(W), "it is not deleted"


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_item_084_shards_of_others_stay(tmp_path: Path, version: str) -> None:
    async with saver_at(tmp_path, sharded=True, write_version=version, shard_bytes=1000) as saver:
        await saver.save({"w": W}, step=1)
        (tmp_path / "m-1-00000-of-00001").write_bytes(of_tensorflow(W))
        await saver.save({"w": W}, step=2)
        await saver.delete(1)
    left = [path for path in tensorflow_files(tmp_path) if path.startswith("m-1")]
    assert left == ["m-1-00000-of-00001"]


@both
async def test_item_084_a_foreign_file_is_replaced_on_demand_only(tmp_path: Path, sharded: bool) -> None:
    (tmp_path / "m-1").write_bytes(of_tensorflow(W))
    async with saver_at(tmp_path, sharded=sharded) as saver:
        with pytest.raises(CheckpointExistsError, match="not saved by asyncsaver"):
            await saver.save(state_of(1), step=1)
        assert (tmp_path / "m-1").read_bytes() == of_tensorflow(W)
        await saver.save(state_of(1), step=1, overwrite=True)
        assert number_of(await saver.restore()) == 1
    assert tensorflow_files(tmp_path) == ["checkpoint", *(shards("m-1", 3) if sharded else ["m-1"])]


@both
async def test_foreign_v2_files_give_way_to_what_replaces_them(tmp_path: Path, sharded: bool) -> None:
    async with Saver(tmp_path / "native") as native:
        saved = await native.save({"w": W}, step=1)
    await convert(saved.url, tmp_path / "m-1", format="tensorflow")
    assert tensorflow_files(tmp_path) == ["m-1.data-00000-of-00001", "m-1.index"]
    async with saver_at(tmp_path, sharded=sharded) as saver:
        await saver.save(state_of(1), step=1, overwrite=True)
        assert number_of(await saver.restore()) == 1
    assert not [path for path in tensorflow_files(tmp_path) if path.startswith("m-1.")]


@both
async def test_a_copied_folder_is_ours_as_well(tmp_path: Path, sharded: bool) -> None:
    async with saver_at(tmp_path / "a", sharded=sharded, save_relative_paths=True) as saver:
        for number in (1, 2):
            await saver.save(state_of(number), step=number)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    async with saver_at(tmp_path / "b", sharded=sharded, save_relative_paths=True, max_to_keep=1) as saver:
        assert await numbers_of(saver) == {"m-1": 1, "m-2": 2}
        await saver.save(state_of(3), step=3)
        assert await numbers_of(saver) == {"m-3": 3}
    assert not [path for path in tensorflow_files(tmp_path / "b") if path.startswith(("m-1", "m-2"))]


@pytest.mark.parametrize("position", [0, 3, 40, -60, -1])
@pytest.mark.parametrize("where", ["m-1", "table"])
async def test_damage_is_noticed_where_it_matters(where: str, position: int) -> None:
    world = World()
    async with saver_at(world.url) as saver:
        await saver.save(state_of(1), step=1)
        [path] = [path for path in in_memory(world.url) if path.rpartition("/")[2] == where]
        data = bytearray(in_memory(world.url)[path])
        data[position] ^= 1
        await world.memory().put(path, bytes(data))
        if where == "m-1":
            assert number_of(await saver.restore()) == 1
        else:
            with pytest.raises(CheckpointCorruptError, match="table"):
                await saver.verify(1)


@both
async def test_a_damaged_copy_is_not_published(sharded: bool, caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    store = world.store(
        lambda call: Fail(timed_out()) if call.operation.startswith("put") and call.path[:2] == "m-" else None
    )
    async with closing(unretried(saver_at(world.url, sharded=sharded), store)) as saver:
        await saver.save(state_of(1), step=1)
    path = max(path for path in in_memory(world.url) if "/table" in path)
    await world.memory().put(path, in_memory(world.url)[path][:-1])
    async with saver_at(world.url, sharded=sharded) as other:
        await other.save(state_of(2), step=2)
        assert number_of(await other.restore()) == 2
        with pytest.raises(CheckpointCorruptError, match="table"):
            await other.verify(1)
    assert path.rpartition("/")[2].replace("table", "m-1") not in in_memory(world.url)
    assert "not published" in caplog.text


@pytest.mark.parametrize(
    "head", [b"", b"\0\0", b"\0\0\x80", b"\0\0\x05", b"\0\1\x05", b"\0\0\x05" + encode_note("abc")[:-1]]
)
def test_a_file_without_a_note(head: bytes) -> None:
    assert note_in(head) is None


def test_a_note_is_read_from_the_beginning() -> None:
    tensors = [V1Tensor(f"tensor{number}", "float32", (2, 3), [(((0, -1),) * 2, W)]) for number in range(100)]
    data = b"".join(plan_v1(tensors, "some save").pieces())
    assert note_in(data[:HEAD]) == "some save"
    assert note_in(b"".join(plan_v1(tensors).pieces())[:HEAD]) is None
    with pytest.raises(ValueError, match="100 characters"):
        encode_note("x" * 101)
    assert note_in(b"\0\0\x05" + encode_note("abc").replace(b"c", b"\xff")) is None
