"""Both save into one folder in turn: what is listed, what stays and what goes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from asyncsaver import Saver

from . import ours, theirs
from .theirs import Array

train = tf.compat.v1.train
STATE: dict[str, Array] = {"w": np.arange(6, dtype=np.float32)}


def saver(folder: Path, keep: int = 3) -> Saver:
    return Saver(folder, format="tensorflow", prefix="m", pad_step_number=False, max_to_keep=keep)


def named(folder: Path) -> list[str]:
    """The names in the state file, as TensorFlow reads them."""
    return [Path(path).name for path in train.get_checkpoint_state(str(folder)).all_model_checkpoint_paths]


def whole(folder: Path) -> set[str]:
    """The checkpoints that have both index and data."""
    found = {name.removesuffix(".index") for name in ours.names_in(folder, "*.index")}
    assert {name.partition(".data-")[0] for name in ours.names_in(folder, "*.data-*")} == found
    return found


def save_theirs(folder: Path, steps: range, keep: int = 3, *, recover: bool = False) -> None:
    """A session in which TensorFlow's saver saves."""
    with theirs.session(STATE) as opened:
        saving = train.Saver(max_to_keep=keep)
        if recover:
            saving.recover_last_checkpoints(train.get_checkpoint_state(str(folder)).all_model_checkpoint_paths)
        for step in steps:
            theirs.assign(opened, {"w": STATE["w"] + np.float32(step)})
            saving.save(opened, str(folder / "m"), global_step=step, write_meta_graph=False)


async def save_ours(folder: Path, steps: range, keep: int = 3) -> None:
    async with saver(folder, keep) as saving:
        for step in steps:
            await saving.save({"w": STATE["w"] + np.float32(step)}, step=step)


async def check(folder: Path, steps: list[int]) -> None:
    """Both see these checkpoints, in this order, and the same in each of them."""
    async with saver(folder) as looking:
        assert [found.step for found in await looking.checkpoints()] == steps
        for step in steps:
            expected = STATE["w"] + np.float32(step)
            ours.assert_equal((await looking.restore(step=step))["w"], expected)
            ours.assert_equal(theirs.load(folder / f"m-{step}")["w"].array, expected)
        latest = await looking.latest()
        assert latest is not None
        assert str(folder / latest.name) == tf.train.latest_checkpoint(str(folder))


async def test_tensorflow_goes_on_in_our_folder(tmp_path: Path) -> None:
    await save_ours(tmp_path, range(1, 5))
    assert named(tmp_path) == ["m-2", "m-3", "m-4"]
    save_theirs(tmp_path, range(5, 7), recover=True)
    assert named(tmp_path) == ["m-4", "m-5", "m-6"]
    assert whole(tmp_path) == {"m-4", "m-5", "m-6"}
    await check(tmp_path, [4, 5, 6])


async def test_we_go_on_in_a_folder_of_tensorflow(tmp_path: Path) -> None:
    save_theirs(tmp_path, range(1, 5))
    await check(tmp_path, [2, 3, 4])
    await save_ours(tmp_path, range(5, 9))
    # What others have saved is neither deleted nor forgotten.
    assert whole(tmp_path) == {"m-2", "m-3", "m-4", "m-6", "m-7", "m-8"}
    assert named(tmp_path)[-1] == "m-8"
    await check(tmp_path, [2, 3, 4, 6, 7, 8])


async def test_in_turn(tmp_path: Path) -> None:
    await save_ours(tmp_path, range(1, 3))
    save_theirs(tmp_path, range(3, 5), recover=True)  # deletes 1
    await save_ours(tmp_path, range(5, 7))
    save_theirs(tmp_path, range(7, 9), recover=True)
    assert named(tmp_path)[-2:] == ["m-7", "m-8"]
    steps = sorted(int(name.removeprefix("m-")) for name in whole(tmp_path))
    assert steps[-2:] == [7, 8]
    assert 1 not in steps
    await check(tmp_path, steps)


