"""Whatever the order of operations, and whatever the network does: nothing is lost, torn, or there twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Protocol

import pytest

from asyncsaver.model.manifest import Manifest
from asyncsaver.testing import Chooser, all_schedules, explore, random_schedules

from .scenarios import SCENARIOS, Scenario

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600)]

Scale = Callable[[int, int], int]


class Figures(Protocol):
    def add(self, what: str, count: int = 1) -> None: ...


EVERYBODY = [name for name in SCENARIOS if name.startswith(("everybody", "listings lag"))]
OTHERS = [name for name in SCENARIOS if name not in EVERYBODY]
# What one switch or one fault makes of these, in every place, is little enough for every run of the tests.
SMALL = ["two savers at one step", "restore and prune", "two savers at one step, tidying fails in part"]
# And these are small enough for two of them, in every two places.
TINY = [
    "restore and prune",
    "restore and save",
    "restore and overwrite",
    "two savers at one step, tidying fails in part",
    "two sweeps fail in part",
    "prune and deletion fail in part",
    "two pruners, deletions fail in part",
    "a prune and a sweep ask for the time",
]
FEW = 15  # of each scenario, where all would take too long


def explored(scenario: Scenario, choosers: Iterator[Chooser], limit: int | None = None) -> int:
    """Run a scenario with each chooser; where two schedules end alike, what comes afterwards is looked at once."""
    return explore(partial(scenario.run, seen=set()), choosers, limit=limit)


@pytest.mark.parametrize(("changes", "name"), [*((1, name) for name in OTHERS), *((2, name) for name in TINY)])
def test_every_schedule_with_few_switches_or_faults(changes: int, name: str, scale: Scale, figures: Figures) -> None:
    if scale(0, 1) or (changes == 1 and name in SMALL):
        count = explored(SCENARIOS[name], all_schedules(changes))
        assert count > {1: 40, 2: 300}[changes]
        said = {1: "one switch or fault", 2: "two switches or faults"}[changes]
        figures.add(f"schedules explored, every one with {said}", count)
    else:
        count = explored(SCENARIOS[name], all_schedules(changes), FEW)
        assert count == FEW
        figures.add("schedules explored, random", count)


@pytest.mark.parametrize("name", EVERYBODY)
def test_everybody_in_every_order(name: str, scale: Scale, figures: Figures) -> None:
    count = explored(SCENARIOS[name], all_schedules(0), scale(FEW, 120))
    assert count == scale(FEW, 120)  # five of them, one after another
    figures.add("schedules explored, everybody in every order", count)


@pytest.mark.parametrize("name", SCENARIOS)
def test_random_schedules(name: str, scale: Scale, figures: Figures) -> None:
    wanted = scale(60, 2000)
    count = explored(SCENARIOS[name], random_schedules("interleavings", wanted, faults=3))
    assert count == wanted
    figures.add("schedules explored, random", count)


def _endings(name: str, choosers: Iterator[Chooser]) -> set[str]:
    """What stands at the end of some schedule: invariants of what never happens would always hold."""
    endings: set[str] = set()

    def run(chooser: Chooser) -> None:
        for record in SCENARIOS[name].run(chooser).oracle.standing.values():
            number = record.tree["dict"]["number"] if isinstance(record, Manifest) else None
            endings.add(f"{record.name[-2:]} {type(record).__name__} {number}")

    explore(run, choosers)
    return endings


def test_either_saver_wins_in_some_schedule() -> None:
    endings = _endings("two savers at one step", random_schedules("endings", 60))
    assert endings >= {"05 Manifest 1", "05 Manifest 2"}


def test_the_sleeper_and_the_sweep_both_win_in_some_schedule() -> None:
    endings = _endings("a saver that sleeps past the grace, and a sweep", random_schedules("endings", 80))
    assert endings >= {"02 Manifest 2", "02 Aborted None"}


def test_both_old_and_new_stay_in_some_schedule() -> None:
    endings = _endings("restore and overwrite", random_schedules("endings", 60))
    assert endings >= {"03 Manifest 3", "03 Manifest 33"}
