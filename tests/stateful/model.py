"""What a saver should do, on plain data: a list of checkpoints, oldest first."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from asyncsaver.model.retention import KeepAll, KeepBest, KeepEverySteps, KeepLast, RetentionPolicy


def name_of(step: int | None) -> str:
    return "ckpt" if step is None else f"ckpt-{step:08d}"


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint: what was asked for, and the number of the state in it.

    Attributes:
        overwrite: replace the one that is there.
    """

    step: int | None
    number: int
    loss: float | None = None
    pinned: bool = False
    overwrite: bool = False

    @property
    def name(self) -> str:
        return name_of(self.step)

    @property
    def metrics(self) -> dict[str, float]:
        return {} if self.loss is None else {"loss": self.loss}


Rule = Callable[[Sequence[Saved]], Collection[str]]


def _last(n: int) -> Rule:
    return lambda saved: {one.name for one in saved[-n:]}


def _multiples(n: int) -> Rule:
    return lambda saved: {one.name for one in saved if one.step is not None and one.step % n == 0}


def _lowest_loss(n: int) -> Rule:
    def keep(saved: Sequence[Saved]) -> Collection[str]:
        scored = [one for one in reversed(saved) if one.loss is not None and not math.isnan(one.loss)]
        return {one.name for one in sorted(scored, key=lambda one: one.loss or 0.0)[:n]}

    return keep


@dataclass(frozen=True, slots=True)
class Policy:
    """A retention policy, and once more what it should keep, said differently."""

    real: RetentionPolicy
    rules: Sequence[Rule]

    def victims(self, saved: Sequence[Saved]) -> set[str]:
        """Names of those that a prune deletes."""
        kept = {name for rule in self.rules for name in rule(saved)}
        return {one.name for one in saved[:-1] if not one.pinned and one.name not in kept}


POLICIES: Mapping[str, Policy] = {
    "all": Policy(KeepAll(), [lambda saved: {one.name for one in saved}]),
    "last": Policy(KeepLast(1), [_last(1)]),
    "last three": Policy(KeepLast(3), [_last(3)]),
    "best": Policy(KeepBest("loss"), [_lowest_loss(1)]),
    "last two and even": Policy(KeepLast(2) | KeepEverySteps(2), [_last(2), _multiples(2)]),
    "last two and best two": Policy(KeepLast(2) | KeepBest("loss", 2), [_last(2), _lowest_loss(2)]),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One thing that may be seen.

    Attributes:
        saved: the checkpoints.
        may_be_gone: names of those that may not be there any more.
        may_be_pinned: names of those whose pin may have changed.
    """

    saved: Sequence[Saved]
    may_be_gone: Collection[str] = ()
    may_have_changed_pin: Collection[str] = ()

    def explains(self, seen: Sequence[Saved]) -> bool:
        left = list(seen)
        for one in self.saved:
            alternatives = [one]
            if one.name in self.may_have_changed_pin:
                alternatives.append(replace(one, pinned=not one.pinned))
            if left and left[0] in alternatives:
                left.pop(0)
            elif one.name not in self.may_be_gone:
                return False
        return not left


def after_commit(saved: Sequence[Saved], new: Saved, marked: Collection[str]) -> list[Saved] | None:
    """The checkpoints once another is committed, before anything is pruned; None where it is refused.

    Args:
        saved: those before it.
        new: the other.
        marked: names beside which a pin stands already.
    """
    if any(one.name == new.name for one in saved) and not new.overwrite and new.step is not None:
        return None
    committed = replace(new, pinned=new.pinned or new.name in marked, overwrite=False)
    return [*(one for one in saved if one.name != new.name), committed]


def without(saved: Sequence[Saved], names: Collection[str]) -> list[Saved]:
    return [one for one in saved if one.name not in names]
