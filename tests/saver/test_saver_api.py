"""What a saver gives back: checkpoints, their order, their metrics and metadata."""

from __future__ import annotations

import dataclasses
import math
import pickle
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from asyncsaver import Checkpoint, CheckpointDeletedError

from .place import Place
from .states import bits

STATE = {"x": np.arange(10)}


async def test_what_a_save_returns(nearby: Place) -> None:
    async with nearby.saver(clock=lambda: 1_700_000_000.5) as saver:
        saved = await saver.save(STATE, step=12)
        [listed] = await saver.checkpoints()
        latest = await saver.latest()
    assert saved.name == "ckpt-00000012"
    assert saved.url == f"{saver.url}/ckpt-00000012"
    assert (saved.step, saved.slot, saved.world_size, saved.pinned) == (12, 0, 1, False)
    assert saved.created == datetime.fromtimestamp(1_700_000_000.5, UTC)
    assert saved.save_id.startswith("20231114T221320Z-")
    assert saved.stats is not None
    assert (saved.stats.files, saved.stats.tensors) == (1, 1)
    assert saved.stats.bytes_written > saved.total_bytes > 80
    assert saved.stats.state_file_error is None
    assert saved.stats.prune_error is None
    assert listed == latest == dataclasses.replace(saved, stats=None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        saved.step = 5  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(saved)) == saved


async def test_metrics_and_metadata_come_back(nearby: Place) -> None:
    metrics: dict[str, Any] = {
        "loss": 0.1,
        "steps": 7,
        "nan": math.nan,
        "inf": -math.inf,
        "np": np.float32(0.5),
        "big": 2**60,
    }
    metadata = {"git": "abc", "list": [1, 2.5, None, True, {"ä": "日本"}], "empty": {}, "tuple": (1, 2), "max": 2**63}
    async with nearby.saver() as saver:
        saved = await saver.save(STATE, step=1, metrics=metrics, metadata=metadata)
    async with nearby.saver() as other:
        [listed] = await other.checkpoints()
        async with await other.open() as reader:
            opened = reader.checkpoint
            assert reader.metadata == saved.metadata
    for one in (saved, listed, opened):
        assert one.metadata == metadata | {"tuple": [1, 2]}
        assert math.isnan(one.metrics["nan"])
        assert {key: value for key, value in one.metrics.items() if key != "nan"} == {
            "loss": 0.1, "steps": 7, "inf": -math.inf, "np": 0.5, "big": 2**60,
        }  # fmt: skip


async def test_metadata_is_taken_as_it_was(memory: Place) -> None:
    metadata: dict[str, list[int]] = {"a": [1]}
    metrics = {"loss": 1.0}
    async with memory.saver() as saver:
        pending = await saver.save_in_background(STATE, step=1, metadata=metadata, metrics=metrics)
        metadata["a"].append(2)
        metrics["loss"] = 2
        saved = await pending
    assert (saved.metadata, saved.metrics) == ({"a": [1]}, {"loss": 1.0})


async def test_checkpoints_are_listed_oldest_first_by_commit(nearby: Place) -> None:
    async with nearby.saver() as saver:
        for step in (30, 10, 20, None):
            await saver.save(STATE, step=step)
        await saver.save(STATE, step=10, overwrite=True)
        assert [one.step for one in await saver.checkpoints()] == [30, 20, None, 10]
        latest = await saver.latest()
        assert latest is not None
        assert latest.step == 10


async def test_a_checkpoint_is_restored_itself_and_not_what_replaced_it(memory: Place) -> None:
    async with memory.saver() as saver:
        old = await saver.save(STATE, step=1)
        new = await saver.save({"x": np.arange(3)}, step=1, overwrite=True)
        with pytest.raises(CheckpointDeletedError, match=old.save_id):
            await saver.restore(checkpoint=old)
        assert bits(await saver.restore(checkpoint=new)) == bits({"x": np.arange(3)})


@pytest.mark.parametrize(
    "state", [None, 5, "text", b"x" * 5000, [], {}, (), np.arange(3), np.float32(2), [[], {}, None]]
)
async def test_anything_is_a_state(memory: Place, state: object) -> None:
    async with memory.saver() as saver:
        await saver.save(state, step=1)
        assert bits(await saver.restore()) == bits(state)
        await saver.verify()


async def test_many_small_tensors_are_few_objects(memory: Place) -> None:
    state = {f"layer.{n}": np.full(16, n, np.float32) for n in range(5000)}
    async with memory.saver() as saver:
        saved = await saver.save(state, step=1)
        assert saved.stats is not None
        assert (saved.stats.files, saved.stats.tensors) == (1, 5000)
        assert bits(await saver.restore()) == bits(state)
    # A shard, its index, a part, the manifest and the state file.
    assert len(await memory.paths()) == 5


async def test_saves_of_a_second_saver_are_seen_by_the_first(nearby: Place) -> None:
    async with nearby.saver() as one, nearby.saver() as two:
        await one.save(STATE, step=1)
        await two.save(STATE, step=2)
        await one.save(STATE, step=3)
        await two.delete(1)
        found: list[Checkpoint] = await one.checkpoints()
        assert [checkpoint.step for checkpoint in found] == [2, 3]
        assert found == await two.checkpoints()
