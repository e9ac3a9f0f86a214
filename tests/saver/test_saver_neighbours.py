"""What else is under a root - strangers' files, other prefixes, other savers - is neither listed nor touched."""

from __future__ import annotations

from typing import Any

import numpy as np

from asyncsaver import Saver

from .place import Place


def state_of(step: int) -> dict[str, Any]:
    return {"x": np.full(10, step)}


async def steps(saver: Saver) -> list[int | None]:
    return [one.step for one in await saver.checkpoints()]


FOREIGN = {
    "README.txt": b"mine",
    "ckpt-00000001.bak/manifest.json": b"mine",
    "other-00000001/manifest.json": b"mine",
    "ckpt-1x/file": b"mine",
    "ckpt-00000001/notes.txt": b"mine",
    "ckpt-00000001/my folder/data.bin": b"mine",
    "ckpt-000000001/manifest.json": b"mine",
    "ckptx/manifest.json": b"mine",
    "deep/ckpt-00000001/manifest.json": b"mine",
    "events.out.tfevents": b"",
}


async def test_foreign_objects_are_neither_listed_nor_touched(nearby: Place) -> None:
    for path, data in FOREIGN.items():
        await nearby.put(path, data)
    async with nearby.saver(max_to_keep=1) as saver:
        assert await steps(saver) == []
        for step in range(3):
            await saver.save(state_of(step), step=step)
        await saver.prune()
        await saver.sweep(0)
        assert await steps(saver) == [2]
        await saver.delete(2)
    left = await nearby.objects()
    assert {path: left.get(path) for path in FOREIGN} == FOREIGN


async def test_two_prefixes_in_one_root_do_not_see_each_other(nearby: Place) -> None:
    async with (
        nearby.saver(max_to_keep=1, prefix="model") as one,
        nearby.saver(max_to_keep=2, prefix="model-ema") as two,
    ):
        for step in range(4):
            await one.save(state_of(step), step=step)
            await two.save(state_of(-step), step=step)
        await one.prune()
        await two.sweep(0)
        assert await steps(one) == [3]
        assert await steps(two) == [2, 3]
        assert (await one.restore())["x"][0] == 3
        assert (await two.restore())["x"][0] == -3


async def test_two_savers_prune_one_root(memory: Place) -> None:
    async with memory.saver(max_to_keep=2) as one, memory.saver(max_to_keep=2) as two:
        for step in range(0, 8, 2):
            await one.save(state_of(step), step=step)
            await two.save(state_of(step + 1), step=step + 1)
        assert await steps(one) == await steps(two) == [6, 7]
