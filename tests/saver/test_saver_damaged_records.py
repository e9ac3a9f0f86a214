"""Damaged manifests, state files and parts are found and named, and nothing of them reaches the caller's arrays."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from asyncsaver import CheckpointCorruptError, ManifestError

from .place import Place, sealed
from .states import bits

STATE = {"first": np.arange(1000, dtype=np.float64), "second": np.arange(1000), "note": "hello"}
MANIFEST = "ckpt-00000001/manifest.json"


def blank() -> dict[str, Any]:
    return {"first": np.full(1000, -1.0), "second": np.full(1000, -1), "note": ""}


def edited(**fields: Any) -> Callable[[bytes], bytes]:
    return lambda data: sealed(json.loads(data) | fields)


def first_file_at(path: str) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        manifest = json.loads(data)
        manifest["files"][0]["path"] = path
        return sealed(manifest)

    return edit


def chunk_field(position: int, value: Any) -> Callable[[bytes], bytes]:
    def edit(data: bytes) -> bytes:
        manifest = json.loads(data)
        manifest["tensors"]["first"]["chunks"][0][position] = value
        return sealed(manifest)

    return edit


MANIFEST_DAMAGE: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda data: data[: len(data) // 2], "damaged"),
    (lambda _: b"", "damaged"),
    (lambda _: b"\x00\xff garbage", "damaged"),
    (lambda _: b"[1, 2]", "damaged"),
    (lambda _: b"[" * 100_000, "damaged"),
    (lambda _: b"{}", "damaged"),
    (edited(version=3), "version 3 is unknown.*newer"),
    (edited(version=2), "damaged.*body"),
    (edited(version="1"), "damaged"),
    (edited(format="orbax"), "format is 'orbax'"),
    (edited(state="half"), "damaged"),
    (edited(name="ckpt-00000002"), "is the record of 'ckpt-00000002'"),
    (edited(slot=1), "at slot 1"),
    (edited(save_id="../../x"), "no save id"),
    (edited(created="yesterday"), "damaged"),
    (edited(files=None), "damaged"),
    (edited(files=[]), "chunk is in file 0 of 0"),
    (first_file_at("../x"), r"'\.\./x' does not stay under the root"),
    (first_file_at("/etc/passwd"), "'/etc/passwd' does not stay under the root"),
    (first_file_at("a/../../b"), "does not stay under the root"),
    (first_file_at("a\\..\\b"), "does not stay under the root"),
    (first_file_at(""), "does not stay under the root"),
    (chunk_field(3, -5), "'first'"),
    (chunk_field(4, 10**9), "'first'"),
    (chunk_field(2, 7), "'first'.*file 7"),
    (chunk_field(1, [999]), "'first'"),
    (chunk_field(0, [1]), "'first'"),
]


@pytest.mark.parametrize(("damage", "words"), MANIFEST_DAMAGE)
async def test_a_damaged_manifest(
    memory: Place, damage: Callable[[bytes], bytes], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    target = blank()
    async with memory.saver() as saver:
        await saver.save({"first": np.arange(3)}, step=0)
        await saver.save(STATE, step=1)
        await memory.put(MANIFEST, damage(await memory.get(MANIFEST)))
        for call in (
            saver.restore(target, step=1),
            saver.restore(target),
            saver.latest(),
            saver.open(1),
            saver.verify(),
        ):
            with pytest.raises(ManifestError, match=words) as caught:
                await call
            assert str(caught.value).startswith(f"{saver.url}/{MANIFEST}: ")
            assert caught.value.path == MANIFEST
        assert bits(target) == bits(blank())
        caplog.clear()
        assert [one.step for one in await saver.checkpoints()] == [0]
        assert f"not listed as a checkpoint: {saver.url}/{MANIFEST}: " in caplog.text
        assert bits(await saver.restore(step=0)) == bits({"first": np.arange(3)})


async def test_a_damaged_tree_is_a_damaged_manifest(memory: Place) -> None:
    async with memory.saver() as saver:
        await saver.save(STATE, step=1)
        await memory.edit(MANIFEST, tree={"tensor": "no-such-tensor"})
        with pytest.raises(ManifestError, match="no-such-tensor"):
            await saver.restore()


async def test_verify_finds_a_tree_that_names_a_tensor_that_is_not_there(memory: Place) -> None:
    async with memory.saver() as saver:
        await saver.save(STATE, step=1)
        tree = json.loads(await memory.get(MANIFEST))["tree"]
        tree["dict"]["first"] = {"tensor": "no.such.tensor"}
        await memory.edit(MANIFEST, tree=tree)
        with pytest.raises(CheckpointCorruptError, match=r"manifest.json: .*'first'.*'no.such.tensor'"):
            await saver.verify()


async def test_verify_finds_tensors_that_no_leaf_names_besides_other_damage(memory: Place) -> None:
    async with memory.saver() as saver:
        await saver.save(STATE, step=1)
        tree = json.loads(await memory.get(MANIFEST))["tree"]
        del tree["dict"]["second"]
        await memory.edit(MANIFEST, tree=tree)
        [shard] = await memory.shards()
        await memory.put(shard, (await memory.get(shard))[:-1])
        with pytest.raises(CheckpointCorruptError, match="second: no leaf") as caught:
            await saver.verify()
    assert caught.value.path == MANIFEST
    assert set(caught.value.tensors) == {"first", "second"}
    assert shard in str(caught.value)


async def test_a_manifest_copied_from_another_checkpoint(memory: Place) -> None:
    async with memory.saver() as saver:
        await saver.save(STATE, step=1)
        await memory.put("ckpt-00000002/manifest.json", await memory.get(MANIFEST))
        with pytest.raises(ManifestError, match=r"ckpt-00000002/manifest.json.*is the record of 'ckpt-00000001'"):
            await saver.restore(step=2)
        assert [one.step for one in await saver.checkpoints()] == [1]


async def test_a_manifest_that_refers_to_files_of_another_save(memory: Place) -> None:
    async with memory.saver() as saver:
        await saver.save(STATE, step=1)
        await saver.save({"first": np.zeros(3)}, step=2)
        other = json.loads(await memory.get("ckpt-00000002/manifest.json"))
        mine = json.loads(await memory.get(MANIFEST))
        mine["files"][0]["path"] = other["files"][0]["path"]
        await memory.put(MANIFEST, sealed(mine))
        with pytest.raises(CheckpointCorruptError, match="first"):
            await saver.restore(step=1)


async def test_a_damaged_checkpoint_can_be_deleted_and_saved_again(memory: Place) -> None:
    async with memory.saver() as saver:
        await saver.save(STATE, step=1)
        await memory.put(MANIFEST, b"garbage")
        await saver.delete(1)
        assert await saver.latest() is None
        await saver.save(STATE, step=1)
        assert bits(await saver.restore()) == bits(STATE)
        await saver.sweep(0)
        assert len(await memory.shards()) == 1


async def test_a_damaged_checkpoint_can_be_overwritten(memory: Place) -> None:
    async with memory.saver() as saver:
        await saver.save(STATE, step=1)
        await memory.put(MANIFEST, b"garbage")
        with pytest.raises(FileExistsError, match="overwrite=True"):
            await saver.save(STATE, step=1)
        await saver.save(STATE, step=1, overwrite=True)
        assert bits(await saver.restore()) == bits(STATE)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"garbage",
        lambda data: data[:-20],
        edited(version=99),
        edited(entries=[{}]),
        lambda _: None,
    ],
)
async def test_a_lost_or_damaged_state_file_is_rebuilt(
    memory: Place, damage: Callable[[bytes], bytes | None], caplog: pytest.LogCaptureFixture
) -> None:
    async with memory.saver(max_to_keep=3) as saver:
        for step in range(3):
            await saver.save({"x": np.full(2, step)}, step=step, metrics={"loss": step})
        await saver.pin(0)
    before = json.loads(await memory.get("checkpoint.json"))
    data = damage(await memory.get("checkpoint.json"))
    if data is None:
        await memory.remove("checkpoint.json")
    else:
        await memory.put("checkpoint.json", data)
    with caplog.at_level(logging.WARNING, "asyncsaver"):
        async with memory.saver(max_to_keep=3) as saver:
            listed = await saver.checkpoints()
            assert [(one.step, one.metrics["loss"], one.pinned) for one in listed] == [
                (0, 0, True),
                (1, 1, False),
                (2, 2, False),
            ]
            latest = await saver.latest()
            assert latest is not None
            assert latest.step == 2
            await saver.save({"x": np.zeros(2)}, step=3)
    assert data is None or "checkpoint.json cannot be read and is rebuilt" in caplog.text
    after = json.loads(await memory.get("checkpoint.json"))
    assert [entry["name"] for entry in after["entries"]][:3] == [entry["name"] for entry in before["entries"]]
    assert [entry.get("pinned", False) for entry in after["entries"]] == [True, False, False, False]


async def test_a_state_file_that_lies_is_not_believed(memory: Place) -> None:
    async with memory.saver() as saver:
        await saver.save(STATE, step=1)
        await saver.save(STATE, step=2)
    state = json.loads(await memory.get("checkpoint.json"))
    state["entries"] = [entry | {"name": "ckpt-00000777", "step": 777} for entry in state["entries"][:1]]
    await memory.put("checkpoint.json", sealed(state))
    async with memory.saver() as saver:
        assert [one.step for one in await saver.checkpoints()] == [1, 2]
        await saver.prune()
        assert bits(await saver.restore(step=1)) == bits(STATE)
