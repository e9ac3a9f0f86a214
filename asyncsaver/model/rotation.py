"""The list of checkpoints that retention decides about, where a user has set it. Pure."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from asyncsaver.model.retention import KeepAll, RetentionPolicy
from asyncsaver.model.statefile import Entry

_NEVER = datetime.max.replace(tzinfo=UTC)


class Rotation(RetentionPolicy):
    """A policy over a list that can be set. What is not on the list stays; until it is set, everything is on it.

    Args:
        policy: decides about those on the list.
    """

    def __init__(self, policy: RetentionPolicy) -> None:
        self._policy = policy
        self._times: dict[str, datetime] | None = None

    def __repr__(self) -> str:
        return repr(self._policy)

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is ever deleted."""
        return isinstance(self._policy, KeepAll)

    @property
    def names(self) -> list[str] | None:
        """What was set, and saved since, oldest first; None where nothing was set."""
        return None if self._times is None else list(self._times)

    def set(self, times: Iterable[tuple[str, float | None]]) -> None:
        """Set the list.

        Args:
            times: names, oldest first, and when each was saved, in seconds since 1970; None for those that are to stay.
        """
        self._times = {name: _NEVER if time is None else _moment(time) for name, time in times}

    def saved(self, name: str, created: datetime) -> None:
        """A checkpoint was saved: it is the newest now."""
        if self._times is not None:
            self._times.pop(name, None)
            self._times[name] = created

    def arrange(self, entries: Sequence[Entry]) -> Sequence[tuple[Entry, datetime]]:
        """See `RetentionPolicy`."""
        times = self._times
        if times is None:
            return super().arrange(entries)
        by_name = {entry.name: entry for entry in entries}
        others = [(entry, entry.created) for entry in entries if entry.name not in times]
        return others + [(by_name[name], time) for name, time in times.items() if name in by_name]

    def keep(self, entries: Sequence[Entry]) -> Mapping[str, str]:
        """See `RetentionPolicy`."""
        times = self._times
        if times is None:
            return self._policy.keep(entries)
        kept = {entry.name: "not in the list that was set" for entry in entries if entry.name not in times}
        kept |= self._policy.keep([entry for entry in entries if entry.name in times])
        if self._policy.every() is None:  # or else it is that which keeps them, and each puts the next one off
            kept |= {name: "set without a time" for name, time in times.items() if time == _NEVER and name not in kept}
        return kept

    def every(self) -> timedelta | None:
        """See `RetentionPolicy`."""
        return self._policy.every()


def check_times(pairs: object) -> list[tuple[str, float]]:
    """Paths and times as a list of their own; raises `TypeError` or `ValueError` for what is no list of pairs."""
    if not isinstance(pairs, Sequence) or isinstance(pairs, (str, bytes)):
        raise TypeError(f"a list of (path, time) is needed, not {type(pairs).__name__}")
    checked: list[tuple[str, float]] = []
    for pair in pairs:
        if not (isinstance(pair, (list, tuple)) and len(pair) == 2):
            raise TypeError(f"a list of (path, time) is needed; {pair!r} is no such pair")
        path, time = pair
        if isinstance(time, bool) or not isinstance(time, (int, float)):
            raise TypeError(f"the time of {path!r} must be a number of seconds since 1970, not {type(time).__name__}")
        if math.isnan(time):
            raise ValueError(f"the time of {path!r} must not be nan")
        checked.append((os.fspath(path), float(time)))
    return checked


def check_paths(paths: object) -> list[str]:
    """Paths as a list of their own; raises `TypeError` for what is no list of them."""
    if not isinstance(paths, Sequence) or isinstance(paths, (str, bytes)):
        raise TypeError(f"a list of paths is needed, not {type(paths).__name__}")
    return [os.fspath(path) for path in paths]


def _moment(time: float) -> datetime:
    try:
        return datetime.fromtimestamp(time, UTC)
    except (OverflowError, ValueError, OSError):  # no date is that late, or that early
        return _NEVER if time > 0 else datetime.min.replace(tzinfo=UTC)
