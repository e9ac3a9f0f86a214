"""Savers that lack one safeguard where they save: name → what takes it away."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

import msgspec
import pytest

from asyncsaver.catalog.reader import FolderRecords
from asyncsaver.catalog.root import Root
from asyncsaver.formats import native
from asyncsaver.model.manifest import Manifest
from asyncsaver.model.names import slot_path
from asyncsaver.model.statefile import Entry, StateFile
from asyncsaver.save import attempt
from asyncsaver.save.attempt import Attempt
from asyncsaver.save.commit import Committed
from asyncsaver.save.line import SaveLine
from asyncsaver.save.write import ShardWriter

from ..doubles.shards_last import ShardsLast  # noqa: TID252 - test folders have no name
from .ground import Ground

Mutant = Callable[[pytest.MonkeyPatch], None]


def the_manifest_before_the_shards(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ground, "wrap", ShardsLast)


def an_overwrite_in_place(patch: pytest.MonkeyPatch) -> None:
    """Over the old manifest rather than beside it, and then its shards."""
    choose = attempt.choose_slot

    def choose_slot(found: FolderRecords, url: str, *, overwrite: bool) -> int:
        standing = [slot for slot, one in found.records.items() if isinstance(one.record, Manifest)]
        return max(standing) if overwrite and standing else choose(found, url, overwrite=overwrite)

    async def commit(root: Root, manifest: Manifest, **_: Any) -> Committed:
        data = native.encode(manifest)
        info = await root.store.put(slot_path(manifest.name, manifest.slot), data)
        return Committed(manifest, info.etag, len(data))

    patch.setattr(attempt, "choose_slot", choose_slot)
    patch.setattr(attempt, "commit", commit)
    the_manifest_before_the_shards(patch)


def an_overwrite_that_first_deletes(patch: pytest.MonkeyPatch) -> None:
    write = Attempt.write

    async def delete_and_write(self: Attempt) -> ShardWriter:
        if self.request.overwrite:
            await self._choose_slot()
            await self.root.store.delete([slot_path(self.request.name, slot) for slot in range(self.slot)])
        return await write(self)

    patch.setattr(Attempt, "write", delete_and_write)


def the_pin_after_the_commit(patch: pytest.MonkeyPatch) -> None:
    commit = attempt.commit

    async def commit_first(self: Attempt, manifest: Manifest) -> Committed:
        committed = await commit(self.root, manifest, overwrite=self.request.overwrite, limit=self.commit_timeout)
        self.outcome = "committed"
        if self.request.pin:
            await self.root.store.put(self._pin_path, b"{}")
        return committed

    patch.setattr(Attempt, "commit", commit_first)


def a_commit_that_is_cancelled_halfway(patch: pytest.MonkeyPatch) -> None:
    async def cancelled_at_once(work: Coroutine[Any, Any, Any]) -> Any:
        return await work

    patch.setattr(attempt, "to_completion", cancelled_at_once)


def marks_looked_for_only_at_the_start(patch: pytest.MonkeyPatch) -> None:
    """What an earlier save preserves while this one writes goes unnoticed where this one replaces it."""
    reconciled = StateFile.reconciled

    def unnoticed(self: StateFile, entries: Iterable[Entry], **options: Any) -> StateFile:
        if options["seen"] is not None:  # a look at the whole root, which sees the mark itself
            return reconciled(self, entries, **options)
        *standing, new = entries
        return reconciled(self, [*standing, msgspec.structs.replace(new, preserved=False)], **options)

    patch.setattr("asyncsaver.save.line.StateFile.reconciled", unnoticed)


def leftovers_of_a_failed_save(patch: pytest.MonkeyPatch) -> None:
    async def tidy(_: Attempt) -> None:
        """Nothing is deleted."""

    patch.setattr(Attempt, "tidy", tidy)


def an_order_that_starts_anew(patch: pytest.MonkeyPatch) -> None:
    """Commits are counted from when the saver was made, not on from the newest that there is."""

    async def next_sequence(self: SaveLine) -> int:
        if not self._caught_up:
            self._found = await self.root.load()
        self._sequence += 1
        return self._sequence

    patch.setattr(SaveLine, "_next_sequence", next_sequence)


def saves_that_do_not_wait_for_one_another(patch: pytest.MonkeyPatch) -> None:
    async def at_once(_: object) -> None:
        """Whose turn it is does not matter."""

    patch.setattr("asyncsaver.save.line.Ticket.wait_for_turn", at_once)


SAVING: Mapping[str, Mutant] = {
    one.__name__: one
    for one in (
        the_manifest_before_the_shards,
        an_overwrite_in_place,
        an_overwrite_that_first_deletes,
        the_pin_after_the_commit,
        a_commit_that_is_cancelled_halfway,
        marks_looked_for_only_at_the_start,
        leftovers_of_a_failed_save,
        an_order_that_starts_anew,
        saves_that_do_not_wait_for_one_another,
    )
}
