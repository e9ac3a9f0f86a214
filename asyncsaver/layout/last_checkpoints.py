"""Which checkpoints retention decides about, to be looked at and to be set, as with TensorFlow's saver."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from asyncsaver.aio.guard import LoopGuard, guarded
from asyncsaver.layout.contract import Layout
from asyncsaver.model.rotation import check_paths, check_times
from asyncsaver.store.paths import redact


class LastCheckpoints:
    """What a `Saver` has of it."""

    _layout: Layout
    _guard: LoopGuard

    @property
    def last_checkpoints(self) -> list[str]:
        """URLs of the checkpoints that retention decides about, oldest first: a copy.

        As of this saver's latest save, or of the list that was set; what is kept for good is not in it, and with ``max_to_keep``
        of None or 0 nothing is. A new saver has an empty one until it saves: then it knows what the state file lists.
        """
        rotation = self._layout.line.settings.policy
        listed = rotation.names
        names = [name for name in self._layout.line.staying if listed is None or name in listed]
        return [] if rotation.keeps_all else [f"{self._layout.root.store.url}/{name}" for name in names]

    def set_last_checkpoints(self, last_checkpoints: Sequence[str | os.PathLike[str]]) -> None:
        """Let retention decide about these checkpoints, and those saved from now on, only. These themselves all stay.

        Args:
            last_checkpoints: paths or URLs, oldest first.

        Raises:
            TypeError: it is no list of paths.
            ValueError: one is not under this root.
        """
        self._set([(self._name_of(path), None) for path in check_paths(last_checkpoints)])

    def set_last_checkpoints_with_time(
        self, last_checkpoints_with_time: Sequence[tuple[str | os.PathLike[str], float]]
    ) -> None:
        """Let retention decide about these checkpoints, and those saved from now on, only.

        Args:
            last_checkpoints_with_time: paths or URLs, oldest first, and when each was saved, in seconds since 1970.

        Raises:
            TypeError: it is no list of pairs.
            ValueError: one is not under this root, or a time is nan.
        """
        pairs = check_times(last_checkpoints_with_time)
        self._set([(self._name_of(path), time) for path, time in pairs])

    @guarded
    async def recover_last_checkpoints(self, checkpoint_paths: Sequence[str | os.PathLike[str]]) -> None:
        """As `set_last_checkpoints_with_time`, with the times at which they were saved. What is not there any more is left out.

        Args:
            checkpoint_paths: paths or URLs, oldest first.

        Raises:
            TypeError: it is no list of paths.
            ValueError: one is not under this root.
            StoreError: the store failed.
        """
        names = [self._name_of(path) for path in check_paths(checkpoint_paths)]
        times = {found.name: found.created.timestamp() for found in await self._layout.checkpoints()}
        self._set([(name, times[name]) for name in names if name in times])

    def _set(self, times: Sequence[tuple[str, float | None]]) -> None:
        self._layout.line.settings.policy.set(times)
        self._layout.line.staying = list(dict(times))

    def _name_of(self, path: str) -> str:
        """The name of the checkpoint that a path or URL under the root stands for."""
        root = self._layout.root
        folder, _, name = path.rpartition("/")
        here = root.store.url.removeprefix("file://")
        if folder.removeprefix("file://") not in {"", here} and Path(folder).absolute() != Path(here):
            raise ValueError(f"{redact(path)} is not under {root.store.url}")
        if not root.naming.parse(name)[0]:
            raise ValueError(f"{redact(path)} is no checkpoint of the saver of {root.store.url}")
        return name
