"""Whatever is damaged, saves, prunes and sweeps go on, and take nothing away that damage has only hidden."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Any

import pytest

from asyncsaver import CheckpointCorruptError, Saver

from ..saver.place import Place  # noqa: TID252 - test folders are no packages
from ..saver.states import bits  # noqa: TID252 - likewise
from .scene import DAMAGED, KINDS, MANIFEST, STATE_FILE, STATES, STEPS, Scene, files_of, restored, state_of

Scale = Callable[[Any, Any], Any]
pytestmark = pytest.mark.torture

DAMAGE: dict[str, Callable[[bytes], bytes | None]] = {
    "a bit": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :],
    "cut": lambda data: data[: len(data) // 2],
    "emptied": lambda _: b"",
    "deleted": lambda _: None,
}


# What no manifest names is the leftover of a dead save, and a sweep is asked to remove it.
REPAIRABLE = [(kind, how) for kind in KINDS for how in DAMAGE if (kind, how) != ("manifest", "deleted")]


@pytest.mark.parametrize(("kind", "how"), REPAIRABLE)
async def test_prune_and_sweep_take_nothing_that_a_repair_would_bring_back(scene: Scene, kind: str, how: str) -> None:
    [path, *_] = scene.of_kind(kind)
    scene.put(path, DAMAGE[how](scene.files[path]))
    async with Saver(scene.folder, max_to_keep=3) as saver:
        report = await saver.prune()
        assert report.deleted == []
        await saver.sweep(grace=0)
    if path != STATE_FILE:
        (scene.folder / path).parent.mkdir(exist_ok=True)
        scene.put(path, scene.files[path])  # the backup comes, and all is well
    async with Saver(scene.folder, read_only=True) as saver:
        for step in STEPS:
            assert await restored(saver, step) == STATES[step]
        assert bits(await saver.restore()) == STATES[DAMAGED]
    assert {path for path in scene.files if path.endswith(".safetensors")} <= files_of(scene.folder).keys()


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("kind", KINDS)
async def test_the_next_save_commits_and_restores(scene: Scene, kind: str, how: str) -> None:
    [path, *_] = scene.of_kind(kind)
    scene.put(path, DAMAGE[how](scene.files[path]))
    async with Saver(scene.folder, max_to_keep=4) as saver:
        await saver.save(state_of(8), step=8)
        assert bits(await saver.restore()) == STATES[8]
        for step in set(STEPS) - {DAMAGED}:
            assert await restored(saver, step) == STATES[step]
        if kind in {"manifest", "shard"}:  # whose step can be saved again
            await saver.save(state_of(DAMAGED), step=DAMAGED, overwrite=True)
        assert bits(await saver.restore(step=DAMAGED)) == STATES[DAMAGED]


async def test_a_damaged_state_file_prunes_nothing_but_what_retention_says(
    scene: Scene, scale: Scale, caplog: pytest.LogCaptureFixture
) -> None:
    rng = random.Random("prune")
    whole = scene.files[STATE_FILE]
    for _ in range(scale(3, 200)):
        scene.mend()
        caplog.clear()
        at = rng.randrange(len(whole))
        scene.put(STATE_FILE, whole[:at] + bytes([whole[at] ^ 1 << rng.randrange(8)]) + whole[at + 1 :])
        with caplog.at_level(logging.WARNING, "asyncsaver"):
            async with Saver(scene.folder, max_to_keep=1) as saver:
                report = await saver.prune()
                assert sorted(item.name for item in report.deleted) == ["ckpt-00000001", "ckpt-00000002"]
                assert bits(await saver.restore()) == STATES[DAMAGED]
                assert (await saver.checkpoints())[0].pinned
        assert f"{STATE_FILE} cannot be read and is rebuilt" in caplog.text
        caplog.clear()
        async with Saver(scene.folder, max_to_keep=1) as saver:  # by then it was rebuilt
            assert [one.step for one in await saver.checkpoints()] == [DAMAGED]
        assert not caplog.records


async def test_a_manifest_that_loses_a_bit_while_it_is_open(scene: Scene) -> None:
    """The reader goes on with what it has read; what it then finds missing is damage, and no deletion."""
    [shard, *_] = scene.of_kind("shard")
    async with Saver(scene.folder, read_only=True) as saver, await saver.open(DAMAGED) as reader:
        scene.put(MANIFEST, DAMAGE["a bit"](scene.files[MANIFEST]), quietly=True)
        assert bits(await reader.restore()) == STATES[DAMAGED]
        scene.put(shard, None)
        with pytest.raises(CheckpointCorruptError) as caught:
            await reader.restore()
        assert caught.value.path == shard


async def test_on_every_store(any_root: Any, scale: Scale, figures: Any) -> None:
    place = Place(any_root.url, any_root.storage_options)
    async with place.saver(shard_bytes=320) as saver:
        await saver.save(state_of(1), step=1)
        await saver.save(state_of(2), step=2)
    files = await place.objects()
    damaged = [path for path in files if path.startswith("ckpt-00000002/")]
    shards = [path for path in damaged if path.endswith(".safetensors")]
    for path in scale([shards[0], "ckpt-00000002/manifest.json"], [*damaged, STATE_FILE]):
        data = files[path]
        await place.put(path, DAMAGE["a bit"](data) or b"")
        async with place.saver(read_only=True) as saver:
            assert await restored(saver, 1) == STATES[1]
            found = await restored(saver, 2)
            if "manifest" in path or path.endswith(".safetensors"):
                with pytest.raises(CheckpointCorruptError) as caught:
                    await saver.verify(2)
                assert caught.value.path == path
            else:
                assert found == STATES[2]
            assert found == STATES[2] or (isinstance(found, CheckpointCorruptError) and found.path == path)
        await place.put(path, data)
        figures.add("files damaged on real servers")
