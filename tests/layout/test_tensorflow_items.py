"""Saving TensorFlow's files, by the numbers of the list of TensorFlow's behaviours."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncsaver import Saver, convert, open_checkpoint
from asyncsaver.errors import CheckpointExistsError, CheckpointNotFoundError, StoreError
from asyncsaver.formats.tensorflow.state_text import State, decode_state
from asyncsaver.tensorflow import (
    checkpoint_exists,
    get_checkpoint_state,
    latest_checkpoint,
    remove_checkpoint,
    update_checkpoint_state,
)

from ..doubles.world import World, state_of  # noqa: TID252 - test folders have no name
from .tensorflow_eyes import in_memory, numbers_seen, unretried

W = np.arange(6, dtype=np.float32).reshape(2, 3)


class Clock:
    """A clock that is set by hand, in seconds since 1970."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def saver_at(url: Any, **arguments: Any) -> Saver:
    return Saver(url, **{"format": "tensorflow", "prefix": "m", "pad_step_number": False, **arguments})


def read_state(folder: Path, name: str = "checkpoint") -> State:
    return decode_state((folder / name).read_bytes(), name)


def tensorflow_files(folder: Path) -> list[str]:
    """What stands in a folder, but for our records and the lock."""
    return sorted(path.name for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


async def names(saver: Saver) -> list[str]:
    return [found.name for found in await saver.checkpoints()]


async def test_item_034_each_save_has_names_of_its_own(tmp_path: Path) -> None:
    async with saver_at(tmp_path) as saver:
        saved = [await saver.save({"w": W + number}, step=1, overwrite=True) for number in range(3)]
    assert len({one.save_id for one in saved}) == 3
    assert tensorflow_files(tmp_path) == ["checkpoint", "m-1.data-00000-of-00003", "m-1.index"]


async def test_item_044_the_url_is_the_prefix(tmp_path: Path) -> None:
    async with saver_at(tmp_path) as saver:
        saved = await saver.save({"w": W}, step=12)
        assert saved.url == str(tmp_path / "m-12")
        assert [one.url for one in await saver.checkpoints()] == [saved.url]
    assert await latest_checkpoint(tmp_path) == saved.url
    assert await checkpoint_exists(saved.url)
    async with await open_checkpoint(saved.url) as reader:
        assert np.array_equal(await reader.read("w"), W)


async def test_item_055_missing_folders_are_made(tmp_path: Path) -> None:
    async with saver_at(tmp_path / "a" / "b") as saver:
        await saver.save({"w": W}, step=1)
    assert "m-1.index" in tensorflow_files(tmp_path / "a" / "b")


async def test_item_056_the_cause_of_a_failure_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"no folder")
    async with saver_at(tmp_path / "file" / "run", retry_timeout=0) as saver:
        with pytest.raises(StoreError) as caught:
            await saver.save({"w": W}, step=1)
    assert isinstance(caught.value.__cause__, OSError)


async def test_item_057_what_is_not_recorded_is_not_listed_and_deletes_nothing(tmp_path: Path) -> None:
    async with saver_at(tmp_path, max_to_keep=1) as saver:
        await saver.save({"w": W}, step=1)
        before = read_state(tmp_path)
        await saver.save({"w": W}, step=2, write_state=False)
        assert read_state(tmp_path) == before
        assert await checkpoint_exists(tmp_path / "m-1")
        await saver.save({"w": W}, step=3)
        assert not await checkpoint_exists(tmp_path / "m-1")
        assert await checkpoint_exists(tmp_path / "m-2"), "retention does not decide about it"
        assert read_state(tmp_path).paths == (str(tmp_path / "m-3"),)


async def test_items_058_and_059_the_sidecar_comes_and_goes_with_its_checkpoint(tmp_path: Path) -> None:
    async with saver_at(tmp_path, max_to_keep=2) as saver:
        await saver.save({"w": W}, step=1, write_meta=b"one")
        await saver.save({"w": W}, step=2, write_meta=b"two", meta_suffix="graph")
        await saver.save({"w": W}, step=3)
        assert tensorflow_files(tmp_path) == [
            "checkpoint", "m-2.data-00000-of-00001", "m-2.graph", "m-2.index", "m-3.data-00000-of-00001", "m-3.index",
        ]  # fmt: skip
        assert (tmp_path / "m-2.graph").read_bytes() == b"two"
        await saver.save({"w": W}, step=2, write_meta=b"new", meta_suffix="graph", overwrite=True)
        assert (tmp_path / "m-2.graph").read_bytes() == b"new"
        await saver.save({"w": W}, step=2, write_meta=b"other", overwrite=True)
        assert not (tmp_path / "m-2.graph").exists()
        assert (tmp_path / "m-2.meta").read_bytes() == b"other"
        await saver.delete(2)
        assert tensorflow_files(tmp_path) == ["checkpoint", "m-3.data-00000-of-00001", "m-3.index"]


