"""Savers that lack one safeguard where they remove: name → what takes it away."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import msgspec
import pytest

from asyncsaver.catalog.reader import CatalogReader, FolderRecords, FoundRecord
from asyncsaver.catalog.root import Root
from asyncsaver.model.catalog import Catalog, Folder
from asyncsaver.model.manifest import Deleted
from asyncsaver.model.names import slot_path
from asyncsaver.model.retention import KeepEveryHours, KeepLast, RetentionPolicy, Verdict
from asyncsaver.model.statefile import Entry, entry_of
from asyncsaver.prune import prune, sweep
from asyncsaver.prune.prune import Changes
from asyncsaver.prune.report import SweepReport
from asyncsaver.prune.retire import remove_files, retire

Mutant = Callable[[pytest.MonkeyPatch], None]


def pins_not_heeded(patch: pytest.MonkeyPatch) -> None:
    decide = prune.decide

    def without_pins(entries: Sequence[Entry], policy: RetentionPolicy, **options: Any) -> Verdict:
        return decide([msgspec.structs.replace(entry, pinned=False) for entry in entries], policy, **options)

    patch.setattr(prune, "decide", without_pins)


def pins_not_looked_for(patch: pytest.MonkeyPatch) -> None:
    """A pin counts only if the state file has it; who pinned may have died before writing that."""

    def with_marks(entry: Entry, _: FolderRecords | None) -> Entry:
        return entry

    patch.setattr(prune, "_with_marks", with_marks)


def the_newest_not_spared(patch: pytest.MonkeyPatch) -> None:
    decide = prune.decide

    def without_the_newest(entries: Sequence[Entry], policy: RetentionPolicy, **options: Any) -> Verdict:
        verdict = decide(entries, policy, **options)
        only = [replace(one, keep=one.keep and one.reason != "the newest") for one in verdict.decisions]
        return replace(verdict, decisions=only)

    patch.setattr(prune, "decide", without_the_newest)


def _keep_last(patch: pytest.MonkeyPatch, more: int) -> None:
    keep = KeepLast.keep

    def miscounted(self: KeepLast, entries: Sequence[Entry]) -> Mapping[str, str]:
        n = self.n + more
        return keep(replace(self, n=n), entries) if n else {}

    patch.setattr(KeepLast, "keep", miscounted)


def one_too_many_kept(patch: pytest.MonkeyPatch) -> None:
    _keep_last(patch, 1)


def one_too_few_kept(patch: pytest.MonkeyPatch) -> None:
    _keep_last(patch, -1)


def the_preserved_counted_among_the_last(patch: pytest.MonkeyPatch) -> None:
    def keep(self: KeepLast, entries: Sequence[Entry]) -> Mapping[str, str]:
        return {entry.name: "one of the last" for entry in entries[-self.n :]}

    patch.setattr(KeepLast, "keep", keep)


def hours_counted_from_the_last_one_kept(patch: pytest.MonkeyPatch) -> None:
    """The mark goes to where that one is, rather than on by the interval."""
    decide = prune.decide

    def drift(entries: Sequence[Entry], policy: RetentionPolicy, **options: Any) -> Verdict:
        verdict = decide(entries, policy, **options)
        times = [one.entry.created for one in verdict.decisions if one.entry.name in verdict.preserved]
        return replace(verdict, last_preserved=max(times, default=verdict.last_preserved))

    patch.setattr(prune, "decide", drift)


def hours_not_recorded(patch: pytest.MonkeyPatch) -> None:
    record = prune._record

    async def without_the_mark(root: Root, changes: Changes, _: datetime | None) -> None:
        await record(root, changes, None)

    patch.setattr(prune, "_record", without_the_mark)


def no_mark_beside_the_preserved(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(prune, "PRESERVED_MARKER", "readme.md")


def hours_at_their_end_counted_in(patch: pytest.MonkeyPatch) -> None:
    every = KeepEveryHours.every

    def a_little_less(self: KeepEveryHours) -> Any:
        interval = every(self)
        return interval and interval - interval.resolution

    patch.setattr(KeepEveryHours, "every", a_little_less)


def a_deletion_without_a_tombstone(patch: pytest.MonkeyPatch) -> None:
    async def delete(root: Root, found: FoundRecord, tombstone: Deleted) -> Entry | None:
        await root.store.delete([slot_path(tombstone.name, tombstone.slot)])
        await remove_files(root, entry_of(tombstone, None))
        return None

    patch.setattr("asyncsaver.prune.retire._replace", delete)


def data_deleted_before_their_reference(patch: pytest.MonkeyPatch) -> None:
    async def data_first(root: Root, entry: Entry, changes: Changes, *, writer: str) -> None:
        await remove_files(root, entry)
        tombstone = await retire(root, entry, writer=writer)
        if tombstone is not None:
            changes.entries[tombstone.path] = tombstone

    patch.setattr(prune, "_delete", data_first)


def higher_slots_deleted_first(patch: pytest.MonkeyPatch) -> None:
    """Interrupted, that brings what was replaced back to light."""
    delete = prune._delete

    async def delete_entries(root: Root, entries: Iterable[Entry], changes: Changes, *, writer: str) -> None:
        for entry in sorted(entries, key=lambda entry: -entry.slot):
            await delete(root, entry, changes, writer=writer)

    patch.setattr(prune, "delete_entries", delete_entries)
    patch.setattr("asyncsaver.prune.delete.delete_entries", delete_entries)


def replaced_slots_not_looked_for(patch: pytest.MonkeyPatch) -> None:
    """They go only if the state file lists them; who lost the file brings back what was replaced."""

    def unlisted(*_: object) -> list[Entry]:
        return []

    patch.setattr(prune, "_unlisted", unlisted)


def prunes_not_finished(patch: pytest.MonkeyPatch) -> None:
    """What an interrupted one has left is not deleted by the next."""
    delete = prune.delete_entries

    async def only_checkpoints(root: Root, entries: Iterable[Entry], changes: Changes, *, writer: str) -> None:
        await delete(root, [entry for entry in entries if not entry.unfinished], changes, writer=writer)

    patch.setattr(prune, "delete_entries", only_checkpoints)


def marks_left_by_a_deletion(patch: pytest.MonkeyPatch) -> None:
    async def remove_markers(_root: Root, _name: str) -> None:
        """They stay for the next checkpoint of that name."""

    patch.setattr("asyncsaver.prune.delete.remove_markers", remove_markers)


def a_sweep_of_what_is_committed(patch: pytest.MonkeyPatch) -> None:
    """Neither of its two looks tells which attempts have committed."""
    load = CatalogReader.load

    async def load_uncommitted(self: CatalogReader) -> Catalog:
        return replace(await load(self), checkpoints=[], superseded=[])

    async def sweep_root(root: Root, **options: Any) -> SweepReport:
        with pytest.MonkeyPatch.context() as within:
            within.setattr(CatalogReader, "load", load_uncommitted)
            return await real(root, **options)

    async def fence(_root: Root, _folder: Folder, save_ids: Collection[str], *, writer: str) -> list[str]:
        return list(save_ids)

    real = sweep.sweep_root
    patch.setattr("asyncsaver.layout.native.sweep_root", sweep_root)
    patch.setattr(sweep, "fence", fence)


def a_sweep_that_heeds_no_grace(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sweep, "_quiet_for", lambda _objects, now: now - datetime.min.replace(tzinfo=now.tzinfo))


REMOVING: Mapping[str, Mutant] = {
    one.__name__: one
    for one in (
        pins_not_heeded,
        pins_not_looked_for,
        the_newest_not_spared,
        one_too_many_kept,
        one_too_few_kept,
        the_preserved_counted_among_the_last,
        hours_counted_from_the_last_one_kept,
        hours_not_recorded,
        no_mark_beside_the_preserved,
        hours_at_their_end_counted_in,
        a_deletion_without_a_tombstone,
        data_deleted_before_their_reference,
        higher_slots_deleted_first,
        replaced_slots_not_looked_for,
        prunes_not_finished,
        marks_left_by_a_deletion,
        a_sweep_of_what_is_committed,
        a_sweep_that_heeds_no_grace,
    )
}
