"""The state file ``checkpoint``, and the functions of `tf.train` about it: TensorFlow's and ours in one folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from asyncsaver import Saver, convert
from asyncsaver.tensorflow import (
    CheckpointList,
    checkpoint_exists,
    get_checkpoint_mtimes,
    get_checkpoint_state,
    latest_checkpoint,
    map_checkpoint_mtimes,
    remove_checkpoint,
    remove_rotated,
    update_checkpoint_state,
)

from . import ours, theirs
from .theirs import Array

train = tf.compat.v1.train
NAMES = ["m-1", "ü€", "with space", "it's", 'say "so"', "tab\there", "back\\slash", "m-?????-of-00002", "x\ny"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("relative", [True, False])
async def test_both_write_the_same_bytes_and_read_the_same(
    name: str, relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path)
    folder = "run" if relative else str(tmp_path / "run")
    latest, times = f"{folder}/{name}", [1.5, 2e9 + 1 / 3]
    paths = [f"{folder}/m-0", latest]
    train.update_checkpoint_state(folder, latest, [*paths], None, times, 0.1)  # it changes the list
    await update_checkpoint_state(
        folder, latest, paths, "ours", all_model_checkpoint_timestamps=times, last_preserved_timestamp=0.1
    )
    assert (tmp_path / "run" / "ours").read_bytes() == (tmp_path / "run" / "checkpoint").read_bytes()
    for file in ("checkpoint", "ours"):
        mine, found = await get_checkpoint_state(folder, file), train.get_checkpoint_state(folder, file)
        assert mine is not None
        assert (mine.latest, list(mine.paths)) == (found.model_checkpoint_path, list(found.all_model_checkpoint_paths))
        assert list(mine.timestamps) == list(found.all_model_checkpoint_timestamps) == times
        assert mine.last_preserved == found.last_preserved_timestamp == 0.1


async def test_latest_and_exists_and_times_and_removal(tmp_path: Path) -> None:
    folder, prefix = str(tmp_path), str(tmp_path / "m-1")
    for name in ("m-1", "m-2"):
        theirs.save_v2(tmp_path / name, theirs.pieces({"w": np.arange(3)}))
    theirs.save_v1(tmp_path / "old", theirs.pieces({"w": np.arange(3)}))
    train.update_checkpoint_state(folder, prefix)
    assert await latest_checkpoint(folder) == tf.train.latest_checkpoint(folder) == prefix
    prefixes = [str(tmp_path / name) for name in ("m-1", "m-2", "gone", "old")]
    assert [await checkpoint_exists(one) for one in prefixes] == [train.checkpoint_exists(one) for one in prefixes]
    times = await get_checkpoint_mtimes(prefixes)
    assert [int(time) for time in times] == train.get_checkpoint_mtimes(prefixes)  # of whole seconds
    await remove_checkpoint(prefix)
    train.remove_checkpoint(str(tmp_path / "m-2"))
    assert ours.names_in(tmp_path) == ["checkpoint", "old"]
    assert await latest_checkpoint(folder) is None
    assert tf.train.latest_checkpoint(folder) is None


def files(folder: Path) -> set[str]:
    """The checkpoints in a folder that are whole, as far as names tell."""
    names = ours.names_in(folder)
    found = {name.removesuffix(".index") for name in names if name.endswith(".index")}
    assert {name.partition(".data-")[0] for name in names if ".data-" in name} == found
    return found


async def listed(folder: Path) -> list[str]:
    """What the state file names, which both see alike."""
    mine, found = await get_checkpoint_state(folder), train.get_checkpoint_state(str(folder))
    assert mine is not None
    assert list(mine.paths) == list(found.all_model_checkpoint_paths)
    assert mine.latest == found.model_checkpoint_path == tf.train.latest_checkpoint(str(folder))
    return [Path(path).name for path in mine.paths]


async def test_rotation_goes_on_with_whoever_comes_next(tmp_path: Path) -> None:
    """TensorFlow begins a folder, we go on, and TensorFlow again: nobody forgets or deletes more than it should."""
    folder = tmp_path / "run"
    state: dict[str, Array] = {"w": np.arange(6, dtype=np.float32)}
    with theirs.session(state) as opened:
        saver = train.Saver(max_to_keep=3)
        for step in (1, 2, 3, 4):
            saver.save(opened, str(folder / "m"), global_step=step, write_meta_graph=False)
    assert await listed(folder) == ["m-2", "m-3", "m-4"]

    found = await get_checkpoint_state(folder)
    assert found is not None
    checkpoints = CheckpointList(max_to_keep=3)
    checkpoints.recover_last_checkpoints(found.paths, await map_checkpoint_mtimes(found.paths))
    async with Saver(tmp_path / "native") as native:
        for step in (5, 6):
            state["w"] += 1
            saved = await native.save(state, step=step)
            await convert(saved.url, folder / f"m-{step}", format="tensorflow")
            checkpoints.record(str(folder / f"m-{step}"))
            await update_checkpoint_state(
                folder, str(folder / f"m-{step}"), checkpoints.last_checkpoints, dropped=checkpoints.dropped
            )
            await remove_rotated(checkpoints)
    assert await listed(folder) == ["m-4", "m-5", "m-6"]
    assert files(folder) == {"m-4", "m-5", "m-6"}

    with theirs.session({"w": np.zeros_like(state["w"])}) as opened:
        saver = train.Saver(max_to_keep=3)
        saver.recover_last_checkpoints(train.get_checkpoint_state(str(folder)).all_model_checkpoint_paths)
        saver.restore(opened, tf.train.latest_checkpoint(str(folder)))
        ours.assert_equal(theirs.values(opened)["w"], state["w"])
        for step in (7, 8):
            saver.save(opened, str(folder / "m"), global_step=step, write_meta_graph=False)
    assert await listed(folder) == ["m-6", "m-7", "m-8"]
    assert files(folder) == {"m-6", "m-7", "m-8"}
