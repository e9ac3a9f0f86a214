"""What must be true of a root after an interruption, and that life goes on there."""

from __future__ import annotations

from asyncsaver import Saver
from asyncsaver.errors import AsyncSaverError, CommitUnknownError

from ..doubles.world import assert_nothing_unreferenced, number_of, state_of  # noqa: TID252 - test folders have no name
from .grounds import Ground, open_ground
from .scenarios import BEFORE, Scenario, ckpt, numbers_of, saver_for


async def objects_of(ground: Ground) -> dict[str, bytes]:
    """Everything that the root lists: path → content."""
    async with open_ground(ground) as store:
        return {item.path: (await store.get(item.path)).data for item in (await store.list()).objects}


async def assert_sound(ground: Ground, scenario: Scenario, outcome: BaseException | str | None) -> None:
    """Nothing was lost or torn, the newest is found, and saves, prunes and sweeps work as if nothing had happened.

    Args:
        ground: where the scenario was interrupted.
        scenario: what was interrupted.
        outcome: how its caller learned of it; "killed" if never; None where it has succeeded all the same.
    """
    async with Saver(open_ground(ground), shard_bytes=1, max_to_keep=None) as saver:
        found = await numbers_of(saver)
        assert_allowed(scenario, found, outcome)
        latest = await saver.latest()
        assert latest is not None
        assert latest.name == scenario.newest(found), f"the latest is {latest.name} after {outcome!r}"
        for one in await saver.checkpoints():
            if one.step is not None:
                await saver.verify(one.step)
        await assert_life_goes_on(saver, found)
    assert_nothing_unreferenced(await objects_of(ground))
    hidden = await ground.hidden()
    assert not hidden, f"{hidden} are left"
    # What was interrupted can be done again, by whoever comes next.
    async with saver_for(scenario, open_ground(ground)) as saver:
        await saver.prune()
        assert number_of(await saver.restore()) == 70


def assert_allowed(scenario: Scenario, found: dict[str, int], outcome: BaseException | str | None) -> None:
    for name in BEFORE.keys() | scenario.after.keys() | found.keys():
        number = found.get(name, 0)
        new = {0} if name in dict(scenario.commits) and name not in BEFORE else set()
        assert number in scenario.allowed(name) | new, f"{name} holds {number} after {outcome!r}"
    if outcome is None:
        # A prune that could not delete something says so in its report; all else has been done when it returns.
        for name, done in scenario.after.items():
            assert found.get(name) == done, f"{name} holds {found.get(name)} after success"
        if scenario.max_to_keep is None:
            assert found == scenario.after
    elif (
        len(scenario.commits) == 1
        and isinstance(outcome, AsyncSaverError)
        and not isinstance(outcome, CommitUnknownError)
    ):
        assert found == BEFORE, f"something has changed, in spite of {outcome!r}"


async def assert_life_goes_on(saver: Saver, found: dict[str, int]) -> None:
    """Another saver saves, restores, prunes and cleans up."""
    await saver.save(state_of(70), step=7)
    assert number_of(await saver.restore()) == 70
    report = await saver.prune()
    assert not report.failed
    await saver.sweep(0)
    assert not (await saver.sweep(0)).leftovers
    assert await numbers_of(saver) == {**found, ckpt(7): 70}
