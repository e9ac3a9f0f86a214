"""Choosers that go through many schedules: all within a bound, or any number of random ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

from asyncsaver.testing.scheduler import Chooser, Option


class Replay:
    """Takes the options of an earlier run again, by their positions; then the first ones."""

    def __init__(self, positions: Sequence[int]) -> None:
        self._positions = iter(positions)

    def choose(self, options: Sequence[Option]) -> int:
        """See `Chooser`."""
        return min(next(self._positions, 0), len(options) - 1)


class RandomChooser:
    """Takes options at random; the same seed takes the same ones.

    Some schedules switch at nearly every operation, others seldom: both kinds find errors that the other does not.

    Args:
        seed: any.
        faults: the most faults in a schedule.
    """

    def __init__(self, seed: int | str, *, faults: int = 2) -> None:
        self._rng = random.Random(seed)  # noqa: S311 - reproducible, guards nothing
        self._faults = faults
        self._switching = self._rng.choice((0.05, 0.2, 0.6))
        self._failing = self._rng.choice((0.0, 0.05, 0.2))

    def choose(self, options: Sequence[Option]) -> int:
        """See `Chooser`."""
        rng = self._rng
        faults = [position for position, option in enumerate(options) if option.kind == "fault"]
        if faults and self._faults and rng.random() < self._failing:
            self._faults -= 1
            return rng.choice(faults)
        plain = [position for position, option in enumerate(options) if option.kind != "fault"]
        first = plain[0]
        if options[first].kind == "go on" and (len(plain) == 1 or rng.random() >= self._switching):
            return first
        return rng.choice(plain)


class _Path:
    """Follows the choices of an earlier schedule, then takes the first options that the bound allows."""

    def __init__(self, start: Sequence[int], bound: int) -> None:
        self._start = start
        self._left = bound
        self.taken: list[int] = []
        self.allowed: list[list[int]] = []

    def choose(self, options: Sequence[Option]) -> int:
        """See `Chooser`."""
        allowed = [position for position, option in enumerate(options) if option.cost <= self._left]
        depth = len(self.taken)
        branch = self._start[depth] if depth < len(self._start) else 0
        self.taken.append(branch)
        self.allowed.append(allowed)
        position = allowed[branch]
        self._left -= options[position].cost
        return position


def all_schedules(bound: int) -> Iterator[Chooser]:
    """Choosers for every schedule whose options cost at most ``bound`` together, each once.

    With a bound of 0 coroutines run one after another, in every order; each unit allows one switch in mid-run, or one fault, in
    every place. Use up one chooser (run a whole schedule with it) before taking the next.
    """
    start: list[int] | None = []
    while start is not None:
        path = _Path(start, bound)
        yield path
        start = None
        for depth in reversed(range(len(path.taken))):
            if path.taken[depth] + 1 < len(path.allowed[depth]):
                start = [*path.taken[:depth], path.taken[depth] + 1]
                break


def random_schedules(seed: int | str, count: int, *, faults: int = 2) -> Iterator[Chooser]:
    """Choosers for ``count`` random schedules; see `RandomChooser`."""
    for number in range(count):
        yield RandomChooser(f"{seed}/{number}", faults=faults)


class Recorder:
    """Notes the positions that another chooser takes, for `Replay`."""

    def __init__(self, chooser: Chooser) -> None:
        self.positions: list[int] = []
        self._chooser = chooser

    def choose(self, options: Sequence[Option]) -> int:
        """See `Chooser`."""
        position = self._chooser.choose(options)
        self.positions.append(position)
        return position


def explore(scenario: Callable[[Chooser], object], choosers: Iterator[Chooser], *, limit: int | None = None) -> int:
    """Run a scenario once with each chooser.

    Args:
        scenario: builds everything anew, runs it with this chooser, and checks it. What it raises ends the exploration, and is
            raised with the choices for `Replay` noted on it.
        choosers: from `all_schedules` or `random_schedules`.
        limit: stop after so many.

    Returns:
        How many schedules there were.
    """
    count = 0
    for chooser in choosers:
        if count == limit:
            break
        recorder = Recorder(chooser)
        try:
            scenario(recorder)
        except BaseException as error:
            error.add_note(f"schedule {count}; run it again with Replay({recorder.positions})")
            raise
        count += 1
    return count
