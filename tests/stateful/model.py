"""What a saver should hold, on plain data: a list of checkpoints, oldest first."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta


def name_of(step: int | None) -> str:
    return "ckpt" if step is None else f"ckpt-{step:08d}"


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint: what was asked for, and the number of the state in it.

    Attributes:
        overwrite: replace the one that is there.
        pause: how long after what came before.
        preserved: retention has decided to keep it for good.
        created: when it was committed, by the saver's clock; None while it is only asked for.
    """

    step: int | None
    number: int
    loss: float | None = None
    pinned: bool = False
    overwrite: bool = False
    pause: timedelta = timedelta(0)
    preserved: bool = False
    created: datetime | None = None

    @property
    def name(self) -> str:
        return name_of(self.step)

    @property
    def metrics(self) -> dict[str, float]:
        return {} if self.loss is None else {"loss": self.loss}


@dataclass(frozen=True, slots=True)
class Held:
    """All that a root holds.

    Attributes:
        saved: the checkpoints, oldest first.
        mark: from when the hours of `KeepEveryHours` count; None until something was saved.
    """

    saved: Sequence[Saved] = field(default_factory=list)
    mark: datetime | None = None

    @property
    def names(self) -> set[str]:
        return {one.name for one in self.saved}


@dataclass(frozen=True, slots=True)
class Outcome:
    """One thing that may be seen.

    Attributes:
        held: what is there.
        may_be_gone: names of those that may not be there any more.
        may_have_changed_pin: names of those whose pin may be the other way.
        may_be_preserved: names of those that may stay for good by now.
        marks: others that may be found.
    """

    held: Held
    may_be_gone: Collection[str] = ()
    may_have_changed_pin: Collection[str] = ()
    may_be_preserved: Collection[str] = ()
    marks: Collection[datetime] = ()

    def explains(self, seen: Held) -> bool:
        if seen.mark not in {self.held.mark, *self.marks}:
            return False
        left = list(seen.saved)
        for one in self.held.saved:
            alternatives = [one]
            if one.name in self.may_have_changed_pin:
                alternatives.append(replace(one, pinned=not one.pinned))
            if one.name in self.may_be_preserved:
                alternatives.append(replace(one, preserved=True))
            if left and left[0] in alternatives:
                left.pop(0)
            elif one.name not in self.may_be_gone:
                return False
        return not left


@dataclass(frozen=True, slots=True)
class Marks:
    """Names beside which a mark stands, whether or not a checkpoint does: the next one of that name will have it."""

    pinned: Collection[str] = ()
    preserved: Collection[str] = ()

    def after(self, new: Saved, gone: Collection[str], preserved: Collection[str]) -> Marks:
        """Those once another is saved, and some are pruned, or preserved."""
        pinned = {*self.pinned, *([new.name] if new.pinned else [])}
        return Marks(pinned.difference(gone), {*self.preserved, *preserved}.difference(gone))


def after_commit(saved: Sequence[Saved], new: Saved, marks: Marks, now: datetime) -> list[Saved] | None:
    """The checkpoints once another is committed, before anything is pruned; None where it is refused."""
    if any(one.name == new.name for one in saved) and not new.overwrite and new.step is not None:
        return None
    pinned, preserved = new.pinned or new.name in marks.pinned, new.name in marks.preserved
    committed = Saved(new.step, new.number, new.loss, pinned, preserved=preserved, created=now)
    return [*(one for one in saved if one.name != new.name), committed]


def without(held: Held, names: Collection[str]) -> Held:
    return replace(held, saved=[one for one in held.saved if one.name not in names])
