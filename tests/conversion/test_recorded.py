"""What a saver of ours has written in TensorFlow's files is more than those: the tree, metadata and metrics stand beside them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np

from asyncsaver import Saver, convert, open_checkpoint

STATE: dict[str, Any] = {
    "model": {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": [np.ones(2), None, 0.5]},
    "step": 7,
    "name": "run",
}


async def saved(folder: Path) -> str:
    async with Saver(folder, format="tensorflow", pad_step_number=False, prefix="m") as saver:
        return (await saver.save(STATE, step=7, metadata={"git": "abc"}, metrics={"loss": 0.5})).url


def assert_whole(state: dict[str, Any]) -> None:
    assert (state["step"], state["name"], state["model"]["b"][1:]) == (7, "run", [None, 0.5])
    np.testing.assert_array_equal(state["model"]["w"], STATE["model"]["w"], strict=True)
    np.testing.assert_array_equal(state["model"]["b"][0], np.ones(2), strict=True)


async def test_it_opens_with_its_tree(tmp_path: Path) -> None:
    url = await saved(tmp_path / "run")
    async with await open_checkpoint(url) as reader:
        assert_whole(await reader.restore())
        assert (reader.metadata, dict(reader.checkpoint.metrics), reader.checkpoint.step) == (
            {"git": "abc"},
            {"loss": 0.5},
            7,
        )
        assert reader.checkpoint.url == url
        await reader.verify()
    async with Saver(tmp_path / "elsewhere") as other:
        assert_whole(await other.restore(save_path=url))


async def test_it_is_converted_with_its_tree(tmp_path: Path) -> None:
    url = await saved(tmp_path / "run")
    written = await convert(url, tmp_path / "native" / "ckpt-00000007")
    assert (written.metadata, dict(written.metrics)) == ({"git": "abc"}, {"loss": 0.5})
    async with await open_checkpoint(written.url) as reader:
        assert_whole(await reader.restore())
        assert {*reader.tensors} == {"model.w", "model.b.0"}
        await reader.verify()


async def test_for_others_its_plain_values_are_tensors(tmp_path: Path) -> None:
    url = await saved(tmp_path / "run")
    await convert(url, tmp_path / "copy" / "m-7", format="tensorflow")
    async with await open_checkpoint(tmp_path / "copy" / "m-7") as reader:
        state = await reader.restore()
    assert {*state} == {"model.w", "model.b.0", "model.b.2", "step", "name"}
    assert (state["step"], state["model.b.2"], state["name"].item()) == (7, 0.5, b"run")


async def test_without_our_records_its_tensors_are_left(tmp_path: Path) -> None:
    url = await saved(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / ".asyncsaver")
    async with await open_checkpoint(url) as reader:
        assert {*await reader.restore()} == {"model.w", "model.b.0", "model.b.2", "step", "name"}


async def test_what_somebody_else_has_saved_since_is_theirs(tmp_path: Path) -> None:
    url = await saved(tmp_path / "run")
    (tmp_path / "run" / ".asyncsaver").rename(tmp_path / "records")
    await convert(url, url, format="tensorflow", select="model.w", overwrite=True)
    (tmp_path / "records").rename(tmp_path / "run" / ".asyncsaver")
    async with await open_checkpoint(url) as reader:
        assert {*await reader.restore()} == {"model.w"}
    async with Saver(tmp_path / "run", format="tensorflow", pad_step_number=False, prefix="m") as saver:
        assert {*await saver.restore()} == {"model.w"}
