"""A process that writes TensorFlow's files is killed by SIGKILL: for TensorFlow each checkpoint is whole or absent, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from asyncsaver import Saver
from asyncsaver.formats.tensorflow.state_text import decode_state

from ..doubles.world import number_of, state_of  # noqa: TID252 - test folders have no name
from ..layout.tensorflow_eyes import numbers_seen  # noqa: TID252
from .grounds import S3, Disk, Ground, open_ground
from .killing import Killer, What
from .scenarios import TENSORFLOW, Scenario, ckpt, numbers_of, saver_for
from .soundness import objects_of

pytestmark = [pytest.mark.torture, pytest.mark.slow, pytest.mark.timeout(900)]

Scale = Callable[[int, int], int]


def saver_at(ground: Ground) -> Saver:
    return Saver(open_ground(ground), format="tensorflow", shard_bytes=1, max_to_keep=None)


async def assert_sound(ground: Ground, scenario: Scenario, outcome: BaseException | str | None) -> None:
    """TensorFlow finds whole checkpoints only, and what its state file lists; a saver of ours goes on from there."""
    objects = await objects_of(ground)
    seen = numbers_seen(objects)
    for name, number in seen.items():
        assert number in scenario.allowed(name), f"TensorFlow finds {number} in {name} after {outcome}"
    listed = {path.rpartition("/")[2] for path in decode_state(objects["checkpoint"], "checkpoint").paths}
    assert listed <= seen.keys(), f"TensorFlow is told of what is not there, after {outcome}"
    async with saver_at(ground) as saver:
        found = await numbers_of(saver)
        for name in dict(scenario.before).keys() | scenario.after.keys() | found.keys():
            new = set() if name in dict(scenario.before) else {0}
            assert found.get(name, 0) in scenario.allowed(name) | new, f"{name} holds {found.get(name)} after {outcome}"
        assert outcome is not None or found == scenario.after
        latest = await saver.latest()
        assert latest is not None
        assert latest.name == scenario.newest(found)
        # What was committed is published by whoever comes next, and what is not any more goes.
        await saver.save(state_of(70), step=7)
        assert number_of(await saver.restore()) == 70
        await saver.prune()
        await saver.sweep(0)
        assert not (await saver.sweep(0)).leftovers
        assert await numbers_of(saver) == found | {ckpt(7): 70}
        for name in (*found, ckpt(7)):
            await saver.verify(int(name[-8:]))
    objects = await objects_of(ground)
    assert numbers_seen(objects) == found | {ckpt(7): 70}
    named = {path.partition(".")[0] for path in objects if "/" not in path and not path.startswith(".")}
    assert named == {*found, ckpt(7), "checkpoint"}, "data files that no index names are left"
    hidden = await ground.hidden()
    assert not hidden, f"{hidden} are left"
    async with saver_for(scenario, open_ground(ground)) as saver:
        await saver.prune()
        assert number_of(await saver.restore()) == 70


async def killed_at(template: Ground, killer: Killer, what: What, chosen: int) -> int:
    async with saver_at(template) as saver:
        for name, number in TENSORFLOW.before:
            await saver.save(state_of(number), step=int(name[-8:]))
    return await killer.kill_each(template, what, chosen, [TENSORFLOW], assert_sound)


async def test_items_033_and_060_to_062_killed_at_operations_on_a_disk(
    disk: Disk, killer: Killer, scale: Scale, figures: Any
) -> None:
    killed = await killed_at(disk, killer, "operation", scale(2, 10_000))
    figures.add("processes killed writing TensorFlow's files, local disk", killed)


async def test_items_033_and_060_to_062_killed_at_system_calls_on_a_disk(
    disk: Disk, killer: Killer, scale: Scale, figures: Any
) -> None:
    killed = await killed_at(disk, killer, "system call", scale(2, 200))
    figures.add("processes killed at a system call, writing TensorFlow's files, local disk", killed)


@pytest.mark.server
async def test_items_033_and_060_to_062_killed_at_operations_on_s3(
    s3: S3, killer: Killer, scale: Scale, figures: Any
) -> None:
    chosen = scale(0, 60)
    if not chosen:
        pytest.skip("takes too long for `make test`: part of `make torture`")
    killed = await killed_at(s3, killer, "operation", chosen)
    figures.add("processes killed writing TensorFlow's files, S3", killed)
