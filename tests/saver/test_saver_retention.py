"""Which checkpoints stay, as users see it: on the store, in reports, and with the reasons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from asyncsaver import (
    KeepAll,
    KeepBest,
    KeepEveryHours,
    KeepEverySteps,
    KeepLast,
    KeepPinned,
    PruneReport,
    RetentionPolicy,
    Saver,
)

from .place import Place

HOUR = 3600.0


@dataclass
class Clock:
    """A clock that the test sets."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def state_of(step: int) -> dict[str, Any]:
    return {"x": np.full(10, step)}


async def steps(saver: Saver) -> list[int | None]:
    return [one.step for one in await saver.checkpoints()]


def reasons(report: PruneReport) -> dict[int | None, tuple[bool, str]]:
    return {line.step: (line.kept, line.reason) for line in report.checkpoints}


@pytest.mark.parametrize(
    ("retention", "kept"),
    [
        (KeepAll(), list(range(10))),
        (KeepLast(3), [7, 8, 9]),
        (KeepEverySteps(4), [0, 4, 8, 9]),
        (KeepBest("loss", 2), [5, 6, 9]),
        (KeepBest("loss", 2, mode="max"), [0, 1, 9]),
        (KeepBest("no such metric"), [9]),
        (KeepPinned(), [9]),
        (KeepLast(2) | KeepEverySteps(5) | KeepBest("loss"), [0, 5, 8, 9]),
    ],
)
async def test_policies(nearby: Place, retention: RetentionPolicy, kept: list[int]) -> None:
    async with nearby.saver(retention=retention) as saver:
        for step in range(10):
            await saver.save(state_of(step), step=step, metrics={"loss": abs(step - 5.4)})
        assert await steps(saver) == kept
        for step in kept:
            assert (await saver.restore(step=step))["x"][0] == step
    assert len(await nearby.shards()) == len(kept)


@pytest.mark.parametrize(
    ("max_to_keep", "kept"), [(1, [6]), (5, [2, 3, 4, 5, 6]), (None, list(range(7))), (0, list(range(7)))]
)
async def test_max_to_keep(memory: Place, max_to_keep: int | None, kept: list[int]) -> None:
    async with memory.saver(max_to_keep=max_to_keep) as saver:
        for step in range(7):
            await saver.save(state_of(step), step=step)
        assert await steps(saver) == kept


async def test_five_stay_by_default(memory: Place) -> None:
    async with memory.saver() as saver:
        for step in range(7):
            await saver.save(state_of(step), step=step)
        assert await steps(saver) == [2, 3, 4, 5, 6]


async def test_the_newest_is_the_one_committed_last_whatever_its_step_and_the_clock(memory: Place) -> None:
    clock = Clock()
    async with memory.saver(max_to_keep=2, clock=clock) as saver:
        for step in (100, 50, 10):  # a run that was rolled back, on a machine whose clock goes backwards
            await saver.save(state_of(step), step=step)
            clock.now -= HOUR
        assert await steps(saver) == [50, 10]
        latest = await saver.latest()
        assert latest is not None
        assert latest.step == 10
    async with memory.saver(max_to_keep=2, clock=clock) as saver:
        await saver.save(state_of(20), step=20)
        assert await steps(saver) == [10, 20]


async def test_keep_checkpoint_every_n_hours(memory: Place) -> None:
    clock = Clock()
    async with memory.saver(max_to_keep=2, keep_checkpoint_every_n_hours=2, clock=clock) as saver:
        for step in range(13):
            clock.now += HOUR / 2 + 1
            await saver.save(state_of(step), step=step)
        # Of those that go, the first that is more than two hours after the mark stays, and the mark moves two hours.
        assert await steps(saver) == [3, 7, 11, 12]
        report = await saver.prune(dry_run=True)
        assert reasons(report)[3] == (True, "preserved earlier, for good")
    async with memory.saver(max_to_keep=1, clock=clock) as other:
        await other.prune()
        assert await steps(other) == [3, 7, 12]  # for good, also for those who know nothing of hours


async def test_hours_count_on_after_a_restart(memory: Place) -> None:
    clock = Clock()
    for step in range(13):
        async with memory.saver(retention=KeepLast(2) | KeepEveryHours(2), clock=clock) as saver:
            clock.now += HOUR / 2 + 1
            await saver.save(state_of(step), step=step)
    async with memory.saver(max_to_keep=None) as saver:
        assert await steps(saver) == [3, 7, 11, 12]


