"""What is saved comes back to the last bit, from every store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from asyncsaver.store.registry import open_store

from .place import Place
from .states import bits, leaves, mixed_state, plain

pytestmark = pytest.mark.server


@pytest.fixture
def state(tmp_path: Path) -> dict[str, Any]:
    return mixed_state(tmp_path)


async def test_a_mixed_state_without_a_target(anywhere: Place, state: dict[str, Any], no_leaks: None) -> None:
    before = bits(state)
    async with anywhere.saver(shard_bytes=2000) as saver:
        saved = await saver.save(state, step=7)
        assert bits(state) == before
        assert saved.stats is not None
        assert saved.stats.files > 3
        assert len(await anywhere.shards()) == saved.stats.files
        assert bits(await saver.restore()) == bits(plain(state))
    async with anywhere.saver() as other:
        assert bits(await other.restore(step=7)) == bits(plain(state))
        assert bits(await other.restore(checkpoint=saved)) == bits(plain(state))
        report = await other.verify()
        assert (report.files, report.bytes) == (saved.stats.files, saved.total_bytes)


async def test_a_mixed_state_into_a_target(anywhere: Place, state: dict[str, Any], tmp_path: Path) -> None:
    target = mixed_state(tmp_path, seed=1)
    arrays, counter = leaves(target), target["counter"]
    async with anywhere.saver(shard_bytes=2000) as saver:
        await saver.save(state, step=7)
        restored = await saver.restore(target)
    assert bits(restored) == bits(state)
    assert restored["counter"] is counter
    filled = leaves(restored)
    assert filled.keys() == arrays.keys()
    for name, array in arrays.items():
        assert filled[name].dtype == array.dtype  # with its byte order
        if array.flags.writeable:
            assert filled[name] is array
    assert filled["model.mapped"] is arrays["model.mapped"]


async def test_a_background_save_holds_the_state_as_it_was(
    anywhere: Place, state: dict[str, Any], tmp_path: Path
) -> None:
    before = bits(plain(state))
    async with anywhere.saver(shard_bytes=2000) as saver:
        pending = await saver.save_in_background(state, step=1)
        for array in leaves(state).values():
            if array.flags.writeable and array.dtype.kind == "f":
                array[...] = -1
        state["counter"].table[:] = -1
        state["values"]["ints"].clear()
        saved = await pending
        assert bits(await saver.restore(checkpoint=saved)) == before
    assert bits(plain(state)) != before


async def test_a_tensor_larger_than_a_shard_and_a_request(anywhere: Place) -> None:
    part = open_store(anywhere.url, storage_options=anywhere.storage_options).capabilities.part_bytes
    large = np.random.default_rng(0).integers(0, 2**63, part // 8 + 2**17 + 3, np.uint64)
    state = {"small": np.arange(5), "large": large, "after": np.array([1, 2], np.float32)}
    async with anywhere.saver(shard_bytes=2**20) as saver:
        saved = await saver.save(state, step=1)
        assert saved.total_bytes > part + 2**20
        restored = await saver.restore()
        async with await saver.open() as reader:
            piece = await reader.read("large", slice(part // 8 - 2, part // 8 + 2))
    assert bits(restored) == bits(state)
    np.testing.assert_array_equal(piece, large[part // 8 - 2 : part // 8 + 2])


async def test_overwriting_and_saving_without_a_step(anywhere: Place) -> None:
    async with anywhere.saver() as saver:
        await saver.save({"x": np.arange(3)}, step=1)
        replaced = await saver.save({"x": np.arange(4)}, step=1, overwrite=True)
        await saver.save({"x": np.arange(5)})
        last = await saver.save({"x": np.arange(6)})
        assert [(one.step, one.save_id) for one in await saver.checkpoints()] == [
            (1, replaced.save_id),
            (None, last.save_id),
        ]
        assert (await saver.restore(step=1))["x"].size == 4
        assert (await saver.restore())["x"].size == 6
    assert len(await anywhere.shards()) == 2  # those that were replaced are gone


async def test_pruning_pinning_and_deleting(anywhere: Place) -> None:
    async with anywhere.saver(max_to_keep=2) as saver:
        await saver.save({"x": np.arange(3)}, step=0, pin=True)
        for step in range(1, 6):
            await saver.save({"x": np.full(3, step)}, step=step)
        assert [one.step for one in await saver.checkpoints()] == [0, 4, 5]
        await saver.unpin(0)
        await saver.pin(4)
        assert [one.pinned for one in await saver.checkpoints()] == [False, True, False]
        report = await saver.prune(dry_run=True)
        assert [one.step for one in report.deleted] == [0]
        assert [one.step for one in await saver.checkpoints()] == [0, 4, 5]
        await saver.prune()
        await saver.delete(4)
        assert [one.step for one in await saver.checkpoints()] == [5]
        await saver.sweep(0)
        assert bits(await saver.restore()) == bits({"x": np.full(3, 5)})
        assert len(await anywhere.shards()) == 1
