"""Damaged shards are found and named, and nothing of them reaches the caller's arrays."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import numpy as np
import pytest

from asyncsaver import CheckpointCorruptError, Saver

from .place import Place
from .states import bits

STATE = {"first": np.arange(1000, dtype=np.float64), "second": np.arange(1000), "note": "hello"}


def blank() -> dict[str, Any]:
    return {"first": np.full(1000, -1.0), "second": np.full(1000, -1), "note": ""}


async def flip(place: Place, path: str, position: int) -> None:
    """Flip one bit of an object."""
    data = bytearray(await place.get(path))
    data[position] ^= 4
    await place.put(path, bytes(data))


async def truncate(place: Place, path: str) -> None:
    await place.put(path, (await place.get(path))[:-1])


async def lengthen(place: Place, path: str) -> None:
    await place.put(path, await place.get(path) + b"x")


async def swap(place: Place, path: str) -> None:
    """Put the other shard, of the same size, in its place."""
    [other] = [shard for shard in await place.shards() if shard != path]
    await place.put(path, await place.get(other))


SHARD_DAMAGE: dict[str, Callable[[Place, str], Awaitable[None]]] = {
    "missing": lambda place, path: place.remove(path),
    "truncated": truncate,
    "lengthened": lengthen,
    "emptied": lambda place, path: place.put(path, b""),
    "a bit of the first element": lambda place, path: flip(place, path, -8000),
    "a bit of the last byte": lambda place, path: flip(place, path, -1),
    "replaced by the other shard": swap,
}


@pytest.mark.parametrize("how", SHARD_DAMAGE)
async def test_a_damaged_shard(nearby: Place, how: str) -> None:
    target = blank()
    arrays = dict(target)
    async with nearby.saver(shard_bytes=8000) as saver:
        await saver.save(STATE, step=1)
        _, shard = await nearby.shards()
        await SHARD_DAMAGE[how](nearby, shard)
        for call in (saver.restore(target), saver.restore(), saver.restore(step=1), saver.verify()):
            with pytest.raises(CheckpointCorruptError) as caught:
                await call
            assert caught.value.path == shard
            assert shard in str(caught.value)
            assert caught.value.tensors == ("second",)
            assert "second" in str(caught.value)
            assert caught.value.overwritten == ()
        assert target == arrays
        assert bits(target) == bits(blank())
        # What is whole can still be had.
        assert bits(await saver.restore(select="first")) == bits({"first": STATE["first"]})


async def test_a_flipped_bit_in_a_header_harms_no_restore_and_is_found_by_verify(nearby: Place) -> None:
    async with nearby.saver() as saver:
        await saver.save(STATE, step=1)
        [shard] = await nearby.shards()
        await flip(nearby, shard, 20)
        assert bits(await saver.restore()) == bits(STATE)  # places come from the manifest
        with pytest.raises(CheckpointCorruptError, match=f"{shard}: crc32c"):
            await saver.verify()


async def test_verify_lists_all_damage(nearby: Place) -> None:
    async with nearby.saver(shard_bytes=8000) as saver:
        await saver.save(STATE, step=1)
        first, second = await nearby.shards()
        await flip(nearby, first, -1)
        await truncate(nearby, second)
        with pytest.raises(CheckpointCorruptError) as caught:
            await saver.verify(1)
    assert first in str(caught.value)
    assert second in str(caught.value)
    assert set(caught.value.tensors) == {"first", "second"}


async def test_damage_can_be_read_past_when_asked_to(memory: Place) -> None:
    async with memory.saver() as saver:
        await saver.save(STATE, step=1)
        [shard] = await memory.shards()
        await flip(memory, shard, -1)
        restored = await saver.restore(verify=False)
    assert bits(restored["first"]) == bits(STATE["first"])
    assert bits(restored["second"]) != bits(STATE["second"])


async def test_a_state_larger_than_the_budget_says_what_it_has_overwritten(memory: Place) -> None:
    async with memory.saver(memory_budget=100) as saver:
        await saver.save(STATE, step=1)
        [shard] = await memory.shards()
        await flip(memory, shard, -1)
        with pytest.raises(CheckpointCorruptError) as caught:
            await saver.restore(blank())
    assert set(caught.value.overwritten) == {"first", "second"}
    assert any("undefined" in note for note in caught.value.__notes__)


@pytest.mark.parametrize("how", ["missing", "truncated", "lengthened"])
async def test_a_shard_that_is_damaged_before_the_commit(
    memory: Place, held_back: Callable[[Saver], AbstractAsyncContextManager[asyncio.Event]], how: str
) -> None:
    async with memory.saver() as saver:
        async with held_back(saver) as reached:
            save = asyncio.create_task(saver.save({"x": np.arange(4)}, step=1))
            await reached.wait()
            [shard] = await memory.shards()
            await SHARD_DAMAGE[how](memory, shard)
        with pytest.raises(CheckpointCorruptError, match=shard):
            await save
        assert await memory.paths() == []