@pytest.mark.parametrize("keep", [1, 3])
async def test_a_saver_of_tensorflow_that_recovers_nothing_forgets_ours_and_deletes_none(
    keep: int, tmp_path: Path
) -> None:
    await save_ours(tmp_path, range(1, 4), keep)
    save_theirs(tmp_path, range(4, 6), keep=1)
    assert named(tmp_path) == ["m-5"]
    kept = [1, 2, 3][-keep:]
    assert whole(tmp_path) == {*(f"m-{step}" for step in kept), "m-5"}
    await check(tmp_path, [*kept, 5])
    # We remember ours, and go on with them.
    await save_ours(tmp_path, range(6, 7), keep)
    assert f"m-{kept[0]}" not in whole(tmp_path)
    assert {"m-5", "m-6"} <= whole(tmp_path)


async def test_we_recover_what_tensorflow_has_listed(tmp_path: Path) -> None:
    save_theirs(tmp_path, range(1, 4))
    async with saver(tmp_path) as saving:
        await saving.recover_last_checkpoints(train.get_checkpoint_state(str(tmp_path)).all_model_checkpoint_paths)
        assert [Path(path).name for path in saving.last_checkpoints] == ["m-1", "m-2", "m-3"]
        await saving.save({"w": STATE["w"] + np.float32(4)}, step=4)
    assert named(tmp_path)[-1] == "m-4"
    await check(tmp_path, [int(name.removeprefix("m-")) for name in named(tmp_path)])


async def test_a_manager_of_checkpoints_goes_on_in_our_folder(tmp_path: Path) -> None:
    await save_ours(tmp_path, range(1, 4))
    weights = tf.Variable(STATE["w"])
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(w=weights), str(tmp_path), 3, checkpoint_name="m")
    assert [Path(path).name for path in manager.checkpoints] == ["m-1", "m-2", "m-3"]
    weights.assign(STATE["w"] + np.float32(4))
    manager.save(checkpoint_number=4)
    assert whole(tmp_path) == {"m-2", "m-3", "m-4"}
    async with saver(tmp_path) as looking:
        assert [found.step for found in await looking.checkpoints()] == [2, 3, 4]
        latest = await looking.latest()
        assert latest is not None
        assert latest.name == "m-4"
        await looking.save({"w": STATE["w"] + np.float32(5)}, step=5)
        found = [checkpoint.step for checkpoint in await looking.checkpoints()]
        assert found[-1] == 5
        assert sorted(found) == [2, 3, 4, 5]  # what others have saved counts as older than all of ours but the newest
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "m-5")
    again = tf.train.CheckpointManager(tf.train.Checkpoint(w=weights), str(tmp_path), 3, checkpoint_name="m")
    assert again.latest_checkpoint == str(tmp_path / "m-5")
    assert sorted(Path(path).name for path in again.checkpoints) == ["m-2", "m-3", "m-4", "m-5"]


async def test_a_folder_with_relative_paths_may_move(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    async with Saver(before, format="tensorflow", prefix="m", save_relative_paths=True) as saving:
        for step in (1, 2):
            await saving.save({"w": STATE["w"] + np.float32(step)}, step=step)
    rename(before, after)
    assert tf.train.latest_checkpoint(str(after)) == str(after / "m-00000002")
    assert named(after) == ["m-00000001", "m-00000002"]
    async with Saver(after, format="tensorflow", prefix="m", save_relative_paths=True) as saving:
        await saving.save({"w": STATE["w"]}, step=3)
        assert [found.step for found in await saving.checkpoints()] == [1, 2, 3]
    assert named(after) == ["m-00000001", "m-00000002", "m-00000003"]
    ours.assert_equal(theirs.load(after / "m-00000001")["w"].array, STATE["w"] + np.float32(1))


def rename(before: Path, after: Path) -> None:
    before.rename(after)


async def test_tensorflow_overwrites_ours(tmp_path: Path) -> None:
    """What is under the name now is TensorFlow's: it is listed and restored, and not taken for ours."""
    async with saver(tmp_path) as saving:
        await saving.save({"w": STATE["w"]}, step=1)
        await saving.save({"w": STATE["w"]}, step=2)
    save_theirs(tmp_path, range(2, 3), recover=True)
    assert theirs.load(tmp_path / "m-2")["w"].array[0] == 2
    async with saver(tmp_path) as looking:
        ours.assert_equal((await looking.restore())["w"], STATE["w"] + np.float32(2))
        assert [found.step for found in await looking.checkpoints()] == [1, 2]
