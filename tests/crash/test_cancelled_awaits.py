"""Cancelled at every await, once or twice, an operation leaves nothing behind, and the saver goes on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asyncsaver import Saver
from asyncsaver.catalog.root import Root
from asyncsaver.errors import SaverClosedError

from ..doubles.world import assert_nothing_unreferenced, number_of, state_of  # noqa: TID252 - test folders have no name
from .grounds import S3, Ground, open_ground
from .operations import OPERATIONS, Operation, Run, open_saver
from .scenarios import BEFORE, ckpt, numbers_of
from .soundness import objects_of
from .suspensions import Canceller

pytestmark = [pytest.mark.torture, pytest.mark.slow, pytest.mark.timeout(1200)]

Scale = Callable[[int, int], int]


def open_files() -> set[str]:
    found = list(Path("/proc/self/fd").iterdir())
    return {f"{entry.name} {entry.readlink()}" for entry in found if entry.is_symlink()}


async def settle() -> None:
    """Let callbacks run that are due."""
    for _ in range(10):
        await asyncio.sleep(0)


def assert_idle(saver: Saver) -> None:
    """Nothing is held any more: no memory, no checkpoint, no place in the line."""
    root: Root = saver._root
    assert root.budget.used == 0
    assert saver._staging._snapshots.used == 0
    assert not root.own_saves
    assert not root.in_use
    assert not saver._guard._uses
    assert not saver._layout.line._last_by_name
    assert not saver._background._pending


async def assert_nothing_torn(ground: Ground, operation: Operation) -> None:
    """What was to be committed is there, whole, or nothing of it is; everything else is as it was."""
    objects = await objects_of(ground)
    async with Saver(open_ground(ground), read_only=True) as saver:
        found = await numbers_of(saver)
        for name, number in operation.commits:
            assert found.get(name, 0) in {number, BEFORE.get(name, 0)}
            if name not in found:
                left = [path for path in objects if path.startswith(f"{name}/")]
                assert not left, f"{left} are left of a save that was cancelled"
        for name, number in BEFORE.items() - dict(operation.commits).items():
            if name not in dict(operation.commits) and not (operation.prunes and name not in {ckpt(1), ckpt(3)}):
                assert found.get(name) == number or (operation.prunes and ckpt(5) in found)
    assert await ground.hidden() == []


async def cancelled(template: Ground, operation: Operation, *numbers: int) -> tuple[int, bool]:
    """Run an operation on a copy, cancel it there, and look at what is left.

    Returns:
        How many suspensions there were, and whether it has ended well all the same.
    """
    ground = await template.copy()
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    canceller = Canceller(frozenset(numbers))
    tasks, files = asyncio.all_tasks(), open_files()
    saver = open_saver(operation, open_ground(ground))
    with canceller.counting():
        well = await operation.run(Run(saver, canceller, ground.part_bytes))
    if operation.name == "staging of a background save" and well:
        await saver._background.wait()
    await settle()
    assert asyncio.all_tasks() == tasks, "a task is left"
    assert_idle(saver)
    if ground.name != "S3":  # whose connections stay open for the next request
        assert sorted(open_files() - files) == []
    await assert_nothing_torn(ground, operation)
    await assert_usable(saver, ground)
    await settle()
    assert sorted(open_files() - files) == []
    assert complaints == []
    loop.set_exception_handler(None)
    return canceller.count, well


async def assert_usable(saver: Saver, ground: Ground) -> None:
    """The same saver saves, restores, prunes and sweeps; one that is closed stays so, and the next one does."""
    try:
        await saver.save(state_of(70), step=70)
    except SaverClosedError:
        saver = Saver(open_ground(ground), shard_bytes=1, max_to_keep=None)
        await saver.save(state_of(70), step=70)
    async with saver:
        assert number_of(await saver.restore()) == 70
        assert not (await saver.prune()).failed
        await saver.sweep(0)
        assert not (await saver.sweep(0)).leftovers
    assert_nothing_unreferenced(await objects_of(ground))


async def cancel_all(template: Ground, operation: Operation, chosen: int, figures: Any) -> None:
    """Cancel an operation at each of its awaits, alone and once more at each of the next three; or so many of all these."""
    count, well = await cancelled(template, operation)
    assert well
    assert count > 0
    cuts = [(number, *again) for number in range(count) for again in ((), (number + 1,), (number + 2,), (number + 3,))]
    for cut in random.Random(operation.name).sample(cuts, min(len(cuts), chosen)):
        try:
            await cancelled(template, operation, *cut)
        except BaseException as error:
            error.add_note(f"{operation.name} on {template.name}, cancelled at await {' and '.join(map(str, cut))}")
            raise
        kind = "awaits cancelled" if len(cut) == 1 else "awaits cancelled twice"
        figures.add(f"{kind}, {template.name}")


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
async def test_cancelled_at_every_await(
    populated_near: Ground, operation: Operation, scale: Scale, figures: Any
) -> None:
    memory = populated_near.name == "memory"
    await cancel_all(populated_near, operation, scale(4, 10_000) if memory else scale(2, 40), figures)


@pytest.mark.server
async def test_cancelled_at_awaits_on_s3(populated_s3: S3, scale: Scale, figures: Any) -> None:
    for operation in OPERATIONS[1 : scale(2, len(OPERATIONS))]:
        await cancel_all(populated_s3, operation, scale(1, 2), figures)