async def test_item_060_data_then_sidecar_then_index_then_state_then_deletions() -> None:
    world = World()
    async with Saver(world.url, format="tensorflow", max_to_keep=1) as saver:
        await saver.save(state_of(1), step=1)
    store = world.store()
    async with unretried(Saver(world.url, format="tensorflow", max_to_keep=1), store) as saver:
        await saver.save(state_of(2), step=2, write_meta=b"meta")
    wanted = {
        "put ckpt-00000002.data-00000-of-00001": "data",
        "create ckpt-00000002.meta": "sidecar",
        "create ckpt-00000002.index": "index",
        "replace_if checkpoint": "state",
        "delete ckpt-00000001.index": "deletion",
        "delete ckpt-00000001.data-00000-of-00001": "deletion of data",
    }
    made = [wanted[call] for call in (f"{call.operation} {call.path}" for call in store.calls) if call in wanted]
    assert made == list(wanted.values())


async def test_item_061_the_same_name_again_becomes_the_newest(tmp_path: Path) -> None:
    async with saver_at(tmp_path) as saver:
        for step in (1, 2, 3):
            await saver.save({"w": W}, step=step)
        with pytest.raises(CheckpointExistsError):
            await saver.save({"w": W + 1}, step=1)
        await saver.save({"w": W + 1}, step=1, overwrite=True)
        assert await names(saver) == ["m-2", "m-3", "m-1"]
    assert read_state(tmp_path).paths == tuple(str(tmp_path / f"m-{step}") for step in (2, 3, 1))


async def test_item_062_data_of_the_older_save_go_after_the_commit(tmp_path: Path) -> None:
    async with saver_at(tmp_path, shard_bytes=1) as saver:
        await saver.save({"a": W, "b": W}, step=1)
        assert len(tensorflow_files(tmp_path)) == 4
        await saver.save({"a": W}, step=1, overwrite=True)
        assert tensorflow_files(tmp_path) == ["checkpoint", "m-1.data-00000-of-00003", "m-1.index"]
        state = await saver.restore(step=1)
    assert state.keys() == {"a"}


async def test_item_063_a_relative_folder_has_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with saver_at("run") as saver:
        await saver.save({"w": W}, step=1)
    assert read_state(tmp_path / "run").latest == "m-1"


async def test_item_064_relative_paths_survive_a_move(tmp_path: Path) -> None:
    async with saver_at(tmp_path / "a") as saver:
        await saver.save({"w": W}, step=1)
    assert read_state(tmp_path / "a").latest == str(tmp_path / "a" / "m-1"), "as in TensorFlow"
    async with saver_at(tmp_path / "b", save_relative_paths=True) as saver:
        await saver.save({"w": W}, step=1)
    shutil.move(tmp_path / "b", tmp_path / "c")
    assert read_state(tmp_path / "c").latest == "m-1"
    assert await latest_checkpoint(tmp_path / "c") == str(tmp_path / "c" / "m-1")
    async with saver_at(tmp_path / "c") as saver:
        assert np.array_equal((await saver.restore())["w"], W)


async def test_item_064_paths_in_an_object_store_are_relative() -> None:
    world = World()
    async with saver_at(world.url) as saver:
        await saver.save({"w": W}, step=1)
    assert decode_state(in_memory(world.url)["checkpoint"], "").paths == ("m-1",)
    assert await latest_checkpoint(world.url) == f"{world.url}/m-1"


async def test_item_065_a_checkpoint_in_the_folder_beside_stays_listed(tmp_path: Path) -> None:
    async with saver_at(tmp_path / "a") as saver:
        await saver.save({"w": W}, step=1)
    await update_checkpoint_state(tmp_path / "b", tmp_path / "a" / "m-1", save_relative_paths=True)
    assert read_state(tmp_path / "b").latest == "../a/m-1"
    async with saver_at(tmp_path / "b", save_relative_paths=True) as saver:
        await saver.save({"w": W}, step=2)
        assert await names(saver) == ["m-2"]
    assert read_state(tmp_path / "b").paths == ("../a/m-1", "m-2")


async def test_item_066_two_savers_forget_nothing_of_each_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with saver_at(tmp_path, max_to_keep=2) as one, saver_at(tmp_path, prefix="n", max_to_keep=2) as other:
        for step in (1, 2, 3):
            await one.save({"w": W}, step=step)
            await other.save({"w": W}, step=step)
        assert await names(one) == ["m-2", "m-3", "n-2", "n-3"], "listed by both"
    assert {Path(path).name for path in read_state(tmp_path).paths} == {"m-2", "m-3", "n-2", "n-3"}
    assert any("another saver writes there as well" in record.message for record in caplog.records)


