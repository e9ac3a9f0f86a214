"""Items 102 to 104 of TensorFlow's behaviours: which checkpoint is restored, by its path."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from asyncsaver import (
    CheckpointDeletedError,
    CheckpointNotFoundError,
    CheckpointReader,
    InvalidSavePathError,
    ManifestError,
    Saver,
)
from asyncsaver.restore.opening import opened_save_path
from asyncsaver.store.registry import open_store

from .golden import PROBES
from .restoring import KINDS, STATE, put_files, restore, same, target, untouched

ERRORS = PROBES["restore.argument_errors"]


async def test_item_102_no_path() -> None:
    with pytest.raises(ValueError) as caught:
        await restore(None)
    assert str(caught.value) == ERRORS["none"]["message"]


@pytest.mark.parametrize("wrong", [5, 1.5, b"m-1", ["m-1"], True])
async def test_item_102_what_is_no_path(wrong: Any) -> None:
    with pytest.raises(TypeError, match="save_path must be a str, a path or a Checkpoint, not"):
        await restore(wrong)


async def test_item_103_nothing_there(tmp_path: Path) -> None:
    goal = target()
    for path in (f"{tmp_path}/nope", f"{tmp_path}/no/such/folder/m-1", f"{tmp_path}/m?", f"{tmp_path}/ckpt-00000001"):
        with pytest.raises(ValueError, match="not a valid checkpoint") as caught:
            await restore(path, goal)
        assert isinstance(caught.value, CheckpointNotFoundError)
        assert isinstance(caught.value, InvalidSavePathError)
        assert str(caught.value) == ERRORS["missing"]["message"].replace("$DIR/nope", path)
        assert untouched(goal)


@pytest.mark.parametrize("path", ["", "/", "memory://", "memory://bucket"])
async def test_item_103_what_cannot_be_a_checkpoint(path: str) -> None:
    with pytest.raises(InvalidSavePathError) as caught:
        await restore(path)
    assert str(caught.value) == ERRORS["empty"]["message"] + path


async def test_item_103_no_secret_is_told() -> None:
    with pytest.raises(InvalidSavePathError) as caught:
        await restore("s3://key:secret@bucket")
    texts = [str(caught.value), str(caught.value.__cause__)]
    assert not any("secret" in text for text in texts)


async def test_item_104_a_folder_or_a_file_that_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "notes").write_text("?")
    (tmp_path / "file").write_text("no table")
    async with Saver(tmp_path / "run") as saver:  # a root is no checkpoint either
        await saver.save(STATE, step=1)
    await put_files(str(tmp_path / "tensorflow"), "v2")
    wrong = ["folder", "folder/", "file", "file/m-1", "run", "run/checkpoint.json", "tensorflow", "tensorflow/v2.index"]
    for path in [f"{tmp_path}/{name}" for name in wrong]:
        if path.endswith("v2.index"):  # a table all the same, but one that lists no tensors
            with pytest.raises(ManifestError, match=re.escape(path)):
                await restore(path)
            continue
        with pytest.raises(InvalidSavePathError, match="The passed save_path is not a valid checkpoint") as caught:
            await restore(path)
        assert path in str(caught.value)


async def test_items_103_and_104_what_was_deleted_is_said_to_be(memory_root: Any) -> None:
    async with Saver(memory_root.url) as saver:
        checkpoint = await saver.save(STATE, step=1)
        await saver.delete(1)
    for path in (checkpoint, checkpoint.url):
        with pytest.raises(CheckpointDeletedError, match="was deleted at"):
            await restore(path)


async def test_item_103_any_kind_of_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await put_files(str(tmp_path), "v2")
    async with Saver(tmp_path) as saver:
        checkpoint = await saver.save(STATE, step=3)
    monkeypatch.chdir(tmp_path)
    for path in ("v2", "./v2", tmp_path / "v2", f"file://{tmp_path}/v2", checkpoint, checkpoint.url, "ckpt-00000003"):
        assert same(await restore(path), STATE), path


async def test_item_103_what_was_saved_is_not_what_has_replaced_it(memory_root: Any) -> None:
    async with Saver(memory_root.url) as saver:
        old = await saver.save(STATE, step=1)
        new = await saver.save({"b": STATE["b"]}, step=1, overwrite=True)
    with pytest.raises(CheckpointDeletedError, match=f"save {old.save_id} was replaced"):
        await restore(old)
    assert list(await restore(new)) == list(await restore(old.url)) == ["b"]


async def test_item_103_through_a_root_that_is_open(tmp_path: Path) -> None:
    """No second store is opened for what lies right in it, and prunes leave it alone meanwhile."""
    await put_files(str(tmp_path), "v2")
    async with Saver(tmp_path, prefix="run") as saver:
        checkpoint = await saver.save(STATE, step=1)
        for path in (checkpoint, checkpoint.url, tmp_path / "v2", f"{tmp_path}/v2"):
            async with opened_save_path(path, no_other, saver._root) as (root, find):
                assert root.store is saver._root.store
                async with CheckpointReader(root, await find()) as reader:
                    assert saver._root.in_use == {reader.checkpoint.name: 1}
                    assert same(await reader.restore(select=[*STATE]), STATE)
            assert not saver._root.in_use
        assert [one.save_id for one in await saver.checkpoints()] == [checkpoint.save_id]  # the store is still open


def no_other(*where: object) -> Any:
    raise AssertionError(f"another store was opened: {where}")


async def test_item_103_another_root_has_the_saver_s_options(memory_root: Any) -> None:
    """Its figures are told, and its own checkpoints are no part of it."""
    await put_files(memory_root.url, "v1")
    told: list[Any] = []
    async with Saver("memory://elsewhere/run", on_stats=lambda *figures: told.append(figures)) as saver:
        await saver.restore(save_path=f"{memory_root.url}/v1")
        assert await saver.checkpoints() == []
    [(checkpoint, stats)] = told
    assert checkpoint.url == f"{memory_root.url}/v1"
    assert (stats.tensors, stats.requests["list"] > 0) == (len(STATE), True)


async def test_item_103_one_checkpoint_is_named_in_one_way(memory_root: Any) -> None:
    async with Saver(memory_root.url) as saver:
        checkpoint = await saver.save(STATE, step=1)
        others: list[dict[str, Any]] = [{"step": 1}, {"checkpoint": checkpoint}]
        for other in others:
            for path in (None, checkpoint.url):
                with pytest.raises(ValueError, match="one of them only"):
                    await saver.restore(save_path=path, **other)


@pytest.mark.server
@pytest.mark.parametrize("kind", ["s3", "gcs", "azure"])
async def test_item_103_on_real_servers(request: pytest.FixtureRequest, kind: str) -> None:
    """With the saver's options, right in its root and elsewhere."""
    root = request.getfixturevalue(f"{kind}_root")
    for folder in ("run", "other"):
        async with open_store(f"{root.url}/{folder}", storage_options=root.storage_options) as store:
            for path in KINDS.glob("v2.*"):
                await store.put(path.name, path.read_bytes())
    async with Saver(f"{root.url}/run", storage_options=root.storage_options) as saver:
        checkpoint = await saver.save(STATE, step=1)
        for path in (checkpoint.url, f"{root.url}/run/v2", f"{root.url}/other/v2"):
            assert same(await saver.restore(save_path=path), STATE)
        for path in (f"{root.url}/run/nope", f"{root.url}/other/nope", f"{root.url}/nowhere/v2"):
            with pytest.raises(InvalidSavePathError, match=f"The passed save_path is not a valid checkpoint: {path}"):
                await saver.restore(save_path=path)
