"""The text file in which TensorFlow's savers note what they have saved, as a saver of ours writes and reads it."""

from __future__ import annotations

import contextlib
import logging
import posixpath
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from asyncsaver.catalog.root import Root
from asyncsaver.errors import ManifestError, ObjectNotFoundError
from asyncsaver.formats.tensorflow.bundle import index_path
from asyncsaver.formats.tensorflow.naming import prefix_of, shard_paths
from asyncsaver.formats.tensorflow.state_text import State, decode_state, encode_state
from asyncsaver.layout.tensorflow_names import crc_of
from asyncsaver.save.exclusive import read_if_there
from asyncsaver.tensorflow.merge import merge_states
from asyncsaver.tensorflow.paths import Folder
from asyncsaver.tensorflow.writing import change_object

log = logging.getLogger("asyncsaver")
_NOTHING = State("")


@dataclass(frozen=True, slots=True)
class Listed:
    """What the file says of this folder.

    Attributes:
        names: of checkpoints in it, oldest first; the one that is called the latest at the end.
        crc: of the file; None where there is none.
    """

    names: Sequence[str] = ()
    crc: str | None = None


class StateText:
    """Reads and writes it.

    Args:
        outer: where it is.
        folder: the same, for the paths in it.
        filename: of it.
        relative: whether paths in it are relative on a local disk, too.
        only_last: whether it lists but the newest of ours.
    """

    def __init__(self, outer: Root, folder: Folder, filename: str, *, relative: bool, only_last: bool) -> None:
        self._outer = outer
        self._folder = folder
        self._filename = filename
        self._relative = relative
        self._only_last = only_last
        self._warned = False

    async def read(self) -> Listed:
        """What it says; nothing, and a warning, where it is damaged."""
        blob = await read_if_there(self._outer, self._filename)
        if blob is None:
            return Listed()
        state = await self._outer.threads.run(self._decoded, blob.data)
        names = [name for path in state.paths if (name := self._name_of(path)) is not None]
        latest = self._name_of(state.latest) if state.latest else None
        if latest is not None:
            names = [*(name for name in names if name != latest), latest]
        return Listed(names, crc_of(blob.data))

    async def announce(
        self,
        staying: Sequence[tuple[str, datetime]],
        known: Collection[str],
        gone: Collection[str],
        last_preserved: datetime | None,
    ) -> None:
        """Let it list these, after what others have put there; see `Companions.announce`.

        Args:
            staying: how TensorFlow calls them, and when they were saved, oldest first.
            known: names of these and of all others of ours.
            gone: names of those that were deleted.
            last_preserved: when the last one was kept for good.
        """
        listed = staying[-1:] if self._only_last else staying
        paths = tuple(self._path(path) for path, _ in listed)
        wanted = State(
            paths[-1],
            paths,
            tuple(created.timestamp() for _, created in listed),
            0.0 if last_preserved is None else last_preserved.timestamp(),
        )
        back: list[str] = []  # deleted by us, and listed by others since

        def change(found: State) -> State:
            dropped = [path for path in found.paths if path not in paths and self._name_of(path) in known]
            merged = merge_states(found, wanted, dropped, self._folder.identity)
            back[:] = [path for path in merged.paths if self._name_of(path) in gone]
            if len(merged.paths) > len(paths) and not self._warned:
                self._warned = True
                log.warning(
                    "%s/%s: another saver writes there as well; its %d checkpoints stay listed",
                    self._outer.store.url,
                    self._filename,
                    len(merged.paths) - len(paths),
                )
            return merged

        await self._change(change)
        if missing := {self._name_of(path) for path in back if not await self._stands(path)}:
            await self.forget(missing)

    async def forget(self, names: Collection[str | None]) -> None:
        """Let it not list these any more. Where it lists nothing else, it stays as it is."""

        def change(found: State) -> State:
            kept = [number for number, path in enumerate(found.paths) if self._name_of(path) not in names]
            if not kept:
                return found
            timed = len(found.timestamps) == len(found.paths)
            left = replace(
                found,
                paths=tuple(found.paths[number] for number in kept),
                timestamps=tuple(found.timestamps[number] for number in kept) if timed else (),
            )
            return replace(left, latest=left.paths[-1]) if self._name_of(found.latest) in names else left

        if (await read_if_there(self._outer, self._filename)) is not None:
            await self._change(change)

    async def _change(self, change: Callable[[State], State]) -> None:
        def changed(data: bytes | None) -> bytes:
            found = _NOTHING if data is None else self._decoded(data)
            new = change(found)
            return data if data is not None and new == found else encode_state(new)

        await change_object(self._outer, self._filename, changed)

    def _decoded(self, data: bytes) -> State:
        where = f"{self._outer.store.url}/{self._filename}"
        try:
            return decode_state(data, where)
        except ManifestError as error:
            log.warning("%s: Checkpoint ignored", error)
            return _NOTHING

    def _path(self, name: str) -> str:
        """As what a checkpoint stands in the file: its path, or of a sharded one of V1 the pattern."""
        return self._folder.stored(posixpath.join(self._folder.url, name), relative=self._relative)

    def _name_of(self, path: str) -> str | None:
        """The name of a checkpoint in this folder; None for one elsewhere."""
        name = path.rpartition("/")[2]
        return prefix_of(name) if name and self._folder.identity(path) == self._folder.identity(name) else None

    async def _stands(self, path: str) -> bool:
        name = path.rpartition("/")[2]
        for one in (index_path(name), *(shard_paths(name) or [name])[:1]):
            with contextlib.suppress(ObjectNotFoundError):
                await self._outer.store.head(one)
                return True
        return False
