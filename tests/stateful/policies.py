"""Retention policies, and once more what they should keep, said differently."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from asyncsaver.model.retention import (
    KeepAll,
    KeepBest,
    KeepEveryHours,
    KeepEverySteps,
    KeepLast,
    RetentionPolicy,
)

from .model import Saved

Rule = Callable[[Sequence[Saved]], Collection[str]]


def _last(n: int) -> Rule:
    return lambda saved: {one.name for one in [one for one in saved if not one.preserved][-n:]}


def _multiples(n: int) -> Rule:
    return lambda saved: {one.name for one in saved if one.step is not None and one.step % n == 0}


def _lowest_loss(n: int) -> Rule:
    def keep(saved: Sequence[Saved]) -> Collection[str]:
        scored = [one for one in reversed(saved) if one.loss is not None and not math.isnan(one.loss)]
        return {one.name for one in sorted(scored, key=lambda one: one.loss or 0.0)[:n]}

    return keep


@dataclass(frozen=True, slots=True)
class Fate:
    """What a prune does.

    Attributes:
        victims: names of those that go.
        preserved: names of those that stay for good from now on.
        mark: from when the hours of `KeepEveryHours` count afterwards.
    """

    victims: set[str]
    preserved: set[str]
    mark: datetime


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy.

    Attributes:
        real: as the saver gets it.
        rules: what any of these names, stays.
        every: one of those that no rule names stays for good each time that so much has passed.
    """

    real: RetentionPolicy
    rules: Sequence[Rule]
    every: timedelta | None = None

    def fate(self, saved: Sequence[Saved], mark: datetime) -> Fate:
        """What becomes of these checkpoints, oldest first, when the hours count from ``mark``."""
        kept = {name for rule in self.rules for name in rule(saved)}
        victims, preserved = set(), set()
        for one in saved[:-1]:
            if one.pinned or one.preserved or one.name in kept:
                continue
            if self.every is not None and one.created is not None and mark + self.every < one.created:
                mark += self.every
                preserved.add(one.name)
            else:
                victims.add(one.name)
        return Fate(victims, preserved, mark)


POLICIES: Mapping[str, Policy] = {
    "all": Policy(KeepAll(), [lambda saved: {one.name for one in saved}]),
    "last": Policy(KeepLast(1), [_last(1)]),
    "last three": Policy(KeepLast(3), [_last(3)]),
    "best": Policy(KeepBest("loss"), [_lowest_loss(1)]),
    "last two and even": Policy(KeepLast(2) | KeepEverySteps(2), [_last(2), _multiples(2)]),
    "last two and best two": Policy(KeepLast(2) | KeepBest("loss", 2), [_last(2), _lowest_loss(2)]),
    "hourly": Policy(KeepEveryHours(1), [], timedelta(hours=1)),
    "last two and hourly": Policy(KeepLast(2) | KeepEveryHours(1), [_last(2)], timedelta(hours=1)),
    "best and daily": Policy(KeepBest("loss") | KeepEveryHours(24), [_lowest_loss(1)], timedelta(days=1)),
}