async def test_item_067_the_state_file_is_written_atomically() -> None:
    world = World()
    store = world.store()
    async with unretried(saver_at(world.url), store) as saver:
        for step in (1, 2):
            await saver.save({"w": W}, step=step)
    written = {call.operation for call in store.calls if call.path == "checkpoint"} - {"get"}
    assert written == {"create", "replace_if"}


async def test_item_070_names_are_literal(tmp_path: Path) -> None:
    async with saver_at(tmp_path, prefix="m.x", max_to_keep=1) as saver, saver_at(tmp_path, prefix="max") as other:
        await other.save({"w": W}, step=1)
        (tmp_path / "m.x-1.data-00000-of-00001.bak").write_bytes(b"mine")
        await saver.save({"w": W}, step=1)
        await saver.save({"w": W}, step=2)
        assert np.array_equal((await other.restore(step=1))["w"], W)
    assert "m.x-1.data-00000-of-00001.bak" in tensorflow_files(tmp_path)
    assert "m.x-1.index" not in tensorflow_files(tmp_path)
    with pytest.raises(ValueError, match="prefix"):
        saver_at(tmp_path, prefix="m*")


async def test_item_071_a_path_like_folder(tmp_path: Path) -> None:
    async with saver_at(tmp_path / "run") as saver:
        await saver.save({"w": W}, step=1)
    assert await latest_checkpoint(tmp_path / "run") == str(tmp_path / "run" / "m-1")


@pytest.mark.parametrize("folder", ['a "b"', "it's", "back\\slash", "tab\there", "ünï", "a*[b]?"])
async def test_item_073_odd_characters_go_through_the_state_file(tmp_path: Path, folder: str) -> None:
    async with saver_at(tmp_path / folder) as saver:
        await saver.save({"w": W}, step=1)
        await saver.save({"w": W}, step=2)
    state = await get_checkpoint_state(tmp_path / folder)
    assert state is not None
    assert state.paths == tuple(str(tmp_path / folder / f"m-{step}") for step in (1, 2))
    async with saver_at(tmp_path / folder) as saver:
        assert await names(saver) == ["m-1", "m-2"]


async def test_item_075_retention_converges_to_a_smaller_limit(tmp_path: Path) -> None:
    async with saver_at(tmp_path) as saver:
        for step in range(5):
            await saver.save({"w": W}, step=step)
    async with saver_at(tmp_path, max_to_keep=2) as saver:
        await saver.save({"w": W}, step=5)
        assert await names(saver) == ["m-4", "m-5"]
    assert read_state(tmp_path).paths == tuple(str(tmp_path / f"m-{step}") for step in (4, 5))


async def test_item_076_one_stays_for_good_every_so_many_hours(tmp_path: Path) -> None:
    clock = Clock()
    async with saver_at(tmp_path, max_to_keep=1, keep_checkpoint_every_n_hours=1, clock=clock) as saver:
        for step, minutes in enumerate((0, 30, 61, 90, 100)):
            clock.now = 1_800_000_000.0 + 60 * minutes
            await saver.save({"w": W}, step=step)
        assert await names(saver) == ["m-2", "m-4"]
    state = read_state(tmp_path)
    assert state.paths == (str(tmp_path / "m-4"),), "what stays for good leaves the list"
    assert state.timestamps == (1_800_000_000.0 + 6000,)
    assert state.last_preserved == 1_800_000_000.0 + 3600


async def put_foreign(folder: str | Path, steps: Sequence[int], number: int, *, listed: Sequence[int] = ()) -> None:
    """Checkpoints that somebody else has written, and a state file that lists them and nothing else."""
    async with Saver("memory://foreign") as native:
        await native.save({"w": W + number, "weights": W}, step=number, overwrite=True)
    for step in steps:
        await convert(f"memory://foreign/ckpt-{number:08d}", f"{folder}/m-{step}", format="tensorflow", overwrite=True)
    paths = [f"{folder}/m-{step}" for step in (*listed, *steps)]
    await update_checkpoint_state(folder, paths[-1], paths)


