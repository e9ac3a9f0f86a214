"""Which checkpoints a saver of TensorFlow's keeps. Pure: it decides, and others delete."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np

from asyncsaver.model.retention import policy_from_arguments

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Removal:
    """A checkpoint that is to go.

    Attributes:
        path: of the checkpoint.
        meta_graph_suffix: what the name of its sidecar ends in, as it was recorded with it.
    """

    path: str
    meta_graph_suffix: str


@dataclass(frozen=True, slots=True)
class Kept:
    """A checkpoint that was over ``max_to_keep`` and stays for good.

    Attributes:
        path: of the checkpoint.
        reason: why, for people to read.
    """

    path: str
    reason: str


class _Recorded(NamedTuple):
    path: str
    time: float
    meta_graph_suffix: str = "meta"


class CheckpointList:
    """The checkpoints that a saver keeps count of, by the rules of ``tf.train.Saver``.

    The newest ``max_to_keep`` stay. One that is over stays for good if it was written later than the next time to keep one,
    which is then put off by exactly ``keep_checkpoint_every_n_hours``; else it is to be deleted.

    Args:
        max_to_keep: how many; None or 0 for all, of which no list is kept then.
        keep_checkpoint_every_n_hours: how often one stays for good, with the precision of a float32; with None or 0, all that
            were written later than the list was made.
        clock: seconds since 1970.

    Raises:
        TypeError: an argument is no number.
        ValueError: one is negative or nan.
    """

    def __init__(
        self,
        max_to_keep: int | None = 5,
        keep_checkpoint_every_n_hours: float | None = 10_000.0,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        policy_from_arguments(max_to_keep, keep_checkpoint_every_n_hours)
        self._most = max_to_keep or 0
        with np.errstate(over="ignore"):  # what is beyond a float32 is for ever
            self._interval = float(np.float32(keep_checkpoint_every_n_hours or 0.0)) * 3600
        self._clock = clock
        self._next_time = clock() + self._interval
        self._latest: str | None = None  # only where no list is kept
        self._listed: list[_Recorded] = []
        self._to_delete: dict[str, Removal] = {}
        self._kept: dict[str, Kept] = {}
        # In order, since others may want to read it: what left the list and may still stand in the state file.
        self._dropped: dict[str, None] = {}

    @property
    def last_checkpoints(self) -> list[str]:
        """The paths, oldest first; a copy."""
        return [recorded.path for recorded in self._listed]

    @property
    def last_checkpoints_with_time(self) -> list[tuple[str, float]]:
        """The paths, oldest first, and when each was recorded, in seconds since 1970; a copy."""
        return [(recorded.path, recorded.time) for recorded in self._listed]

    @property
    def to_delete(self) -> tuple[Removal, ...]:
        """What is to be deleted and has not been reported as `deleted`, oldest first."""
        return tuple(self._to_delete.values())

    @property
    def kept(self) -> tuple[Kept, ...]:
        """What stays for good though it is over, oldest first."""
        return tuple(self._kept.values())

    @property
    def dropped(self) -> tuple[str, ...]:
        """What has left the list, so that a state file that still names it is to do so no more."""
        return tuple(self._dropped)

    @property
    def next_time_to_keep(self) -> float:
        """When a checkpoint has to be written at least, and a little later, to stay for good, in seconds since 1970."""
        return self._next_time

    def record(self, path: str, *, meta_graph_suffix: str = "meta") -> tuple[Removal, ...]:
        """Take in a checkpoint that was just written; one of that name before is the same one, and becomes the newest.

        Args:
            path: of the checkpoint.
            meta_graph_suffix: what the name of its sidecar ends in.

        Returns:
            What is to be deleted: what this made one too many, and what earlier deletions have failed to delete. Report as
            `deleted` what is gone.
        """
        if not self._most:
            # The state file names the last one only, and is all that remembers the one before.
            self._dropped = {} if self._latest in {None, path} else {str(self._latest): None}
            self._latest = path
            return ()
        written = _Recorded(path, self._clock(), meta_graph_suffix)
        self._list([*(recorded for recorded in self._listed if recorded.path != path), written])
        while len(self._listed) > self._most:
            self._let_go(self._listed.pop(0))
        return self.to_delete

    def deleted(self, path: str) -> None:
        """Learn that a checkpoint of `to_delete` is gone."""
        if self._to_delete.pop(path, None) is not None:
            self._dropped.pop(path, None)

    def set_last_checkpoints(self, last_checkpoints: Sequence[str]) -> None:
        """Set the list, oldest first. As their times are unknown they all stay for good, each in its turn.

        Args:
            last_checkpoints: paths.

        Raises:
            TypeError: it is no list.
        """
        self.set_last_checkpoints_with_time([(path, math.inf) for path in _checked(last_checkpoints)])

    def set_last_checkpoints_with_time(self, last_checkpoints_with_time: Sequence[tuple[str, float]]) -> None:
        """Set the list, oldest first.

        Args:
            last_checkpoints_with_time: paths, and when each was written, in seconds since 1970. Copied.

        Raises:
            TypeError: it is no list.
        """
        self._list([_Recorded(path, written) for path, written in _checked(last_checkpoints_with_time)])

    def recover_last_checkpoints(self, checkpoint_paths: Iterable[str], mtimes: Mapping[str, float]) -> None:
        """Set the list to what a state file names, after a crash.

        Args:
            checkpoint_paths: oldest first; what `get_checkpoint_state` found.
            mtimes: when each was written, by path, as `map_checkpoint_mtimes` found it. Those that it lacks are gone: skipped.
        """
        paths = list(checkpoint_paths)
        self.set_last_checkpoints_with_time([(path, mtimes[path]) for path in paths if path in mtimes])
        self._dropped.update(dict.fromkeys(path for path in paths if path not in mtimes))

    def _list(self, listed: list[_Recorded]) -> None:
        """Set the list. What is on it is neither to be deleted nor kept for another reason."""
        names = {recorded.path for recorded in listed}
        self._dropped.update(dict.fromkeys(path for path in self.last_checkpoints if path not in names))
        for name in names:
            self._dropped.pop(name, None)
            self._to_delete.pop(name, None)
            self._kept.pop(name, None)
        self._listed = listed

    def _let_go(self, recorded: _Recorded) -> None:
        path = recorded.path
        self._dropped[path] = None
        if recorded.time > self._next_time or recorded.time == math.inf:
            self._next_time += self._interval
            self._kept[path] = Kept(path, f"the first in the next {self._interval / 3600:g} hours")
        else:
            self._to_delete[path] = Removal(path, recorded.meta_graph_suffix)


def _checked(listed: Sequence[T]) -> Sequence[T]:
    if not isinstance(listed, list | tuple):
        raise TypeError(f"the last checkpoints must be a list, not {type(listed).__name__}")
    return listed
