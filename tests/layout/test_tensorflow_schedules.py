"""Whatever the order of requests, and whatever the network does: TensorFlow finds each checkpoint whole, or not at all."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import pytest

from asyncsaver.testing import all_schedules, explore, random_schedules

from .schedules import DAY, Actor, Place, Scenario, crashes, numbers

Scale = Callable[[int, int], int]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Hundreds of schedules log what goes wrong in them, as they should."""
    logger = logging.getLogger("asyncsaver")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


def _two_savers(place: Place) -> Mapping[str, Actor]:
    return {"one": lambda: place.save("one", 5, 1), "other": lambda: place.save("other", 5, 2)}


def _two_overwriters(place: Place) -> Mapping[str, Actor]:
    return {
        "one": lambda: place.save("one", 1, 11, overwrite=True, keep=1),
        "other": lambda: place.save("other", 1, 12, overwrite=True, keep=1),
    }


def _two_steps(place: Place) -> Mapping[str, Actor]:
    return {"one": lambda: place.save("one", 4, 4, keep=1), "other": lambda: place.save("other", 5, 5, keep=1)}


def _sleeper_and_sweep(place: Place) -> Mapping[str, Actor]:
    return {
        "saver": lambda: place.save("saver", 2, 2),
        "clock": lambda: place.pass_time(2 * DAY),
        "sweeper": lambda: place.sweep("sweeper"),
    }


def _save_and_sweep(place: Place) -> Mapping[str, Actor]:
    return {
        "saver": lambda: place.save("saver", 1, 11, overwrite=True),
        "sweeper": lambda: place.sweep("sweeper", 0 * DAY),
    }


def _overwrite_and_prune(place: Place) -> Mapping[str, Actor]:
    return {
        "saver": lambda: place.save("saver", 3, 33, overwrite=True),
        "pruner": lambda: place.prune("pruner", keep=1),
    }


def _save_delete_recover(place: Place) -> Mapping[str, Actor]:
    return {
        "saver": lambda: place.save("saver", 2, 2),
        "deleter": lambda: place.delete("deleter", 2),
        "recovery": lambda: place.prune("recovery", keep=9),
    }


def _delete_and_save_again(place: Place) -> Mapping[str, Actor]:
    return {
        "deleter": lambda: place.delete("deleter", 1),
        "saver": lambda: place.save("saver", 1, 11, overwrite=True),
        "other": lambda: place.delete("other", 1),
    }


def _restore_and_overwrite(place: Place) -> Mapping[str, Actor]:
    async def restore() -> None:
        found = await place.restore("reader", 3)
        assert found in {3, 33}, f"restored {found}"

    return {"reader": restore, "saver": lambda: place.save("saver", 3, 33, overwrite=True, keep=3)}


def _restore_and_prune(place: Place) -> Mapping[str, Actor]:
    async def restore() -> None:
        found = await place.restore("reader")
        assert found == 3, f"restored {found}, though 3 is the latest all the time"

    return {"reader": restore, "pruner": lambda: place.prune("pruner", keep=1)}


SCENARIOS: Mapping[str, Scenario] = {
    "two savers at one step": Scenario(_two_savers),
    "two savers replace one checkpoint": Scenario(_two_overwriters, (1,)),
    "two savers at two steps": Scenario(_two_steps, (1, 2, 3)),
    "a saver that sleeps past the grace, and a sweep": Scenario(_sleeper_and_sweep, (1,)),
    "a saver that replaces, and a sweep without grace": Scenario(_save_and_sweep, (1,)),
    "a saver that replaces, and a prune": Scenario(_overwrite_and_prune, (1, 2, 3)),
    "a save, its deletion, and a recovery": Scenario(_save_delete_recover, (1,)),
    "deleted, and saved again": Scenario(_delete_and_save_again, (1, 3)),
    "restore and overwrite": Scenario(_restore_and_overwrite, (1, 2, 3), crashes),
    "restore and prune": Scenario(_restore_and_prune, (1, 2, 3), crashes),
}


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_schedule_with_one_switch_or_fault(name: str, scale: Scale) -> None:
    limit = scale(60, 100_000)
    count = explore(partial(SCENARIOS[name].run, ends=set()), all_schedules(1), limit=limit)
    assert count > 50


@pytest.mark.torture
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SCENARIOS)
def test_random_schedules(name: str, scale: Scale) -> None:
    wanted = scale(30, 2000)
    count = explore(partial(SCENARIOS[name].run, ends=set()), random_schedules("tensorflow", wanted, faults=3))
    assert count == wanted


def test_either_saver_wins_in_some_schedule() -> None:
    winners: set[int] = set()

    def run(chooser: object) -> None:
        place = SCENARIOS["two savers at one step"].run(chooser)  # type: ignore[arg-type]
        winners.add(numbers(place.bucket.contents).get("m-5", 0))

    explore(run, random_schedules("winners", 60))
    assert winners >= {1, 2}
