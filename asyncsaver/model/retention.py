"""Which checkpoints stay. Pure: takes what is known, returns a decision with a reason for each; `prune` carries it out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from asyncsaver.model.checkpoint import decode_metrics
from asyncsaver.model.manifest import LARGEST
from asyncsaver.model.statefile import Entry


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one checkpoint, and why."""

    entry: Entry
    keep: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What happens to all of them.

    Attributes:
        decisions: oldest checkpoint first.
        preserved: names of checkpoints that are from now on kept for good.
        last_preserved: what `KeepEveryHours` counts on from.
    """

    decisions: Sequence[Decision]
    preserved: Collection[str]
    last_preserved: datetime | None

    @property
    def staying(self) -> list[Entry]:
        """Those about which the next verdict decides again, oldest first."""
        return [
            one.entry
            for one in self.decisions
            if one.keep and not one.entry.preserved and one.entry.name not in self.preserved
        ]


class RetentionPolicy(ABC):
    """Names the checkpoints to keep. Combine policies with ``|``: what any of them keeps, stays.

    The newest checkpoint, pinned ones and those being restored stay under every policy.
    """

    @abstractmethod
    def keep(self, entries: Sequence[Entry]) -> Mapping[str, str]:
        """Say what to keep.

        Args:
            entries: committed checkpoints, oldest first.

        Returns:
            Name of each checkpoint to keep → why.
        """

    def arrange(self, entries: Sequence[Entry]) -> Sequence[tuple[Entry, datetime]]:
        """In which order, and as of when, checkpoints are decided about, if not as they were committed.

        Args:
            entries: committed checkpoints, oldest first.
        """
        return [(entry, entry.created) for entry in entries]

    def every(self) -> timedelta | None:
        """How often one of the checkpoints that nothing else keeps is kept for good; None for never."""
        return None

    def __or__(self, other: RetentionPolicy) -> RetentionPolicy:
        return AnyOf((*_members(self), *_members(other)))


def _members(policy: RetentionPolicy) -> tuple[RetentionPolicy, ...]:
    return policy.policies if isinstance(policy, AnyOf) else (policy,)


@dataclass(frozen=True, slots=True)
class KeepAll(RetentionPolicy):
    """Keep everything: what ``max_to_keep=None`` means."""

    def keep(self, entries: Sequence[Entry]) -> Mapping[str, str]:
        """See `RetentionPolicy`."""
        return {entry.name: "everything is kept" for entry in entries}


@dataclass(frozen=True, slots=True)
class KeepLast(RetentionPolicy):
    """Keep the ``n`` newest, by the order in which they were committed; those preserved for good do not count."""

    n: int

    def __post_init__(self) -> None:
        _check_count("KeepLast", self.n)

    def keep(self, entries: Sequence[Entry]) -> Mapping[str, str]:
        """See `RetentionPolicy`."""
        return {
            entry.name: f"one of the last {self.n}"
            for entry in [entry for entry in entries if not entry.preserved][-self.n :]
        }


@dataclass(frozen=True, slots=True)
class KeepEverySteps(RetentionPolicy):
    """Keep those whose step is a multiple of ``n``."""

    n: int

    def __post_init__(self) -> None:
        _check_count("KeepEverySteps", self.n)

    def keep(self, entries: Sequence[Entry]) -> Mapping[str, str]:
        """See `RetentionPolicy`."""
        return {
            entry.name: f"step is a multiple of {self.n}"
            for entry in entries
            if entry.step is not None and entry.step % self.n == 0
        }


@dataclass(frozen=True, slots=True)
class KeepBest(RetentionPolicy):
    """Keep the ``n`` best by a metric; among equals the newer. Checkpoints without the metric, or with nan, never count.

    Args:
        metric: its name in ``metrics``.
        n: how many.
        mode: "min" where lower is better.
    """

    metric: str
    n: int = 1
    mode: Literal["min", "max"] = "min"

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str):
            raise TypeError(f"KeepBest: metric must be a str, not {type(self.metric).__name__}")
        _check_count("KeepBest", self.n)
        if self.mode not in {"min", "max"}:
            raise ValueError(f"KeepBest: mode must be 'min' or 'max', not {self.mode!r}")

    def keep(self, entries: Sequence[Entry]) -> Mapping[str, str]:
        """See `RetentionPolicy`."""
        scored = []
        for age, entry in enumerate(entries):
            value = decode_metrics(entry.metrics).get(self.metric, math.nan)
            if not math.isnan(value):
                scored.append((value if self.mode == "min" else -value, -age, entry))
        scored.sort(key=lambda item: item[:2])
        which = "lowest" if self.mode == "min" else "highest"
        reason = f"the {which} {self.metric}" if self.n == 1 else f"one of the {self.n} with the {which} {self.metric}"
        return {entry.name: reason for _, _, entry in scored[: self.n]}


@dataclass(frozen=True, slots=True)
class KeepPinned(RetentionPolicy):
    """Keep pinned checkpoints only (they stay under every policy; this one adds nothing else)."""

    def keep(self, entries: Sequence[Entry]) -> Mapping[str, str]:
        """See `RetentionPolicy`."""
        return {entry.name: "pinned" for entry in entries if entry.pinned}


@dataclass(frozen=True, slots=True)
class KeepEveryHours(RetentionPolicy):
    """Keep for good one checkpoint every ``hours`` hours, of those that nothing else keeps any more.

    As TensorFlow's ``keep_checkpoint_every_n_hours``: a checkpoint about to go stays if it is newer than the last mark plus
    ``hours``, and the mark then advances by exactly ``hours``. The first mark is when the first saver of the root was made.
    """

    hours: float

    def __post_init__(self) -> None:
        if isinstance(self.hours, bool) or not isinstance(self.hours, (int, float)):
            raise TypeError(f"KeepEveryHours: hours must be a number, not {type(self.hours).__name__}")
        if not self.hours > 0:
            raise ValueError(f"KeepEveryHours: hours must be positive, not {self.hours}")

    def keep(self, entries: Sequence[Entry]) -> Mapping[str, str]:  # noqa: ARG002 - decides on what others let go
        """See `RetentionPolicy`."""
        return {}

    def every(self) -> timedelta | None:
        """See `RetentionPolicy`."""
        try:
            return timedelta(hours=self.hours)
        except OverflowError:
            return None


@dataclass(frozen=True, slots=True)
class AnyOf(RetentionPolicy):
    """Keep what any of the policies keeps; written ``a | b``."""

    policies: tuple[RetentionPolicy, ...]

    def keep(self, entries: Sequence[Entry]) -> Mapping[str, str]:
        """See `RetentionPolicy`."""
        kept: dict[str, str] = {}
        for policy in self.policies:
            for name, reason in policy.keep(entries).items():
                kept[name] = f"{kept[name]}; {reason}" if name in kept else reason
        return kept

    def every(self) -> timedelta | None:
        """See `RetentionPolicy`."""
        return min((every for policy in self.policies if (every := policy.every()) is not None), default=None)


def _check_count(policy: str, n: object) -> None:
    if isinstance(n, bool) or not isinstance(n, int):
        raise TypeError(f"{policy}: n must be an int, not {type(n).__name__}")
    if n < 1:
        raise ValueError(f"{policy}: n must be at least 1, not {n}")


def policy_from_arguments(max_to_keep: int | None, every_n_hours: float | None) -> RetentionPolicy:
    """The policy that ``max_to_keep`` and ``keep_checkpoint_every_n_hours`` of `Saver` mean. Raises as they are checked."""
    if max_to_keep is not None and (isinstance(max_to_keep, bool) or not isinstance(max_to_keep, int)):
        raise TypeError(f"max_to_keep must be an int or None, not {type(max_to_keep).__name__}")
    if max_to_keep is not None and max_to_keep < 0:
        raise ValueError(f"max_to_keep must not be negative, not {max_to_keep}; None or 0 keeps everything")
    if max_to_keep is not None and max_to_keep > LARGEST:
        raise ValueError(f"max_to_keep must be below 2**63, not {max_to_keep}; None or 0 keeps everything")
    hours: RetentionPolicy | None = None
    if every_n_hours is not None:
        if isinstance(every_n_hours, bool) or not isinstance(every_n_hours, (int, float)):
            raise TypeError(f"keep_checkpoint_every_n_hours must be a number, not {type(every_n_hours).__name__}")
        if math.isnan(every_n_hours) or every_n_hours < 0:
            raise ValueError(f"keep_checkpoint_every_n_hours must not be negative or nan, not {every_n_hours}")
        hours = KeepEveryHours(every_n_hours) if 0 < every_n_hours < math.inf else None
    if not max_to_keep:
        return KeepAll()
    return KeepLast(max_to_keep) | hours if hours else KeepLast(max_to_keep)


def decide(
    entries: Sequence[Entry], policy: RetentionPolicy, *, last_preserved: datetime | None, in_use: Collection[str] = ()
) -> Verdict:
    """Decide on every checkpoint.

    Args:
        entries: committed checkpoints, in any order, one for each name.
        policy: what the user asked for.
        last_preserved: from the state file.
        in_use: names that are being restored.
    """
    committed = sorted(entries, key=lambda entry: entry.order)
    arranged = policy.arrange(committed)
    kept = policy.keep([entry for entry, _ in arranged])
    every = policy.every()
    preserved = set()
    decisions = []
    for entry, created in arranged:
        reasons = []
        if entry is committed[-1]:
            reasons.append("the newest")
        if entry.pinned:
            reasons.append("pinned")
        if entry.name in in_use:
            reasons.append("being restored")
        if entry.name in kept and kept[entry.name] not in reasons:
            reasons.append(kept[entry.name])
        if entry.preserved:
            reasons.append("preserved earlier, for good")
        # Not created > last_preserved + every: with a huge interval that date does not exist.
        if not reasons and every is not None and last_preserved is not None and created - last_preserved > every:
            last_preserved += every
            preserved.add(entry.name)
            reasons.append(f"first in the next {every.total_seconds() / 3600:g} hours, kept for good")
        decisions.append(Decision(entry, bool(reasons), ", ".join(reasons) or f"not kept by {policy}"))
    return Verdict(decisions, preserved, last_preserved)