@pytest.mark.parametrize("kind", ["memory", "disk"])
async def test_item_084_what_others_have_saved_is_listed_restored_and_never_deleted(tmp_path: Path, kind: str) -> None:
    folder = str(tmp_path) if kind == "disk" else World().url
    await put_foreign(folder, [1, 2], 5)
    async with saver_at(folder, max_to_keep=1) as saver:
        assert await names(saver) == ["m-1", "m-2"]
        latest = await saver.latest()
        assert latest is not None
        assert (latest.name, latest.step, latest.url) == ("m-2", 2, f"{folder}/m-2")
        assert np.array_equal((await saver.restore())["w"], W + 5)
        assert np.array_equal((await saver.restore(step=1))["w"], W + 5)
        with pytest.raises(CheckpointExistsError, match="was not saved by asyncsaver"):
            await saver.save({"w": W}, step=2)
        for step in (3, 4):
            await saver.save({"w": W + step}, step=step)
        assert await names(saver) == ["m-1", "m-2", "m-4"]
        assert np.array_equal((await saver.restore())["w"], W + 4)
        for wrong in (saver.delete(1), saver.pin(1)):
            with pytest.raises(CheckpointNotFoundError, match="was not saved by asyncsaver"):
                await wrong
        await saver.prune()
        await saver.sweep(0)
        assert await names(saver) == ["m-1", "m-2", "m-4"]
    state = await get_checkpoint_state(folder)
    assert state is not None
    assert state.paths == tuple(f"{folder}/m-{step}" for step in (1, 2, 4))


async def test_item_084_those_that_others_have_saved_since_are_newer(tmp_path: Path) -> None:
    async with saver_at(tmp_path) as saver:
        await saver.save({"w": W}, step=1)
        await put_foreign(tmp_path, [7, 8], 5)  # a list that does not know ours
        assert await names(saver) == ["m-1", "m-7", "m-8"]
        assert np.array_equal((await saver.restore())["w"], W + 5)
        await saver.save({"w": W + 2}, step=2)
        assert await names(saver) == ["m-7", "m-8", "m-1", "m-2"]
        assert np.array_equal((await saver.restore())["w"], W + 2)


async def test_item_084_a_foreign_checkpoint_is_replaced_on_demand_only(tmp_path: Path) -> None:
    await put_foreign(tmp_path, [1], 5)
    async with saver_at(tmp_path) as saver:
        await saver.save({"w": W}, step=1, overwrite=True)
        assert np.array_equal((await saver.restore(step=1))["w"], W)
    assert tensorflow_files(tmp_path) == ["checkpoint", "m-1.data-00000-of-00002", "m-1.index"]


async def test_item_084_ours_that_others_have_replaced_is_theirs(tmp_path: Path) -> None:
    async with saver_at(tmp_path, max_to_keep=1) as saver:
        await saver.save({"w": W}, step=1)
        await put_foreign(tmp_path, [1], 5)
        assert np.array_equal((await saver.restore(step=1))["w"], W + 5)
        await saver.prune()
        await saver.save({"w": W}, step=2)
        await saver.prune()
        await saver.sweep(0)
    assert await checkpoint_exists(tmp_path / "m-1")
    async with await open_checkpoint(tmp_path / "m-1") as reader:
        await reader.verify()


async def test_item_085_a_name_saved_again_is_not_deleted(tmp_path: Path) -> None:
    async with saver_at(tmp_path, max_to_keep=2) as saver:
        for step in (1, 2):
            await saver.save({"w": W}, step=step)
        await saver.save({"w": W + 1}, step=1, overwrite=True)
        await saver.save({"w": W}, step=3)
        assert await names(saver) == ["m-1", "m-3"]
        await saver.delete(3)
        await saver.save({"w": W + 3}, step=3)
        assert np.array_equal((await saver.restore())["w"], W + 3)


@pytest.mark.parametrize("part", ["all", "index"])
async def test_item_086_what_others_have_deleted_is_gone(
    tmp_path: Path, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with saver_at(tmp_path, max_to_keep=2) as saver:
        for step in (1, 2):
            await saver.save({"w": W + step}, step=step)
        if part == "all":
            await remove_checkpoint(tmp_path / "m-2")
            assert await names(saver) == ["m-1"]
            assert np.array_equal((await saver.restore())["w"], W + 1)
            with pytest.raises(CheckpointNotFoundError, match="somebody else has deleted its files"):
                await saver.restore(step=2)
            assert [one.name for one in (await saver.prune()).deleted] == ["m-2"]
            await saver.save({"w": W}, step=2)
        else:
            (tmp_path / "m-2.index").unlink()
            assert np.array_equal((await saver.restore())["w"], W + 2), "ours is whole without it"
            await saver.prune()
        assert await checkpoint_exists(tmp_path / "m-2")
        await saver.save({"w": W}, step=3)
        await saver.save({"w": W}, step=4)
        assert await names(saver) == ["m-3", "m-4"]
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]


async def test_what_tensorflow_sees_is_what_was_saved() -> None:
    world = World()
    async with Saver(world.url, format="tensorflow", shard_bytes=1) as saver:
        for step in (1, 2):
            await saver.save(state_of(step), step=step)
        pending = await saver.save_in_background(state_of(3), step=3)
        await pending
    assert numbers_seen(in_memory(world.url)) == {f"ckpt-{step:08d}": step for step in (1, 2, 3)}
