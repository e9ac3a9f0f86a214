"""Whatever the order of operations, and whatever the network does: nothing is lost, torn, or there twice."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest

from asyncsaver.model.manifest import Manifest
from asyncsaver.testing import Chooser, all_schedules, explore, random_schedules

from .scenarios import SCENARIOS, Scenario

pytestmark = [pytest.mark.torture, pytest.mark.timeout(3600)]

Scale = Callable[[int, int], int]
every_scenario = pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS.keys())


class Figures(Protocol):
    def add(self, what: str, count: int = 1) -> None: ...


# What one switch or one fault makes of these, in every place, is little enough for every run of the tests.
_SMALL = ["two savers at one step", "restore and prune", "two savers at one step, refusals without a reason"]


@pytest.mark.parametrize("scenario", [SCENARIOS[name] for name in _SMALL], ids=_SMALL)
def test_every_schedule_with_one_switch_or_fault(scenario: Scenario, figures: Figures) -> None:
    count = explore(scenario.run, all_schedules(1))
    assert count > 40
    figures.add("schedules explored", count)


@every_scenario
def test_every_schedule_within_a_bound(scenario: Scenario, scale: Scale, figures: Figures) -> None:
    wanted = scale(20, 1800)
    count = explore(scenario.run, itertools.chain(all_schedules(0), all_schedules(1), all_schedules(2)), limit=wanted)
    assert count == wanted
    figures.add("schedules explored", count)


@every_scenario
def test_random_schedules(scenario: Scenario, scale: Scale, figures: Figures) -> None:
    wanted = scale(45, 1800)
    count = explore(scenario.run, random_schedules("interleavings", wanted, faults=3))
    assert count == wanted
    figures.add("schedules explored", count)


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