async def test_pinned_checkpoints_stay_until_they_are_unpinned(nearby: Place) -> None:
    async with nearby.saver(max_to_keep=1) as saver:
        first = await saver.save(state_of(0), step=0, pin=True)
        assert first.pinned
        await saver.save(state_of(1), step=1)
        await saver.pin(1)
        await saver.pin(1)
        await saver.save(state_of(2), step=2)
        assert await steps(saver) == [0, 1, 2]
        assert reasons(await saver.prune())[0] == (True, "pinned")
    async with nearby.saver(max_to_keep=1) as saver:
        await saver.save(state_of(3), step=3)
        await saver.unpin(0)
        assert await steps(saver) == [0, 1, 3]
        assert reasons(await saver.prune()) == {
            0: (False, "not kept by KeepLast(n=1)"),
            1: (True, "pinned"),
            3: (True, "the newest, one of the last 1"),
        }
        assert await steps(saver) == [1, 3]


async def test_a_pin_outlives_overwriting(nearby: Place) -> None:
    async with nearby.saver(max_to_keep=1) as saver:
        await saver.save(state_of(1), step=1, pin=True)
        replaced = await saver.save(state_of(2), step=1, overwrite=True)
        assert replaced.pinned
        for step in (2, 3):
            await saver.save(state_of(step), step=step)
        assert await steps(saver) == [1, 3]
        await saver.unpin(1)
        await saver.prune()
        assert await steps(saver) == [3]


async def test_what_is_kept_for_good_outlives_overwriting(memory: Place) -> None:
    clock = Clock()
    async with memory.saver(max_to_keep=1, keep_checkpoint_every_n_hours=1, clock=clock) as saver:
        clock.now += HOUR + 1
        await saver.save(state_of(1), step=1)
        await saver.save(state_of(2), step=2)
        assert await steps(saver) == [1, 2]
        await saver.save(state_of(3), step=1, overwrite=True)
        for step in (4, 5):
            await saver.save(state_of(step), step=step)
        assert await steps(saver) == [1, 5]


async def test_a_pinned_checkpoint_can_be_deleted_by_hand(memory: Place) -> None:
    async with memory.saver() as saver:
        await saver.save(state_of(0), step=0, pin=True)
        await saver.delete(0)
        assert await steps(saver) == []
        saved = await saver.save(state_of(0), step=0)
        assert not saved.pinned
        assert [one.pinned for one in await saver.checkpoints()] == [False]


async def test_a_checkpoint_that_is_being_read_stays(nearby: Place) -> None:
    async with nearby.saver(max_to_keep=1) as saver:
        await saver.save(state_of(0), step=0)
        async with await saver.open(0) as reader:
            for step in (1, 2):
                await saver.save(state_of(step), step=step)
            report = await saver.prune()
            assert reasons(report)[0] == (True, "being restored")
            assert (await reader.read("x"))[0] == 0
        await saver.prune()
        assert await steps(saver) == [2]


async def test_an_overwritten_checkpoint_that_is_being_read_stays(memory: Place) -> None:
    async with memory.saver() as saver:
        await saver.save(state_of(1), step=0)
        async with await saver.open(0) as reader:
            await saver.save(state_of(2), step=0, overwrite=True)
            assert (await reader.read("x"))[0] == 1
            assert (await saver.restore())["x"][0] == 2
        await saver.prune()
        assert len(await memory.shards()) == 1


async def test_a_report_tells_all(memory: Place) -> None:
    async with memory.saver(max_to_keep=None) as saver:
        for step in range(4):
            await saver.save(state_of(step), step=step)
    async with memory.saver(max_to_keep=2) as saver:
        before = await memory.objects()
        dry = await saver.prune(dry_run=True)
        assert await memory.objects() == before
        done = await saver.prune()
    assert dry.dry_run
    assert not done.dry_run
    assert dry.checkpoints == done.checkpoints
    assert [line.step for line in done.checkpoints] == [0, 1, 2, 3]
    assert [line.step for line in done.kept] == [2, 3]
    assert [line.step for line in done.deleted] == [0, 1]
    assert done.failed == []
    assert done.first_error is None
    assert done.freed_bytes == sum(len(data) for path, data in before.items() if path.endswith("safetensors")) // 2
    assert reasons(done) == {
        0: (False, "not kept by KeepLast(n=2)"),
        1: (False, "not kept by KeepLast(n=2)"),
        2: (True, "one of the last 2"),
        3: (True, "the newest, one of the last 2"),
    }
    assert [line.name for line in done.deleted] == ["ckpt-00000000", "ckpt-00000001"]


async def test_a_deleted_step_can_be_saved_again(nearby: Place) -> None:
    async with nearby.saver() as saver:
        for number in range(3):
            saved = await saver.save(state_of(number), step=5)
            assert (await saver.restore(step=5))["x"][0] == number
            await saver.delete(5)
            with pytest.raises(FileNotFoundError, match="ckpt-00000005 was deleted at"):
                await saver.restore(step=5)
        assert saved.slot == 2
        assert await nearby.shards() == []
